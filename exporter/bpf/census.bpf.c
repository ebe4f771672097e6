// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * census: a task iterator that writes one record for each process to the reader of its file.
 *
 * Built by exporter/bpf/build.sh into census.bpf.o, which is kept in the repository: who builds
 * procstorm needs no clang. A test rebuilds it and compares the instructions.
 *
 * What is counted is what /proc lists: a task that leads its thread group, dead or alive, for as long
 * as it has its pid, in the pid namespace of the process that opens the iterator. The records are
 * counted outside of the kernel. So there is no map, which could be full, and nothing outlives a scan.
 *
 * No helper that reads memory is called: all is read through the pointers that the verifier knows.
 * That also works where the kernel is locked down (kernel_lockdown(7)).
 */
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

/* PF_KTHREAD of the kernel's include/linux/sched.h. */
#define KERNEL_THREAD 0x00200000

/* The fields of the kernel's that are read here. Where they are in the running kernel, the loader finds
 * out from its BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t euid;
};

struct task_struct {
	int pid;
	int tgid;
	u32 flags;
	const struct cred *real_cred;
	char comm[16];
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

static long (*bpf_seq_write)(struct seq_file *seq, const void *data, u32 length) = (void *)127;

/* exporter/src/bpf/record.rs reads these. */
struct record {
	/* The effective uid, as user namespace 0 calls it. */
	u32 uid;
	/* The pid of a thread of the kernel, or 0: /proc may show a longer name of it. */
	u32 kernel_thread;
	/* The name, with a NUL at its end; what follows it may be the rest of a former name. */
	u64 comm[2];
};

SEC("iter/task")
int census(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct record record;
	const u64 *comm;

	/* Without a task it is the end of the iteration. */
	if (!task || task->pid != task->tgid)
		return 0;
	if (task->flags & KERNEL_THREAD) {
		/* /proc shows all of them as root's. */
		record.uid = 0;
		record.kernel_thread = task->pid;
	} else {
		record.uid = task->real_cred->euid.val;
		record.kernel_thread = 0;
	}
	comm = (const u64 *)task->comm;
	record.comm[0] = comm[0];
	record.comm[1] = comm[1];
	/* If the reader's buffer is full, the kernel shows this task again in the next one. */
	bpf_seq_write(context->meta->seq, &record, sizeof(record));
	return 0;
}

/* The iterator's helper is only for programs under a licence that goes with the GPL. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
