//! A remediation's way: accepted, acting, watching, done.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::letters::{self, NewLetter};
use super::{Fault, Journal, from_json, ms, signed, time, unsigned};
use crate::alertmanager::{Alert, Status};
use crate::verdict::Verdict;

/// How many records are forgotten in one transaction.
const FORGET_AT_ONCE: i64 = 200;

/// How far a remediation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is to be judged, once it is due.
    Accepted,
    /// Its steps are being done, or were when the daemon ended.
    Acting,
    /// Its steps are done; the storm's return is watched for.
    Watching,
    /// Nothing is left to do.
    Done,
}

impl State {
    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "accepted" => Ok(Self::Accepted),
            "acting" => Ok(Self::Acting),
            "watching" => Ok(Self::Watching),
            "done" => Ok(Self::Done),
            other => Err(Fault::Record(format!("state {other:?}"))),
        }
    }
}

/// A remediation as the engine works on it.
#[derive(Clone, Debug)]
pub struct Remediation {
    /// Its number.
    pub id: i64,
    /// How far it is.
    pub state: State,
    /// The remediation after which the storm came back, if it is for that.
    pub repeats: Option<i64>,
    /// Whether it is a dry run.
    pub dry_run: bool,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Not to be begun before this.
    pub due: Timestamp,
    /// Whether it has had to wait, so that the alert may have been silenced since.
    pub deferred: bool,
    /// When it began to act.
    pub acted: Option<Timestamp>,
    /// Until when the storm's return is watched for.
    pub watch_until: Option<Timestamp>,
    /// The uid, once known.
    pub uid: Option<u32>,
    /// How many processes lived before.
    pub before: Option<u64>,
    /// The alert that it was accepted for; of the first one, if it repeats another.
    pub alert: Alert,
    /// The number of the newest alert that it serves. What comes later asks for another look.
    pub newest_alert: i64,
    /// What has been done.
    pub steps: Vec<StepRow>,
}

/// What is known of a remediation in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Its playbook.
    pub playbook: String,
    /// Whose processes.
    pub user: String,
    /// Which.
    pub command: String,
    /// Whether it is a dry run.
    pub dry_run: bool,
}

/// A step as the journal knows it.
#[derive(Clone, Debug)]
pub struct StepRow {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended, unless it was interrupted.
    pub ended: Option<Timestamp>,
    /// How it ended, in a word.
    pub outcome: Option<String>,
    /// Whether that is as it should be.
    pub good: Option<bool>,
    /// What is known of it, JSON.
    pub detail: Option<String>,
}

/// How a remediation ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The verdict.
    pub verdict: Verdict,
    /// In a sentence.
    pub summary: String,
    /// How many processes lived afterwards, if known.
    pub after: Option<u64>,
    /// The outcome to post, if there is one.
    pub letter: Option<NewLetter>,
    /// Until when the storm's return is watched for, if it is.
    pub watch_until: Option<Timestamp>,
    /// Whether it is that of a dry run.
    pub dry_run: bool,
}

impl Journal {
    /// Everything about a remediation; as the inner error why what the journal holds of it cannot
    /// be understood, which no second reading changes.
    pub async fn remediation(&self, id: i64) -> Result<Result<Remediation, String>, Fault> {
        self.read(move |connection| match remediation(connection, id) {
            Ok(found) => Ok(Ok(found)),
            Err(Fault::Record(why)) => Ok(Err(why)),
            Err(Fault::Sqlite(error)) if is_of_the_row(&error) => Ok(Err(error.to_string())),
            Err(fault) => Err(fault),
        })
        .await
    }

