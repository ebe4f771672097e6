//! Fork, and becoming somebody: for programs with one thread.
#![expect(unsafe_code, reason = "fork(2) and its kin have no safe wrapper")]

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ledger::Ledger;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait::nap;
use rustix::process::{Signal, set_parent_process_death_signal};

/// How long any process of an opponent lives: longer than any test of it on a busy machine, since
/// some show that it lives.
pub const LIFE_MAX: Duration = Duration::from_secs(300);

/// Forks, counted in the ledger before the child can do anything. The child never returns.
/// `None` where the kernel refuses (a limit of processes).
pub fn fork(ledger: &Ledger, child: impl FnOnce()) -> Option<i32> {
    ledger.forks.add(1);
    // SAFETY: this program has one thread, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        0 => {
            child();
            exit();
        }
        pid if pid > 0 => Some(pid),
        _ => {
            ledger.forks.subtract(1);
            None
        }
    }
}

/// Forks, and says which of the two one is: true for the child. `None` where the kernel refuses.
pub fn fork_on(ledger: &Ledger) -> Option<bool> {
    ledger.forks.add(1);
    // SAFETY: as in `fork`.
    match unsafe { libc::fork() } {
        0 => Some(true),
        pid if pid > 0 => Some(false),
        _ => {
            ledger.forks.subtract(1);
            None
        }
    }
}

/// Ends the process at once, without any clean-up.
pub fn exit() -> ! {
    // SAFETY: _exit has no conditions.
    unsafe { libc::_exit(0) }
}

/// Ends the calling thread alone: the process goes on while it has others.
pub fn exit_thread() -> ! {
    loop {
        // SAFETY: a raw exit of one thread. Nobody joins it, and its stack, the first thread's,
        // is never freed.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Forks a child that gets exactly this pid, which must be free: `clone3(2)` with `set_tid`.
pub fn fork_as(pid: i32, child: impl FnOnce()) -> Result<(), Fault> {
    let wanted = [pid];
    // SAFETY: all zeros is a clone_args that asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.set_tid = u64::try_from(wanted.as_ptr().expose_provenance()).or_fault("an address")?;
    args.set_tid_size = 1;
    // SAFETY: without a stack of its own and without shared memory, it is a fork, as in `fork`;
    // `wanted` and `args` outlive the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
        0 => {
            child();
            exit();
        }
        made if made == i64::from(pid) => Ok(()),
        _ => Err(std::io::Error::last_os_error()).or_fault(format!("cannot fork as {pid}")),
    }
}

/// Signals by number, as the programs do that we are compared with. A child of our own that is
/// not reaped keeps its pid.
pub fn kill_by_number(pid: i32, signal: i32) -> bool {
    // SAFETY: no pointers.
    pid > 1 && unsafe { libc::syscall(libc::SYS_kill, pid, signal) } == 0
}

/// Becomes the user in every way, bears the name, and bounds its life.
pub fn become_user(uid: u32, command: &CStr) -> Result<(), Fault> {
    if uid != 0 {
        set_ids(uid, uid, uid)?;
    }
    set_name(command);
    live_at_most(LIFE_MAX);
    Ok(())
}

/// Becomes the user with these real, effective and saved uids.
pub fn set_ids(real: u32, effective: u32, saved: u32) -> Result<(), Fault> {
    // SAFETY: calls without pointers, but for an empty list of groups.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(real, effective, saved) == 0
            && libc::setresuid(real, effective, saved) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()).or_fault("cannot change user") }
}

/// Changes the effective uid to one of the three that the process has.
pub fn set_effective(uid: u32) {
    // SAFETY: no pointers. -1 leaves an id as it is.
    unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
}

/// Bears that name from now on; the kernel keeps 15 bytes of it.
pub fn set_name(command: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, command.as_ptr()) };
}

/// Has the process bear the name `innocent` as soon as it goes on after a SIGSTOP.
pub fn rename_when_resumed() {
    extern "C" fn rename(_: libc::c_int) {
        set_name(c"innocent");
    }
    handle(libc::SIGCONT, rename);
}

/// Whether SIGTERM has come since `notice_sigterm`.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Has SIGTERM do nothing but be noticed.
pub fn notice_sigterm() {
    extern "C" fn notice(_: libc::c_int) {
        TERMINATED.store(true, Ordering::Relaxed);
    }
    handle(libc::SIGTERM, notice);
}

/// Whether SIGTERM has come since this was asked last.
pub fn was_sigterm_noticed() -> bool {
    TERMINATED.swap(false, Ordering::Relaxed)
}

/// Has a signal call `handler`, which may do only what a signal handler may (`man 7 signal-safety`).
#[expect(clippy::as_conversions, reason = "a function's address can be had in no other way")]
pub fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeros is an empty mask and no flags; the handler lives as long as the program.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_RESTART;
        action.sa_sigaction = (handler as *const ()).expose_provenance();
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Can no longer be dumped or traced by its own user.
pub fn set_undumpable() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// Can be dumped and traced by its own user, although it has been another's: what is in its
/// directory in /proc is its own again, and may be written.
pub fn set_dumpable() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
}

/// SIGALRM ends the process then.
fn live_at_most(time: Duration) {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    unsafe { libc::alarm(seconds) };
}

/// Dies with its parent. After the change of user, which undoes it.
pub fn die_with_parent() {
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        exit();
    }
}

/// Forbids the user more processes than that (`RLIMIT_NPROC`).
pub fn limit_processes(count: u64) -> Result<(), Fault> {
    let limit = rustix::process::Rlimit { current: Some(count), maximum: Some(count) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, limit).or_fault("no limit")
}

/// Whether there is a process of that pid, dead or alive; by sending nothing.
pub fn is_there(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// Kills every process of that user, in one sweep of the kernel's that no fork escapes: run by a
/// child that has become the user.
pub fn kill_all_of(uid: u32) -> Result<(), Fault> {
    if uid < 42_000 {
        return Err(Fault::new(format!("uid {uid} is not one for tests")));
    }
    // SAFETY: as in `fork`.
    match unsafe { libc::fork() } {
        0 => {
            if set_ids(uid, uid, uid).is_ok() {
                // SAFETY: no pointers. -1 is every process that the user may signal but itself.
                unsafe { libc::syscall(libc::SYS_kill, -1, libc::SIGKILL) };
            }
            exit();
        }
        pid if pid > 0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).or_fault("cannot fork"),
    }
}

/// Does nothing until something ends the process.
pub fn sleep() -> ! {
    loop {
        nap(Duration::from_secs(1_000));
    }
}
