//! A seccomp filter (`man 2 seccomp`): which system calls the daemon can no longer make.
//!
//! A list of what is forbidden, not of what is allowed: the C library loads the site's own name
//! services into this process, and what those call cannot be known. The systemd unit adds the
//! list of what is allowed (`SystemCallFilter=@system-service`). A forbidden call fails with
//! EPERM, so that a mistake is an error in the log and not a dead daemon.
//!
//! The table of calls was gone through as of Linux 6.17, x86-64 and arm64. What is newer, and the
//! calls of the x32 ABI, which have other numbers, are not there for us (ENOSYS): see [`newer`].

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::{Layer, refusal};

/// Signals by number: a pid may belong to a stranger by the time the signal arrives. What
/// remains is pidfd_send_signal(2).
const SIGNALS_BY_NUMBER: [i64; 4] =
    [libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];

/// Becoming, or reaching into, another program.
const OTHER_PROGRAMS: [i64; 13] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_sched_setaffinity,
    libc::SYS_ioprio_set,
    libc::SYS_setpriority,
];

/// How others' processes, and ours, are scheduled.
const SCHEDULING: [i64; 3] =
    [libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr];

/// Changing the machine: file systems, namespaces, modules, the clock.
const MACHINE: [i64; 33] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_nfsservctl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Files past the directories that lead to them (with CAP_DAC_READ_SEARCH a handle opens any
/// file), past the watch of others over their own, and devices.
const FILES: [i64; 6] = [
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_mknodat,
    libc::SYS_lookup_dcookie,
];

/// Becoming another user, and doors into the kernel that have let others in before.
const PRIVILEGE: [i64; 27] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_memfd_secret,
    libc::SYS_remap_file_pages,
    libc::SYS_vmsplice,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    // lsm_set_self_attr(2), which the libc crate does not name on all.
    460,
];

/// open_tree_attr(2), of Linux 6.15.
const NEWEST: [i64; 1] = [467];

/// What x86-64 has besides.
#[cfg(target_arch = "x86_64")]
const OF_THE_MACHINE: [i64; 9] = [
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_mknod,
    libc::SYS__sysctl,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS_set_thread_area,
];

/// Other architectures have none of those.
#[cfg(not(target_arch = "x86_64"))]
const OF_THE_MACHINE: [i64; 0] = [];

/// The highest number that was looked at: file_setattr(2).
const NEWEST_KNOWN: u32 = 469;

/// Namespaces in clone(2)'s flags: `CLONE_NEWCGROUP`, `NEWIPC`, `NEWNET`, `NEWNS`, `NEWPID`,
/// `NEWUSER`, `NEWUTS`.
const NAMESPACES: [u64; 7] =
    [0x0200_0000, 0x0800_0000, 0x4000_0000, 0x0002_0000, 0x2000_0000, 0x1000_0000, 0x0400_0000];

/// `S_ISUID` and `S_ISGID`: a file with one of them runs as its owner.
const SET_ID: [u64; 2] = [0o4000, 0o2000];

/// What open(2) makes a file with: `O_CREAT`, and the bit of `O_TMPFILE` that is its alone.
const CREATES: [u64; 2] = [0o100, 0o20_000_000];

/// `AF_UNIX`, `AF_INET`, `AF_INET6`: Alertmanager and the name services.
const FAMILIES: [u64; 3] = [1, 2, 10];

/// Requests of ioctl(2) that name who is signalled (`FIOSETOWN`, `SIOCSPGRP`), or type into a
/// terminal (`TIOCSTI`, `TIOCLINUX`).
const REQUESTS: [u64; 4] = [0x8901, 0x8902, 0x5412, 0x541c];

/// Commands of fcntl(2) that name who is signalled, and with what: `F_SETOWN`, `F_SETSIG`,
/// `F_SETOWN_EX`.
const COMMANDS: [u64; 3] = [8, 10, 15];

/// Installs the filters for this thread and those it starts.
#[must_use]
pub fn restrict() -> Layer {
    let programs = match programs() {
        Ok(programs) => programs,
        Err(error) => return Layer::Off(format!("its filter cannot be built: {error}")),
    };
    let mut installed = false;
    for program in &programs {
        if let Err(error) = seccompiler::apply_filter(program) {
            let why = why_not(&error);
            return if installed { Layer::Faulty(why) } else { Layer::Off(why) };
        }
        installed = true;
    }
    Layer::Enforced
}

