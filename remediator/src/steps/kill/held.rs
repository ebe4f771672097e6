//! The processes that are pinned, and stopped, until they are asked to exit, killed, or let go.
//!
//! No process is left stopped: when a [`Held`] is dropped, whatever the reason, those that it has
//! stopped and not killed go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Pinned processes by pid. A pid in here is not reused before its process has exited. In order,
/// as the kernel keeps them: it takes storms down a good deal faster so than at random.
#[derive(Debug, Default)]
pub(super) struct Held {
    entries: BTreeMap<i32, (Pin, Phase)>,
    unkilled: usize,
}

/// Whether a process that we hold stopped is still the one that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recheck {
    /// It is.
    Same,
    /// It has another name or another owner by now.
    Changed,
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

/// What came of killing all that are held, or of asking them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kills {
    /// The processes that were sent SIGKILL, or SIGTERM.
    pub(super) signalled: Vec<i32>,
    /// The processes that were let go because they had changed.
    pub(super) changed: Vec<i32>,
    /// How many had exited, by themselves or by another signal, before SIGKILL was sent.
    pub(super) gone: u64,
    /// How many had exited before SIGKILL was sent, after SIGTERM.
    pub(super) terminated: u64,
    /// How many we turned out to have no right to kill; they were let go.
    pub(super) denied: u64,
}

