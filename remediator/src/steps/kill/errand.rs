//! What is to be done, as all hands share it: the target, the view of /proc, and the bounds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::visibility::blindness;
use rustix::io::Errno;

use super::guard::{Caller, Untouchables, refusal};
use super::report::KillVerdict;
use super::sweep::Walk;
use super::target::{Bounds, Target};

/// A process is sent SIGSTOP and SIGKILL.
const SIGNALS_EACH: u64 = 2;

/// One that is asked first: SIGSTOP, SIGTERM, SIGCONT, and then as above.
const SIGNALS_WITH_GRACE: u64 = 5;

/// How long after the deadline a walk, and the end of those that are held, may go on.
const LATENESS_MAX: Duration = Duration::from_millis(2_000);

/// How long after the deadline the last count may go on. What is not counted by then is unknown.
const COUNT_LATENESS_MAX: Duration = Duration::from_millis(2_800);

/// A process, by its pid and the time of its start: a pid alone is not an identity.
pub(super) type Identity = (i32, u64);

/// Why a process that was held was let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It had another name or owner once it was stopped.
    Changed,
    /// We have no right to signal it any more.
    Denied,
    /// It was sent SIGTERM, and others needed the room.
    Asked,
}

/// Why a scan or the whole ended early.
#[derive(Debug)]
pub(super) enum Halt {
    /// The caller wants it.
    Aborted,
    /// A process of the user hides its name from us.
    Blind,
    /// Not one descriptor is left to pin a process with.
    Starved(io::Error),
    /// /proc is broken.
    Read(io::Error),
}

impl Halt {
    /// Of two, the one that tells more.
    pub(super) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (_, Self::Aborted) | (Self::Starved(_), _) => other,
            _ => self,
        }
    }
}

impl From<Errno> for Halt {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Self::Starved(error),
            _ => Self::Read(error),
        }
    }
}

/// What all hands work on, and the bounds that they share.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) target: &'a Target,
    pub(super) bounds: &'a Bounds,
    pub(super) abort: &'a AtomicBool,
    pub(super) started: Instant,
    /// From then on no more processes are taken on. One instant for every wait: what is waited for
    /// one by one would otherwise add up to any length.
    deadline: Instant,
    pub(super) proc_dir: ProcDir,
    pub(super) walk: Walk,
    pub(super) untouchables: Untouchables,
    /// How many signals may still be sent.
    signals: AtomicU64,
    rounds: AtomicU32,
    /// Processes whose end is known: those that we have held, and the dead that were seen. By pid
    /// and the time of their start, since a pid alone is not an identity.
    ended: Mutex<HashMap<i32, u64>>,
    /// Processes that were held, and were let go of.
    let_go: Mutex<BTreeMap<Identity, Why>>,
    /// Whether what is found is sent SIGTERM, and not SIGKILL.
    asks: AtomicBool,
    /// When the time ends that those that were sent SIGTERM have to exit.
    grace_end: OnceLock<Instant>,
    /// Processes that were sent SIGTERM, and are already listed as signalled.
    asked: Mutex<HashSet<i32>>,
    /// Whether one hand has met what must end the whole.
    halted: AtomicBool,
}

impl<'a> Errand<'a> {
    /// Everything that must be right before the first signal.
    pub(super) fn prepare(
        procfs: &Path,
        target: &'a Target,
        bounds: &'a Bounds,
        abort: &'a AtomicBool,
        started: Instant,
    ) -> Result<Self, KillVerdict> {
        let failed =
            |error: io::Error| KillVerdict::Failed(format!("{}: {error}", procfs.display()));
        let proc_dir = ProcDir::open(procfs).map_err(failed)?;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if proc_dir.own_pid() != Some(own) {
            return Err(KillVerdict::Refused(format!(
                "{}: is not the /proc of this daemon's own pid namespace",
                procfs.display()
            )));
        }
        let caller = Caller {
            uid: rustix::process::getuid().as_raw(),
            euid: rustix::process::geteuid().as_raw(),
            unknown_uid: proc_dir.unknown_uid(),
        };
        if let Some(refusal) = refusal(target, bounds, caller) {
            return Err(KillVerdict::Refused(refusal.to_string()));
        }
        if blindness(&proc_dir).is_some() {
            return Err(KillVerdict::Blind);
        }
        let walk = Walk::new(proc_dir.reopen().map_err(|error| failed(error.into()))?);
        let untouchables = Untouchables::of(&proc_dir, own);
        let (signals, rounds) = (AtomicU64::new(bounds.signals), AtomicU32::new(0));
        let ended = Mutex::default();
        let deadline = after(after(started, bounds.grace), bounds.deadline);
        Ok(Self {
            target,
            bounds,
            abort,
            started,
            deadline,
            proc_dir,
            walk,
            untouchables,
            signals,
            rounds,
            ended,
            let_go: Mutex::default(),
            asks: AtomicBool::new(!bounds.grace.is_zero()),
            grace_end: OnceLock::new(),
            asked: Mutex::default(),
            halted: AtomicBool::new(false),
        })
    }

