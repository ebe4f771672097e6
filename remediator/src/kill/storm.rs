//! The rounds: stop all, kill all, wait, and look again until none is seen.
//!
//! In each round everything of the storm is stopped first, again and again until a scan finds
//! nothing new; then all of it is killed at once. Processes that watch each other so have no
//! moment in which to replace a dead one, and a storm that forks on runs into its user's limit of
//! processes, for those that are stopped still count.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procstorm_exporter::proc_dir::ProcDir;
use procstorm_exporter::process::Stat;
use procstorm_exporter::sight::blindness;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::guard::{Caller, Standing, Untouchables, refusal};
use super::held::{Held, Recheck};
use super::pin::{Delivery, Pin, pause};
use super::report::{Aftermath, Replacement, Report, Verdict, Zombie, judge, note};
use super::sweep::{Sight, look, walk};
use super::target::{Bounds, Target};

/// How many scans a round makes to stop all; a storm that still grows then is killed as far as
/// it is held.
const FREEZE_SCANS: u32 = 16;

/// How many scans that saw nobody alive, but somebody dying, are not taken for empty. A chain of
/// processes that each fork an heir and exit can slip past a scan, but not without a trace. Bounded,
/// since a user may well have other processes that come and go.
const UNSETTLED_SCANS: u32 = 50;

/// Descriptors left to the rest of the daemon, where the limit is large enough.
const SPARE_DESCRIPTORS: u64 = 256;

/// A process is sent SIGSTOP and SIGKILL.
const SIGNALS_EACH: u64 = 2;

/// Ends the processes of `target`, and proves it. Blocks for `bounds.deadline` and a little more
/// at most, so call it on a thread for blocking work. Setting `abort` ends it soon: whatever is
/// stopped and not killed goes on. Raises the process's soft limit of descriptors to the hard
/// one, since each process that is held takes one; where that is too few, it works in batches.
///
/// `procfs` must be the /proc of the caller's own pid namespace, else it is refused.
pub fn end_storm(procfs: &Path, target: &Target, bounds: &Bounds, abort: &AtomicBool) -> Report {
    let started = Instant::now();
    match Storm::begin(procfs, target, bounds, abort, started) {
        Ok(mut storm) => {
            let end = storm.run();
            storm.report(end)
        }
        Err(verdict) => Report::idle(verdict, started.elapsed()),
    }
}

/// Why a scan or the whole ended early.
#[derive(Debug)]
enum Halt {
    /// The caller wants it.
    Aborted,
    /// A process of the user hides its name from us.
    Blind,
    /// There is no descriptor left for a single process.
    Starved(io::Error),
    /// /proc is broken.
    Read(io::Error),
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

/// What one scan saw.
#[derive(Clone, Debug, Default)]
struct Scan {
    /// Newly stopped and held.
    held: u64,
    /// Alive, and not held because no more signals may be sent.
    at_large: u64,
    denied: u64,
    nested: u64,
    zombies: Vec<Zombie>,
    zombie_count: u64,
    /// Of the storm, and died since the scan before.
    newly_dead: u64,
    /// The user's, and gone before their names were seen.
    slipped: u64,
}

impl Scan {
    /// Whether somebody has just gone who may have left an heir.
    fn is_unsettled(&self) -> bool {
        self.newly_dead > 0 || self.slipped > 0
    }

    fn saw_none_alive(&self) -> bool {
        self.held == 0 && self.at_large == 0 && self.denied == 0
    }
}

/// A storm being ended.
struct Storm<'a> {
    proc_dir: ProcDir,
    crew: Crew<'a>,
}

/// All of it but the directory, whose walk borrows it.
struct Crew<'a> {
    target: &'a Target,
    bounds: &'a Bounds,
    abort: &'a AtomicBool,
    started: Instant,
    untouchables: Untouchables,
    capacity: usize,
    held: Held,
    signals: u64,
    scan: Scan,
    /// The storm's dead of this scan, and of the one before.
    dead: HashSet<i32>,
    dead_before: HashSet<i32>,
    /// Whom we have killed: that they go is no news.
    killed: HashSet<i32>,
    report: Report,
}

