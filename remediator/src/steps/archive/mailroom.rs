//! Everything that touches the mail file systems: on threads of its own, which may be lost.
//!
//! A file system that hangs (a dead NFS server, a frozen disk) blocks each thread that touches it,
//! without a bound. So only a worker thread touches one, and no caller waits for that thread longer
//! than until its [`Pulse`] is overdue. Then the thread is lost until its call returns: it is
//! counted, and shown. Meanwhile, all other work on the same file systems fails at once, until a
//! lost thread returns or a further try succeeds; and storms are ended, as the playbook's
//! `on_archive_failure` says.
//!
//! The threads exist from the start. They are replaced only when a try shows that the file systems
//! answer, while earlier calls still do not return: as after `umount -l` of a dead server, when the
//! calls into it may never return, and what is mounted now is another.
//!
//! - [`Mailroom`]: archives, plans, prunes, and says what is in the way.
//! - [`Trouble`]: why it was not even tried, or not to the end.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::workers::Workers;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::spool::others;
use super::{Archiver, Dotlock, FormPlan, FormReport, OpenError, Pulse, Settings, left_dotlock};
use crate::account::Account;

/// How often a pulse is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long after the order to stop a thread that does not answer is waited for.
const ABORT_WAIT: Duration = Duration::from_secs(3);

/// How long after a try that does not answer another may be made.
const PROBE_AGAIN: Duration = Duration::from_secs(30);

/// So many tries may be lost before they become rare. They have threads of their own.
const PROBES_LOST_MAX: usize = 3;

/// The longest time between two tries, of which each costs a thread until it returns.
const PROBE_RARELY: Duration = Duration::from_secs(3600);

/// The most tries that may be lost in all.
const PROBES_EVER_MAX: usize = 64;

/// How many threads there are beside one for each remediation that may act.
const SPARE_THREADS: usize = 4;

/// The most threads, whatever the policy's `parallel`.
const THREADS_MAX: usize = 64;

/// Why nothing came of a piece of work.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Spool or archive cannot be opened.
    #[error(transparent)]
    Unusable(#[from] OpenError),
    /// The archive directory is missing, and it is not ours to make it now.
    #[error("{} does not exist yet", .0.display())]
    NoArchive(PathBuf),
    /// A call does not return.
    #[error(
        "{} or {} does not answer ({what} has waited for {} s)",
        .spool.display(), .archive.display(), .waited.as_secs()
    )]
    Silent {
        /// The spool.
        spool: PathBuf,
        /// The archive directory.
        archive: PathBuf,
        /// What waits for it.
        what: String,
        /// Since when.
        waited: Duration,
    },
    /// The daemon stops.
    #[error("aborted, because the daemon stops")]
    CalledOff,
    /// A fault in the program.
    #[error("the archive step panicked")]
    Panicked,
}

impl Trouble {
    /// A word for metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unusable(_) | Self::NoArchive(_) => "archive_unusable",
            Self::Silent { .. } => "no_answer",
            Self::CalledOff => "aborted",
            Self::Panicked => "panic",
        }
    }
}

/// The spool and its archive, and the threads that touch them. Clones share threads and knowledge.
#[derive(Clone, Debug)]
pub struct Mailroom {
    settings: Settings,
    crew: Arc<Crew>,
    desk: Arc<Mutex<Desk>>,
}

/// The threads that do the work.
#[derive(Debug)]
struct Crew {
    size: usize,
    /// Replaced when they are lost and the file systems answer again.
    hands: Mutex<Workers>,
    /// Likewise.
    scouts: Mutex<Workers>,
}

impl Crew {
    fn of(size: usize) -> Self {
        let hands = Mutex::new(Workers::start("mail", size));
        let scouts = Mutex::new(Workers::start("mail-try", PROBES_LOST_MAX));
        Self { size, hands, scouts }
    }