    /// Whether the deadline has come.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Whether even looking takes too long: of a storm that forks as fast as /proc is read, a walk
    /// has no end.
    pub(super) fn is_overdue(&self) -> bool {
        self.time_left().is_zero()
    }

    /// How long anything that is done may still take.
    pub(super) fn time_left(&self) -> Duration {
        after(self.deadline, LATENESS_MAX).saturating_duration_since(Instant::now())
    }

    /// Until when the last count may go on.
    pub(super) fn count_deadline(&self) -> Instant {
        after(self.deadline, COUNT_LATENESS_MAX)
    }

    /// Whether another process may be taken on.
    pub(super) fn may_signal(&self) -> bool {
        !self.is_late()
            && self.rounds() < self.bounds.rounds
            && self.signals.load(Ordering::Relaxed) >= self.signals_each()
    }

    /// How many rounds of signals have begun.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds.load(Ordering::Relaxed)
    }

    pub(super) fn begin_round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// How many signals the next process takes.
    fn signals_each(&self) -> u64 {
        if self.asks() { SIGNALS_WITH_GRACE } else { SIGNALS_EACH }
    }

    /// Whether what is found is sent SIGTERM, and not SIGKILL.
    pub(super) fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// All that were found first have been sent SIGTERM: the grace begins. Only the first call
    /// counts, so that those that come later do not prolong it.
    pub(super) fn begin_grace(&self) {
        let end = || after(Instant::now(), self.bounds.grace).min(self.deadline);
        let _first = self.grace_end.get_or_init(end);
    }

    /// When the grace ends; `None` if it has not begun or SIGTERM is not sent any more.
    pub(super) fn grace_end(&self) -> Option<Instant> {
        self.grace_end.get().copied().filter(|_| self.asks())
    }

    /// From now on what is found is sent SIGKILL.
    pub(super) fn end_asking(&self) {
        self.asks.store(false, Ordering::Relaxed);
    }

    /// The processes that were sent SIGTERM.
    pub(super) fn asked(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes that were held, and were let go of.
    pub(super) fn let_go(&self) -> MutexGuard<'_, BTreeMap<Identity, Why>> {
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these, which were held, are let go of.
    pub(super) fn lets_go_of(&self, pids: &[i32], why: Why) {
        let (ended, mut let_go) = (self.ended(), self.let_go());
        let identity = |pid: &i32| (*pid, ended.get(pid).copied().unwrap_or_default());
        let_go.extend(pids.iter().map(|pid| (identity(pid), why)));
    }

    /// Whether any lives that was sent SIGTERM and is not held.
    pub(super) fn lives_any_forgotten(&self) -> bool {
        self.forgotten(&self.let_go()).any(|forgotten| self.lives(forgotten))
    }

    /// How many of them live.
    pub(super) fn living_forgotten(&self) -> u64 {
        let let_go = self.let_go();
        let count = self.forgotten(&let_go).filter(|forgotten| self.lives(*forgotten)).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn forgotten(&self, let_go: &BTreeMap<Identity, Why>) -> impl Iterator<Item = Identity> {
        let forgotten =
            |(identity, why): (&Identity, &Why)| (*why == Why::Asked).then_some(*identity);
        let_go.iter().filter_map(forgotten)
    }

    /// Whether a process lives, under whatever name.
    pub(super) fn lives(&self, (pid, start_time): Identity) -> bool {
        let stat = self.proc_dir.stat(pid).ok().flatten();
        stat.is_some_and(|stat| stat.start_time == start_time && !stat.is_dead())
    }

    /// Sets the signals for one process aside. False where too few are left.
    pub(super) fn reserve(&self) -> bool {
        let take = |left: u64| left.checked_sub(self.signals_each());
        self.signals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives them back.
    pub(super) fn release(&self) {
        self.signals.fetch_add(self.signals_each(), Ordering::Relaxed);
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    /// Has the other hands stop where they are, unless it is only that one hand lacks descriptors.
    pub(super) fn halt(&self, halt: &Halt) {
        if !matches!(halt, Halt::Starved(_)) {
            self.halted.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }
}

/// That much later; a time that the clock cannot hold is never.
fn after(start: Instant, time: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(86_400 * 365);
    start.checked_add(time.min(NEVER)).unwrap_or(start)
}
