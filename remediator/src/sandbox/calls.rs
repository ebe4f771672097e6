//! A seccomp filter (`man 2 seccomp`): which system calls the daemon can no longer make.
//!
//! A list of what is forbidden, not of what is allowed: the C library loads the site's own name
//! services into this process, and what those call cannot be known. The systemd unit adds the
//! list of what is allowed (`SystemCallFilter=@system-service`). A forbidden call fails with
//! EPERM, so that a mistake is an error in the log and not a dead daemon.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Layer;

/// Signals by number: a pid may belong to a stranger by the time the signal arrives. What
/// remains is pidfd_send_signal(2).
const SIGNALS_BY_NUMBER: [i64; 4] =
    [libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];

/// Becoming, or reaching into, another program.
const OTHER_PROGRAMS: [i64; 8] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
];

/// Changing the machine: file systems, namespaces, modules, the clock.
const MACHINE: [i64; 28] = [
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
];

/// Becoming another user, and doors into the kernel that have let others in before.
const PRIVILEGE: [i64; 17] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
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
];

/// Installs the filter for this thread and those it starts.
#[must_use]
pub fn restrict() -> Layer {
    match filter().and_then(|filter| seccompiler::apply_filter(&filter).map_err(|e| e.to_string()))
    {
        Ok(()) => Layer::Enforced,
        Err(why) => Layer::Off(why),
    }
}

fn filter() -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    let forbidden = SIGNALS_BY_NUMBER
        .into_iter()
        .chain(OTHER_PROGRAMS)
        .chain(MACHINE)
        .chain(PRIVILEGE)
        .map(|call| (call, Vec::new()));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = forbidden.collect();
    rules.insert(libc::SYS_tgkill, vec![not_to_itself()?]);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|e| e.to_string())
}

/// tgkill(2) to another process. To itself it stays allowed: abort(3) is made of it.
fn not_to_itself() -> Result<SeccompRule, String> {
    let own = u64::from(std::process::id());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)
        .map_err(|e| e.to_string())?;
    SeccompRule::new(vec![other]).map_err(|e| e.to_string())
}
