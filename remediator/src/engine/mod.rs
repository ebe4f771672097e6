//! Takes what was accepted, and sees it through.
//!
//! Each remediation is pursued by a task of its own, step by step from one state in the journal to
//! the next, so that a restart resumes wherever the journal stands. The journal is also read every
//! few seconds: what it calls unfinished and no task pursues is taken up, whatever became of the task.
//!
//! - [`Engine`]: the handle; [`Engine::submit`] begins, [`Engine::finish`] ends in order.
//! - `pursuit`: a task for each remediation, from state to state; `claims`: one task at most.
//! - `judge`: is it still allowed, and still true? It asks `accounts` who the user is, and `facts`
//!   which processes live and what is silenced; `lanes`: one at a time for one user and command.
//! - `action`: does what a plan says, step by step.
//! - `watch`: does the storm come back?
//! - `endings`: verdict, outcome and counters.
//! - `context`: what all of them work with, and how they wait.
//!
//! # Words
//!
//! One word for one thing, in this program and in what it writes:
//! - **Alert**: what Alertmanager posts; it names host, user, command and playbook.
//! - **Playbook**: the policy's answer to one kind of storm: threshold, steps, limits.
//! - **Storm**: at least `threshold` processes of one user and one command.
//! - **Request**: an alert that the policy takes by itself, with its playbook.
//! - **Candidate**: a request whose account the policy allows by its name and uid.
//! - **Authorised**: a candidate whose account nothing protects.
//! - **Facts**: what is true when it is decided: counts, history, silences.
//! - **Plan**: the permission to run the steps now, which only the decision gives.
//! - **Refusal**: the reason why nothing is done.
//! - **Remediation**: one run of a playbook for one user and command, in the journal from `accepted`
//!   through `acting` and `watching` to `done`.
//! - **Attempt**: a remediation that is authorised and under way.
//! - **Step**: one thing that a playbook does; its **record** in the journal says what it did.
//! - **Verdict**: how a remediation ended, in one word.
//! - **Outcome**: what people read about it; it waits as a **letter** until Alertmanager takes it.
//! - **Recurrence**: the same storm again within `settle`, while its remediation watches for it.

mod accounts;
mod action;
mod attempt;
mod claims;
mod context;
mod endings;
mod facts;
mod judge;
mod lanes;
mod pursuit;
mod watch;

pub(crate) use accounts::{groups, look_up};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use procstorm_toolkit::workers::Workers;
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::time::timeout;

use crate::active::InForce;
use crate::journal::{Journal, Remediation};
use crate::metrics::Metrics;
use crate::policy::{Config, Playbook};
use crate::reach::Reach;
use crate::steps::kill::Bounds;
use context::Context;
use pursuit::Pursuits;

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
    /// Whether "not found" is reliable.
    pub reach: Reach,
}

/// The handle of the engine; clones are of the same.
#[derive(Clone, Debug)]
pub struct Engine {
    begin: mpsc::UnboundedSender<i64>,
    stop: channel::Sender<bool>,
    abort: Arc<AtomicBool>,
    /// Whose other end is dropped when all pursuits have ended.
    ended: channel::Receiver<()>,
}

impl Engine {
    /// Starts an engine, and resumes what the journal says is unfinished.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (begin, begun) = mpsc::unbounded_channel();
        let (stop, stopped) = channel::channel(false);
        let parallel = usize::try_from(parts.force.borrow().config.parallel).unwrap_or(1);
        let abort = Arc::new(AtomicBool::new(false));
        let context = Context {
            parts: Arc::new(parts),
            hands: Workers::start("act", parallel.min(HANDS_MAX).saturating_add(LOOKERS)),
            stop: stopped,
            abort: Arc::clone(&abort),
        };
        let pursuits = Arc::new(Pursuits::new(context, parallel));
        let (alive, ended) = channel::channel(());
        let unpursued = begin.clone();
        tokio::spawn(async move {
            pursuits.dispatch(begun, unpursued).await;
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
        tracing::warn!("shutdown: aborting steps that did not finish in time");
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

fn playbook_of<'c>(config: &'c Config, remediation: &Remediation) -> Option<&'c Playbook> {
    config.playbooks.get(remediation.alert.label("playbook"))
}

/// The time from one to the other; none if that is the earlier one.
fn since(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}
