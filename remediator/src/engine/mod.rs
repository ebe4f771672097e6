//! Takes what was accepted, and sees it through.
//!
//! Each remediation is pursued by a task of its own, step by step from one state in the journal to
//! the next, so that a restart resumes wherever the journal stands. The journal is also read every
//! few seconds: what it calls unfinished and no task pursues is taken up, whatever became of the task.
//!
//! - [`Engine`]: the handle; [`Engine::submit`] begins, [`Engine::finish`] ends in order.
//! - `pursuit`: a remediation's way: judge, act, watch, again.
//! - `facts`: what is true here and now: who the user is, how many live, is it silenced.
//! - `steps`: what a plan does: save the mail, kill the processes; or say what would be done.
//! - [`StepDetail`]: what a step did, as the journal keeps it.
//! - `claims`: one task for each remediation.
//! - `lanes`: one at a time for one user and command.

mod claims;
mod detail;
mod facts;
mod lanes;
mod pursuit;
mod steps;

pub(crate) use detail::recorded_archives;
pub use detail::{StepDetail, Unreadable};
pub(crate) use facts::look_up;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use procstorm_processes::name_service::NameService;
use procstorm_toolkit::workers::Workers;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::account::protection::Protection;
use crate::active::{Force, InForce, RETRY};
use crate::journal::{Fault, Journal};
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::steps::kill::Bounds;
use claims::Claims;
use lanes::Lanes;

/// How often the journal is read for what nobody pursues: after a panic, it is taken up again.
const LOOK: Duration = Duration::from_secs(10);

/// So many names are asked for at once.
const ASKERS: usize = 4;

/// So many look for a storm's return while as many act as may.
const LOOKERS: usize = 2;

/// The most threads that act, whatever the policy's `parallel`.
const HANDS_MAX: usize = 64;

/// What an engine works with.
#[derive(Debug)]
pub struct Parts {
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// The uid that the daemon runs as.
    pub own_uid: u32,
    /// How far a kill goes.
    pub bounds: Bounds,
    /// The policy.
    pub force: InForce,
    /// The record.
    pub journal: Journal,
    /// Counters.
    pub metrics: Metrics,
    /// Who wants to know of new letters.
    pub letters: Arc<Notify>,
    /// Whether "not found" can be relied upon.
    pub reach: Reach,
}

/// The handle of the engine; clones are of the same.
#[derive(Clone, Debug)]
pub struct Engine {
    begin: mpsc::UnboundedSender<i64>,
    stop: watch::Sender<bool>,
    abort: Arc<AtomicBool>,
    /// Whose other end is dropped when all pursuits have ended.
    ended: watch::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    names: NameService,
    /// Who waits for the name service: up to some seconds for each name.
    askers: Workers,
    /// Who looks and kills: a thread for each that may act, and some for those that only look.
    hands: Workers,
    claims: Claims,
    /// Whom the policy protects, and when the name service was asked for them.
    protection: StdMutex<Option<(Instant, Arc<Protection>)>>,
    lanes: Lanes,
    /// So many act at once.
    acting: Semaphore,
    /// Held from the look at the history until the decision is in the journal, so that two
    /// cannot both be the last that a limit allows.
    turn: Mutex<()>,
    stop: watch::Receiver<bool>,
    /// Ends steps in the middle.
    abort: Arc<AtomicBool>,
}

/// The daemon stops. The journal knows how far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stopping;

