//! `opponent ROLE UID COMMAND COUNT LEDGER [EXTRA]`: processes that are hard to end, for tests.
//!
//! - [`roles`]: what each kind does.
//! - [`keeper`]: what was started; reaps, and ends all when its standard input ends.
//!
//! The standard output is held open by every process of the storm and by no other, so that its
//! end proves, without a scan, that the last of them is gone. A counter of forks in the ledger,
//! memory that all share, proves that none came and went unseen. Every process ends by itself
//! after [`forking::LIFE_MAX`], whatever becomes of the test.

mod keeper;
mod roles;

use std::ffi::{CString, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;
use std::time::Instant;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_tests::forking;
use procstorm_tests::ledger::Ledger;

/// Who the processes are to be.
struct Cast {
    uid: u32,
    command: CString,
    count: usize,
    ledger: Ledger,
    /// What one role alone needs: a delay in milliseconds, a path.
    extra: OsString,
    begun: Instant,
}

impl Cast {
    /// Whether all are to end, because the test says so or it has taken too long.
    fn is_over(&self) -> bool {
        self.ledger.over.get() > 0 || self.begun.elapsed() > forking::LIFE_MAX
    }
}

fn main() -> ExitCode {
    match arguments().and_then(|(role, cast)| keeper::keep(&role, &cast)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(io::stderr(), "opponent: {}", fault.whole()));
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(String, Cast), Fault> {
    let usage = || Fault::new("usage: opponent ROLE UID COMMAND COUNT LEDGER [EXTRA]");
    let mut args = std::env::args_os().skip(1);
    let mut next = || args.next().ok_or_else(usage);
    let text = |arg: OsString| arg.into_string().ok().ok_or_else(usage);
    let role = text(next()?)?;
    let uid = text(next()?)?.parse().or_fault("no uid")?;
    let command = CString::new(next()?.into_vec()).or_fault("a command has no NUL")?;
    let count = text(next()?)?.parse().or_fault("no count")?;
    let ledger = Ledger::open(next()?.as_ref())?;
    let extra = args.next().unwrap_or_default();
    Ok((role, Cast { uid, command, count, ledger, extra, begun: Instant::now() }))
}
