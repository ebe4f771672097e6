//! What was: for the policy's limits, for people, and for the gauges.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::course::{self, Remediation, StepRow};
use super::letters;
use super::{Fault, Journal, from_json, ms, time, unsigned};
use crate::alertmanager::Alert;
use crate::policy::{History, Limits};
use crate::verdict::Verdict;

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
    /// Whether it is a dry run: only then do dry runs count.
    pub dry_run: bool,
}

/// How often a storm has come back by the time of a remediation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recurrence {
    /// How many remediations this one follows, each because the storm had come back within `settle`.
    pub count: u64,
    /// The labels of the last outcome of any of them that was posted or waits to be; empty if there is
    /// none, or if it cannot be read.
    pub told: BTreeMap<String, String>,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Remediations that are not done.
    pub remediations: u64,
    /// Those among them whose steps are done, and whose storm may come back.
    pub watched: u64,
    /// Outcomes that Alertmanager has not taken.
    pub outcomes: u64,
}

/// A remediation as people see it.
#[derive(Clone, Debug)]
pub struct RemediationRow {
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
    /// The verdict, once there is one: as text, since a newer version may have written it.
    pub verdict: Option<String>,
    /// The verdict in a sentence.
    pub summary: String,
    /// How long it took, once it is over.
    pub milliseconds: Option<u64>,
    /// Its steps.
    pub steps: Vec<StepRow>,
}

impl Journal {
    /// What was done before, within the windows of the limits. Dry runs do nothing, and so count for
    /// dry runs alone, for which they stand for what would have been done. What lies in the future was written by a clock that was wrong, and
    /// does not count: it would hold every kill until then.
    pub async fn history(&self, question: Question, now: Timestamp) -> Result<History, Fault> {
        self.read(move |connection| history(connection, &question, now)).await
    }

    /// How often the storm has come back by the time of the remediation `id`.
    pub async fn recurrence(&self, id: i64) -> Result<Recurrence, Fault> {
        self.read(move |connection| recurrence(connection, id)).await
    }

    /// Whether people have been told within `window` of this verdict for this user, in a dry run or in
    /// a live remediation.
    pub async fn was_told(
        &self,
        playbook: String,
        user: String,
        verdict: Verdict,
        dry_run: bool,
        window: Duration,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        self.read(move |connection| {
            let (since, verdict) = (since(now, window), verdict.label());
            let question = params![playbook, user, since, ms(now), verdict, dry_run];
            let told = connection.query_row(TOLD, question, |row| row.get(0))?;
            Ok(told)
        })
        .await
    }

    /// Whether people have been told this verdict of the alert of this dry run, by it or by an earlier
    /// one.
    pub async fn was_told_in_dry_run(
        &self,
        remediation: &Remediation,
        verdict: Verdict,
    ) -> Result<bool, Fault> {
        let Alert { fingerprint, starts_at, labels, .. } = &remediation.alert;
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let (playbook, user) = (label("playbook"), label("user"));
        let (fingerprint, starts_at) = (fingerprint.clone(), starts_at.to_string());
        self.read(move |connection| {
            let question = params![playbook, user, fingerprint, starts_at, verdict.label()];
            let told =
                connection.prepare_cached(TOLD_OF_ALERT)?.query_row(question, |row| row.get(0))?;
            Ok(told)
        })
        .await
    }

    /// Whether any limit was reached since a time, other than by dry runs.
    pub async fn limit_was_reached(&self, since: Timestamp) -> Result<bool, Fault> {
        self.read(move |connection| {
            let reached = connection.query_row(&reached(), [ms(since)], |row| row.get(0))?;
            Ok(reached)
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
            let (unfinished, watched): (i64, i64) = connection
                .prepare_cached(
                    "SELECT count(*), count(*) FILTER (WHERE state = 'watching')
                     FROM remediations WHERE state <> 'done'",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (remediations, watched) = (unsigned(unfinished), unsigned(watched));
            let outcomes = unsigned(letters::waiting(connection)?);
            Ok(Pending { remediations, watched, outcomes })
        })
        .await
    }

    /// At most `limit` remediations with numbers below `before`, the newest first.
    pub async fn page(&self, before: i64, limit: u32) -> Result<Vec<RemediationRow>, Fault> {
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
    pub async fn record(
        &self,
        id: i64,
    ) -> Result<Option<(RemediationRow, Vec<(String, String)>)>, Fault> {
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
            let labels: BTreeMap<String, String> =
                labels.map(|labels| from_json(&labels)).transpose()?.unwrap_or_default();
            Ok(Some((record(connection, row)?, labels.into_iter().collect())))
        })
        .await
    }

