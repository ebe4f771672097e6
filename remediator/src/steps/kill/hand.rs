//! Hands: each a thread that pins, checks, stops and kills what it meets.
//!
//! A storm of thousands takes the most time where one thread pins and stops it while the other
//! processors idle. So the hands share one walk over /proc, each taking the next few pids, and
//! keep what they have found; they meet after each scan and after each round of kills, so that
//! none is killed before all are stopped.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use procstorm_processes::namespaces::PidfdView;
use procstorm_processes::proc_dir::{ProcDir, StatFile};
use procstorm_processes::process::Stat;

use super::calm::Traces;
use super::errand::{Errand, Halt, Why};
use super::guard::Standing;
use super::held::{Found, Held, Kills, Over, Recheck};
use super::pin::{Delivery, Pin};
use super::realm::{Realm, below};
use super::report::{KillVerdict, Other, Replacement, Report, Traced, Zombie, append, note};
use super::sweep::{Bite, Sight, again, look_and_keep};
use crate::steps::count;

/// How many files of those that it holds a hand keeps. The kernel keeps a page of memory for each of
/// them, on the daemon's account.
const FILES_MAX: usize = 4_096;

/// How long those that were asked are held where others need the room.
const HELD_FOR: Duration = Duration::from_millis(50);

/// What one scan saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Newly stopped and held.
    pub(super) held: u64,
    /// Killed in the middle of it, to make room.
    pub(super) killed: u64,
    /// Alive, and not held because no more signals may be sent; or not looked at, for lack of a
    /// descriptor or of time.
    pub(super) at_large: u64,
    /// Alive, and we have no right to signal it.
    pub(super) denied: u64,
    /// Alive in a nested pid namespace, and left alone.
    pub(super) nested: u64,
    pub(super) zombies: Vec<Zombie>,
    pub(super) zombie_count: u64,
    /// Of the storm, and died since the last scan (in the first: ever), though not by us.
    newly_dead: u64,
    /// The user's, and gone before their names were seen.
    slipped: u64,
}

impl Scan {
    /// Whether a process has just exited that may have left a child.
    pub(super) fn traces(&self) -> Traces {
        Traces { died: self.newly_dead > 0, slipped: self.slipped > 0 }
    }

    pub(super) fn saw_none_alive(&self) -> bool {
        self.held == 0 && self.at_large == 0 && self.denied == 0
    }

    /// Adds what another hand saw in the same scan.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.held, other.held),
            (&mut self.killed, other.killed),
            (&mut self.at_large, other.at_large),
            (&mut self.denied, other.denied),
            (&mut self.nested, other.nested),
            (&mut self.zombie_count, other.zombie_count),
            (&mut self.newly_dead, other.newly_dead),
            (&mut self.slipped, other.slipped),
        ] {
            *sum = sum.saturating_add(more);
        }
        append(&mut self.zombies, other.zombies.iter().cloned());
    }
}

/// What a look at a pid with a view to hold its process came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It was seen for what it is, and held if it had to be.
    Seen,
    /// It exited before it was identified.
    Gone,
}

/// One hand.
pub(super) struct Hand<'a> {
    errand: &'a Errand<'a>,
    /// How many descriptors it may take for those that it holds.
    capacity: usize,
    /// Whether it keeps the files of those that it holds.
    keeps_files: bool,
    view: PidfdView,
    /// Whether the process before was one of the storm, and is held.
    in_a_run: bool,
    /// Whether a process in this bite exited before it was held; it may have forked a child with a
    /// higher pid.
    has_lost: bool,
    held: Held,
    scan: Scan,
    report: Report,
}

