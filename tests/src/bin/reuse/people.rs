//! Targets and strangers.

use std::time::Duration;

use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::Target;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;
use procstorm_tests::forking::{become_user, fork, fork_as, sleep};
use procstorm_tests::ledger::Ledger;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

/// Whose processes are the target.
pub(crate) const UID: u32 = 42_400;
/// Whose are not.
pub(crate) const STRANGER: u32 = 42_401;

/// Memory to share with children.
pub(crate) fn ledger() -> Result<Ledger, Fault> {
    let dir = tempfile::tempdir().or_fault("no directory")?;
    Ledger::open(&dir.path().join("ledger"))
}

/// The processes `imapd` of [`UID`].
pub(crate) fn target() -> Result<Target, Fault> {
    let command = Command::new(b"imapd").ok_or_else(|| Fault::new("a command too long"))?;
    Ok(Target { uid: UID, command })
}

/// Makes a process of the target, and returns its pid when it has become one.
pub(crate) fn make_target(ledger: &Ledger) -> Result<i32, Fault> {
    let before = ledger.up.get();
    let pid = fork(ledger, || live(ledger, UID, c"imapd")).ok_or_else(|| Fault::new("no fork"))?;
    await_up(ledger, before)?;
    Ok(pid)
}

/// Ends a child, and gives its pid to a stranger. Every other stranger bears the target's name,
/// and the rest its uid; none both.
pub(crate) fn swap(pid: i32, ledger: &Ledger) -> Result<(), Fault> {
    end(pid)?;
    let before = ledger.up.get();
    let (uid, name) = if before.is_multiple_of(4) { (STRANGER, c"imapd") } else { (UID, c"other") };
    fork_as(pid, || live(ledger, uid, name))?;
    await_up(ledger, before)
}

fn live(ledger: &Ledger, uid: u32, name: &std::ffi::CStr) {
    if become_user(uid, name).is_ok() {
        ledger.up.add(1);
        sleep()
    }
}

fn await_up(ledger: &Ledger, before: u64) -> Result<(), Fault> {
    let mut spins: u32 = 0;
    while ledger.up.get() == before {
        spins = spins.checked_add(1).ok_or_else(|| Fault::new("a child did not come up"))?;
        std::thread::yield_now();
    }
    Ok(())
}

/// Ends a child of ours by SIGTERM, which our own code never sends, and says whether it was that
/// which ended it: false for one that something else has killed, or stopped.
pub(crate) fn was_unharmed(pid: i32) -> Result<bool, Fault> {
    if let Some(hit) = status(pid, WaitOptions::UNTRACED | WaitOptions::NOHANG)? {
        if hit.stopped() {
            end(pid)?;
        }
        return Ok(false);
    }
    procstorm_tests::forking::kill_by_number(pid, libc::SIGTERM);
    let ended = status(pid, WaitOptions::empty())?;
    Ok(ended.and_then(WaitStatus::terminating_signal) == Some(libc::SIGTERM))
}

/// Kills a child and reaps it.
pub(crate) fn end(pid: i32) -> Result<(), Fault> {
    procstorm_tests::forking::kill_by_number(pid, libc::SIGKILL);
    wait::until("a child to end", Duration::from_secs(60), || {
        let status = status(pid, WaitOptions::empty()).ok()??;
        (status.signaled() || status.exited()).then_some(())
    })
}

fn status(pid: i32, options: WaitOptions) -> Result<Option<WaitStatus>, Fault> {
    let status = waitpid(Pid::from_raw(pid), options).or_fault("cannot wait for a child")?;
    Ok(status.map(|(_, status)| status))
}
