//! The processes that are pinned, and stopped, until they are asked to exit, killed, or let go.
//!
//! No process is left stopped: when a [`Held`] is dropped, whatever the reason, those that it has
//! stopped and not killed go on. And none is lost count of: each is one of those that its methods
//! return, once, or is still held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::StatFile;
use rustix::process::Signal;

use super::pin::{Delivery, Pin, pause};
use crate::steps::count;

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// We have stopped it, and owe it a SIGCONT.
    Stopped,
    /// It was already stopped when we found it, and stays so if it is let go.
    FoundStopped,
    /// It has been sent SIGTERM, and runs.
    Asked,
    /// It has been sent SIGTERM, did not exit in time, and is stopped again.
    Overdue,
    /// It has been sent SIGKILL.
    Killed,
}

/// What a process was doing when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It was not stopped.
    Running,
    /// It was stopped already.
    Stopped,
    /// It was to exit: we have sent it SIGTERM, and have let go of it since.
    Asked,
}

/// A process that is held.
#[derive(Debug)]
struct Entry {
    pin: Pin,
    /// What it is looked at by once more. Kept for as long as the pin: to close thousands of files
    /// would take the time in which thousands of processes are to exit.
    file: Option<StatFile>,
    phase: Phase,
}

impl Entry {
    fn has_exited(&self) -> bool {
        self.pin.has_exited_within(Duration::ZERO)
    }

    /// Whether it is held stopped.
    fn is_stopped(&self) -> bool {
        match self.phase {
            Phase::Stopped | Phase::FoundStopped | Phase::Overdue => true,
            Phase::Asked | Phase::Killed => false,
        }
    }
}

/// Pinned processes by pid. A pid in here is not reused before its process has exited. In order,
/// as the kernel keeps them: it takes storms down a good deal faster so than at random.
#[derive(Debug, Default)]
pub(super) struct Held {
    entries: BTreeMap<i32, Entry>,
    unkilled: usize,
    /// How many have their file.
    files: usize,
    /// The pins and files of those that it has let go of. Closing thousands of them while others exit
    /// would take processor time from these.
    spent: Vec<Entry>,
}

/// Whether a process that we hold stopped is still the one that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recheck {
    /// It is.
    Same,
    /// It has another name or another owner by now.
    Changed,
    /// It has exited, and nobody has reaped it.
    Dead,
    /// It is, but the SIGSTOP has not taken hold yet: it sleeps, and is about to wake for it.
    Asleep,
    /// The same, but it runs, or waits for a processor: it may be in the middle of a system call
    /// that gives it another name or another owner.
    Running,
}

/// How long [`Held::kill`] waits in all for those that are not yet stopped.
#[derive(Clone, Copy, Debug)]
struct Patience {
    asleep: Duration,
    running: Duration,
}

/// A process that still sleeps is in a frozen cgroup, and cannot change. One that runs is stopped
/// when it is scheduled next, which may take a while on a busy machine, and must not be killed for
/// a name or owner that it no longer has.
const PATIENCE: Patience =
    Patience { asleep: Duration::from_millis(20), running: Duration::from_secs(1) };

/// The time between two looks at one that is not yet stopped.
const GLANCE: Duration = Duration::from_micros(200);

/// How many are asked at once whether they have exited.
const PART: usize = 64;

/// How all that are held are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// SIGTERM, and SIGCONT, without which a stopped process does not act on it.
    Ask,
    /// SIGKILL.
    Kill,
}

/// How long at a time it waits for an exit before it checks whether it was aborted.
const SLICE: Duration = Duration::from_millis(100);

/// What came of killing all that are held, or of asking them. Those that were signalled are still
/// held; the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kills {
    /// The processes that were sent SIGKILL, or SIGTERM.
    pub(super) signalled: Vec<i32>,
    /// The processes that were let go because they had changed.
    pub(super) changed: Vec<i32>,
    /// Those that had exited before.
    pub(super) over: Over,
    /// Those that we turned out to have no right to signal; they were let go.
    pub(super) denied: Vec<i32>,
}

/// How many had exited before they were sent SIGKILL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Over {
    /// By themselves, or by another's signal.
    pub(super) gone: u64,
    /// After SIGTERM.
    pub(super) terminated: u64,
}

impl Over {
    fn add(&mut self, phase: Phase) {
        let sum = match phase {
            Phase::Asked | Phase::Overdue => &mut self.terminated,
            Phase::Stopped | Phase::FoundStopped | Phase::Killed => &mut self.gone,
        };
        *sum = sum.saturating_add(1);
    }
}