    fn hands(&self) -> Workers {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn scouts(&self) -> Workers {
        self.scouts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New threads for all. The lost ones end when they return.
    fn replace(&self) {
        let Self { hands, scouts, .. } = Self::of(self.size);
        for (old, new) in [(&self.hands, hands), (&self.scouts, scouts)] {
            let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Where none can be had now, some of the old may still be free.
            if new.check().is_err() {
                continue;
            }
            *old.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

/// What is under way.
#[derive(Debug, Default)]
struct Desk {
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// Jobs before this one say nothing any more of whether the file systems answer.
    outdated: u64,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Job {
    what: String,
    pulse: Pulse,
    /// Whether it has a thread, or waits for one.
    has_thread: bool,
    is_probe: bool,
}

/// The last try, which all who ask meanwhile share.
#[derive(Clone, Debug)]
struct Probe {
    begun: Instant,
    result: watch::Receiver<Option<Option<String>>>,
}

impl Mailroom {
    /// A room for these settings, with threads for `parallel` remediations at once.
    #[must_use]
    pub fn new(settings: Settings, parallel: u32) -> Self {
        let parallel = usize::try_from(parallel).unwrap_or(THREADS_MAX);
        let threads = parallel.saturating_add(SPARE_THREADS).min(THREADS_MAX);
        Self { settings, crew: Arc::new(Crew::of(threads)), desk: Arc::default() }
    }

    /// The room after a reload: the same threads; and the same knowledge, if it is about the same
    /// directories.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        let places = |settings: &Settings| (settings.spool.clone(), settings.archive.clone());
        let same = places(&settings) == places(&self.settings);
        let desk = if same { Arc::clone(&self.desk) } else { Arc::default() };
        Self { settings, crew: Arc::clone(&self.crew), desk }
    }

    /// [`Archiver::archive`], unless the file systems do not answer.
    pub async fn archive(
        &self,
        account: Account,
        abort: Arc<AtomicBool>,
    ) -> Result<Vec<FormReport>, Trouble> {
        let what = format!("the archive of {}", account.name);
        let (settings, told) = (self.settings.clone(), Arc::clone(&abort));
        let work = move |pulse: Pulse| {
            let archiver = Archiver::open(settings)?.with_pulse(pulse);
            Ok(archiver.archive(&account.name, account.uid, epoch_seconds(), &told))
        };
        self.run(what, &abort, work).await?
    }

    /// [`Archiver::plan`], unless the file systems do not answer.
    pub async fn plan(
        &self,
        account: Account,
        abort: &AtomicBool,
    ) -> Result<Vec<FormPlan>, Trouble> {
        let what = format!("the look at the mail file of {}", account.name);
        let settings = self.settings.clone();
        let work = move |pulse: Pulse| {
            let archiver = Archiver::open(settings)?.with_pulse(pulse);
            Ok(archiver.plan(&account.name, account.uid, epoch_seconds()))
        };
        self.run(what, abort, work).await?
    }

    /// Names in the spool that belong to the account's uid and not to its name: the mail of others
    /// behind the same uid, a few of them. Unless the file systems do not answer.
    pub async fn others(
        &self,
        account: Account,
        abort: &AtomicBool,
    ) -> Result<Vec<String>, Trouble> {
        let (what, work) = self.look_for_others(account);
        self.run(what, abort, work).await?
    }

    /// The same for a program that waits.
    pub fn others_and_wait(&self, account: Account) -> Result<Vec<String>, Trouble> {
        let (what, work) = self.look_for_others(account);
        self.wait(what, work)
    }

    /// It needs the spool alone, so that it finds others whatever is wrong with the archive.
    fn look_for_others(
        &self,
        account: Account,
    ) -> (String, impl FnOnce(Pulse) -> Result<Vec<String>, Trouble> + Send + use<>) {
        let what = format!("the look for others' mail behind the uid of {}", account.name);
        let spool = self.settings.spool.clone();
        let work = move |pulse: Pulse| Ok(others(&spool, &account, &pulse)?);
        (what, work)
    }

    /// The lock file that mail programs of the account have left in the spool, if one is there,
    /// unless the file systems do not answer. `procfs` says which processes run.
    pub async fn left_dotlock(
        &self,
        account: Account,
        procfs: PathBuf,
        abort: &AtomicBool,
    ) -> Result<Option<Dotlock>, Trouble> {
        let what = format!("the look for a lock on the mail file of {}", account.name);
        let spool = self.settings.spool.clone();
        let work = move |pulse: Pulse| Ok(left_dotlock(&spool, &account, &procfs, &pulse)?);
        self.run(what, abort, work).await?
    }

    /// [`Self::plan`] for a program that waits, and that makes no archive directory.
    pub fn plan_and_wait(&self, account: Account) -> Result<Vec<FormPlan>, Trouble> {
        let what = format!("the look at the mail file of {}", account.name);
        let settings = self.settings.clone();
        let work = move |pulse: Pulse| {
            if !Archiver::is_made(&settings) {
                return Err(Trouble::NoArchive(settings.archive));
            }
            let archiver = Archiver::open(settings)?.with_pulse(pulse);
            Ok(archiver.plan(&account.name, account.uid, epoch_seconds()))
        };
        self.wait(what, work)
    }

    /// Has `work` done on a thread that may be lost, and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce(Pulse) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (answer, answered) = mpsc::channel();
        let hands = self.crew.hands();
        let pulse = self.begin(&hands, what.clone(), false, work, move |result| {
            answer.send(result).unwrap_or_default();
        });
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Trouble::Panicked),
                Err(mpsc::RecvTimeoutError::Timeout) if pulse.is_lost() => {
                    return Err(self.silent(&what, &pulse));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// [`Archiver::prune_all`], unless the file systems do not answer. What could not be removed is
    /// in the log.
    pub async fn prune(&self) {
        let settings = self.settings.clone();
        let work = move |pulse: Pulse| {
            let archiver = Archiver::open(settings)?.with_pulse(pulse);
            Ok::<_, Trouble>(archiver.prune_all(epoch_seconds()))
        };
        let never = AtomicBool::new(false);
        let pruned = self.run("the removal of old archives".to_owned(), &never, work).await;
        match pruned.flatten() {
            Ok(pruned) => {
                for failure in pruned.failed {
                    tracing::warn!(
                        error = %Chain(&failure),
                        "could not remove old archives"
                    );
                }
            }
            Err(trouble) => {
                tracing::warn!(
                    error = %Chain(&trouble),
                    "could not look for old archives"
                );
            }
        }
    }

    /// What keeps mail files from being saved, in a sentence; tried as an archive would do it.
    /// Waits for `patience` at most.
    pub async fn obstacle(&self, patience: Duration) -> Option<String> {
        let probe = self.probe();
        if let Some(trouble) = self.hangs() {
            let lost = self.lost_threads();
            let threads =
                if lost == 1 { "1 thread waits" } else { &*format!("{lost} threads wait") };
            return Some(format!("{trouble}; {threads}"));
        }
        let silent = || {
            let Settings { spool, archive, .. } = &self.settings;
            let (spool, archive) = (spool.display(), archive.display());
            format!("{spool} or {archive} does not answer within {} s", patience.as_secs())
        };
        let Some(Probe { mut result, .. }) = probe else { return Some(silent()) };
        match timeout(patience, result.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => result.clone().flatten(),
            Ok(Err(_closed)) => Some("the mail directories could not be looked at".to_owned()),
            Err(_elapsed) => Some(silent()),
        }
    }

    /// How many threads wait in a call that takes longer than any should.
    #[must_use]
    pub fn lost_threads(&self) -> usize {
        let lost = |job: &&Job| job.has_thread && job.pulse.is_lost();
        self.desk().jobs.values().filter(lost).count()
    }

    /// Has `work` done by a thread of the room, and waits until it is done, or until it is lost.
    async fn run<T: Send + 'static>(
        &self,
        what: String,
        abort: &AtomicBool,
        work: impl FnOnce(Pulse) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        if let Some(trouble) = self.hangs() {
            // The next caller may find that it responds again.
            self.probe();
            return Err(trouble);
        }
        let (answer, mut answered) = oneshot::channel();
        let hands = self.crew.hands();
        let deliver = |result| drop(answer.send(result));
        let pulse = self.begin(&hands, what.clone(), false, work, deliver);
        let mut aborted: Option<Instant> = None;
        loop {
            match timeout(LOOK, &mut answered).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(_panicked)) => return Err(Trouble::Panicked),
                Err(_elapsed) if pulse.is_lost() => {
                    pulse.give_up();
                    let trouble = self.silent(&what, &pulse);
                    tracing::error!(
                        error = %Chain(&trouble), lost_threads = self.lost_threads(),
                        "a mail file system hangs; continuing without it until it answers"
                    );
                    return Err(trouble);
                }
                Err(_elapsed) if abort.load(Ordering::Relaxed) => {
                    if aborted.get_or_insert_with(Instant::now).elapsed() >= ABORT_WAIT {
                        pulse.give_up();
                        return Err(Trouble::CalledOff);
                    }
                }
                Err(_elapsed) => {}
            }
        }
    }

    /// Submits `work` to `workers`; `deliver` gets its result, unless it panics.
    fn begin<T>(
        &self,
        workers: &Workers,
        what: String,
        is_probe: bool,
        work: impl FnOnce(Pulse) -> T + Send + 'static,
        deliver: impl FnOnce(T) + Send + 'static,
    ) -> Pulse {
        let pulse = Pulse::default();
        let mut desk = self.desk();
        let id = desk.next;
        desk.next += 1;
        desk.jobs.insert(id, Job { what, pulse: pulse.clone(), has_thread: false, is_probe });
        drop(desk);
        let (desk, begun) = (Arc::clone(&self.desk), pulse.clone());
        workers.submit(move || {
            // The caller has stopped waiting for work that waited too long for a thread.
            if !begun.is_given_up() {
                lock(&desk).jobs.entry(id).and_modify(|job| job.has_thread = true);
                begun.beat();
                if let Ok(result) = catch_unwind(AssertUnwindSafe(|| work(begun.clone()))) {
                    deliver(result);
                }
            }
            lock(&desk).end(id);
        });
        pulse
    }

    /// Makes a try, unless one is under way or too many are lost. Returns the one that is under way.
    fn probe(&self) -> Option<Probe> {
        let mut desk = self.desk();
        if let Some(probe) = &desk.probe
            && probe.result.has_changed().is_ok()
            && probe.result.borrow().is_none()
            && probe.begun.elapsed() < PROBE_AGAIN
        {
            return Some(probe.clone());
        }
        let lost = |job: &&Job| job.is_probe && job.pulse.is_lost();
        let lost_ever = desk.jobs.values().filter(lost).count();
        // Those before say nothing of what is mounted now.
        let lost = desk.jobs.range(desk.outdated..).map(|(_, job)| job).filter(lost).count();
        let rare = pause_after(lost);
        if lost_ever >= PROBES_EVER_MAX
            || desk.probe.as_ref().is_some_and(|probe| probe.begun.elapsed() < rare)
        {
            return None;
        }
        let scouts = match lost {
            0..PROBES_LOST_MAX => self.crew.scouts(),
            _ => Workers::start("mail-try", 1),
        };
        let (say, result) = watch::channel(None);
        let probe = Probe { begun: Instant::now(), result };
        desk.probe = Some(probe.clone());
        let this = desk.next;
        drop(desk);
        let (settings, desk) = (self.settings.clone(), Arc::clone(&self.desk));
        let work = move |_pulse: Pulse| match Archiver::open(settings) {
            Ok(archiver) => archiver.probe().err().map(|failure| Chain(&failure).to_string()),
            Err(error) => Some(Chain(&error).to_string()),
        };
        let crew = Arc::clone(&self.crew);
        self.begin(&scouts, "a try".to_owned(), true, work, move |found| {
            // It answers, whatever it says: what hung before may be another file system by now.
            let mut desk = lock(&desk);
            let holds = |(_, job): (&u64, &Job)| job.has_thread && job.pulse.is_lost();
            if desk.jobs.range(desk.outdated..this).any(holds) {
                crew.replace();
            }
            desk.outdated = desk.outdated.max(this);
            drop(desk);
            say.send_replace(Some(found));
        });
        Some(probe)
    }

    /// Why nothing should be tried, if it is known that the file systems do not answer.
    fn hangs(&self) -> Option<Trouble> {
        let desk = self.desk();
        let (_, job) = desk.jobs.range(desk.outdated..).find(|(_, job)| job.pulse.is_lost())?;
        Some(self.silent(&job.what, &job.pulse))
    }

    fn silent(&self, what: &str, pulse: &Pulse) -> Trouble {
        let Settings { spool, archive, .. } = self.settings.clone();
        Trouble::Silent { spool, archive, what: what.to_owned(), waited: pulse.age() }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }
}

impl Desk {
    fn end(&mut self, id: u64) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.has_thread && job.pulse.is_lost() {
            let (what, seconds) = (job.what, job.pulse.age().as_secs());
            tracing::info!(what, seconds, "a mail file system responds again");
        }
    }
}

/// How long after a try that was lost the next one may be made.
fn pause_after(lost: usize) -> Duration {
    let beyond = u32::try_from(lost.saturating_sub(PROBES_LOST_MAX)).unwrap_or(u32::MAX);
    match lost {
        0..PROBES_LOST_MAX => Duration::ZERO,
        _ => PROBE_AGAIN.saturating_mul(2u32.saturating_pow(beyond)).min(PROBE_RARELY),
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn epoch_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::account::UserName;

    #[test]
    fn what_is_mounted_in_place_of_a_dead_server_is_used_though_every_thread_is_lost() {
        let root = tempfile::tempdir().expect("a directory");
        let (spool, archive) = (root.path().join("mail"), root.path().join("arc"));
        fs::create_dir(&spool).expect("a spool");
        let room = Mailroom::new(Settings { spool, archive, ..Settings::default() }, 1);
        let mut held = Vec::new();
        for (workers, count, is_probe) in [
            (room.crew.hands(), room.crew.size, false),
            (room.crew.scouts(), PROBES_LOST_MAX, true),
        ] {
            for _ in 0..count {
                let (release, hold) = channel::<()>();
                held.push(release);
                let (begin, begun) = channel::<()>();
                let work = move |_pulse: Pulse| {
                    begin.send(()).unwrap_or_default();
                    hold.recv().unwrap_or_default();
                };
                let call = "a call into it".to_owned();
                let pulse = room.begin(&workers, call, is_probe, work, drop);
                begun.recv_timeout(Duration::from_secs(60)).expect("a thread");
                pulse.give_up();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let account = Account { name: UserName::new("alice").expect("a name"), uid: 40_399 };
        let plan = || runtime.block_on(room.plan(account.clone(), &AtomicBool::new(false)));
        assert!(matches!(plan(), Err(Trouble::Silent { .. })), "known to hang");
        let obstacle = runtime.block_on(room.obstacle(Duration::from_secs(60)));
        let begun = Instant::now();
        while room.hangs().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{obstacle:?}");
            std::thread::yield_now();
        }
        assert!(plan().is_ok_and(|plans| plans.is_empty()), "it is used");
        drop(held);
    }

    #[test]
    fn tries_become_rare_and_never_end() {
        let seconds = |lost| pause_after(lost).as_secs();
        assert_eq!([0, 2, 3, 4, 5, 63].map(seconds), [0, 0, 30, 60, 120, 3600]);
    }
}
