//! A walk over /proc, and what it finds of a target.
//!
//! The directory is read in small bites. A bulk listing is stale before it is used: of chains of
//! processes that each fork an heir and exit, none is ever alive when its pid is looked at. For
//! the same reason a walk does not end with the directory. Whoever was one of the last in it may
//! have died before it was looked at, and its heir was born after that part had been read, with a
//! higher pid; so the last part is read again until nobody new is in it.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use procstorm_exporter::proc_dir::{Place, ProcDir};
use procstorm_exporter::process::Stat;
use procstorm_exporter::sight::{Blindness, blindness};
use rustix::io::Errno;

use super::guard::{Standing, Untouchables, standing};
use super::report::Zombie;
use super::target::Target;

/// The size of a bite: nine pids or so. The least that always holds one entry of a directory,
/// whose name may be 255 bytes long, with room to align it.
const BITE: usize = 288;

/// How many of the last bites are read again. An heir's pid is higher than its parent's, but not
/// than all that have been read: it is taken at the beginning of a fork, and its entry appears at
/// the end, so that processes which fork at the same time may overtake it.
const LAST_BITES: usize = 8;

/// How often one walk reads them again. Chains are met within a few times; a machine on which
/// others fork all the time must not hold it up.
const TURNS_MAX: u32 = 100;

/// One walk, which several threads may share: each gets the next bite when it asks.
#[derive(Debug)]
pub(super) struct Walk(Mutex<Trail>);

/// How far a walk has come.
#[derive(Debug)]
struct Trail {
    dir: ProcDir,
    /// The last bites: where each began, and its pids.
    last: VecDeque<(Place, Vec<i32>)>,
    /// Who was in them when the walk last turned back.
    met: HashSet<i32>,
    /// Whether anybody has been looked at since then.
    is_stale: bool,
    turns: u32,
}

impl Walk {
    /// Walks through `dir`, from its start.
    pub(super) fn new(dir: ProcDir) -> Self {
        let (last, met) = (VecDeque::new(), HashSet::new());
        Self(Mutex::new(Trail { dir, last, met, is_stale: false, turns: 0 }))
    }

    /// Has it begin again.
    pub(super) fn rewind(&self) -> Result<(), Errno> {
        let mut trail = self.lock();
        trail.last.clear();
        trail.met.clear();
        (trail.is_stale, trail.turns) = (false, 0);
        trail.dir.go_to(Place::START)
    }

    /// Puts the next pids into `pids`, maybe none of them, in place of those that the caller has
    /// looked at. False at the end.
    pub(super) fn bite(&self, pids: &mut Vec<i32>) -> Result<bool, Errno> {
        let mut trail = self.lock();
        trail.is_stale |= !pids.is_empty();
        pids.clear();
        Ok(trail.follow(pids)? || (trail.turn_back()? && trail.follow(pids)?))
    }

    fn lock(&self) -> MutexGuard<'_, Trail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trail {
    /// Reads on. False at the end of the directory.
    fn follow(&mut self, pids: &mut Vec<i32>) -> Result<bool, Errno> {
        let place = self.dir.place()?;
        if !self.dir.bite(&mut [MaybeUninit::uninit(); BITE], pids)? {
            return Ok(false);
        }
        // The vector of the oldest is used again.
        let oldest = if self.last.len() < LAST_BITES { None } else { self.last.pop_front() };
        let mut bite = oldest.map_or_else(Vec::new, |(_, pids)| pids);
        bite.clone_from(pids);
        self.last.push_back((place, bite));
        if !self.met.is_empty() {
            pids.retain(|pid| !self.met.contains(pid));
        }
        Ok(true)
    }

    /// Goes back to where the last bites began, if anybody has been looked at since it last did:
    /// whoever that was may have left an heir.
    fn turn_back(&mut self) -> Result<bool, Errno> {
        let Some(&(place, _)) = self.last.front() else { return Ok(false) };
        if !self.is_stale || self.turns >= TURNS_MAX {
            return Ok(false);
        }
        self.is_stale = false;
        self.turns = self.turns.saturating_add(1);
        self.met = self.last.drain(..).flat_map(|(_, pids)| pids).collect();
        self.dir.go_to(place)?;
        Ok(true)
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
    proc_dir: &ProcDir,
    mut visit: impl FnMut(i32) -> Result<(), E>,
) -> Result<(), E> {
    let walk = Walk::new(proc_dir.reopen()?);
    let mut pids = Vec::new();
    while walk.bite(&mut pids)? {
        pids.iter().try_for_each(|&pid| visit(pid))?;
    }
    Ok(())
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
    let proc_dir = ProcDir::open(procfs).map_err(read)?;
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
    walk(&proc_dir, |pid| -> io::Result<()> {
        if proc_dir.owner(pid) != Some(target.uid) {
            return Ok(());
        }
        match look(&proc_dir, pid, target, &untouchables)? {
            Sight::Process(Standing::Living, stat) => found.add_living(&proc_dir, &stat),
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().expect("a sleeper")
    }

    fn end(mut child: Child) {
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).expect("a pid")
    }

    /// Walks until it has met `wanted`, and says whether it did.
    fn meets(walk: &Walk, pids: &mut Vec<i32>, wanted: i32) -> bool {
        while walk.bite(pids).expect("/proc is read") {
            if pids.contains(&wanted) {
                return true;
            }
        }
        false
    }

    #[test]
    fn an_heir_born_after_the_end_was_read_is_met() {
        let walk = Walk::new(ProcDir::open(Path::new("/proc")).expect("/proc"));
        // Again where the pids have just begun anew: then an heir's is lower.
        let is_higher = (0..9).any(|_| {
            walk.rewind().expect("/proc is read");
            let mut pids = Vec::new();
            let last = sleeper();
            assert!(meets(&walk, &mut pids, pid(&last)), "the last");
            let heir = sleeper();
            let is_higher = pid(&heir) > pid(&last);
            assert!(!is_higher || meets(&walk, &mut pids, pid(&heir)), "its heir");
            while walk.bite(&mut pids).expect("/proc is read") {
                assert!(!pids.contains(&pid(&last)), "nobody is met twice");
            }
            end(last);
            end(heir);
            is_higher
        });
        assert!(is_higher);
    }
}