impl Held {
    /// The pids of all that are held.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.entries.keys().copied()
    }

    /// How many descriptors it takes to hold them.
    pub(super) fn descriptors(&self) -> usize {
        self.entries.len().saturating_add(self.files)
    }

    /// How many of them have their file.
    pub(super) fn files(&self) -> usize {
        self.files
    }

    /// Whether none is held.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are held stopped that have not been sent SIGKILL.
    pub(super) fn unkilled(&self) -> usize {
        self.unkilled
    }

    /// Whether some are held stopped that have not been sent SIGKILL.
    pub(super) fn any_unkilled(&self) -> bool {
        self.unkilled > 0
    }

    /// How many are held that have been sent SIGTERM and were not seen to exit.
    pub(super) fn asked(&self) -> usize {
        self.in_phase(Phase::Asked).count()
    }

    /// Whether there are any of them.
    pub(super) fn any_asked(&self) -> bool {
        self.in_phase(Phase::Asked).next().is_some()
    }

    /// Those that have been sent SIGKILL and have not exited, in order.
    pub(super) fn killed(&self) -> Vec<i32> {
        self.in_phase(Phase::Killed).map(|(pid, _)| pid).collect()
    }

    /// The pins of those that are in this phase, in order.
    fn pins(&self, phase: Phase) -> Vec<&Pin> {
        self.in_phase(phase).map(|(_, entry)| &entry.pin).collect()
    }

    fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (i32, &Entry)> {
        let entries = self.entries.iter().filter(move |(_, entry)| entry.phase == phase);
        entries.map(|(pid, entry)| (*pid, entry))
    }

    /// Stops a process and holds it, with the file that it was looked at by.
    pub(super) fn stop(&mut self, pin: Pin, file: Option<StatFile>, found: Found) -> Delivery {
        // The signal is sent in any case: a SIGCONT from elsewhere may be on its way.
        let delivery = pin.signal(Signal::STOP);
        if delivery == Delivery::Sent {
            let phase = match found {
                Found::Running => Phase::Stopped,
                Found::Stopped => Phase::FoundStopped,
                Found::Asked => Phase::Overdue,
            };
            self.files = self.files.saturating_add(usize::from(file.is_some()));
            self.entries.insert(pin.pid(), Entry { pin, file, phase });
            self.unkilled = self.unkilled.saturating_add(1);
        }
        delivery
    }

    /// Closes the files, to make room: without them a process takes one descriptor, and a little
    /// longer to be looked at once more. False where there were none.
    pub(super) fn close_files(&mut self) -> bool {
        let any = self.files > 0;
        self.entries.values_mut().for_each(|entry| entry.file = None);
        self.files = 0;
        any
    }

    /// Sends SIGTERM to all that are held stopped, each after the same last look as before a
    /// [`kill`](Self::kill), and lets them go on, to act on it.
    pub(super) fn ask(
        &mut self,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(&Pin, Option<&StatFile>) -> Recheck,
    ) -> Kills {
        self.signal_all(Way::Ask, is_over, may_wait, recheck)
    }

    /// Waits until `until` for those that have been asked to exit, and lets go of those that have.
    /// Returns how many that were.
    pub(super) fn await_asked(&mut self, until: Instant, is_over: impl Fn() -> bool) -> u64 {
        let mut sum: u64 = 0;
        loop {
            let end = if is_over() { Instant::now() } else { until.min(Instant::now() + SLICE) };
            let is_last = is_over() || end >= until;
            let asked = self.pins(Phase::Asked);
            let exited = exits(&asked, || end.saturating_duration_since(Instant::now()));
            let is_any = exited.len() < asked.len();
            self.forget(&exited);
            sum = sum.saturating_add(count(&exited));
            if !is_any || is_last {
                return sum;
            }
        }
    }

    /// Stops those that have been asked and have not exited. Returns how many had exited, and
    /// which we have no right to stop any more; they are let go.
    pub(super) fn stop_asked(&mut self) -> (Over, Vec<i32>) {
        let (mut over, mut denied) = (Over::default(), Vec::new());
        self.retain(|pid, entry| {
            if entry.phase != Phase::Asked {
                return true;
            }
            // A zombie takes a signal and does not tell.
            let delivery = match entry.has_exited() {
                true => Delivery::Gone,
                false => entry.pin.signal(Signal::STOP),
            };
            match delivery {
                Delivery::Sent => entry.phase = Phase::Overdue,
                Delivery::Gone => over.add(entry.phase),
                Delivery::Denied => denied.push(pid),
            }
            delivery == Delivery::Sent
        });
        (over, denied)
    }

    /// Lets go of those that have been asked, whether or not they will exit. Returns their pids.
    pub(super) fn forget_asked(&mut self) -> Vec<i32> {
        let asked: Vec<i32> = self.in_phase(Phase::Asked).map(|(pid, _)| pid).collect();
        self.forget(&asked);
        asked
    }

    /// Sends SIGKILL to all that are held, each after a last look: a stopped process can no
    /// longer change its name or its owner, so that what `recheck` sees is what is killed. Those
    /// that are not stopped yet are waited for as long as `may_wait`. Ends early once `is_over`:
    /// the rest stays held.
    pub(super) fn kill(
        &mut self,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(&Pin, Option<&StatFile>) -> Recheck,
    ) -> Kills {
        self.signal_all(Way::Kill, is_over, may_wait, recheck)
    }

    fn signal_all(
        &mut self,
        way: Way,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(&Pin, Option<&StatFile>) -> Recheck,
    ) -> Kills {
        let mut kills = Kills::default();
        let mut patience = PATIENCE;
        self.retain(|pid, entry| {
            if !entry.is_stopped() || is_over() {
                return true;
            }
            let look = || recheck(&entry.pin, entry.file.as_ref());
            let seen = settle(look, &mut patience, &may_wait);
            // Where a process has exited, what is seen may be another one with its pid. And as a
            // zombie takes a signal and does not tell, one that we have asked before is asked about.
            let is_in_doubt = seen == Recheck::Changed || entry.phase == Phase::Overdue;
            if seen == Recheck::Dead || (is_in_doubt && entry.has_exited()) {
                kills.over.add(entry.phase);
                return false;
            }
            if seen == Recheck::Changed {
                kills.changed.push(pid);
                resume(entry);
                return false;
            }
            let (delivery, phase) = match way {
                Way::Ask => (ask(&entry.pin), Phase::Asked),
                Way::Kill => (entry.pin.signal(Signal::KILL), Phase::Killed),
            };
            match delivery {
                Delivery::Sent => {
                    entry.phase = phase;
                    kills.signalled.push(pid);
                }
                Delivery::Gone => kills.over.add(entry.phase),
                Delivery::Denied => {
                    kills.denied.push(pid);
                    resume(entry);
                }
            }
            delivery == Delivery::Sent
        });
        kills
    }

    /// Lets go of those that `keep` is false for.
    fn retain(&mut self, mut keep: impl FnMut(i32, &mut Entry) -> bool) {
        self.entries.retain(|pid, entry| keep(*pid, entry));
        self.recount();
    }

    /// Closes the pins and files of those that it has let go of.
    pub(super) fn close_spent(&mut self) {
        self.spent.clear();
    }

    /// Lets go of these.
    fn forget(&mut self, pids: &[i32]) {
        self.spent.extend(pids.iter().filter_map(|pid| self.entries.remove(pid)));
        self.recount();
    }

    fn recount(&mut self) {
        self.unkilled = self.entries.values().filter(|entry| entry.is_stopped()).count();
        self.files = self.entries.values().filter(|entry| entry.file.is_some()).count();
    }

    /// Lets go of all that have not been sent SIGKILL; those that we have stopped go on. Returns how
    /// many of them had exited, and how many live.
    pub(super) fn release(&mut self) -> (Over, u64) {
        let (mut over, mut alive) = (Over::default(), 0_u64);
        self.retain(|_, entry| {
            if entry.phase == Phase::Killed {
                return true;
            }
            if entry.has_exited() {
                over.add(entry.phase);
            } else {
                alive = alive.saturating_add(1);
                resume(entry);
            }
            false
        });
        (over, alive)
    }

    /// Waits for those that have been sent SIGKILL to exit, together at most `wait`, and lets go
    /// of those that have. Returns how many that were.
    pub(super) fn await_exits(&mut self, wait: Duration, abort: &AtomicBool) -> u64 {
        let begun = Instant::now();
        let left = || {
            let aborted = abort.load(Ordering::Relaxed);
            if aborted { Duration::ZERO } else { wait.saturating_sub(begun.elapsed()) }
        };
        let exited = exits(&self.pins(Phase::Killed), left);
        self.forget(&exited);
        count(&exited)
    }
}