impl<'a> Storm<'a> {
    /// Everything that must be right before the first signal.
    fn begin(
        procfs: &Path,
        target: &'a Target,
        bounds: &'a Bounds,
        abort: &'a AtomicBool,
        started: Instant,
    ) -> Result<Self, Verdict> {
        let failed = |error: io::Error| Verdict::Failed(format!("{}: {error}", procfs.display()));
        let proc_dir = ProcDir::open(procfs).map_err(failed)?;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if proc_dir.own_pid() != Some(own) {
            return Err(Verdict::Refused(format!(
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
            return Err(Verdict::Refused(refusal.to_string()));
        }
        if blindness(&proc_dir).is_some() {
            return Err(Verdict::Blind);
        }
        let untouchables = Untouchables::of(&proc_dir, own);
        let capacity = capacity(&proc_dir);
        let crew = Crew {
            target,
            bounds,
            abort,
            started,
            untouchables,
            capacity,
            held: Held::default(),
            signals: 0,
            scan: Scan::default(),
            dead: HashSet::new(),
            dead_before: HashSet::new(),
            killed: HashSet::new(),
            report: Report::idle(Verdict::Unfinished, Duration::ZERO),
        };
        Ok(Self { proc_dir, crew })
    }

    /// Rounds and confirming scans, until enough scans saw none (returns for how long), or no
    /// more can be done (returns `None`). It ends: a round counts towards its bound, an empty
    /// scan towards the confirmations, one that is not quite empty towards a bound of its own,
    /// and all else waits for the deadline.
    fn run(&mut self) -> Result<Option<Duration>, Halt> {
        let mut quiet_scans: u32 = 0;
        let mut unsettled_scans: u32 = 0;
        let mut quiet_since = Instant::now();
        loop {
            let begun = Instant::now();
            self.stop_all()?;
            let crew = &mut self.crew;
            if crew.held.any_unkilled() {
                quiet_scans = 0;
                crew.report.rounds = crew.report.rounds.saturating_add(1);
                crew.kill_held(&self.proc_dir)?;
            } else if crew.held.is_empty() && crew.scan.saw_none_alive() {
                let may_chase = unsettled_scans < UNSETTLED_SCANS && crew.may_signal();
                if crew.scan.is_unsettled() && may_chase {
                    // Looked for again at once: whoever forks and exits is fast.
                    unsettled_scans = unsettled_scans.saturating_add(1);
                    quiet_scans = 0;
                    continue;
                }
                if quiet_scans == 0 {
                    quiet_since = begun;
                }
                quiet_scans = quiet_scans.saturating_add(1);
                if quiet_scans >= crew.bounds.confirmations {
                    return Ok(Some(quiet_since.elapsed()));
                }
                pause(crew.bounds.confirm_pause);
            } else {
                quiet_scans = 0;
                let only_denied = crew.held.is_empty() && crew.scan.at_large == 0;
                // Whoever was killed may take a moment to go, whether or not more may be.
                let is_waited_for = !crew.held.is_empty() && !crew.is_late();
                if only_denied || !(crew.may_signal() || is_waited_for) {
                    return Ok(None);
                }
                crew.await_exits();
            }
        }
    }

    /// Scans, and stops and holds what it finds, until a scan finds nothing new.
    fn stop_all(&mut self) -> Result<(), Halt> {
        for _ in 0..FREEZE_SCANS {
            let crew = &mut self.crew;
            crew.begin_scan();
            walk(&mut self.proc_dir, |dir, pid| crew.visit(dir, pid))?;
            if self.crew.scan.held == 0 {
                break;
            }
        }
        Ok(())
    }

    fn report(self, end: Result<Option<Duration>, Halt>) -> Report {
        let Crew { held, scan, mut report, started, .. } = self.crew;
        for pid in held.killed() {
            note(&mut report.stuck, &mut report.stuck_count, pid);
        }
        report.left = scan.at_large.saturating_add(scan.denied).saturating_add(report.stuck_count);
        report.denied = scan.denied;
        report.nested = scan.nested;
        report.zombies = scan.zombies;
        report.zombie_count = scan.zombie_count;
        report.verdict = match end {
            Ok(quiet) => judge(Aftermath {
                quiet,
                any: report.matched > 0,
                replaced: report.replacement_count > 0,
                at_large: scan.at_large > 0,
                denied: scan.denied > 0,
                stuck: report.stuck_count > 0,
            }),
            Err(Halt::Aborted) => Verdict::Aborted,
            Err(Halt::Blind) => Verdict::Blind,
            Err(Halt::Starved(error)) => {
                Verdict::Failed(format!("no process can be pinned: {error}"))
            }
            Err(Halt::Read(error)) => Verdict::Failed(format!("/proc cannot be read: {error}")),
        };
        drop(held); // Whoever is stopped and not killed goes on before anybody hears of it.
        report.elapsed = started.elapsed();
        report
    }
}

impl Crew<'_> {
    fn begin_scan(&mut self) {
        self.scan = Scan::default();
        self.dead_before = mem::take(&mut self.dead);
    }

    fn is_late(&self) -> bool {
        self.started.elapsed() >= self.bounds.deadline
    }

    /// Whether another process may be taken on.
    fn may_signal(&self) -> bool {
        !self.is_late()
            && self.report.rounds < self.bounds.rounds
            && self.signals.saturating_add(SIGNALS_EACH) <= self.bounds.signals
    }

    /// Whether no more can be held until some of the held have exited.
    fn is_full(&self) -> bool {
        self.held.len() >= self.capacity
    }

    /// Looks at one pid of a scan, and stops and holds its process if it is of the storm.
    fn visit(&mut self, dir: &ProcDir, pid: i32) -> Result<(), Halt> {
        if self.abort.load(Ordering::Relaxed) {
            return Err(Halt::Aborted);
        }
        // The owner comes first because it is cheap: most processes are not the user's.
        if dir.owner(pid) != Some(self.target.uid) || self.held.holds(pid) {
            return Ok(());
        }
        if self.is_full() && self.may_signal() {
            self.kill_held(dir)?;
        }
        match self.take(dir, pid) {
            Err(Halt::Starved(_)) if !self.held.is_empty() => {
                self.kill_held(dir)?;
                self.take(dir, pid)
            }
            taken => taken,
        }
    }

    /// Pins first, checks after, signals through the pin.
    fn take(&mut self, dir: &ProcDir, pid: i32) -> Result<(), Halt> {
        let Some(pin) = Pin::open(pid)? else { return self.slip(pid) };
        let stat = match look(dir, pid, self.target, &self.untouchables)? {
            Sight::Process(Standing::Living, stat) => stat,
            Sight::Process(Standing::Zombie, stat) => {
                self.dead.insert(pid);
                if !self.dead_before.contains(&pid) && !self.killed.contains(&pid) {
                    self.scan.newly_dead = self.scan.newly_dead.saturating_add(1);
                }
                let zombie = Zombie { pid, parent: stat.parent };
                note(&mut self.scan.zombies, &mut self.scan.zombie_count, zombie);
                return Ok(());
            }
            Sight::Process(Standing::Untouchable | Standing::Other, _) => return Ok(()),
            Sight::Gone => return self.slip(pid),
            Sight::Hidden => return Err(Halt::Blind),
        };
        if !self.bounds.nested_namespaces {
            match pin.is_nested(dir)? {
                Some(false) => {}
                Some(true) => {
                    self.scan.nested = self.scan.nested.saturating_add(1);
                    return Ok(());
                }
                None => return self.slip(pid),
            }
        }
        if self.is_full() || !self.may_signal() {
            self.scan.at_large = self.scan.at_large.saturating_add(1);
            return Ok(());
        }
        self.stop(dir, pin, &stat);
        Ok(())
    }

    /// It went while it was looked at.
    fn slip(&mut self, pid: i32) -> Result<(), Halt> {
        let is_news = !self.killed.contains(&pid);
        self.scan.slipped = self.scan.slipped.saturating_add(u64::from(is_news));
        Ok(())
    }

    fn stop(&mut self, dir: &ProcDir, pin: Pin, stat: &Stat) {
        match self.held.stop(pin, stat.is_stopped()) {
            Delivery::Sent => {
                self.signals = self.signals.saturating_add(SIGNALS_EACH);
                self.scan.held = self.scan.held.saturating_add(1);
                self.report.matched = self.report.matched.saturating_add(1);
                if self.report.rounds > 0 {
                    self.note_replacement(dir, stat);
                }
            }
            Delivery::Gone => {}
            Delivery::Denied => self.scan.denied = self.scan.denied.saturating_add(1),
        }
    }

    fn note_replacement(&mut self, dir: &ProcDir, stat: &Stat) {
        let parent = dir.stat(stat.parent).ok().flatten();
        let command = parent.map(|parent| parent.command.to_text().into_owned());
        let replacement = Replacement {
            pid: stat.pid,
            parent: stat.parent,
            parent_command: command.unwrap_or_default(),
        };
        note(&mut self.report.replacements, &mut self.report.replacement_count, replacement);
    }

    /// Kills all that are held, and waits for them to exit.
    fn kill_held(&mut self, dir: &ProcDir) -> Result<(), Halt> {
        let (target, untouchables) = (self.target, &self.untouchables);
        let kills = self.held.kill(self.abort, |pid| {
            match look(dir, pid, target, untouchables) {
                Ok(Sight::Process(Standing::Other | Standing::Untouchable, _)) => Recheck::Changed,
                Ok(Sight::Process(Standing::Living, stat)) if stat.may_act() => {
                    Recheck::NotYetStopped
                }
                // What is gone or cannot be read is what it was when it was stopped.
                Ok(Sight::Process(Standing::Living | Standing::Zombie, _))
                | Ok(Sight::Gone | Sight::Hidden)
                | Err(_) => Recheck::Same,
            }
        });
        self.report.changed = self.report.changed.saturating_add(kills.changed);
        self.scan.denied = self.scan.denied.saturating_add(kills.denied);
        for pid in kills.killed {
            self.killed.insert(pid);
            note(&mut self.report.pids, &mut self.report.signalled, pid);
        }
        if self.abort.load(Ordering::Relaxed) {
            return Err(Halt::Aborted);
        }
        self.await_exits();
        Ok(())
    }

    fn await_exits(&mut self) {
        let exited = self.held.await_exits(self.bounds.poll, self.abort);
        self.report.exited = self.report.exited.saturating_add(exited);
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