fn why_not(error: &Error) -> String {
    match error {
        Error::Seccomp(cause) => refusal("seccomp(2)", cause.raw_os_error()),
        Error::Prctl(cause) => refusal("prctl(PR_SET_NO_NEW_PRIVS)", cause.raw_os_error()),
        other @ (Error::Backend(_) | Error::EmptyFilter | Error::ThreadSync(_)) => {
            other.to_string()
        }
    }
}

/// A filter gives one error, so there is one for each.
fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    Ok(vec![
        filter(refused()?, libc::EPERM)?,
        // Its flags are in memory, where a filter cannot look; the C library goes on to clone(2).
        filter([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?,
        filter([(libc::SYS_socket, vec![other_families()?])].into(), libc::EAFNOSUPPORT)?,
        newer(),
    ])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(rules: Rules, error: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(error.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()
}

/// What fails with EPERM.
fn refused() -> Result<Rules, seccompiler::BackendError> {
    let always = SIGNALS_BY_NUMBER
        .into_iter()
        .chain(OTHER_PROGRAMS)
        .chain(SCHEDULING)
        .chain(MACHINE)
        .chain(FILES)
        .chain(PRIVILEGE)
        .chain(NEWEST)
        .chain(OF_THE_MACHINE);
    let mut rules: Rules = always.map(|call| (call, Vec::new())).collect();
    let own = u64::from(std::process::id());
    // tgkill(2) to another process. To itself it stays allowed: abort(3) is made of it.
    rules.insert(libc::SYS_tgkill, vec![all([(0, SeccompCmpOp::Ne, own)])?]);
    // The limits of another process.
    rules.insert(libc::SYS_prlimit64, vec![all([(0, SeccompCmpOp::Ne, 0)])?]);
    rules.insert(libc::SYS_clone, any_bit(0, NAMESPACES)?);
    rules.insert(libc::SYS_fcntl, any_value(1, COMMANDS)?);
    rules.insert(libc::SYS_ioctl, any_value(1, REQUESTS)?);
    // SOCK_RAW; the rest of the argument is flags.
    rules.insert(libc::SYS_socket, vec![all([(1, SeccompCmpOp::MaskedEq(0xf), 3)])?]);
    // openat2(2) takes its mode from memory. The bits would need a chmod(2) there as well, or the
    // file of another owner, to be of use.
    for (call, mode) in
        [(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_mkdirat, 2), FCHMODAT2]
    {
        rules.insert(call, any_bit(mode, SET_ID)?);
    }
    rules.insert(libc::SYS_openat, created(2)?);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_chmod, any_bit(1, SET_ID)?);
        rules.insert(libc::SYS_mkdir, any_bit(1, SET_ID)?);
        rules.insert(libc::SYS_creat, any_bit(1, SET_ID)?);
        rules.insert(libc::SYS_open, created(1)?);
    }
    Ok(rules)
}

/// fchmodat2(2), and which of its arguments is the mode.
const FCHMODAT2: (i64, u8) = (452, 2);

/// A call that opens a file makes one with a bit of [`SET_ID`]; its flags are the argument `flags`,
/// and its mode the next.
fn created(flags: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut rules = Vec::new();
    for creates in CREATES {
        for bit in SET_ID {
            rules.push(all([
                (flags, SeccompCmpOp::MaskedEq(creates), creates),
                (flags.saturating_add(1), SeccompCmpOp::MaskedEq(bit), bit),
            ])?);
        }
    }
    Ok(rules)
}

fn other_families() -> Result<SeccompRule, seccompiler::BackendError> {
    all(FAMILIES.map(|family| (0, SeccompCmpOp::Ne, family)))
}

fn any_bit<const N: usize>(
    argument: u8,
    bits: [u64; N],
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    bits.into_iter().map(|bit| all([(argument, SeccompCmpOp::MaskedEq(bit), bit)])).collect()
}

fn any_value<const N: usize>(
    argument: u8,
    values: [u64; N],
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.into_iter().map(|value| all([(argument, SeccompCmpOp::Eq, value)])).collect()
}

/// The rule that matches where all of these hold of the lower halves of the arguments.
fn all<const N: usize>(
    conditions: [(u8, SeccompCmpOp, u64); N],
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |(argument, operator, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
}

/// What has a higher number than any call that was looked at. The x32 ABI's numbers begin at
/// 0x4000_0000: kill(2) by its other number would pass the rest of the filter.
fn newer() -> BpfProgram {
    let step = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    // `linux/bpf_common.h` and `linux/seccomp.h`: load the number, return ENOSYS if it is greater,
    // else allow.
    let (load, if_greater, answer) = (0x20, 0x25, 0x06);
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        step(load, 0, 0),
        step(if_greater, 1, NEWEST_KNOWN),
        step(answer, 0, missing),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