    /// Whose remediation it is; `None` if there is none of that number.
    pub async fn whose(&self, id: i64) -> Result<Option<Whose>, Fault> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT playbook, user, command, dry_run FROM remediations WHERE id = ?1",
            )?;
            let whose = query.query_row([id], |row| {
                let (playbook, user, command) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Whose { playbook, user, command, dry_run: row.get(3)? })
            });
            Ok(whose.optional()?)
        })
        .await
    }

    /// The numbers of what is not done, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<i64>, Fault> {
        self.read(|connection| {
            let mut query = connection
                .prepare("SELECT id FROM remediations WHERE state <> 'done' ORDER BY id")?;
            let ids = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(ids)
        })
        .await
    }

    /// It has to wait until `due`.
    pub async fn defer(&self, id: i64, due: Timestamp) -> Result<(), Fault> {
        self.write(move |tx| {
            tx.execute("UPDATE remediations SET due_ms = ?2 WHERE id = ?1", params![id, ms(due)])?;
            Ok(())
        })
        .await
    }

    /// It begins to act. From here on it counts for cool-down and limits.
    pub async fn begin(
        &self,
        id: i64,
        uid: u32,
        before: u64,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE remediations
                 SET state = 'acting', uid = ?2, dry_run = ?3, acted_ms = coalesce(acted_ms, ?4),
                     before = coalesce(before, ?5)
                 WHERE id = ?1",
                params![id, uid, dry_run, ms(now), signed(before)],
            )?;
            Ok(())
        })
        .await
    }

    /// A step begins. Returns its number.
    pub async fn begin_step(
        &self,
        remediation: i64,
        name: &'static str,
        now: Timestamp,
    ) -> Result<i64, Fault> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO steps (remediation, name, began_ms) VALUES (?1, ?2, ?3)",
                params![remediation, name, ms(now)],
            )?;
            Ok(tx.last_insert_rowid())
        })
        .await
    }

    /// A step has ended: how, in a word; whether that is as it should be; and all that is known.
    pub async fn end_step(
        &self,
        step: i64,
        outcome: &str,
        good: bool,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let (outcome, detail) = (outcome.to_owned(), detail.to_owned());
        self.write(move |tx| {
            tx.execute(
                "UPDATE steps SET ended_ms = ?2, outcome = ?3, good = ?4, detail = ?5 WHERE id = ?1",
                params![step, ms(now), outcome, good, detail],
            )?;
            Ok(())
        })
        .await
    }

    /// Its steps are over, or it was refused: verdict and letter in one transaction, so that
    /// the outcome is posted once, whatever happens.
    pub async fn end(&self, id: i64, ending: Ending, now: Timestamp) -> Result<(), Fault> {
        self.write(move |tx| {
            let state = if ending.watch_until.is_some() { "watching" } else { "done" };
            tx.execute(
                "UPDATE remediations
                 SET state = ?2, ended_ms = ?3, watch_ms = ?4, after = ?5, verdict = ?6, summary = ?7,
                     dry_run = ?8
                 WHERE id = ?1",
                params![
                    id,
                    state,
                    ms(now),
                    ending.watch_until.map(ms),
                    ending.after.map(signed),
                    ending.verdict.label(),
                    ending.summary,
                    ending.dry_run
                ],
            )?;
            if let Some(letter) = &ending.letter {
                letters::insert(tx, id, letter, ms(now))?;
            }
            Ok(())
        })
        .await
    }

    /// It is refused. Returns whether it is done: it is not if an alert was coalesced to it since
    /// `remediation` was read.
    pub async fn refuse(
        &self,
        remediation: &Remediation,
        verdict: Verdict,
        reason: String,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        let (id, newest) = (remediation.id, remediation.newest_alert);
        self.write(move |tx| {
            let refused = tx.execute(
                "UPDATE remediations
                 SET state = 'done', ended_ms = ?2, verdict = ?3, summary = ?4, dry_run = ?6
                 WHERE id = ?1 AND state IN ('accepted', 'acting') AND NOT EXISTS (
                     SELECT 1 FROM alerts WHERE remediation = ?1 AND id > ?5)",
                params![id, ms(now), verdict.label(), reason, newest, dry_run],
            )?;
            Ok(refused == 1)
        })
        .await
    }

    /// The watch is over. Returns whether it is done: it is not if an alert was coalesced to it
    /// since `remediation` was read.
    pub async fn end_watch(&self, remediation: &Remediation) -> Result<bool, Fault> {
        let (id, newest) = (remediation.id, remediation.newest_alert);
        self.write(move |tx| {
            let closed = tx.execute(
                "UPDATE remediations SET state = 'done' WHERE id = ?1 AND NOT EXISTS (
                     SELECT 1 FROM alerts WHERE remediation = ?1 AND id > ?2)",
                params![id, newest],
            )?;
            Ok(closed == 1)
        })
        .await
    }

    /// The storm is back: the remediation is done, and another takes its place. Returns its
    /// number.
    pub async fn repeat(&self, id: i64, now: Timestamp) -> Result<i64, Fault> {
        self.write(move |tx| {
            tx.execute("UPDATE remediations SET state = 'done' WHERE id = ?1", [id])?;
            tx.execute(
                "INSERT INTO remediations
                     (repeats, playbook, user, command, state, accepted_ms, due_ms, dry_run)
                 SELECT id, playbook, user, command, 'accepted', ?2, ?2, dry_run
                 FROM remediations WHERE id = ?1",
                params![id, ms(now)],
            )?;
            Ok(tx.last_insert_rowid())
        })
        .await
    }
}

/// Whether it is what a row holds, or that there is none, and not the database.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