/// Has each hand do its work, at the same time as far as threads can be had: on a machine that has
/// no room for another thread, the caller's does it all. Returns when all are done; of several
/// that were halted, with the reason that tells most.
pub(super) fn each<'a>(
    hands: &mut [Hand<'a>],
    work: impl Fn(&mut Hand<'a>) -> Result<(), Halt> + Sync,
) -> Result<(), Halt> {
    let more = hands.len().saturating_sub(1);
    let queue = Mutex::new(hands.iter_mut());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || -> Result<(), Halt> {
        while let Some(hand) = next() {
            work(hand).inspect_err(|halt| hand.errand.halt(halt))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let name = || thread::Builder::new().name("kill".to_owned());
        let threads: Vec<_> =
            (0..more).filter_map(|_| name().spawn_scoped(scope, drain).ok()).collect();
        let mut outcome = drain();
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(halt)) => {
                    outcome = Err(match outcome {
                        Ok(()) => halt,
                        Err(other) => other.or(halt),
                    });
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcome
    })
}

impl<'a> Hand<'a> {
    /// Fails where there is no descriptor for it.
    pub(super) fn new(errand: &'a Errand<'a>, capacity: usize) -> io::Result<Self> {
        Ok(Self {
            errand,
            capacity,
            keeps_files: true,
            view: errand.proc_dir.pidfd_view()?,
            in_a_run: false,
            has_lost: false,
            held: Held::default(),
            scan: Scan::default(),
            report: Report::idle(KillVerdict::Unfinished, Duration::ZERO),
        })
    }

    /// Forgets what its last scan saw.
    pub(super) fn begin_scan(&mut self) {
        self.scan = Scan::default();
        self.in_a_run = false;
    }

    /// Does its part of a scan: stops and holds what it meets and what no hand holds yet.
    pub(super) fn stop_some(&mut self, known: &HashSet<i32>) -> Result<(), Halt> {
        self.held.close_spent();
        let met = self.meet(known);
        if matches!(met, Err(Halt::Starved(_))) {
            // There is something that has not been looked at: this was no empty scan.
            self.scan.at_large = self.scan.at_large.saturating_add(1);
        }
        met
    }

    fn meet(&mut self, known: &HashSet<i32>) -> Result<(), Halt> {
        let mut bite = Bite::default();
        while !self.errand.is_halted() && self.errand.walk.next(&mut bite, known)? {
            if self.errand.is_overdue() {
                self.scan.at_large = self.scan.at_large.saturating_add(1);
                return Ok(());
            }
            self.has_lost = false;
            for &pid in &bite.pids {
                self.visit(pid)?;
            }
            bite.is_stale = self.has_lost;
        }
        Ok(())
    }

    /// What its last scan saw.
    pub(super) fn scan(&self) -> &Scan {
        &self.scan
    }

    /// What it holds.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Lets go of all that it has not killed: what is stopped is continued.
    pub(super) fn release(&mut self) {
        let (over, alive) = self.held.release();
        self.count_over(over);
        self.report.released = self.report.released.saturating_add(alive);
    }

    /// What it has done, and which processes have not exited.
    pub(super) fn finish(self) -> Report {
        let Self { errand, mut held, mut report, .. } = self;
        let exited = held.await_exits(Duration::ZERO, errand.abort);
        report.exited = report.exited.saturating_add(exited);
        for pid in held.killed() {
            note(&mut report.stuck, &mut report.stuck_count, pid);
            let tracer = errand.proc_dir.tracer(pid).and_then(|pid| other(&errand.proc_dir, pid));
            append(&mut report.traced, tracer.map(|tracer| Traced { pid, tracer }));
        }
        report
    }

    /// Whether no more can be held until there is more room.
    fn is_full(&self) -> bool {
        self.held.descriptors() >= self.capacity
    }

    /// Makes room without ending any: keeps no files from now on. False where it had none.
    pub(super) fn spare_files(&mut self) -> bool {
        self.keeps_files = false;
        self.held.close_files()
    }

    /// Looks at one pid of a scan, and stops and holds its process if it is of the storm.
    fn visit(&mut self, pid: i32) -> Result<(), Halt> {
        if self.errand.is_aborted() {
            return Err(Halt::Aborted);
        }
        // The owner comes first because it is cheap: most processes are not the user's. But those
        // of a storm come in runs, so that in one the pin tells soon enough.
        if !self.in_a_run {
            let owner = self.errand.proc_dir.owner(pid);
            if owner != Some(self.errand.target.uid) {
                self.has_lost |= owner.is_none();
                return Ok(());
            }
        }
        if self.is_full() && self.errand.may_signal() && !self.spare_files() {
            self.make_room()?;
        }
        let mut taken = self.take(pid);
        if matches!(taken, Err(Halt::Starved(_))) && self.spare_files() {
            taken = self.take(pid);
        }
        if matches!(taken, Err(Halt::Starved(_))) && !self.held.is_empty() {
            self.make_room()?;
            taken = self.take(pid);
        }
        taken
    }

    /// Stops and holds a process if it is of the storm.
    fn take(&mut self, pid: i32) -> Result<(), Halt> {
        // A process that exited, and not by our signal, may have left a child.
        if self.try_take(pid)? == Taken::Gone && !self.errand.ended().contains_key(&pid) {
            self.scan.slipped = self.scan.slipped.saturating_add(1);
            self.has_lost = true;
        }
        Ok(())
    }

    /// Pins first, checks after, signals through the pin.
    fn try_take(&mut self, pid: i32) -> Result<Taken, Halt> {
        let Some(pin) = Pin::open(pid)? else { return Ok(Taken::Gone) };
        let Errand { target, bounds, proc_dir, untouchables, .. } = self.errand;
        let (sight, file) = look_and_keep(proc_dir, &pin, target, untouchables)?;
        self.in_a_run = false;
        let (stat, is_dead) = match sight {
            Sight::Process(Standing::Living, stat) => (stat, false),
            Sight::Process(Standing::Zombie, stat) => (stat, true),
            Sight::Process(Standing::Untouchable | Standing::Other, _) => return Ok(Taken::Seen),
            Sight::Gone => return Ok(Taken::Gone),
            Sight::Hidden => return Err(Halt::Blind),
        };
        if !bounds.nested_namespaces {
            match pin.is_nested(&mut self.view)? {
                Some(false) => {}
                Some(true) if below(proc_dir, pid, target.uid) == Realm::Own => {}
                Some(true) => {
                    self.scan.nested = self.scan.nested.saturating_add(u64::from(!is_dead));
                    return Ok(Taken::Seen);
                }
                None => return Ok(Taken::Gone),
            }
        }
        if is_dead {
            let is_news = self.errand.ended().insert(pid, stat.start_time) != Some(stat.start_time);
            self.scan.newly_dead = self.scan.newly_dead.saturating_add(u64::from(is_news));
            self.has_lost |= is_news;
            let zombie = Zombie { pid, parent: stat.parent };
            note(&mut self.scan.zombies, &mut self.scan.zombie_count, zombie);
            return Ok(Taken::Seen);
        }
        let identity = (pid, stat.start_time);
        if self.errand.asks() && self.errand.let_go().get(&identity) == Some(&Why::Asked) {
            return Ok(Taken::Seen);
        }
        if self.is_full() || !self.errand.may_signal() || !self.errand.reserve() {
            self.scan.at_large = self.scan.at_large.saturating_add(1);
            return Ok(Taken::Seen);
        }
        let keeps_file = self.keeps_files && self.held.files() < FILES_MAX;
        self.in_a_run = self.stop(pin, file.filter(|_| keeps_file), &stat);
        if !self.in_a_run {
            self.errand.release();
        }
        Ok(Taken::Seen)
    }

    /// Returns whether it is held now.
    fn stop(&mut self, pin: Pin, file: Option<StatFile>, stat: &Stat) -> bool {
        let identity = (stat.pid, stat.start_time);
        let found = match self.errand.let_go().get(&identity) {
            Some(Why::Asked) => Found::Asked,
            Some(Why::Changed | Why::Denied) | None if stat.is_stopped() => Found::Stopped,
            Some(Why::Changed | Why::Denied) | None => Found::Running,
        };
        match self.held.stop(pin, file, found) {
            Delivery::Sent => {
                self.errand.let_go().remove(&identity);
                let known = self.errand.ended().insert(stat.pid, stat.start_time);
                self.scan.held = self.scan.held.saturating_add(1);
                // A process that was let go and is met again counts once.
                if known != Some(stat.start_time) {
                    self.report.matched = self.report.matched.saturating_add(1);
                    if self.errand.rounds() > 0 {
                        self.note_replacement(stat);
                    }
                }
                return true;
            }
            Delivery::Gone => {
                self.has_lost = true;
                self.scan.newly_dead = self.scan.newly_dead.saturating_add(1);
            }
            Delivery::Denied => self.scan.denied = self.scan.denied.saturating_add(1),
        }
        false
    }

    fn note_replacement(&mut self, stat: &Stat) {
        let replacement = Replacement::of(&self.errand.proc_dir, stat);
        note(&mut self.report.replacements, &mut self.report.replacement_count, replacement);
    }

    /// Makes room for others by ending what it holds, as far as that is the time for it.
    pub(super) fn make_room(&mut self) -> Result<(), Halt> {
        let done = if self.errand.asks() { self.ask_and_let_go() } else { self.kill_held() };
        self.held.close_spent();
        done
    }

    fn ask_and_let_go(&mut self) -> Result<(), Halt> {
        self.ask_held()?;
        // Those that go at once are counted; the others have their time all the same, unheld.
        let until = Instant::now() + HELD_FOR.min(self.errand.bounds.grace);
        self.await_asked(until);
        self.errand.lets_go_of(&self.held.forget_asked(), Why::Asked);
        Ok(())
    }

    /// Sends SIGTERM to all that it holds.
    pub(super) fn ask_held(&mut self) -> Result<(), Halt> {
        let errand = self.errand;
        let is_over = || errand.is_aborted() || errand.is_overdue();
        let recheck = |pin: &Pin, file: Option<&StatFile>| recheck(errand, pin, file);
        let kills = self.held.ask(is_over, || !errand.is_late(), recheck);
        let count = self.account_for(&kills);
        self.report.asked = self.report.asked.saturating_add(count);
        errand.asked().extend(&kills.signalled);
        append(&mut self.report.pids, kills.signalled);
        if errand.is_aborted() { Err(Halt::Aborted) } else { Ok(()) }
    }

    /// Waits until then for those that it has asked to exit.
    pub(super) fn await_asked(&mut self, until: Instant) {
        let errand = self.errand;
        let exited = self.held.await_asked(until, || errand.is_aborted());
        self.report.terminated = self.report.terminated.saturating_add(exited);
    }

    /// Stops those that it has asked and that have not exited.
    pub(super) fn stop_asked(&mut self) -> Result<(), Halt> {
        let (over, denied) = self.held.stop_asked();
        self.count_over(over);
        self.count_denied(&denied);
        if self.errand.is_aborted() { Err(Halt::Aborted) } else { Ok(()) }
    }

    /// Kills all that it holds, and waits for them to exit.
    pub(super) fn kill_held(&mut self) -> Result<(), Halt> {
        let errand = self.errand;
        let is_over = || errand.is_aborted() || errand.is_overdue();
        let recheck = |pin: &Pin, file: Option<&StatFile>| recheck(errand, pin, file);
        let kills = self.held.kill(is_over, || !errand.is_late(), recheck);
        let count = self.account_for(&kills);
        self.scan.killed = self.scan.killed.saturating_add(count);
        self.report.signalled = self.report.signalled.saturating_add(count);
        let asked = errand.asked();
        let others = kills.signalled.into_iter().filter(|pid| !asked.contains(pid));
        append(&mut self.report.pids, others);
        drop(asked);
        if errand.is_aborted() {
            return Err(Halt::Aborted);
        }
        self.await_exits();
        Ok(())
    }

    /// Notes what came of signalling all that are held. Returns how many were signalled.
    fn account_for(&mut self, kills: &Kills) -> u64 {
        self.count_over(kills.over);
        self.count_denied(&kills.denied);
        self.errand.lets_go_of(&kills.changed, Why::Changed);
        count(&kills.signalled)
    }

    fn count_over(&mut self, over: Over) {
        self.report.gone = self.report.gone.saturating_add(over.gone);
        self.report.terminated = self.report.terminated.saturating_add(over.terminated);
    }

    fn count_denied(&mut self, pids: &[i32]) {
        self.scan.denied = self.scan.denied.saturating_add(count(pids));
        self.errand.lets_go_of(pids, Why::Denied);
    }

    /// Waits for those that have been sent SIGKILL to exit.
    pub(super) fn await_exits(&mut self) {
        let wait = self.errand.bounds.poll.min(self.errand.time_left());
        let exited = self.held.await_exits(wait, self.errand.abort);
        self.report.exited = self.report.exited.saturating_add(exited);
    }
}

/// Whether a process that is held stopped is still one of the storm.
fn recheck(errand: &Errand<'_>, pin: &Pin, file: Option<&StatFile>) -> Recheck {
    let Errand { target, proc_dir, untouchables, .. } = errand;
    match again(proc_dir, pin, file, target, untouchables) {
        Ok(Sight::Process(Standing::Zombie, _)) => Recheck::Dead,
        Ok(Sight::Process(Standing::Other | Standing::Untouchable, _)) => Recheck::Changed,
        Ok(Sight::Process(Standing::Living, stat)) if stat.is_running() => Recheck::Running,
        Ok(Sight::Process(Standing::Living, stat)) if stat.is_asleep() => Recheck::Asleep,
        // What is gone or cannot be read is what it was when it was stopped.
        Ok(Sight::Process(Standing::Living, _) | Sight::Gone | Sight::Hidden) | Err(_) => {
            Recheck::Same
        }
    }
}

impl Replacement {
    /// The process of the storm, and its parent as it is now.
    pub(super) fn of(dir: &ProcDir, stat: &Stat) -> Self {
        let parent = other(dir, stat.parent);
        Self {
            pid: stat.pid,
            parent: stat.parent,
            parent_uid: parent.as_ref().map(|parent| parent.uid),
            parent_command: parent.map(|parent| parent.command).unwrap_or_default(),
        }
    }
}

/// What a process is that is not of the storm; `None` if it has gone.
pub(super) fn other(dir: &ProcDir, pid: i32) -> Option<Other> {
    let (uid, stat) = dir.owned_stat(pid).ok().flatten()?;
    Some(Other { pid, command: stat.command.to_text().into_owned(), uid })
}
