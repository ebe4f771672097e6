//! `report`: out of the journal, who was hit or would have been, and what was refused and why.
//!
//! - [`report`]: the command.
//! - [`Report`]: what is told; its fields are those of the JSON.
//! - `ledger`: reads it out of the journal, of a running daemon as well.
//! - `table`: shows it to people.

mod ledger;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use crate::journal::Fault;
use crate::policy::duration::{parse, spoken};
use crate::policy::{Config, LoadError};
use crate::printable::escaped;

/// The version of the JSON: it rises when a field changes its meaning or goes, not when one is added.
pub const SCHEMA: u32 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy, which says where the journal is.
    pub policy: &'a Path,
    /// The host's name where the policy gives none.
    pub machine: &'a str,
    /// How far to look back.
    pub since: Duration,
    /// Whether the answer is for a machine.
    pub json: bool,
    /// How many characters a line may have; no limit if there is none.
    pub width: Option<usize>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The policy has faults.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The journal cannot be read.
    #[error("cannot read the journal in {}", state.display())]
    Journal {
        /// Its directory.
        state: PathBuf,
        /// Why.
        source: Fault,
    },
    /// The report cannot be written as JSON.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

/// What the journal says about a span of time.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema_version: u32,
    /// The host.
    pub host: String,
    /// The journal's file.
    pub journal: String,
    /// Whether there is a journal.
    pub has_journal: bool,
    /// The beginning of the span, RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    pub since: Timestamp,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    pub until: Timestamp,
    /// Who was hit, or would have been, the most often first.
    pub hits: Vec<Hit>,
    /// What was not done, and why.
    pub refusals: Vec<Refused>,
    /// Each hit by itself, the newest first.
    pub events: Vec<Event>,
    /// How many lines of `hits`, `refusals` and `events` are left out, since there are too many.
    pub left_out: u64,
}

/// A user's processes that were ended, or would have been.
#[derive(Debug, Serialize)]
pub struct Hit {
    /// Whose.
    pub user: String,
    /// Which.
    pub command: String,
    /// By which playbook.
    pub playbook: String,
    /// Whether it was a dry run: then they live on.
    pub dry_run: bool,
    /// How it ended: `dry_run`, `none_seen` and so on.
    pub verdict: String,
    /// How often.
    pub times: u64,
    /// The most processes at once.
    pub largest: u64,
    /// The processes of all times together.
    pub processes: u64,
    /// The first time.
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// The last time.
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
}

/// What was asked for and not done.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Whose.
    pub user: String,
    /// Which.
    pub command: String,
    /// What was asked for.
    pub playbook: String,
    /// Whether it was in a dry run; `null` where the alert was refused before that was asked.
    pub dry_run: Option<bool>,
    /// Why, in a word.
    pub why: String,
    /// Why the last time, in a sentence.
    pub reason: String,
    /// How many alerts, however often Alertmanager repeated each.
    pub alerts: u64,
    /// How often it was refused.
    pub times: u64,
    /// The most processes at once; `null` where they were not counted.
    pub largest: Option<u64>,
    /// The first time.
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// The last time.
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
}

/// One hit.
#[derive(Debug, Serialize)]
pub struct Event {
    /// The remediation's number in the journal and on the status page.
    pub remediation: i64,
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// Whose.
    pub user: String,
    /// Which.
    pub command: String,
    /// By which playbook.
    pub playbook: String,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// How it ended; `null` while it lasts.
    pub verdict: Option<String>,
    /// The processes before.
    pub before: Option<u64>,
    /// The processes after.
    pub after: Option<u64>,
    /// In a sentence.
    pub summary: String,
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// A span of time for `--since`.
pub fn since(text: &str) -> Result<Duration, String> {
    match parse(text) {
        Some(span) if !span.is_zero() => Ok(span),
        _ => Err("must be a span of time such as 12h or 7d".to_owned()),
    }
}

/// The report, as it is to be printed.
pub fn report(question: &Question<'_>) -> Result<String, ReportError> {
    let config = Config::read(question.policy, question.machine)?;
    let until = Timestamp::now();
    let span = SignedDuration::try_from(question.since).unwrap_or(SignedDuration::MAX);
    let since = until.checked_sub(span).unwrap_or(Timestamp::MIN);
    let report = ledger::read(&config.host, &config.state, since, until)
        .map_err(|source| ReportError::Journal { state: config.state.clone(), source })?;
    if question.json {
        return Ok(format!("{}\n", escaped(&serde_json::to_string_pretty(&report)?)));
    }
    Ok(table::tell(&report, &spoken(question.since), question.width))
}
