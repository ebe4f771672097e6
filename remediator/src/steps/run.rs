//! How a step is taken: what it works with, and how it keeps its record in the journal.
//!
//! A step begins its record before it does anything, and ends it afterwards. A record that an earlier
//! run of the daemon ended is taken as it is ([`Ran`]); the step is not done again.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use procstorm_toolkit::workers::Workers;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::kill::Bounds;
use super::record::{Record, Unreadable, recorded};
use crate::account::Account;
use crate::active::{Force, InForce};
use crate::journal::{Journal, Remediation};
use crate::metrics::Metrics;
use crate::outcome::{End, Part, Subject};
use crate::policy::Plan;
use crate::stopping::{Stopping, persist};

/// What a step comes to in the end; it may wait, and stops where the daemon stops.
pub(crate) type Running<'a, T> = Pin<Box<dyn Future<Output = Result<T, Stopping>> + Send + 'a>>;

/// A remediation whose steps are taken, and what they work with.
pub(crate) struct Work<'a> {
    /// Where /proc is mounted.
    pub(crate) procfs: &'a Path,
    /// How far a kill goes.
    pub(crate) bounds: &'a Bounds,
    /// The record.
    pub(crate) journal: &'a Journal,
    /// Counters.
    pub(crate) metrics: &'a Metrics,
    /// The threads for work that blocks.
    pub(crate) hands: &'a Workers,
    /// Whether the daemon stops: a step that runs comes to its end.
    pub(crate) stop: &'a watch::Receiver<bool>,
    /// Ends a step in the middle.
    pub(crate) abort: &'a Arc<AtomicBool>,
    /// The policy under which this remediation was decided, and what was opened for it.
    pub(crate) force: &'a Force,
    /// The policy in force at the moment, which may be a later one.
    pub(crate) in_force: &'a InForce,
    /// The remediation, with the records of its steps so far.
    pub(crate) remediation: &'a Remediation,
    /// Whose mail and processes.
    pub(crate) account: &'a Account,
    /// What it is about, as people read it.
    pub(crate) subject: Subject<'a>,
}

/// A step that is taken now, or was by an earlier run of the daemon.
pub(crate) struct Run<'a> {
    /// The remediation.
    pub(crate) work: &'a Work<'a>,
    /// What may be done.
    pub(crate) plan: &'a Plan,
    /// The processes of the storm.
    pub(crate) living: &'a [i32],
    /// Where the storm comes from, as people read it, if that is known.
    pub(crate) source: Option<&'a Part>,
    /// How the remediation ends by the steps before.
    pub(crate) end: Option<&'a End>,
}

/// What a step came to.
#[derive(Debug, Default)]
pub(crate) struct Took {
    /// How the remediation ends by this step; `None` where the steps before say more.
    pub(crate) end: Option<End>,
    /// What it has to say.
    pub(crate) parts: Vec<Part>,
    /// Whether the steps after it are left undone.
    pub(crate) stops: bool,
}

/// A step that has ended, now or in an earlier run of the daemon.
pub(crate) enum Ran<T> {
    /// What it did.
    Known(T),
    /// An earlier run of the daemon ended it, and its record cannot be read. It is not done again.
    Unread(Unreadable),
}

impl Work<'_> {
    /// What an earlier run of the daemon recorded of the step of that name; `None` if it did not end.
    /// Logs a record that cannot be read.
    pub(crate) fn recorded<T: DeserializeOwned>(&self, name: &str) -> Option<Ran<T>> {
        Some(match recorded(&self.remediation.steps, name)? {
            Ok(record) => Ran::Known(record),
            Err(record) => {
                record.log(self.remediation.id);
                Ran::Unread(record)
            }
        })
    }

    /// Writes down that the step of that name begins. Returns the record's number.
    pub(crate) async fn begin_step(&self, name: &'static str) -> Result<i64, Stopping> {
        let (journal, id) = (self.journal, self.remediation.id);
        persist(self.stop, || journal.begin_step(id, name, Timestamp::now())).await
    }

    /// Writes down how the step ended, and what it did.
    pub(crate) async fn end_step(
        &self,
        step: i64,
        outcome: &str,
        good: bool,
        record: &dyn Record,
    ) -> Result<(), Stopping> {
        let detail = record.json().unwrap_or_else(|error| {
            tracing::error!(step, %error, "cannot write a step's record");
            String::new()
        });
        let journal = self.journal;
        persist(self.stop, || journal.end_step(step, outcome, good, &detail, Timestamp::now()))
            .await
    }
}
