//! The rounds: stop all, kill all, wait, and look again until none is seen.
//!
//! Before them, where there is a grace: stop all, send SIGTERM to all, let them go on, and wait. A
//! mail server that is killed while it writes leaves a torn mail file and its lock; one that is
//! asked finishes and tidies up. They are stopped first for the same reasons as before a kill: what
//! is signalled is what was checked, and none has a moment in which to replace another.
//!
//! In each round everything of the storm is stopped first, again and again until a scan finds
//! nothing new; then all of it is killed at once. Processes that watch each other so have no
//! moment in which to replace a dead one, and a storm that forks on runs into its user's limit of
//! processes, for those that are stopped still count. Three rounds in a row that leave fewer than
//! the threshold are enough, if there are fewer and not more a second later: a few that come back one
//! by one are not a storm. If they are one again by then, the rounds go on within their bounds.
//!
//! A process that comes while the grace lasts is sent SIGTERM as well: a mail client reconnects at
//! once, and its new session rewrites the mail file like the old one.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::ProcDir;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::calm::{Calm, Ebb, Next};
use super::errand::{Errand, Halt, Why};
use super::guard::Standing;
use super::hand::{Hand, Scan, each, other};
use super::held::Held;
use super::pin::{Pin, pause};
use super::report::{Aftermath, Changed, KillVerdict, Report, append, judge, note};
use super::sweep::{Count, Sight, look};
use super::target::{Bounds, Target};

/// How many scans a round makes to stop all; a storm that still grows then is killed as far as
/// it is held.
const FREEZE_SCANS: u32 = 16;

/// How long at a time the exits of those that were sent SIGTERM are waited for, before a look for
/// those that came meanwhile.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// And how long at least for each of them: where thousands exit at once, a look would only keep
/// them from it.
const EXIT_TIME: Duration = Duration::from_micros(100);

/// Which part of all rounds may send SIGTERM. A storm that forks on SIGTERM must not use them up.
const ASKING_PART: u32 = 2;

/// How long the number of those that live must not grow after three rounds that left few: clients
/// reconnect in less, but not all in the same moment.
const EBB_PAUSE: Duration = Duration::from_secs(1);

/// Descriptors left to the rest of the daemon, where the limit is large enough.
const SPARE_DESCRIPTORS: u64 = 256;

/// So many processes on the machine are worth another thread.
const PROCESSES_A_HAND: usize = 1_000;

/// More threads than this would only wait for the kernel's locks, and for each other.
const HANDS_MAX: usize = 4;

/// Ends the processes of `target`, and proves it. Blocks for `bounds.deadline` and three seconds
/// more at most, whatever the storm does, so call it on a thread for blocking work; where there are thousands of processes, it
/// starts a few threads more for as long as it runs. Setting `abort` ends it soon: whatever is
/// stopped and not killed goes on. Raises the process's soft limit of descriptors to the hard
/// one, since each process that is held takes one; where that is too few, it works in batches.
///
/// `procfs` must be the /proc of the caller's own pid namespace, else it is refused.
pub fn end_storm(procfs: &Path, target: &Target, bounds: &Bounds, abort: &AtomicBool) -> Report {
    let started = Instant::now();
    let errand = match Errand::prepare(procfs, target, bounds, abort, started) {
        Ok(errand) => errand,
        Err(verdict) => return Report::idle(verdict, started.elapsed()),
    };
    let mut storm = Storm { errand: &errand, hands: Vec::new() };
    let end = storm.gather().and_then(|()| storm.run());
    storm.report(end)
}

/// How many processes there are, more or less; one if it is unknown.
fn processes(proc_dir: &ProcDir) -> usize {
    let processes = proc_dir.processes().ok().and_then(|count| usize::try_from(count).ok());
    processes.unwrap_or(1).max(1)
}

/// How many hands are worth their while. Where descriptors are so few
/// that one hand's part would not do for all processes, it is one too: a hand that is full kills
/// before all are stopped.
fn hands(processes: usize, capacity: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processes
        .div_ceil(PROCESSES_A_HAND)
        .min(processors)
        .min(HANDS_MAX)
        .min(capacity / processes)
        .max(1)
}

/// How the rounds ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Enough scans saw none, for so long.
    Quiet(Duration),
    /// Three rounds in a row left fewer than the threshold, and a second later there were not more.
    Ebbed,
    /// No scan sees any alive, but some die all the time, and no more may be signalled.
    Restless,
    /// A bound was met, or nothing is left that could be done.
    Bound,
}

/// A storm being ended.
struct Storm<'a> {
    errand: &'a Errand<'a>,
    hands: Vec<Hand<'a>>,
}

