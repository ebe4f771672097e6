//! What every part of the engine works with, and how it waits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use procstorm_toolkit::workers::Workers;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Parts;
use crate::active::{Force, RETRY};
use crate::journal::Fault;

/// The daemon stops. The journal knows how far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping;

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
        loop {
            // The journal logs its faults itself.
            if let Ok(value) = ask().await {
                return Ok(value);
            }
            self.pause(RETRY).await?;
        }
    }

    /// Waits, unless the daemon stops.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), Stopping> {
        let mut stop = self.stop.clone();
        match timeout(time, stop.wait_for(|stop| *stop)).await {
            Ok(_) => Err(Stopping),
            Err(_) => Ok(()),
        }
    }

    /// Whether the daemon stops.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
