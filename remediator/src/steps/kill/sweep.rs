//! A walk over /proc, and what it finds of a target.
//!
//! The directory is read in small bites. A bulk listing is stale before it is used: in a chain of
//! processes that each fork a child and exit, none is still alive when its pid is looked at. Even
//! of a small bite a process may exit before it is looked at, and its child may be born after the
//! bite was read. The child's pid is higher, so the bite is read again until it holds no new pid.
//! (If pids have wrapped around to the low ones meanwhile, the next scan finds the child.)

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use procstorm_processes::proc_dir::{Place, ProcDir, StatFile};
use procstorm_processes::process::Stat;
use procstorm_processes::visibility::{Blindness, blindness};
use rustix::io::Errno;

use super::guard::{Standing, Untouchables, standing};
use super::pin::Pin;
use super::realm::{Realm, realm};
use super::report::Zombie;
use super::target::{Bounds, Target};

/// The size of a bite: nine pids or so. The least that always holds one entry of a directory,
/// whose name may be 255 bytes long, with room to align it.
const BITE: usize = 288;

/// The size up to which bites double while all pids in them are known: none of those waits for its
/// look. As soon as a large bite holds an unknown pid, it is read again in small ones.
const BITE_MAX: usize = 4096;

/// How often one walk goes back. Chains are met within a few times; a machine on which others come
/// and go all the time must not hold it up.
const TURNS_MAX: u32 = 100;

/// One walk, which several threads may share: each gets the next bite when it asks.
#[derive(Debug)]
pub(super) struct Walk(Mutex<Trail>);

/// How far a walk has come.
#[derive(Debug)]
struct Trail {
    dir: ProcDir,
    /// The pids that have been in a bite.
    met: HashSet<i32>,
    turns: u32,
    /// The size of the next bite.
    size: usize,
}

/// The pids that one read gave to one thread.
#[derive(Debug)]
pub(super) struct Bite {
    pub(super) pids: Vec<i32>,
    /// To be set if one of them had exited, since it may have forked a child.
    pub(super) is_stale: bool,
    place: Place,
}

impl Default for Bite {
    fn default() -> Self {
        Self { pids: Vec::new(), is_stale: false, place: Place::START }
    }
}

impl Walk {
    /// Walks through `dir`, from its start.
    pub(super) fn new(dir: ProcDir) -> Self {
        Self(Mutex::new(Trail { dir, met: HashSet::new(), turns: 0, size: BITE }))
    }

    /// Has it begin again.
    pub(super) fn rewind(&self) -> Result<(), Errno> {
        let mut trail = self.lock();
        trail.met.clear();
        trail.turns = 0;
        trail.size = BITE;
        trail.dir.go_to(Place::START)
    }