impl<'a> Storm<'a> {
    /// Finds the hands: as many as are worth their while, and at least one.
    fn gather(&mut self) -> Result<(), Halt> {
        let errand = self.errand;
        let capacity = capacity(&errand.proc_dir);
        let processes = processes(&errand.proc_dir);
        // Each of them takes a pin and a file.
        Pin::reserve(processes.saturating_mul(2).min(capacity));
        let count = hands(processes, capacity);
        let capacity = capacity / count;
        self.hands.push(Hand::new(errand, capacity)?);
        self.hands.extend((1..count).map_while(|_| Hand::new(errand, capacity).ok()));
        Ok(())
    }

    /// Rounds and confirming scans, until enough scans saw none, or no more can be done. It ends:
    /// a round counts towards its bound, an empty scan towards the confirmations or a bound of its
    /// own, and all else waits for the grace to end or for the deadline.
    fn run(&mut self) -> Result<End, Halt> {
        let bounds = self.errand.bounds;
        let mut calm = Calm::default();
        let mut ebb = Ebb::new(bounds.threshold);
        loop {
            if self.errand.is_overdue() {
                return Ok(End::Bound);
            }
            self.end_asking_in_time()?;
            let (begun, scan) = self.stop_all(&mut calm)?;
            let holds_none = self.held().all(Held::is_empty);
            let waits = self.errand.asks() && self.lives_any_asked();
            if holds_none && !waits && scan.killed == 0 && scan.saw_none_alive() {
                let may_signal = self.errand.may_signal();
                match calm.add(scan.traces(), begun, may_signal, bounds.confirmations) {
                    Next::LookAtOnce => {}
                    Next::LookLater => {
                        pause(bounds.confirm_pause.min(self.errand.time_left()));
                    }
                    Next::Over(since) => return Ok(End::Quiet(since.elapsed())),
                    Next::Restless => return Ok(End::Restless),
                }
                continue;
            }
            calm.end();
            if self.held().any(Held::any_unkilled) {
                // What the rounds before have left.
                let alive = self.alive(&scan);
                let has_ebbed = self.errand.rounds() > 0 && ebb.add(alive);
                let is_first = self.errand.rounds() == 0;
                self.errand.begin_round();
                if self.errand.asks() {
                    each(&mut self.hands, Hand::ask_held)?;
                    self.errand.begin_grace();
                    let asked = Instant::now();
                    self.await_asked(self.asked_pause())?;
                    // Those that come back one by one must not take all the rounds.
                    if !is_first {
                        pause(ASKED_PAUSE.saturating_sub(asked.elapsed()));
                    }
                } else {
                    each(&mut self.hands, Hand::kill_held)?;
                }
                if has_ebbed {
                    if let Some(end) = self.ebbed()? {
                        return Ok(end);
                    }
                    // It is a storm again: three more rounds must leave few.
                    ebb = Ebb::new(bounds.threshold);
                }
            } else if waits {
                self.errand.begin_grace();
                self.await_asked(self.asked_pause())?;
            } else if scan.killed == 0 {
                let only_denied = holds_none && scan.at_large == 0;
                // Killed processes may take a moment to exit, whether or not more may be signalled.
                let is_waited_for = !holds_none && !self.errand.is_late();
                if only_denied || !(self.errand.may_signal() || is_waited_for) {
                    return Ok(End::Bound);
                }
                each(&mut self.hands, |hand| {
                    hand.await_exits();
                    Ok(())
                })?;
            }
        }
    }

    /// Ends the time of SIGTERM when the grace is over, or when it was sent in as many rounds as it
    /// may be and the grace of the last has passed. Those that have not exited then are held
    /// stopped, like what the scans find that follow.
    fn end_asking_in_time(&mut self) -> Result<(), Halt> {
        let errand = self.errand;
        let Some(until) = errand.grace_end() else { return Ok(()) };
        let rounds_max = (errand.bounds.rounds / ASKING_PART).max(1);
        if errand.rounds() >= rounds_max || !errand.may_signal() {
            // Nobody is looked for meanwhile.
            while Instant::now() < until && !errand.is_aborted() && self.lives_any_asked() {
                self.await_asked(ASKED_PAUSE)?;
            }
        } else if Instant::now() < until {
            return Ok(());
        }
        errand.end_asking();
        each(&mut self.hands, Hand::stop_asked)
    }

    /// Whether any that was sent SIGTERM has not exited, as far as that is known.
    fn lives_any_asked(&self) -> bool {
        self.held().any(Held::any_asked) || self.errand.lives_any_forgotten()
    }

