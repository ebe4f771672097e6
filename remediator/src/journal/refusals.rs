//! Alerts that were refused, and why, for people.

use jiff::Timestamp;
use rusqlite::params;

use super::{Fault, Journal, ms, time, unsigned};
use crate::verdict::Verdict;

/// How many alerts are looked at, the newest first: a page must not read the history of a flood.
const LOOKED_AT_MAX: i64 = 20_000;

/// How many groups are shown.
const GROUPS_MAX: i64 = 50;

/// Alerts of the same labels that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAlerts {
    /// When the last of them came.
    pub last: Timestamp,
    /// How many there were.
    pub times: u64,
    /// Their name.
    pub alert: String,
    /// The user that they name.
    pub user: String,
    /// The command that they name.
    pub command: String,
    /// The playbook that they name.
    pub playbook: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// What was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Each group, the newest first.
    pub groups: Vec<RefusedAlerts>,
    /// Whether there is more than this: more groups, or more alerts than are looked at.
    pub is_cut: bool,
}

/// An alert that is over asks for nothing: its refusal is nothing to look at.
const REFUSED: &str = "WITH newest AS (
        SELECT received_ms, user, command, playbook, labels, decision, refusal, reason
        FROM alerts WHERE received_ms > ?1 ORDER BY received_ms DESC LIMIT ?2)
    SELECT max(received_ms), count(*), coalesce(labels ->> '$.alertname', ''), user, command,
           playbook, coalesce(reason, refusal, '')
    FROM newest WHERE decision = 'refused' AND refusal IS NOT ?3
    GROUP BY 3, user, command, playbook, refusal ORDER BY 1 DESC LIMIT ?4";

impl Journal {
    /// The alerts that were refused since a time.
    pub async fn refusals(&self, since: Timestamp) -> Result<Refusals, Fault> {
        self.read(move |connection| {
            let many: i64 = connection
                .prepare_cached(
                    "SELECT count(*) FROM (SELECT 1 FROM alerts WHERE received_ms > ?1 LIMIT ?2)",
                )?
                .query_row(params![ms(since), LOOKED_AT_MAX + 1], |row| row.get(0))?;
            let mut query = connection.prepare_cached(REFUSED)?;
            let resolved = Verdict::Resolved.label();
            let mut rows =
                query.query(params![ms(since), LOOKED_AT_MAX, resolved, GROUPS_MAX + 1])?;
            let mut groups = Vec::new();
            while let Some(row) = rows.next()? {
                groups.push(RefusedAlerts {
                    last: time(row.get(0)?)?,
                    times: unsigned(row.get(1)?),
                    alert: row.get(2)?,
                    user: row.get(3)?,
                    command: row.get(4)?,
                    playbook: row.get(5)?,
                    reason: row.get(6)?,
                });
            }
            let shown = usize::try_from(GROUPS_MAX).unwrap_or(usize::MAX);
            let is_cut = groups.len() > shown || many > LOOKED_AT_MAX;
            groups.truncate(shown);
            Ok(Refusals { groups, is_cut })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_of(alerts: &'static [(i64, &'static str, &'static str, &'static str)]) -> Refusals {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let write = journal.write(move |tx| {
            for (received, user, decision, refusal) in alerts {
                tx.execute(
                    "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user,
                         command, playbook, labels, decision, refusal, reason)
                     VALUES (?1, '', '', 'firing', 'h', ?2, 'c', 'p',
                         '{\"alertname\": \"Storm\"}', ?3, ?4, 'because of ' || ?4)",
                    params![received, user, decision, refusal],
                )?;
            }
            Ok(())
        });
        runtime.block_on(write).expect("written");
        let since = Timestamp::from_millisecond(1_000).expect("a time");
        runtime.block_on(journal.refusals(since)).expect("read")
    }

    #[test]
    fn alike_are_one_group_and_what_was_taken_or_is_over_is_none() {
        let found = journal_of(&[
            (500, "alice", "refused", "unknown_playbook"),
            (2_000, "alice", "refused", "unknown_playbook"),
            (3_000, "alice", "refused", "unknown_playbook"),
            (4_000, "alice", "refused", "resolved"),
            (5_000, "bob", "accepted", ""),
            (6_000, "bob", "refused", "other_host"),
        ]);
        let told: Vec<_> = found
            .groups
            .iter()
            .map(|group| (group.last.as_millisecond(), group.times, group.user.as_str()))
            .collect();
        assert_eq!(told, [(6_000, 1, "bob"), (3_000, 2, "alice")]);
        assert_eq!(found.groups[0].reason, "because of other_host");
        assert_eq!((found.groups[0].alert.as_str(), found.is_cut), ("Storm", false));
    }

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let write = journal.write(|tx| {
            for n in 0..60 {
                tx.execute(
                    "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user,
                         command, playbook, labels, decision, refusal)
                     VALUES (?1, '', '', 'firing', 'h', ?2, 'c', 'p', '{}', 'refused', 'root')",
                    params![n, n.to_string()],
                )?;
            }
            Ok(())
        });
        runtime.block_on(write).expect("written");
        let found = runtime.block_on(journal.refusals(Timestamp::UNIX_EPOCH)).expect("read");
        assert_eq!((found.groups.len(), found.is_cut), (50, true));
        assert_eq!(found.groups[0].user, "59");
    }
}
