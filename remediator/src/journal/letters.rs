//! Outcomes that wait for Alertmanager: in order, once each, bounded.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::{Fault, Journal, from_json, json, ms, time};

/// The most outcomes that wait. Beyond it the oldest is dropped, which is logged and counted: the
/// newest says most about what is going on.
const WAITING_MAX: i64 = 10_000;

/// What people are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLetter {
    /// What makes it an event of its own.
    pub event: String,
    /// The alert's labels.
    pub labels: BTreeMap<String, String>,
    /// The alert's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An outcome as it waits, or as Alertmanager has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number; the order in which they are sent.
    pub id: i64,
    /// What it says.
    pub content: NewLetter,
    /// When it came to be.
    pub created: Timestamp,
    /// How long Alertmanager is to keep it, once it has taken it.
    pub ends: Option<Timestamp>,
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    remediation: i64,
    letter: &NewLetter,
    now: i64,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO outcomes (remediation, event, created_ms, labels, annotations)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![remediation, letter.event, now, json(&letter.labels)?, json(&letter.annotations)?],
    )?;
    let waiting = waiting(tx)?;
    let dropped = tx.execute(
        "UPDATE outcomes SET dropped = 'too many wait' WHERE id IN (
             SELECT id FROM outcomes WHERE taken_ms IS NULL AND dropped IS NULL
             ORDER BY id LIMIT max(0, ?1 - ?2))",
        params![waiting, WAITING_MAX],
    )?;
    if dropped > 0 {
        tracing::error!(dropped, "too many undelivered outcomes; dropped the oldest");
    }
    Ok(())
}

pub(super) fn waiting(connection: &rusqlite::Connection) -> Result<i64, Fault> {
    let mut query = connection.prepare_cached(
        "SELECT count(*) FROM outcomes WHERE taken_ms IS NULL AND dropped IS NULL",
    )?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// What an outcome is that waits.
const WAITS: &str = "taken_ms IS NULL AND dropped IS NULL";

const COLUMNS: &str = "id, event, labels, annotations, created_ms, ends_ms";

fn letter(row: &Row<'_>) -> Result<Letter, Fault> {
    let (labels, annotations): (String, String) = (row.get(2)?, row.get(3)?);
    let ends: Option<i64> = row.get(5)?;
    Ok(Letter {
        id: row.get(0)?,
        content: NewLetter {
            event: row.get(1)?,
            labels: from_json(&labels)?,
            annotations: from_json(&annotations)?,
        },
        created: time(row.get(4)?)?,
        ends: ends.map(time).transpose()?,
    })
}

fn letters(
    connection: &rusqlite::Connection,
    condition: &str,
    parameter: i64,
) -> Result<Vec<Letter>, Fault> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM outcomes WHERE {condition}"))?;
    let mut rows = query.query([parameter])?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        match letter(row) {
            Err(Fault::Record(why)) => {
                let id: i64 = row.get(0)?;
                tracing::error!(outcome = id, why, "skipped an outcome that cannot be read");
            }
            letter => letters.push(letter?),
        }
    }
    Ok(letters)
}

/// The outcomes among those that wait that cannot be read, and why.
fn unreadable(tx: &Transaction<'_>) -> Result<Vec<(i64, String)>, Fault> {
    let mut query = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM outcomes WHERE {WAITS}"))?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if let Err(Fault::Record(why)) = letter(row) {
            found.push((row.get(0)?, why));
        }
    }
    Ok(found)
}

impl Journal {
    /// The oldest outcomes that Alertmanager has not taken, at most `limit`.
    pub async fn waiting(&self, limit: u32) -> Result<Vec<Letter>, Fault> {
        self.read(move |connection| {
            letters(connection, &format!("{WAITS} ORDER BY id LIMIT ?1"), i64::from(limit))
        })
        .await
    }

    /// What a member of Alertmanager's cluster has taken, is still to keep, and may not have mailed
    /// yet: every member should have it.
    pub async fn live(&self, now: Timestamp) -> Result<Vec<Letter>, Fault> {
        self.read(move |connection| {
            let condition = "taken_ms IS NOT NULL AND ends_ms > ?1 AND settled_ms IS NULL
                             ORDER BY id";
            letters(connection, condition, ms(now))
        })
        .await
    }

    /// The outcomes that wait, and those that a member of Alertmanager's cluster has to keep.
    pub async fn open(&self, now: Timestamp) -> Result<BTreeSet<i64>, Fault> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT id FROM outcomes WHERE ({WAITS})
                 OR (taken_ms IS NOT NULL AND ends_ms > ?1 AND settled_ms IS NULL)"
            ))?;
            let ids = query.query_map([ms(now)], |row| row.get(0))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Alertmanager has taken this one, to keep until `ends`. Returns whether no other member had
    /// taken it before.
    pub async fn taken(&self, id: i64, now: Timestamp, ends: Timestamp) -> Result<bool, Fault> {
        self.write(move |tx| {
            let mut update = tx.prepare_cached(
                "UPDATE outcomes SET taken_ms = ?2, ends_ms = ?3, dropped = NULL
                 WHERE id = ?1 AND taken_ms IS NULL",
            )?;
            Ok(update.execute(params![id, ms(now), ms(ends)])? > 0)
        })
        .await
    }

    /// Alertmanager has had these for long enough to mail them, and nothing hindered it.
    pub async fn settled(&self, ids: Vec<i64>, now: Timestamp) -> Result<(), Fault> {
        self.write(move |tx| {
            let mut update =
                tx.prepare_cached("UPDATE outcomes SET settled_ms = ?2 WHERE id = ?1")?;
            for id in ids {
                update.execute(params![id, ms(now)])?;
            }
            Ok(())
        })
        .await
    }

    /// Drops what waits and cannot be read, which no second reading changes. Returns how many.
    pub async fn drop_unreadable(&self) -> Result<usize, Fault> {
        self.write(|tx| {
            let found = unreadable(tx)?;
            for (id, why) in &found {
                tx.execute("UPDATE outcomes SET dropped = ?2 WHERE id = ?1", params![id, why])?;
            }
            Ok(found.len())
        })
        .await
    }

    /// Alertmanager will never take this one: why. Returns whether it still waited.
    pub async fn drop_letter(&self, id: i64, why: String) -> Result<bool, Fault> {
        self.write(move |tx| {
            let dropped = tx.execute(
                &format!("UPDATE outcomes SET dropped = ?2 WHERE id = ?1 AND {WAITS}"),
                params![id, why],
            )?;
            Ok(dropped > 0)
        })
        .await
    }
}