impl Held {
    /// The pids of all that are held.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.entries.keys().copied()
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
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
        self.entries.values().filter(|(_, phase)| *phase == Phase::Asked).count()
    }

    /// Whether there are any of them.
    pub(super) fn any_asked(&self) -> bool {
        self.entries.values().any(|(_, phase)| *phase == Phase::Asked)
    }

    /// Those that have been sent SIGKILL and have not exited, in order.
    pub(super) fn killed(&self) -> Vec<i32> {
        let killed =
            |(pid, (_, phase)): (&i32, &(Pin, Phase))| (*phase == Phase::Killed).then_some(*pid);
        let mut pids: Vec<i32> = self.entries.iter().filter_map(killed).collect();
        pids.sort_unstable();
        pids
    }

    /// Stops a process and holds it. `was_stopped` is whether it was stopped already.
    pub(super) fn stop(&mut self, pin: Pin, was_stopped: bool) -> Delivery {
        // The signal is sent in either case: a SIGCONT from elsewhere may be on its way.
        let delivery = pin.signal(Signal::STOP);
        if delivery == Delivery::Sent {
            let phase = if was_stopped { Phase::FoundStopped } else { Phase::Stopped };
            self.entries.insert(pin.pid(), (pin, phase));
            self.unkilled = self.unkilled.saturating_add(1);
        }
        delivery
    }

    /// Sends SIGTERM to all that are held stopped, each after the same last look as before a
    /// [`kill`](Self::kill), and lets them go on, to act on it.
    pub(super) fn ask(
        &mut self,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(i32) -> Recheck,
    ) -> Kills {
        self.signal_all(Way::Ask, is_over, may_wait, recheck)
    }

    /// Waits until `until` for those that have been asked to exit, and lets go of those that have.
    /// Returns how many that were.
    pub(super) fn await_asked(&mut self, until: Instant, is_over: impl Fn() -> bool) -> u64 {
        let mut gone: u64 = 0;
        loop {
            let slice = Instant::now() + SLICE;
            let end = until.min(slice);
            let has_exited = |(pid, (pin, phase)): (&i32, &(Pin, Phase))| {
                let left = end.saturating_duration_since(Instant::now());
                (*phase == Phase::Asked && pin.has_exited_within(left)).then_some(*pid)
            };
            // One after the other, the last first, as in `await_exits`.
            let exited: Vec<i32> = self.entries.iter().rev().filter_map(has_exited).collect();
            gone = gone.saturating_add(count(&exited));
            for pid in &exited {
                self.entries.remove(pid);
            }
            let is_any = self.entries.values().any(|(_, phase)| *phase == Phase::Asked);
            if !is_any || Instant::now() >= until || is_over() {
                return gone;
            }
        }
    }

    /// Stops those that have been asked and have not exited. Returns how many had exited, and how
    /// many we have no right to stop any more; they are let go.
    pub(super) fn stop_asked(&mut self) -> (u64, u64) {
        let (mut exited, mut denied): (u64, u64) = (0, 0);
        self.entries.retain(|_, (pin, phase)| {
            if *phase != Phase::Asked {
                return true;
            }
            // A zombie takes a signal and does not tell.
            let delivery = match pin.has_exited_within(Duration::ZERO) {
                true => Delivery::Gone,
                false => pin.signal(Signal::STOP),
            };
            match delivery {
                Delivery::Sent => *phase = Phase::Overdue,
                Delivery::Gone => exited = exited.saturating_add(1),
                Delivery::Denied => denied = denied.saturating_add(1),
            }
            delivery == Delivery::Sent
        });
        self.count_unkilled();
        (exited, denied)
    }

    /// Lets go of those that have been asked, whether or not they will exit. Returns their pids.
    pub(super) fn forget_asked(&mut self) -> Vec<i32> {
        let mut forgotten = Vec::new();
        self.entries.retain(|pid, (_, phase)| {
            if *phase == Phase::Asked {
                forgotten.push(*pid);
            }
            *phase != Phase::Asked
        });
        forgotten
    }

    /// Sends SIGKILL to all that are held, each after a last look: a stopped process can no
    /// longer change its name or its owner, so that what `recheck` sees is what is killed. Those
    /// that are not stopped yet are waited for as long as `may_wait`. Ends early once `is_over`:
    /// the rest stays held.
    pub(super) fn kill(
        &mut self,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(i32) -> Recheck,
    ) -> Kills {
        self.signal_all(Way::Kill, is_over, may_wait, recheck)
    }

    fn signal_all(
        &mut self,
        way: Way,
        is_over: impl Fn() -> bool,
        may_wait: impl Fn() -> bool,
        recheck: impl Fn(i32) -> Recheck,
    ) -> Kills {
        let mut kills = Kills::default();
        let mut patience = PATIENCE;
        self.entries.retain(|&pid, (pin, phase)| {
            if matches!(phase, Phase::Killed | Phase::Asked) || is_over() {
                return true;
            }
            if settle(pid, &recheck, &mut patience, &may_wait) == Recheck::Changed {
                kills.changed.push(pid);
                resume(pin, *phase);
                return false;
            }
            // A process that exits takes no SIGSTOP, and a zombie takes SIGKILL and does not tell.
            let is_overdue = *phase == Phase::Overdue;
            let delivery = match way {
                Way::Kill if is_overdue && pin.has_exited_within(Duration::ZERO) => Delivery::Gone,
                Way::Kill => pin.signal(Signal::KILL),
                Way::Ask => ask(pin),
            };
            match delivery {
                Delivery::Sent => {
                    *phase = match way {
                        Way::Kill => Phase::Killed,
                        Way::Ask => Phase::Asked,
                    };
                    kills.signalled.push(pid);
                    true
                }
                Delivery::Gone => {
                    let sum = if is_overdue { &mut kills.terminated } else { &mut kills.gone };
                    *sum = sum.saturating_add(1);
                    false
                }
                Delivery::Denied => {
                    kills.denied = kills.denied.saturating_add(1);
                    resume(pin, *phase);
                    false
                }
            }
        });
        self.count_unkilled();
        kills
    }

    fn count_unkilled(&mut self) {
        let is_stopped = |phase: &Phase| match phase {
            Phase::Stopped | Phase::FoundStopped | Phase::Overdue => true,
            Phase::Asked | Phase::Killed => false,
        };
        self.unkilled = self.entries.values().filter(|(_, phase)| is_stopped(phase)).count();
    }

    /// Lets go of all that have not been sent SIGKILL; those that we have stopped go on.
    pub(super) fn release(&mut self) {
        self.entries.retain(|_, (pin, phase)| {
            resume(pin, *phase);
            *phase == Phase::Killed
        });
        self.unkilled = 0;
    }

    /// Waits for those that have been sent SIGKILL to exit, together at most `wait`, and lets go
    /// of those that have. Returns how many that were.
    pub(super) fn await_exits(&mut self, wait: Duration, abort: &AtomicBool) -> u64 {
        let begun = Instant::now();
        let left = || {
            let aborted = abort.load(Ordering::Relaxed);
            if aborted { Duration::ZERO } else { wait.saturating_sub(begun.elapsed()) }
        };
        let has_exited = |(pid, (pin, phase)): (&i32, &(Pin, Phase))| {
            (*phase == Phase::Killed && pin.has_exited_within(left())).then_some(*pid)
        };
        // One after the other: polling all of them again at each exit would take quadratic time.
        // And the last first, since once it is gone the others are too, more or less, and we are
        // not woken for each of them.
        let exited: Vec<i32> = self.entries.iter().rev().filter_map(has_exited).collect();
        for pid in &exited {
            self.entries.remove(pid);
        }
        count(&exited)
    }
}

/// Rechecks until the process is stopped, or patience is at its end: one that sleeps
/// uninterruptibly must not hold up the rest. What counts is the time that passes, which on a busy
/// machine is far more than the pauses that are asked for.
fn settle(
    pid: i32,
    recheck: impl Fn(i32) -> Recheck,
    patience: &mut Patience,
    may_wait: impl Fn() -> bool,
) -> Recheck {
    let mut seen = recheck(pid);
    loop {
        let left = match seen {
            Recheck::Asleep => &mut patience.asleep,
            Recheck::Running => &mut patience.running,
            Recheck::Same | Recheck::Changed => return seen,
        };
        if left.is_zero() || !may_wait() {
            return seen;
        }
        let begun = Instant::now();
        pause(GLANCE);
        seen = recheck(pid);
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
fn resume(pin: &Pin, phase: Phase) {
    if matches!(phase, Phase::Stopped | Phase::Overdue) {
        // Gone is as well as sent. Denied cannot follow a SIGSTOP that was allowed, unless the
        // process has changed its owner, and then there is nothing more that we could do.
        let (Delivery::Sent | Delivery::Gone | Delivery::Denied) = pin.signal(Signal::CONT);
    }
}
