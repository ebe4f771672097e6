//! Where a storm comes from. Only looks.

use std::path::Path;
use std::time::Duration;

use procstorm_processes::proc_dir::ProcDir;

use super::report::Replacement;
use super::target::Target;
use crate::steps::count;

/// In this the kernel counts the times of /proc (`USER_HZ`), on every architecture that Rust's
/// standard library knows.
const TICKS_PER_SECOND: u64 = 100;

/// One process of a storm and its parent, and whose the storm is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The storm's effective uid.
    pub uid: u32,
    /// The process.
    pub process: Replacement,
}

/// The source of the storm `target`, by the first of these processes that still is one of it.
/// `None` if none is, or if /proc cannot be read.
#[must_use]
pub fn source(procfs: &Path, target: &Target, pids: &[i32]) -> Option<Source> {
    let proc_dir = ProcDir::open(procfs).ok()?;
    let stat = pids.iter().find_map(|&pid| {
        let (uid, stat) = proc_dir.owned_stat(pid).ok().flatten()?;
        (uid == target.uid && stat.command == target.command).then_some(stat)
    })?;
    Some(Source { uid: target.uid, process: Replacement::of(&proc_dir, &stat) })
}

/// How many of these processes have started within the last `span`. What cannot be read has exited.
#[must_use]
pub fn started_within(procfs: &Path, pids: &[i32], span: Duration) -> u64 {
    let Ok(proc_dir) = ProcDir::open(procfs) else { return count(pids) };
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let Ok(since_boot) = Duration::try_from(since_boot) else { return count(pids) };
    let begin = ticks(since_boot.saturating_sub(span));
    let is_newcomer = |pid: &&i32| match proc_dir.stat(**pid) {
        Ok(Some(stat)) => stat.start_time > begin,
        Ok(None) => false,
        Err(_) => true,
    };
    count(&pids.iter().filter(is_newcomer).collect::<Vec<_>>())
}

fn ticks(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(TICKS_PER_SECOND).checked_div(1000).unwrap_or_default()
}
