//! What every part of the engine works with, and how it waits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use procstorm_toolkit::workers::Workers;
use tokio::sync::watch;

use super::Parts;
use super::attempt::Attempt;
use crate::active::Force;
use crate::journal::Fault;
use crate::steps::run::Work;
use crate::stopping::{self, Stopping};

/// What every part works with; clones are of the same.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) parts: Arc<Parts>,
    /// Who looks and kills: a thread for each that may act, and some for those that only look.
    pub(super) hands: Workers,
    pub(super) stop: watch::Receiver<bool>,
    /// Ends steps in the middle.
    pub(super) abort: Arc<AtomicBool>,
}

impl Context {
    /// What is in force at the moment.
    pub(super) fn force(&self) -> Arc<Force> {
        Arc::clone(&self.parts.force.borrow())
    }

    /// Asks the journal until it answers: nothing goes on without its record.
    pub(super) async fn persist<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Stopping>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        stopping::persist(&self.stop, ask).await
    }

    /// Waits, unless the daemon stops.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), Stopping> {
        stopping::pause(&self.stop, time).await
    }

    /// Whether the daemon stops.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// What the steps of an attempt work with.
    pub(super) fn work<'a>(&'a self, attempt: &Attempt<'a>, before: u64) -> Work<'a> {
        let Parts { procfs, bounds, journal, metrics, force, .. } = &*self.parts;
        Work {
            procfs,
            bounds,
            journal,
            metrics,
            hands: &self.hands,
            stop: &self.stop,
            abort: &self.abort,
            force: attempt.force,
            in_force: force,
            remediation: attempt.remediation,
            account: attempt.authorised.account(),
            subject: attempt.subject(Some(before)),
        }
    }
}