impl Engine {
    /// Starts an engine, and resumes what the journal says is unfinished.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (begin, begun) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let parallel = usize::try_from(parts.force.borrow().config.parallel).unwrap_or(1);
        let abort = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            parts,
            names: NameService::default(),
            askers: Workers::start("ask", ASKERS),
            hands: Workers::start("act", parallel.min(HANDS_MAX).saturating_add(LOOKERS)),
            claims: Claims::default(),
            protection: StdMutex::default(),
            lanes: Lanes::default(),
            acting: Semaphore::new(parallel.min(Semaphore::MAX_PERMITS)),
            turn: Mutex::new(()),
            stop: stopped,
            abort: Arc::clone(&abort),
        });
        let (alive, ended) = watch::channel(());
        let unpursued = begin.clone();
        tokio::spawn(async move {
            shared.dispatch(begun, unpursued).await;
            drop(alive);
        });
        Self { begin, stop, abort, ended }
    }

    /// Begins a remediation that the journal has accepted, unless a task pursues it already.
    pub fn submit(&self, id: i64) {
        if self.begin.send(id).is_err() {
            tracing::warn!(
                remediation = id,
                "accepted during shutdown; the remediation will start at the next start"
            );
        }
    }

    /// Begins nothing any more, and lets what acts come to an end: for `patience`, after which it
    /// is undone (nobody stays stopped, nothing half-written stays) and resumed at the next start.
    pub async fn finish(&self, patience: Duration) {
        self.stop.send_replace(true);
        if self.has_ended(patience).await {
            return;
        }
        tracing::warn!("steps take too long: they are called off");
        self.abort.store(true, Ordering::SeqCst);
        if !self.has_ended(patience).await {
            tracing::error!("steps do not end: the journal resumes them at the next start");
        }
    }

    async fn has_ended(&self, patience: Duration) -> bool {
        // Nothing is ever sent: the wait ends when the sender is dropped.
        timeout(patience, self.ended.clone().wait_for(|()| false)).await.is_ok()
    }
}

impl Shared {
    async fn dispatch(
        self: Arc<Self>,
        mut begun: mpsc::UnboundedReceiver<i64>,
        unpursued: mpsc::UnboundedSender<i64>,
    ) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).look_for_unpursued(unpursued));
        tasks.spawn(Arc::clone(&self).look_after_protected());
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                id = begun.recv() => match id {
                    Some(id) => {
                        if let Some(claim) = self.claims.claim(id) {
                            tasks.spawn(Arc::clone(&self).pursue(claim));
                        }
                    }
                    None => break,
                },
                Some(ended) = tasks.join_next() => report_panic(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            report_panic(ended);
        }
    }

    /// Has everything pursued that the journal calls unfinished: what an earlier daemon left, and
    /// whatever lost its task since. Nothing else would, and it would take in every later alert of
    /// its kind.
    async fn look_for_unpursued(self: Arc<Self>, begin: mpsc::UnboundedSender<i64>) {
        loop {
            let Ok(ids) = self.persist(|| self.parts.journal.unfinished()).await else { return };
            for id in ids.into_iter().filter(|id| !self.claims.is_claimed(*id)) {
                tracing::info!(remediation = id, "resumed");
                if begin.send(id).is_err() {
                    return;
                }
            }
            if self.pause(LOOK).await == Err(Stopping) {
                return;
            }
        }
    }

    /// Has the policy's list of protected accounts looked up at the start and at each reload, so
    /// that it is said at once what of it protects nobody.
    async fn look_after_protected(self: Arc<Self>) {
        let (mut force, mut stop) = (self.parts.force.clone(), self.stop.clone());
        loop {
            let now = Arc::clone(&force.borrow_and_update());
            self.protection(&now.config).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = force.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What is in force at the moment.
    fn force(&self) -> Arc<Force> {
        Arc::clone(&self.parts.force.borrow())
    }

    /// Asks the journal until it answers: nothing goes on without its record.
    async fn persist<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Stopping>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        loop {
            // The journal logs its faults itself.
            if let Ok(value) = ask().await {
                return Ok(value);
            }
            self.pause(RETRY).await?;
        }
    }

    /// Waits, unless the daemon stops.
    async fn pause(&self, time: Duration) -> Result<(), Stopping> {
        let mut stop = self.stop.clone();
        match timeout(time, stop.wait_for(|stop| *stop)).await {
            Ok(_) => Err(Stopping),
            Err(_) => Ok(()),
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a remediation's task panicked; it is taken up again");
    }
}
