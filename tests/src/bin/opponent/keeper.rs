//! What was started: it reaps, and ends all when its standard input ends.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;
use procstorm_tests::forking;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, set_child_subreaper, set_parent_process_death_signal};

use crate::{Cast, roles};

/// How long all may take to come up, and to go.
const LIMIT: Duration = Duration::from_secs(120);

/// Plays the role until the standard input ends. Says `ready` when all are up.
pub(crate) fn keep(role: &str, cast: &Cast) -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).or_fault("cannot die with my parent")?;
    set_child_subreaper(Some(rustix::process::getpid())).or_fault("cannot reap for others")?;
    let role = roles::find(role)?;
    (role.play)(cast)?;
    wait::until("the opponents", LIMIT, || {
        (cast.ledger.up.get() >= u64::try_from(cast.count).unwrap_or(u64::MAX)).then_some(())
    })?;
    writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush()).or_fault("no listener")?;
    leave_output()?;
    while !input_has_ended(Duration::from_millis(5)) {
        if role.reaps {
            reap();
        }
    }
    end(cast)
}

/// Lets go of the standard output, which only the storm holds from now on.
fn leave_output() -> Result<(), Fault> {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty()).or_fault("no null")?;
    rustix::stdio::dup2_stdout(&null).or_fault("cannot leave my output")
}

fn input_has_ended(wait: Duration) -> bool {
    let timeout = Timespec::try_from(wait).ok();
    let stdin = io::stdin();
    poll(&mut [PollFd::new(&stdin, PollFlags::IN)], timeout.as_ref()).is_ok_and(|n| n > 0)
}

/// Reaps whoever is dead; false when there are no children any more.
fn reap() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Ends all, and reaps them.
fn end(cast: &Cast) -> Result<(), Fault> {
    cast.ledger.over.add(1);
    let begun = Instant::now();
    while reap() {
        if begun.elapsed() > LIMIT {
            return Err(Fault::new("some opponents do not end"));
        }
        if cast.uid != 0 {
            forking::kill_all_of(cast.uid)?;
        }
        wait::nap(Duration::from_millis(5));
    }
    Ok(())
}