    /// Forgets some of what was done and refused before `before`. Returns how many records; 0 if
    /// there is none left.
    pub async fn prune(&self, before: Timestamp) -> Result<usize, Fault> {
        self.write(move |tx| course::prune(tx, ms(before))).await
    }
}

const COLUMNS: &str =
    "id, coalesce(acted_ms, accepted_ms), user, command, playbook, dry_run, before,
                       after, verdict, coalesce(summary, ''), ended_ms";

fn record(connection: &Connection, row: &Row<'_>) -> Result<RemediationRow, Fault> {
    let count = |index| -> Result<Option<u64>, Fault> {
        Ok(row.get::<_, Option<i64>>(index)?.map(unsigned))
    };
    let began: i64 = row.get(1)?;
    let ended: Option<i64> = row.get(10)?;
    let id = row.get(0)?;
    Ok(RemediationRow {
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

/// The newest of the same user and command, but the one that asks.
const LAST: &str = "SELECT max(acted_ms) FROM remediations
    WHERE uid = ?1 AND command = ?2 AND id <> ?3 AND acted_ms <= ?4 AND dry_run <= ?5";

/// The newest dry run of a playbook that would have done all that it should.
const REHEARSED: &str = "SELECT max(acted_ms) FROM remediations
    WHERE uid = ?1 AND command = ?2 AND id <> ?3 AND acted_ms <= ?4 AND playbook = ?5
        AND verdict = ?6";

/// How many remediations of a playbook in a time, except the one that asks: of one user,
const COUNT_OF_USER: &str = "SELECT count(*) FROM remediations
    WHERE playbook = ?1 AND acted_ms > ?2 AND acted_ms <= ?5 AND id <> ?3 AND dry_run <= ?6
        AND uid = ?4";

/// and of all users.
const COUNT_IN_TOTAL: &str = "SELECT count(*) FROM remediations
    WHERE playbook = ?1 AND acted_ms > ?2 AND acted_ms <= ?4 AND id <> ?3 AND dry_run <= ?5";

/// Whether people were told in a time of a verdict for a user: not whether there was one, since
/// the others of that time were not told.
const TOLD: &str = "SELECT EXISTS (SELECT 1 FROM remediations r
    WHERE playbook = ?1 AND user = ?2 AND verdict = ?5 AND ended_ms > ?3 AND ended_ms <= ?4
        AND dry_run = ?6 AND EXISTS (SELECT 1 FROM outcomes WHERE remediation = r.id))";

/// Whether people were told a verdict by a dry run of an alert, however often Alertmanager has repeated
/// it.
const TOLD_OF_ALERT: &str = "SELECT EXISTS (SELECT 1 FROM remediations r
    WHERE playbook = ?1 AND user = ?2 AND verdict = ?5 AND dry_run = 1
        AND EXISTS (SELECT 1 FROM outcomes WHERE remediation = r.id)
        AND EXISTS (SELECT 1 FROM alerts
                    WHERE remediation = r.id AND fingerprint = ?3 AND starts_at = ?4))";

/// Whether any limit was reached since a time, other than by dry runs.
/// The verdict is written out: SQLite takes a partial index only for a constant.
fn reached() -> String {
    let verdict = Verdict::LimitReached;
    format!(
        "SELECT EXISTS (SELECT 1 FROM remediations
             WHERE verdict = '{verdict}' AND ended_ms > ?1 AND dry_run = 0)"
    )
}

fn history(connection: &Connection, question: &Question, now: Timestamp) -> Result<History, Fault> {
    let Question { id, playbook, uid, command, limits, dry_run } = question;
    let of_user = since(now, limits.per_user.window);
    let in_total = since(now, limits.total.window);
    let now = ms(now);
    let last: Option<i64> = connection
        .prepare_cached(LAST)?
        .query_row(params![uid, command, id, now, dry_run], |row| row.get(0))?;
    let rehearsed: Option<i64> = match dry_run {
        true => connection.prepare_cached(REHEARSED)?.query_row(
            params![uid, command, id, now, playbook, Verdict::DryRun.label()],
            |row| row.get(0),
        )?,
        false => None,
    };
    Ok(History {
        last: last.map(time).transpose()?,
        for_user: connection
            .prepare_cached(COUNT_OF_USER)?
            .query_row(params![playbook, of_user, id, uid, now, dry_run], |row| row.get(0))?,
        in_total: connection
            .prepare_cached(COUNT_IN_TOTAL)?
            .query_row(params![playbook, in_total, id, now, dry_run], |row| row.get(0))?,
        rehearsed: rehearsed.map(time).transpose()?,
    })
}