    /// How long those that were sent SIGTERM are waited for before the next look.
    fn asked_pause(&self) -> Duration {
        let asked: usize = self.held().map(Held::asked).sum();
        ASKED_PAUSE.max(EXIT_TIME.saturating_mul(u32::try_from(asked).unwrap_or(u32::MAX)))
    }

    /// Waits so long for those that were sent SIGTERM to exit, but not longer than their grace. Those
    /// that are not held can only be looked for later.
    fn await_asked(&mut self, time: Duration) -> Result<(), Halt> {
        let soon = Instant::now() + time;
        let until = self.errand.grace_end().map_or(soon, |until| until.min(soon));
        if !self.held().any(Held::any_asked) {
            pause(until.saturating_duration_since(Instant::now()));
            return Ok(());
        }
        each(&mut self.hands, |hand| {
            hand.await_asked(until);
            Ok(())
        })
    }

    /// Lets those that live be, and counts them until their number has not grown for a while. `None`
    /// where the rounds must go on: there are enough to be a storm again (a user may lie low for
    /// three rounds and then fork on), or some were sent SIGTERM and do not exit in their grace.
    fn ebbed(&mut self) -> Result<Option<End>, Halt> {
        let Errand { proc_dir, target, bounds, untouchables, .. } = self.errand;
        let (mut most, mut grown) = (0, Instant::now());
        while !self.errand.is_aborted() {
            self.await_asked(ASKED_PAUSE)?;
            pause(ASKED_PAUSE);
            let any_asked = self.errand.asks() && self.lives_any_asked();
            let is_grace_over = self.errand.grace_end().is_some_and(|end| Instant::now() >= end);
            if any_asked && is_grace_over {
                return Ok(None);
            }
            let until = self.errand.count_deadline();
            let count = Count::take(proc_dir, target, untouchables, bounds, until);
            let Some(living) = count.map(|count| count.living) else { return Ok(Some(End::Bound)) };
            if living > most {
                (most, grown) = (living, Instant::now());
            }
            if living >= bounds.threshold {
                return Ok(None);
            }
            if !any_asked && grown.elapsed() >= EBB_PAUSE {
                return Ok(Some(End::Ebbed));
            }
            if self.errand.is_late() {
                return Ok(Some(End::Bound));
            }
        }
        Err(Halt::Aborted)
    }

    /// How many are alive by the last scan.
    fn alive(&self, scan: &Scan) -> u64 {
        let held: usize = self.held().map(|held| held.unkilled() + held.asked()).sum();
        u64::try_from(held)
            .unwrap_or(u64::MAX)
            .saturating_add(scan.at_large)
            .saturating_add(scan.denied)
            .saturating_add(self.errand.living_forgotten())
    }

    /// Scans, and stops and holds what it finds, until a scan finds nothing new. Returns when the
    /// last scan began, and what it saw.
    fn stop_all(&mut self, calm: &mut Calm) -> Result<(Instant, Scan), Halt> {
        for _ in 1..FREEZE_SCANS {
            let begun = Instant::now();
            let scan = self.scan()?;
            if scan.held == 0 {
                return Ok((begun, scan));
            }
            // A later scan may see none, because these have been killed meanwhile to make room.
            calm.end();
        }
        Ok((Instant::now(), self.scan()?))
    }

    fn scan(&mut self) -> Result<Scan, Halt> {
        let known = self.held().flat_map(Held::pids).collect();
        self.hands.iter_mut().for_each(Hand::begin_scan);
        self.errand.walk.rewind()?;
        match each(&mut self.hands, |hand| hand.stop_some(&known)) {
            // One hand may lack the descriptors that another one holds, or has just given back.
            Err(Halt::Starved(_))
                if self.held().any(|held| !held.is_empty()) || self.last_scan().killed > 0 =>
            {
                let spare = |any, hand: &mut Hand<'_>| hand.spare_files() || any;
                if !self.hands.iter_mut().fold(false, spare) {
                    each(&mut self.hands, Hand::make_room)?;
                }
            }
            done => done?,
        }
        Ok(self.last_scan())
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.hands.iter().map(Hand::held)
    }

    /// What all hands together saw in their last scan.
    fn last_scan(&self) -> Scan {
        let mut sum = Scan::default();
        self.hands.iter().for_each(|hand| sum.add(hand.scan()));
        sum
    }