    /// Puts the next pids that are not `known` into `bite`, in place of those that have been looked
    /// at; goes back to those first if the bite is stale. Never gives a pid twice. False at the end.
    pub(super) fn next(&self, bite: &mut Bite, known: &HashSet<i32>) -> Result<bool, Errno> {
        let mut trail = self.lock();
        let Trail { dir, met, turns, size } = &mut *trail;
        let mut buffer = [MaybeUninit::uninit(); BITE_MAX];
        let here = dir.place()?;
        if bite.is_stale && bite.place < here && *turns < TURNS_MAX {
            *turns = turns.saturating_add(1);
            *size = BITE;
            dir.go_to(bite.place)?;
        } else {
            bite.place = here;
        }
        bite.is_stale = false;
        loop {
            bite.pids.clear();
            let buffer = buffer.get_mut(..*size).unwrap_or_default();
            let is_more = dir.bite(buffer, &mut bite.pids)?;
            bite.pids.retain(|pid| !known.contains(pid) && !met.contains(pid));
            if bite.pids.is_empty() && is_more {
                *size = size.saturating_mul(2).min(BITE_MAX);
                bite.place = dir.place()?;
            } else if !bite.pids.is_empty() && *size > BITE {
                *size = BITE;
                dir.go_to(bite.place)?;
            } else {
                met.extend(&bite.pids);
                return Ok(is_more);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Trail> {
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

/// Calls `visit` with every pid, met as the directory is read; never goes back, so that of a chain
/// one link is met and not all. The first error ends the walk.
pub(super) fn walk<E: From<Errno>>(
    proc_dir: &ProcDir,
    mut visit: impl FnMut(i32) -> Result<(), E>,
) -> Result<(), E> {
    let walk = Walk::new(proc_dir.reopen()?);
    let (mut bite, none_known) = (Bite::default(), HashSet::new());
    while walk.next(&mut bite, &none_known)? {
        bite.pids.iter().try_for_each(|&pid| visit(pid))?;
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
    sight(proc_dir, pid, target, untouchables, proc_dir.owned_stat(pid))
}

/// The same of a pinned process, and the file by which it can be looked at [`again`].
pub(super) fn look_and_keep(
    proc_dir: &ProcDir,
    pin: &Pin,
    target: &Target,
    untouchables: &Untouchables,
) -> io::Result<(Sight, Option<StatFile>)> {
    let opened = proc_dir.open_stat(pin.pid());
    let (seen, file) = match opened {
        Ok(Some(file)) => (file.owned_and_held(proc_dir, pin), Some(file)),
        Ok(None) => (Ok(None), None),
        Err(error) => (Err(error), None),
    };
    Ok((sight(proc_dir, pin.pid(), target, untouchables, seen)?, file))
}

/// Looks at a pinned process once more, by the file if it was kept.
pub(super) fn again(
    proc_dir: &ProcDir,
    pin: &Pin,
    file: Option<&StatFile>,
    target: &Target,
    untouchables: &Untouchables,
) -> io::Result<Sight> {
    match file {
        Some(file) => {
            let seen = file.owned_and_held(proc_dir, pin);
            sight(proc_dir, pin.pid(), target, untouchables, seen)
        }
        None => look_and_keep(proc_dir, pin, target, untouchables).map(|(sight, _)| sight),
    }
}

/// What that which was read of a process means.
fn sight(
    proc_dir: &ProcDir,
    pid: i32,
    target: &Target,
    untouchables: &Untouchables,
    seen: io::Result<Option<(u32, Stat)>>,
) -> io::Result<Sight> {
    match seen {
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
    /// The living in pid namespaces below ours that are not the user's own, which are targets
    /// only if the bounds say so.
    pub nested: Vec<i32>,
    /// The caller itself and its ancestors, where they bear the name and the uid.
    pub untouchable: Vec<i32>,
}

/// Why a survey failed.
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
    #[error("cannot read {path}")]
    Read {
        /// The /proc directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Counts what there is of `target` under `procfs`: the same processes that
/// [`end_storm`](super::end_storm) would kill, judged in the same way. Sends no signal, so that
/// `procfs` may be a fixture.
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
            Sight::Process(standing @ (Standing::Living | Standing::Zombie), stat) => {
                found.add(standing, realm(&proc_dir, pid, target.uid), &stat);
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

/// How many there are of a target when all is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// The living that may be ended.
    pub(super) living: u64,
    /// The living that are left alone in other pid namespaces.
    pub(super) nested: u64,
}

/// Why a count failed.
enum Uncounted {
    /// It took too long: of a storm that forks as fast as /proc is read, a walk has no end.
    Late,
    /// /proc could not be read.
    Unread,
}

impl From<Errno> for Uncounted {
    fn from(_: Errno) -> Self {
        Self::Unread
    }
}

impl Count {
    /// Counts, as the kill judges. `None` if it is not done by `deadline`, or cannot be.
    pub(super) fn take(
        proc_dir: &ProcDir,
        target: &Target,
        untouchables: &Untouchables,
        bounds: &Bounds,
        deadline: Instant,
    ) -> Option<Self> {
        let mut count = Self { living: 0, nested: 0 };
        let counted = walk(proc_dir, |pid| {
            if Instant::now() >= deadline {
                return Err(Uncounted::Late);
            }
            if proc_dir.owner(pid) != Some(target.uid) {
                return Ok(());
            }
            match look(proc_dir, pid, target, untouchables) {
                Ok(Sight::Process(Standing::Living, _)) => {
                    let is_left = !bounds.nested_namespaces
                        && realm(proc_dir, pid, target.uid) == Realm::Container;
                    let sum = if is_left { &mut count.nested } else { &mut count.living };
                    *sum = sum.saturating_add(1);
                    Ok(())
                }
                Ok(Sight::Process(
                    Standing::Zombie | Standing::Untouchable | Standing::Other,
                    _,
                ))
                | Ok(Sight::Gone) => Ok(()),
                Ok(Sight::Hidden) | Err(_) => Err(Uncounted::Unread),
            }
        });
        match counted {
            Ok(()) => Some(count),
            Err(Uncounted::Late | Uncounted::Unread) => None,
        }
    }
}

impl Survey {
    /// The same where nested pid namespaces are targets, too: what lives in them is of the storm.
    #[must_use]
    pub fn with_nested(mut self, are_targets: bool) -> Self {
        if are_targets {
            self.living.append(&mut self.nested);
        }
        self
    }

    fn add(&mut self, standing: Standing, realm: Realm, stat: &Stat) {
        match (standing, realm == Realm::Container) {
            (Standing::Zombie, true) => {}
            (Standing::Zombie, false) => {
                self.zombies.push(Zombie { pid: stat.pid, parent: stat.parent });
            }
            (_, true) => self.nested.push(stat.pid),
            (_, false) => {
                self.living.push(stat.pid);
                if stat.is_stopped() {
                    self.stopped.push(stat.pid);
                }
            }
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

    /// Walks until it meets `wanted`, and says whether it did.
    fn meets(walk: &Walk, bite: &mut Bite, wanted: i32) -> bool {
        while walk.next(bite, &HashSet::new()).expect("/proc is read") {
            if bite.pids.contains(&wanted) {
                return true;
            }
        }
        false
    }

    #[test]
    fn known_pids_are_passed_over_and_no_others() {
        let walk = Walk::new(ProcDir::open(Path::new("/proc")).expect("/proc"));
        let all = |known: &HashSet<i32>| {
            walk.rewind().expect("/proc is read");
            let (mut bite, mut met) = (Bite::default(), Vec::new());
            while walk.next(&mut bite, known).expect("/proc is read") {
                met.append(&mut bite.pids);
            }
            met
        };
        let mut sleepers: Vec<Child> = (0..60).map(|_| sleeper()).collect();
        let mut known: HashSet<i32> = all(&HashSet::new()).into_iter().collect();
        // Unknown ones among the known, alone and side by side, and one that came later.
        let unknown: Vec<i32> = sleepers.iter().skip(20).step_by(13).map(pid).collect();
        unknown.iter().for_each(|pid| assert!(known.remove(pid), "each was met"));
        sleepers.push(sleeper());
        let met = all(&known);
        assert!(
            unknown.iter().chain(sleepers.last().map(pid).as_ref()).all(|pid| met.contains(pid))
        );
        assert!(met.iter().all(|pid| !known.contains(pid)), "{met:?}");
        let once: HashSet<&i32> = met.iter().collect();
        assert_eq!(once.len(), met.len(), "none is met twice");
        sleepers.into_iter().for_each(end);
    }

    #[test]
    fn an_heir_born_after_its_bite_was_read_is_met() {
        let walk = Walk::new(ProcDir::open(Path::new("/proc")).expect("/proc"));
        // Repeated if the pids have just wrapped around: then the heir's is lower.
        let is_higher = (0..9).any(|_| {
            walk.rewind().expect("/proc is read");
            let mut bite = Bite::default();
            let first = sleeper();
            assert!(meets(&walk, &mut bite, pid(&first)), "the first");
            let heir = sleeper();
            let is_higher = pid(&heir) > pid(&first);
            bite.is_stale = true;
            assert!(!is_higher || meets(&walk, &mut bite, pid(&heir)), "its heir");
            assert!(!meets(&walk, &mut bite, pid(&first)), "none is met twice");
            end(first);
            end(heir);
            is_higher
        });
        assert!(is_higher);
    }
}