/// Waits for these to exit for as long as there is time `left`, and returns which have. They are in the
/// order of their pids.
///
/// It waits for one alone, and then asks about many at once: if it waited for many, it would be woken
/// for each of them, and while thousands exit all processors are at work on that. The last first, since
/// once it has exited most of the others have, too. In parts, so that whatever the order in which they
/// exit, none is asked about more often than there are others in its part.
fn exits(pins: &[&Pin], left: impl Fn() -> Duration) -> Vec<i32> {
    let mut exited = Vec::new();
    for part in pins.rchunks(PART) {
        let mut living = part.to_vec();
        loop {
            let gone = Pin::exited(living.iter().copied());
            living.retain(|pin| gone.binary_search(&pin.pid()).is_err());
            exited.extend(gone);
            let wait = left();
            match living.last() {
                // Whether it has exited is seen with the others.
                Some(last) if !wait.is_zero() => _ = last.has_exited_within(wait),
                Some(_) | None => break,
            }
        }
    }
    exited
}

/// Rechecks until the process is stopped, or patience is at its end: one that sleeps
/// uninterruptibly must not hold up the rest. What counts is the time that passes, which on a busy
/// machine is far more than the pauses that are asked for.
fn settle(
    recheck: impl Fn() -> Recheck,
    patience: &mut Patience,
    may_wait: impl Fn() -> bool,
) -> Recheck {
    let mut seen = recheck();
    loop {
        let left = match seen {
            Recheck::Asleep => &mut patience.asleep,
            Recheck::Running => &mut patience.running,
            Recheck::Same | Recheck::Changed | Recheck::Dead => return seen,
        };
        if left.is_zero() || !may_wait() {
            return seen;
        }
        let begun = Instant::now();
        pause(GLANCE);
        seen = recheck();
        *left = left.saturating_sub(begun.elapsed());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Asks a stopped process to exit. It is continued, even if it was
/// stopped before: a stopped process does not act on SIGTERM.
fn ask(pin: &Pin) -> Delivery {
    let delivery = pin.signal(Signal::TERM);
    if delivery == Delivery::Sent {
        let (Delivery::Sent | Delivery::Gone | Delivery::Denied) = pin.signal(Signal::CONT);
    }
    delivery
}

/// Lets a process go on, if it was we who stopped it.
fn resume(entry: &Entry) {
    if matches!(entry.phase, Phase::Stopped | Phase::Overdue) {
        // Gone is as well as sent. Denied cannot follow a SIGSTOP that was allowed, unless the
        // process has changed its owner, and then there is nothing more that we could do.
        let (Delivery::Sent | Delivery::Gone | Delivery::Denied) = entry.pin.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use procstorm_testkit::in_a_world_apart;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    fn pin(child: &Child) -> Pin {
        let pid = i32::try_from(child.id()).expect("a pid");
        Pin::open(pid).expect("there are descriptors").expect("it is not reaped")
    }

    #[test]
    fn those_that_exit_are_seen_in_whatever_order_and_no_others() {
        const LIMIT: Duration = Duration::from_secs(60);
        let start = |_| Command::new("sleep").arg("600").spawn().expect("a sleeper");
        let mut children: Vec<Child> = (0..PART + 6).map(start).collect();
        let mut pins: Vec<Pin> = children.iter().map(pin).collect();
        pins.sort_by_key(Pin::pid);
        let mut living: Vec<&Pin> = pins.iter().collect();
        assert_eq!(exits(&living, || Duration::ZERO), [0; 0], "all sleep");
        // One of the part that is looked at last, and one of the other.
        for nth in [2, PART - 2] {
            let one = living.remove(nth);
            assert_eq!(one.signal(Signal::KILL), Delivery::Sent);
            assert!(one.has_exited_within(LIMIT), "it was killed");
            let all: Vec<&Pin> = living.iter().copied().chain([one]).collect();
            let mut sorted = all.clone();
            sorted.sort_by_key(|pin| pin.pid());
            assert_eq!(exits(&sorted, || Duration::ZERO), [one.pid()]);
        }
        for one in &living {
            assert_eq!(one.signal(Signal::KILL), Delivery::Sent);
        }
        let begun = Instant::now();
        let mut exited = exits(&living, || LIMIT.saturating_sub(begun.elapsed()));
        exited.sort_unstable();
        let expected: Vec<i32> = living.iter().map(|pin| pin.pid()).collect();
        assert_eq!(exited, expected);
        for child in &mut children {
            child.wait().expect("it is dead");
        }
    }

    /// The kernel asks about no more at once than the limit of descriptors.
    #[test]
    fn those_that_exit_are_seen_where_so_many_cannot_be_asked_at_once() {
        in_a_world_apart!();
        let start = |_| Command::new("sleep").arg("600").spawn().expect("a sleeper");
        let mut children: Vec<Child> = (0..PART).map(start).collect();
        let pins: Vec<Pin> = children.iter().map(pin).collect();
        let mut living: Vec<&Pin> = pins.iter().collect();
        living.sort_by_key(|pin| pin.pid());
        let limit = getrlimit(Resource::Nofile);
        let few = Some(u64::try_from(PART / 2).expect("few"));
        setrlimit(Resource::Nofile, Rlimit { current: few, ..limit }).expect("lower");
        assert_eq!(exits(&living, || Duration::ZERO), [0; 0], "all sleep");
        let one = living[2];
        assert_eq!(one.signal(Signal::KILL), Delivery::Sent);
        assert!(one.has_exited_within(Duration::from_secs(60)), "it was killed");
        assert_eq!(exits(&living, || Duration::ZERO), [one.pid()]);
        for child in &mut children {
            child.kill().expect("ours");
            child.wait().expect("it is dead");
        }
    }
}
