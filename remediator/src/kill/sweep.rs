//! A walk over /proc, and what it finds of a target.
//!
//! The directory is read in small bites. A bulk listing is stale before it is used: of chains of
//! processes that each fork an heir and exit, none is ever alive when its pid is looked at.

use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use procstorm_exporter::proc_dir::ProcDir;
use procstorm_exporter::process::Stat;
use procstorm_exporter::sight::{Blindness, blindness};
use rustix::io::Errno;

use super::guard::{Standing, Untouchables, standing};
use super::report::Zombie;
use super::target::Target;

/// The size of a bite: nine pids or so. The least that always holds one entry of a directory,
/// whose name may be 255 bytes long, with room to align it.
const BITE: usize = 288;

/// The same walk for several threads, each of which gets the next bite when it asks.
#[derive(Debug)]
pub(super) struct Walk(Mutex<ProcDir>);

impl Walk {
    pub(super) fn new(proc_dir: ProcDir) -> Self {
        Self(Mutex::new(proc_dir))
    }

    /// Has it begin again.
    pub(super) fn rewind(&self) -> Result<(), Errno> {
        self.lock().rewind()
    }

    /// Puts the next pids into `pids`, maybe none of them. False at the end.
    pub(super) fn bite(&self, pids: &mut Vec<i32>) -> Result<bool, Errno> {
        pids.clear();
        self.lock().bite(&mut [MaybeUninit::uninit(); BITE], pids)
    }

    fn lock(&self) -> MutexGuard<'_, ProcDir> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found at a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// A process, and what it is to the target.
    Process(Standing, Stat),
    /// No process, or one that went while it was looked at.
    Gone,
    /// A process of the target's user whose name is hidden from us.
    Hidden,
}

/// Calls `visit` with every pid, met as the directory is read. The first error ends the walk.
pub(super) fn walk<E: From<Errno>>(
    proc_dir: &mut ProcDir,
    visit: impl FnMut(&ProcDir, i32) -> Result<(), E>,
) -> Result<(), E> {
    let mut bite = [MaybeUninit::uninit(); BITE];
    proc_dir.pids(&mut bite, visit)
}

/// Looks at one pid. Fails where there are no descriptors left, or /proc itself is broken.
pub(super) fn look(
    proc_dir: &ProcDir,
    pid: i32,
    target: &Target,
    untouchables: &Untouchables,
) -> io::Result<Sight> {
    match proc_dir.owned_stat(pid) {
        Ok(Some((owner, stat))) => {
            Ok(Sight::Process(standing(target, untouchables, owner, &stat), stat))
        }
        Ok(None) => Ok(Sight::Gone),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let is_users = proc_dir.owner(pid) == Some(target.uid);
            Ok(if is_users { Sight::Hidden } else { Sight::Gone })
        }
        Err(error) => Err(error),
    }
}

/// What there is of a target, with nothing done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The living.
    pub living: Vec<i32>,
    /// The living that are stopped (by a terminal, a debugger, or a remediation that was cut
    /// off); they are in `living` too.
    pub stopped: Vec<i32>,
    /// The dead that their parents have not reaped.
    pub zombies: Vec<Zombie>,
    /// The living in nested pid namespaces, which are targets only if the bounds say so.
    pub nested: Vec<i32>,
    /// The caller itself and its ancestors, where they bear the name and the uid.
    pub untouchable: Vec<i32>,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Other users' processes are hidden (`hidepid`), so that finding none would prove nothing.
    #[error("{path}: other users' processes are hidden from this daemon: {blindness}")]
    Blind {
        /// The /proc directory.
        path: PathBuf,
        /// What hides them.
        blindness: Blindness,
    },
    /// It could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The /proc directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Counts what there is of `target` under `procfs`: the same processes that
/// [`end_storm`](super::end_storm) would kill. Signals nobody, and so takes a fixture too.
pub fn survey(procfs: &Path, target: &Target) -> Result<Survey, SurveyError> {
    let read = |source| SurveyError::Read { path: procfs.to_owned(), source };
    let mut proc_dir = ProcDir::open(procfs).map_err(read)?;
    let blind = |blindness| SurveyError::Blind { path: procfs.to_owned(), blindness };
    if let Some(blindness) = blindness(&proc_dir) {
        return Err(blind(blindness));
    }
    let untouchables = match proc_dir.own_pid() {
        Some(own_pid) => Untouchables::of(&proc_dir, own_pid),
        None => Untouchables::of(&proc_dir, 1),
    };
    let mut found = Survey::default();
    let mut hidden: u64 = 0;
    walk(&mut proc_dir, |dir, pid| -> io::Result<()> {
        if dir.owner(pid) != Some(target.uid) {
            return Ok(());
        }
        match look(dir, pid, target, &untouchables)? {
            Sight::Process(Standing::Living, stat) => found.add_living(dir, &stat),
            Sight::Process(Standing::Zombie, stat) => {
                found.zombies.push(Zombie { pid, parent: stat.parent });
            }
            Sight::Process(Standing::Untouchable, _) => found.untouchable.push(pid),
            Sight::Process(Standing::Other, _) | Sight::Gone => {}
            Sight::Hidden => hidden = hidden.saturating_add(1),
        }
        Ok(())
    })
    .map_err(read)?;
    if hidden > 0 { Err(blind(Blindness::Denied(hidden))) } else { Ok(found) }
}

impl Survey {
    fn add_living(&mut self, dir: &ProcDir, stat: &Stat) {
        // Where nothing is said of namespaces, the process is taken for one of ours: a recount
        // that misses some is the worse mistake here, and the kill asks its pidfd.
        if dir.nesting(stat.pid).ok().flatten().is_some_and(|depth| depth > 1) {
            self.nested.push(stat.pid);
            return;
        }
        self.living.push(stat.pid);
        if stat.is_stopped() {
            self.stopped.push(stat.pid);
        }
    }
}