/// The remediations that the one with a number follows, and how many there are before it. Each once: a
/// damaged journal may hold a circle.
const CHAIN: &str = "WITH RECURSIVE chain (id, repeats) AS (
        SELECT id, repeats FROM remediations WHERE id = (
            SELECT repeats FROM remediations WHERE id = ?1)
        UNION
        SELECT r.id, r.repeats FROM remediations r JOIN chain c ON r.id = c.repeats)";

fn recurrence(connection: &Connection, id: i64) -> Result<Recurrence, Fault> {
    let count: i64 = connection
        .prepare_cached(&format!("{CHAIN} SELECT count(*) FROM chain"))?
        .query_row([id], |row| row.get(0))?;
    let told: Option<String> = connection
        .prepare_cached(&format!(
            "{CHAIN} SELECT labels FROM outcomes
             WHERE remediation IN (SELECT id FROM chain) AND dropped IS NULL
             ORDER BY id DESC LIMIT 1"
        ))?
        .query_row([id], |row| row.get(0))
        .optional()?;
    // Labels that cannot be read stay so: the outcome counts as not posted, and is posted now.
    let told = told.and_then(|labels| from_json(&labels).ok()).unwrap_or_default();
    Ok(Recurrence { count: unsigned(count), told })
}

/// The beginning of a window that ends now.
pub(super) fn since(now: Timestamp, window: Duration) -> i64 {
    let start = SignedDuration::try_from(window).ok().and_then(|w| now.checked_sub(w).ok());
    start.map_or(i64::MIN, ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of a million remediations makes no judgement slow: each question finds its rows
    /// by an index, as SQLite's own plan says.
    #[test]
    fn no_question_reads_the_whole_history() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let plans = journal.read(|connection| {
            let mut plans = Vec::new();
            for question in
                [LAST, REHEARSED, COUNT_OF_USER, COUNT_IN_TOTAL, TOLD, TOLD_OF_ALERT, &reached()]
            {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {question}"))?;
                let mut rows = plan.raw_query();
                while let Some(row) = rows.next()? {
                    plans.push(row.get::<_, String>(3)?);
                }
            }
            Ok(plans)
        });
        let plans = runtime.block_on(plans).expect("plans");
        let is_look = |plan: &&String| plan.starts_with("SEARCH") || plan.starts_with("SCAN");
        let looks: Vec<_> = plans
            .iter()
            .filter(is_look)
            .filter(|plan| !plan.contains("CONSTANT ROW") && !plan.contains("outcomes"))
            .collect();
        assert_eq!(looks.len(), 8, "{plans:?}");
        assert!(looks.iter().all(|plan| plan.contains("USING")), "{looks:?}");
    }

    /// What a newer version wrote is text that this one does not know, and no fault.
    #[test]
    fn each_verdict_is_read_as_it_was_written_and_an_unknown_one_as_text() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let newer = "of_a_newer_version";
        let labels = Verdict::ALL.iter().map(|verdict| verdict.label()).chain([newer]);
        let written: Vec<_> = labels.collect();
        let rows = written.clone();
        let insert = journal.write(move |tx| {
            for verdict in rows {
                tx.execute(
                    "INSERT INTO remediations (playbook, user, command, state, accepted_ms, due_ms,
                         ended_ms, verdict, summary)
                     VALUES ('p', 'u', 'c', 'done', 0, 0, 1, ?1, '')",
                    [verdict],
                )?;
            }
            Ok(())
        });
        runtime.block_on(insert).expect("written");
        let records = runtime.block_on(journal.page(i64::MAX, 100)).expect("read");
        let read: Vec<_> = records.into_iter().rev().filter_map(|one| one.verdict).collect();
        assert_eq!(read, written);
        let known: Vec<_> = read.iter().filter_map(|text| Verdict::from_label(text)).collect();
        assert_eq!(known, Verdict::ALL);
    }
}