fn remediation(connection: &Connection, id: i64) -> Result<Remediation, Fault> {
    let mut query = connection.prepare_cached(
        "SELECT state, repeats, accepted_ms, due_ms, acted_ms, watch_ms, uid, before, dry_run
         FROM remediations WHERE id = ?1",
    )?;
    let row = query.query_row([id], |row| {
        let state: String = row.get(0)?;
        let times: [Option<i64>; 4] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
        let before: Option<i64> = row.get(7)?;
        Ok((state, row.get(1)?, times, row.get(6)?, before, row.get(8)?))
    });
    let (state, repeats, [accepted, due, acted, watch], uid, before, dry_run) = row?;
    let accepted = accepted.unwrap_or_default();
    let due = due.unwrap_or_default();
    let (newest_alert, alert) = alert(connection, id)?;
    Ok(Remediation {
        id,
        state: State::parse(&state)?,
        repeats,
        dry_run,
        accepted: time(accepted)?,
        due: time(due)?,
        // Not "later": the clock may have been set back between the two.
        deferred: due != accepted,
        acted: acted.map(time).transpose()?,
        watch_until: watch.map(time).transpose()?,
        uid,
        before: before.map(unsigned),
        alert,
        newest_alert,
        steps: steps(connection, id)?,
    })
}

/// The newest alert of the remediation, or of the one that it repeats, and its number. Each is read
/// once: a damaged journal may hold a circle.
fn alert(connection: &Connection, remediation: i64) -> Result<(i64, Alert), Fault> {
    let mut query = connection.prepare_cached(
        "WITH RECURSIVE chain (id, repeats) AS (
             SELECT id, repeats FROM remediations WHERE id = ?1
             UNION
             SELECT r.id, r.repeats FROM remediations r JOIN chain c ON r.id = c.repeats)
         SELECT a.id, a.fingerprint, a.starts_at, a.labels FROM alerts a
         WHERE a.remediation IN (SELECT id FROM chain) ORDER BY a.id DESC LIMIT 1",
    )?;
    let found: Option<(i64, String, String, String)> = query
        .query_row([remediation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let (id, fingerprint, starts_at, labels) =
        found.ok_or_else(|| Fault::Record(format!("remediation {remediation} has no alert")))?;
    let starts_at = starts_at.parse().map_err(|error| Fault::Record(format!("{error}")))?;
    let labels = from_json(&labels)?;
    Ok((id, Alert { status: Status::Firing, labels, starts_at, fingerprint }))
}

pub(super) fn steps(connection: &Connection, remediation: i64) -> Result<Vec<StepRow>, Fault> {
    let mut query = connection.prepare_cached(
        "SELECT id, name, began_ms, ended_ms, outcome, good, detail
         FROM steps WHERE remediation = ?1 ORDER BY id",
    )?;
    let mut rows = query.query([remediation])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(step(row)?);
    }
    Ok(steps)
}

fn step(row: &Row<'_>) -> Result<StepRow, Fault> {
    let ended: Option<i64> = row.get(3)?;
    Ok(StepRow {
        id: row.get(0)?,
        name: row.get(1)?,
        began: time(row.get(2)?)?,
        ended: ended.map(time).transpose()?,
        outcome: row.get(4)?,
        good: row.get(5)?,
        detail: row.get(6)?,
    })
}

/// Forgets what has been done for longer than the history is kept, but not what an unfinished
/// remediation repeats: the alert that it is for stands there. A little at a time, as others wait.
pub(super) fn prune(tx: &Transaction<'_>, before: i64) -> Result<usize, Fault> {
    let gone = tx.execute(
        "WITH RECURSIVE repeated (id) AS (
             SELECT repeats FROM remediations WHERE state <> 'done'
             UNION
             SELECT r.repeats FROM remediations r JOIN repeated ON r.id = repeated.id)
         DELETE FROM remediations WHERE id IN (
             SELECT id FROM remediations r WHERE state = 'done' AND ended_ms < ?1
                 AND NOT EXISTS (SELECT 1 FROM repeated WHERE id = r.id)
                 AND NOT EXISTS (
                     SELECT 1 FROM outcomes WHERE remediation = r.id
                        AND taken_ms IS NULL AND dropped IS NULL)
             LIMIT ?2)",
        [before, FORGET_AT_ONCE],
    )?;
    let refused = tx.execute(
        "DELETE FROM alerts WHERE id IN (
             SELECT id FROM alerts WHERE remediation IS NULL AND received_ms < ?1 LIMIT ?2)",
        [before, FORGET_AT_ONCE],
    )?;
    Ok(gone.saturating_add(refused))
}
