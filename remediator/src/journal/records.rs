//! What was: for the policy's limits, for people, and for the gauges.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::course::{self, StepRow};
use super::outbox;
use super::{Fault, Journal, from_json, ms, time, unsigned};
use crate::config::Limits;
use crate::policy::History;

/// Whose history is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// The remediation that asks; it does not count itself.
    pub id: i64,
    /// Its playbook.
    pub playbook: String,
    /// Whose processes.
    pub uid: u32,
    /// Which.
    pub command: String,
    /// The playbook's limits.
    pub limits: Limits,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Remediations that are not done.
    pub remediations: u64,
    /// Outcomes that Alertmanager has not taken.
    pub outcomes: u64,
}

/// A remediation as people see it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number.
    pub id: i64,
    /// When it began.
    pub began: Timestamp,
    /// Whose processes.
    pub user: String,
    /// Which.
    pub command: String,
    /// By which playbook.
    pub playbook: String,
    /// Whether nothing was to be touched.
    pub dry_run: bool,
    /// How many processes lived before.
    pub before: Option<u64>,
    /// How many afterwards.
    pub after: Option<u64>,
    /// The verdict, once there is one.
    pub verdict: Option<String>,
    /// The verdict in a sentence.
    pub summary: String,
    /// How long it took, once it is over.
    pub milliseconds: Option<u64>,
    /// Its steps.
    pub steps: Vec<StepRow>,
}

impl Journal {
    /// What was done before, within the windows of the limits. Dry runs do nothing, and so count
    /// for the cool-down alone.
    pub async fn history(&self, question: Question, now: Timestamp) -> Result<History, Fault> {
        self.read(move |connection| history(connection, &question, now)).await
    }

    /// Whether people have been told within `window` that a limit is reached for this user.
    pub async fn limit_was_told(
        &self,
        playbook: String,
        user: String,
        window: Duration,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        self.read(move |connection| {
            let told = connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM remediations WHERE playbook = ?1 AND user = ?2
                     AND verdict = 'limit_reached' AND ended_ms > ?3)",
                params![playbook, user, since(now, window)],
                |row| row.get(0),
            )?;
            Ok(told)
        })
        .await
    }

    /// The uid that a user had when something was last done.
    pub async fn last_known_uid(&self, user: String) -> Result<Option<u32>, Fault> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT uid FROM remediations WHERE user = ?1 AND uid IS NOT NULL
                 ORDER BY id DESC LIMIT 1",
            )?;
            Ok(query.query_row([user], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// How much there is to do.
    pub async fn pending(&self) -> Result<Pending, Fault> {
        self.read(|connection| {
            let unfinished: i64 = connection
                .prepare_cached("SELECT count(*) FROM remediations WHERE state <> 'done'")?
                .query_row([], |row| row.get(0))?;
            let outcomes = unsigned(outbox::waiting(connection)?);
            Ok(Pending { remediations: unsigned(unfinished), outcomes })
        })
        .await
    }

    /// At most `limit` remediations with numbers below `before`, the newest first.
    pub async fn page(&self, before: i64, limit: u32) -> Result<Vec<Record>, Fault> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM remediations WHERE id < ?1 ORDER BY id DESC LIMIT ?2"
            ))?;
            let mut rows = query.query(params![before, limit])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(record(connection, row)?);
            }
            Ok(records)
        })
        .await
    }

    /// One remediation and the labels of the alert that asked, if there is one of that number.
    pub async fn record(&self, id: i64) -> Result<Option<(Record, Vec<(String, String)>)>, Fault> {
        self.read(move |connection| {
            let mut query = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM remediations WHERE id = ?1"))?;
            let mut rows = query.query([id])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let labels: Option<String> = connection
                .query_row(
                    "SELECT labels FROM alerts WHERE remediation = ?1 ORDER BY id LIMIT 1",
                    [id],
                    |row| row.get(0),
                )
                .optional()?;
            let labels: std::collections::BTreeMap<String, String> =
                labels.map(|labels| from_json(&labels)).transpose()?.unwrap_or_default();
            Ok(Some((record(connection, row)?, labels.into_iter().collect())))
        })
        .await
    }

    /// Forgets what was done before `before`. Returns how many remediations.
    pub async fn prune(&self, before: Timestamp) -> Result<usize, Fault> {
        self.write(move |tx| course::prune(tx, ms(before))).await
    }
}

const COLUMNS: &str =
    "id, coalesce(acted_ms, accepted_ms), user, command, playbook, dry_run, before,
                       after, verdict, coalesce(summary, ''), ended_ms";

fn record(connection: &Connection, row: &Row<'_>) -> Result<Record, Fault> {
    let count = |index| -> Result<Option<u64>, Fault> {
        Ok(row.get::<_, Option<i64>>(index)?.map(unsigned))
    };
    let began: i64 = row.get(1)?;
    let ended: Option<i64> = row.get(10)?;
    let id = row.get(0)?;
    Ok(Record {
        id,
        began: time(began)?,
        user: row.get(2)?,
        command: row.get(3)?,
        playbook: row.get(4)?,
        dry_run: row.get(5)?,
        before: count(6)?,
        after: count(7)?,
        verdict: row.get(8)?,
        summary: row.get(9)?,
        milliseconds: ended.map(|ended| unsigned(ended.saturating_sub(began))),
        steps: course::steps(connection, id)?,
    })
}

fn history(connection: &Connection, question: &Question, now: Timestamp) -> Result<History, Fault> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT max(acted_ms) FROM remediations
             WHERE uid = ?1 AND command = ?2 AND id <> ?3 AND acted_ms IS NOT NULL",
        )?
        .query_row(params![question.uid, question.command, question.id], |row| row.get(0))?;
    let mut count = connection.prepare_cached(
        "SELECT count(*) FROM remediations
         WHERE playbook = :playbook AND acted_ms > :since AND id <> :id AND dry_run = 0
           AND (:uid IS NULL OR uid = :uid)",
    )?;
    let mut count = |uid: Option<u32>, window| -> Result<u32, Fault> {
        let parameters = named_params! {
            ":playbook": question.playbook,
            ":since": since(now, window),
            ":id": question.id,
            ":uid": uid,
        };
        Ok(count.query_row(parameters, |row| row.get(0))?)
    };
    Ok(History {
        last: last.map(time).transpose()?,
        for_user: count(Some(question.uid), question.limits.per_user.window)?,
        in_total: count(None, question.limits.total.window)?,
    })
}

/// The beginning of a window that ends now.
fn since(now: Timestamp, window: Duration) -> i64 {
    let start = SignedDuration::try_from(window).ok().and_then(|w| now.checked_sub(w).ok());
    start.map_or(i64::MIN, ms)
}
