//! How far the limits of the playbooks are used up, for people.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::records::since;
use super::{Fault, Journal, ms};
use crate::policy::Limits;

/// How many users are named who have reached their limit.
const USERS_MAX: u32 = 10;

/// A playbook of which it is asked how far its limits are used up.
#[derive(Clone, Debug)]
pub struct Limited {
    /// Its name.
    pub playbook: String,
    /// Its limits.
    pub limits: Limits,
    /// Whether it is a dry run: then dry runs count as well.
    pub dry_run: bool,
}

/// How far the limits of one playbook are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// How often it has acted for any user within the window of `limits.total`.
    pub in_total: u32,
    /// Users for whom it has acted as often as `limits.per_user` allows; ten at most.
    pub users: Vec<String>,
}

/// How often a playbook has acted in a time, for all users.
const IN_TOTAL: &str = "SELECT count(*) FROM remediations
    WHERE playbook = ?1 AND acted_ms > ?2 AND acted_ms <= ?3 AND dry_run <= ?4";

/// The users for whom it has acted so often in a time.
const OF_USERS: &str = "SELECT max(user) FROM remediations
    WHERE playbook = ?1 AND acted_ms > ?2 AND acted_ms <= ?3 AND dry_run <= ?4
    GROUP BY uid HAVING count(*) >= ?5 ORDER BY 1 LIMIT ?6";

impl Journal {
    /// How far each of these playbooks has used up its limits, in their order.
    pub async fn uses(&self, playbooks: Vec<Limited>, now: Timestamp) -> Result<Vec<Use>, Fault> {
        self.read(move |connection| {
            playbooks.iter().map(|playbook| usage(connection, playbook, now)).collect()
        })
        .await
    }
}

fn usage(connection: &Connection, playbook: &Limited, now: Timestamp) -> Result<Use, Fault> {
    let Limited { playbook, limits: Limits { per_user, total }, dry_run } = playbook;
    let window = since(now, total.window);
    let in_total = connection
        .prepare_cached(IN_TOTAL)?
        .query_row(params![playbook, window, ms(now), dry_run], |row| row.get(0))?;
    let mut query = connection.prepare_cached(OF_USERS)?;
    let window = since(now, per_user.window);
    let question = params![playbook, window, ms(now), dry_run, per_user.count, USERS_MAX];
    let users = query.query_map(question, |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Use { in_total, users })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Rate;

    #[test]
    fn what_acted_within_the_window_counts_and_dry_runs_do_not() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let write = journal.write(|tx| {
            for (user, uid, acted, dry_run) in [
                ("alice", 1, 5_000, 0),
                ("alice", 1, 6_000, 0),
                ("alice", 1, 1_000, 0),
                ("bob", 2, 6_000, 0),
                ("bob", 2, 6_500, 1),
                ("carol", 3, 99_000, 0),
            ] {
                tx.execute(
                    "INSERT INTO remediations (playbook, user, command, uid, dry_run, state,
                         accepted_ms, due_ms, acted_ms, ended_ms)
                     VALUES ('p', ?1, 'c', ?2, ?4, 'done', ?3, ?3, ?3, ?3)",
                    params![user, uid, acted, dry_run],
                )?;
            }
            Ok(())
        });
        runtime.block_on(write).expect("written");
        let window = Duration::from_secs(6);
        let limits =
            Limits { per_user: Rate { count: 2, window }, total: Rate { count: 9, window } };
        let now = Timestamp::from_millisecond(10_000).expect("a time");
        let ask = |name: &str, dry_run| Limited { playbook: name.to_owned(), limits, dry_run };
        let asked = vec![ask("p", false), ask("other", false), ask("p", true)];
        let uses = runtime.block_on(journal.uses(asked, now)).expect("read");
        assert_eq!((uses[2].in_total, uses[2].users.len()), (4, 2), "a dry run counts dry runs");
        assert_eq!(uses[0], Use { in_total: 3, users: vec!["alice".to_owned()] });
        assert_eq!(uses[1], Use::default());
    }

    #[test]
    fn no_question_reads_the_whole_history() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let journal = Journal::start(place.path()).expect("a thread");
        let plans = journal.read(|connection| {
            let mut plans = Vec::new();
            for question in [IN_TOTAL, OF_USERS] {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {question}"))?;
                let mut rows = plan.raw_query();
                while let Some(row) = rows.next()? {
                    plans.push(row.get::<_, String>(3)?);
                }
            }
            Ok(plans)
        });
        let plans = runtime.block_on(plans).expect("plans");
        assert!(!plans.iter().any(|plan| plan.starts_with("SCAN")), "{plans:?}");
        let searches = plans.iter().filter(|plan| plan.starts_with("SEARCH remediations USING"));
        assert_eq!(searches.count(), 2, "{plans:?}");
    }
}
