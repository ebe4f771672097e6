//! Lets processes go on that a remediation stopped and could not kill any more, because the
//! daemon itself was killed in between.

use std::io;
use std::path::Path;

use procstorm_processes::proc_dir::ProcDir;
use rustix::process::Signal;

use super::guard::{Standing, Untouchables};
use super::pin::{Delivery, Pin};
use super::sweep::{Sight, SurveyError, look, walk};
use super::target::Target;

/// What [`release_stopped`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Those that were seen stopped, and were sent SIGCONT.
    pub resumed: Vec<i32>,
    /// Those that we have no right to signal.
    pub denied: Vec<i32>,
}

/// Sends SIGCONT to each process of `target`. For a daemon that starts again and finds a
/// remediation of this target begun and not finished: call it before the recount, since the
/// recount may say that there is nothing to do any more. Not only to those that are stopped: a
/// SIGSTOP may not have taken hold yet, of a process that waits for its turn on a busy machine or
/// for a disk, and a SIGCONT takes it back. A process that its own user had stopped goes on too;
/// nothing tells the two apart.
pub fn release_stopped(procfs: &Path, target: &Target) -> Result<Released, SurveyError> {
    let read = |source| SurveyError::Read { path: procfs.to_owned(), source };
    let proc_dir = ProcDir::open(procfs).map_err(read)?;
    let Some(own_pid) = proc_dir.own_pid() else {
        return Err(read(io::Error::other("its pids are not those of this daemon's namespace")));
    };
    let untouchables = Untouchables::of(&proc_dir, own_pid);
    let mut released = Released::default();
    walk(&proc_dir, |pid| -> io::Result<()> {
        if proc_dir.owner(pid) != Some(target.uid) {
            return Ok(());
        }
        let Some(pin) = Pin::open(pid)? else { return Ok(()) };
        if let Sight::Process(Standing::Living, stat) = look(&proc_dir, pid, target, &untouchables)?
        {
            match pin.signal(Signal::CONT) {
                Delivery::Sent if stat.is_stopped() => released.resumed.push(pid),
                Delivery::Sent | Delivery::Gone => {}
                Delivery::Denied => released.denied.push(pid),
            }
        }
        Ok(())
    })
    .map_err(read)?;
    Ok(released)
}