    /// What was done, and how it ended. No process stays stopped meanwhile.
    fn report(self, end: Result<End, Halt>) -> Report {
        let scan = self.last_scan();
        let Self { errand, mut hands } = self;
        hands.iter_mut().for_each(Hand::release);
        let count = count(errand, &end, &scan);
        let mut report = Report::idle(KillVerdict::Unfinished, Duration::ZERO);
        for hand in hands {
            report.add(hand.finish());
        }
        report.threshold = errand.bounds.threshold;
        report.left = count.as_ref().map(|count| count.living);
        report.denied = scan.denied;
        report.nested = count.map_or(scan.nested, |count| count.nested);
        let parents: BTreeSet<i32> = scan.zombies.iter().map(|zombie| zombie.parent).collect();
        let careless = parents.into_iter().filter_map(|pid| other(&errand.proc_dir, pid));
        append(&mut report.careless, careless);
        report.uid = errand.target.uid;
        report.zombies = scan.zombies;
        report.zombie_count = scan.zombie_count;
        report.rounds = errand.rounds();
        account_for_let_go(errand, &mut report);
        report.verdict = verdict(end, &report, scan.at_large > 0);
        report.elapsed = errand.started.elapsed();
        report
    }
}

/// How many live when all is over. Scans that saw none are a count; after anything else it is
/// taken once, and what cannot be counted in time is unknown.
fn count(errand: &Errand<'_>, end: &Result<End, Halt>, scan: &Scan) -> Option<Count> {
    match end {
        Ok(End::Quiet(_)) => Some(Count { living: 0, nested: scan.nested }),
        Ok(End::Bound | End::Ebbed) | Err(Halt::Starved(_)) => {
            let Errand { proc_dir, target, bounds, untouchables, .. } = errand;
            Count::take(proc_dir, target, untouchables, bounds, errand.count_deadline())
        }
        // Those that come and go all the time slip past a count as they slip past a scan.
        Ok(End::Restless) | Err(Halt::Aborted | Halt::Blind | Halt::Read(_)) => None,
    }
}

/// Counts those that were held and let go of before the end, each once, as they are by now; and names
/// those that have changed.
fn account_for_let_go(errand: &Errand<'_>, report: &mut Report) {
    let Errand { proc_dir, target, untouchables, .. } = errand;
    for (&(pid, start_time), &why) in errand.let_go().iter() {
        let lives = errand.lives((pid, start_time));
        let is_target = || {
            let sight = look(proc_dir, pid, target, untouchables);
            matches!(sight, Ok(Sight::Process(Standing::Living, _)))
        };
        let sum = match why {
            Why::Asked if lives && is_target() => &mut report.released,
            Why::Asked if !lives => &mut report.terminated,
            Why::Denied if lives => &mut report.released,
            Why::Denied => &mut report.gone,
            Why::Asked | Why::Changed => {
                let seen = proc_dir.owned_stat(pid).ok().flatten().filter(|_| lives);
                let command = seen.map(|(_, stat)| stat.command.to_text().into_owned());
                let uid = seen.map(|(uid, _)| uid);
                let changed = Changed { pid, uid, command: command.unwrap_or_default() };
                note(&mut report.changed_to, &mut report.changed, changed);
                continue;
            }
        };
        *sum = sum.saturating_add(1);
    }
}

fn verdict(end: Result<End, Halt>, report: &Report, at_large: bool) -> KillVerdict {
    match end {
        Ok(end) => judge(Aftermath {
            quiet: if let End::Quiet(time) = end { Some(time) } else { None },
            any: report.matched > 0,
            replaced: report.replacement_count > 0 || matches!(end, End::Restless),
            changed: report.changed > 0,
            ebbed: matches!(end, End::Ebbed)
                && report.left.is_some_and(|left| left < report.threshold),
            nested: report.nested > 0,
            at_large,
            denied: report.denied > 0,
            stuck: report.stuck_count > 0,
        }),
        Err(Halt::Aborted) => KillVerdict::Aborted,
        Err(Halt::Blind) => KillVerdict::Blind,
        Err(Halt::Starved(error)) => {
            KillVerdict::Failed(format!("no process can be pinned: {error}"))
        }
        Err(Halt::Read(error)) => KillVerdict::Failed(format!("/proc cannot be read: {error}")),
    }
}

/// How many processes can be held at once. Raises the soft limit of descriptors to the hard one.
fn capacity(proc_dir: &ProcDir) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let in_use = proc_dir.own_descriptors().unwrap_or(SPARE_DESCRIPTORS);
    let limit = limit.unwrap_or(u64::from(u32::MAX));
    let spare = SPARE_DESCRIPTORS.min(limit / 4);
    usize::try_from(limit.saturating_sub(in_use).saturating_sub(spare)).unwrap_or(usize::MAX).max(1)
}
