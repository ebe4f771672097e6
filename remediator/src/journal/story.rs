//! One remediation from the alert to the mail, for people.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Fault, Journal, from_json, time, unsigned};

/// What happened around the steps of a remediation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// The alert that asked; of the first remediation, if this one follows others.
    pub alert: Option<Asked>,
    /// How many notifications of it have come.
    pub notifications: u64,
    /// The remediation after which the storm had come back.
    pub repeats: Option<i64>,
    /// When it was accepted.
    pub accepted: Option<Timestamp>,
    /// When it began to act.
    pub acted: Option<Timestamp>,
    /// When its steps were over, or it was refused.
    pub ended: Option<Timestamp>,
    /// Its outcomes, in order.
    pub outcomes: Vec<Outcome>,
}

/// The alert that asked for a remediation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Since when it fires, as Alertmanager gave it.
    pub starts_at: Option<Timestamp>,
    /// When it came.
    pub received: Timestamp,
}

/// An outcome, on its way to the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it was written.
    pub created: Timestamp,
    /// When Alertmanager took it.
    pub taken: Option<Timestamp>,
    /// Why it is no longer tried.
    pub dropped: Option<String>,
}

/// The remediation with a number, and those that it follows, back to the first. Bounded, since a
/// damaged journal may hold a circle.
const FIRST: &str = "WITH RECURSIVE chain (id, repeats) AS (
        SELECT id, repeats FROM remediations WHERE id = ?1
        UNION
        SELECT r.id, r.repeats FROM remediations r JOIN chain c ON r.id = c.repeats
        LIMIT 10000)
    SELECT a.labels, a.starts_at, a.received_ms
    FROM alerts a JOIN chain c ON a.remediation = c.id
    ORDER BY a.id LIMIT 1";

impl Journal {
    /// What happened around the steps of the remediation with a number; of none, an empty story.
    pub async fn story(&self, id: i64) -> Result<Story, Fault> {
        self.read(move |connection| story(connection, id)).await
    }
}

fn story(connection: &Connection, id: i64) -> Result<Story, Fault> {
    let row = connection
        .prepare_cached(
            "SELECT repeats, accepted_ms, acted_ms, ended_ms FROM remediations WHERE id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((repeats, accepted, acted, ended)) = row else { return Ok(Story::default()) };
    let at = |ms: Option<i64>| ms.map(time).transpose();
    let notifications: i64 = connection
        .prepare_cached("SELECT count(*) FROM alerts WHERE remediation = ?1")?
        .query_row([id], |row| row.get(0))?;
    Ok(Story {
        alert: asked(connection, id)?,
        notifications: unsigned(notifications),
        repeats,
        accepted: at(accepted)?,
        acted: at(acted)?,
        ended: at(ended)?,
        outcomes: outcomes(connection, id)?,
    })
}

fn asked(connection: &Connection, id: i64) -> Result<Option<Asked>, Fault> {
    let row: Option<(String, String, i64)> = connection
        .prepare_cached(FIRST)?
        .query_row(params![id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((labels, starts_at, received)) = row else { return Ok(None) };
    Ok(Some(Asked {
        labels: from_json(&labels)?,
        starts_at: starts_at.parse().ok(),
        received: time(received)?,
    }))
}

fn outcomes(connection: &Connection, id: i64) -> Result<Vec<Outcome>, Fault> {
    let mut query = connection.prepare_cached(
        "SELECT created_ms, taken_ms, dropped FROM outcomes WHERE remediation = ?1 ORDER BY id",
    )?;
    let mut rows = query.query([id])?;
    let mut outcomes = Vec::new();
    while let Some(row) = rows.next()? {
        let taken: Option<i64> = row.get(1)?;
        outcomes.push(Outcome {
            created: time(row.get(0)?)?,
            taken: taken.map(time).transpose()?,
            dropped: row.get(2)?,
        });
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recurrence_has_the_alert_of_the_first_and_a_circle_ends() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let write = journal.write(|tx| {
            Ok(tx.execute_batch(
                "INSERT INTO remediations (id, repeats, playbook, user, command, state,
                     accepted_ms, due_ms, ended_ms)
                 VALUES (1, NULL, 'p', 'u', 'c', 'done', 1000, 0, 2000),
                        (2, 1, 'p', 'u', 'c', 'done', 3000, 0, 4000),
                        (3, NULL, 'p', 'v', 'c', 'done', 3000, 0, 4000),
                        (4, 3, 'p', 'v', 'c', 'done', 3000, 0, 4000);
                 UPDATE remediations SET repeats = 4 WHERE id = 3;
                 INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user,
                     command, playbook, labels, decision, remediation)
                 VALUES (1000, '', '2026-11-24T06:00:00Z', 'firing', 'h', 'u', 'c', 'p',
                     '{\"alertname\": \"Storm\"}', 'accepted', 1);
                 INSERT INTO outcomes (remediation, event, created_ms, labels, annotations, taken_ms)
                 VALUES (2, 'e', 4000, '{}', '{}', 4500);",
            )?)
        });
        runtime.block_on(write).expect("written");
        let story = |id| runtime.block_on(journal.story(id)).expect("read");
        let second = story(2);
        let alert = second.alert.expect("an alert");
        assert_eq!(alert.labels.get("alertname").map(String::as_str), Some("Storm"));
        assert_eq!(alert.received.as_millisecond(), 1_000);
        assert_eq!((second.repeats, second.notifications), (Some(1), 0));
        let taken = second.outcomes.first().and_then(|outcome| outcome.taken);
        assert_eq!(taken.map(Timestamp::as_millisecond), Some(4_500));
        assert_eq!(story(4).alert, None);
        assert_eq!(story(99), Story::default());
    }
}
