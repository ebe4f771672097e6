//! Where a storm comes from. Only looks.

use std::path::Path;

use procstorm_processes::proc_dir::ProcDir;

use super::report::Replacement;
use super::target::Target;

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
