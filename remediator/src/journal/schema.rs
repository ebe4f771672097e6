//! The journal's tables, and how an older journal becomes a newer one.
//!
//! `PRAGMA user_version` says which of the steps in [`MIGRATIONS`] a journal has been through.
//! A step that was released is never changed: a new one is added behind it.

use rusqlite::{Connection, TransactionBehavior};

use super::Fault;

/// What makes each version out of the one before.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4];

const VERSION_1: &str = r"
-- Every alert that was posted here, taken or not.
CREATE TABLE alerts (
    id          INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,          -- since 1970-01-01 UTC, as every time here
    fingerprint TEXT NOT NULL,
    starts_at   TEXT NOT NULL,             -- RFC 3339, as Alertmanager gave it
    status      TEXT NOT NULL CHECK (status IN ('firing', 'resolved')),
    host        TEXT NOT NULL,
    user        TEXT NOT NULL,
    command     TEXT NOT NULL,
    playbook    TEXT NOT NULL,
    labels      TEXT NOT NULL,             -- all of them, a JSON object
    decision    TEXT NOT NULL CHECK (decision IN ('accepted', 'coalesced', 'refused')),
    refusal     TEXT,                      -- why it was refused: a word,
    reason      TEXT,                      -- and a sentence
    remediation INTEGER REFERENCES remediations (id) ON DELETE CASCADE
) STRICT;
CREATE INDEX alerts_of_remediation ON alerts (remediation);
CREATE INDEX alerts_by_time ON alerts (received_ms);

-- One run of a playbook for one user and command.
CREATE TABLE remediations (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    repeats     INTEGER REFERENCES remediations (id) ON DELETE SET NULL,
    playbook    TEXT NOT NULL,
    user        TEXT NOT NULL,
    command     TEXT NOT NULL,
    uid         INTEGER,
    dry_run     INTEGER NOT NULL DEFAULT 0 CHECK (dry_run IN (0, 1)),
    state       TEXT NOT NULL CHECK (state IN ('accepted', 'acting', 'watching', 'done')),
    accepted_ms INTEGER NOT NULL,
    due_ms      INTEGER NOT NULL,          -- not to be begun before
    acted_ms    INTEGER,                   -- when it began to act, if it did
    ended_ms    INTEGER,                   -- when its steps were over, or it was refused
    watch_ms    INTEGER,                   -- until when the storm's return is watched for
    before      INTEGER,                   -- living processes before,
    after       INTEGER,                   -- and after
    verdict     TEXT,
    summary     TEXT
) STRICT;
CREATE UNIQUE INDEX one_at_a_time ON remediations (playbook, user, command) WHERE state <> 'done';
CREATE INDEX acted ON remediations (playbook, acted_ms) WHERE acted_ms IS NOT NULL;
CREATE INDEX acted_upon ON remediations (uid, command, acted_ms) WHERE acted_ms IS NOT NULL;
CREATE INDEX limits_reached ON remediations (playbook, user, ended_ms)
    WHERE verdict = 'limit_reached';
CREATE INDEX ended ON remediations (ended_ms) WHERE state = 'done';
CREATE INDEX repeated ON remediations (repeats) WHERE repeats IS NOT NULL;

-- What was done, in order. A step without an end was interrupted.
CREATE TABLE steps (
    id          INTEGER PRIMARY KEY,
    remediation INTEGER NOT NULL REFERENCES remediations (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    began_ms    INTEGER NOT NULL,
    ended_ms    INTEGER,
    outcome     TEXT,                      -- a word
    good        INTEGER CHECK (good IN (0, 1)),
    detail      TEXT                       -- all that is known, JSON
) STRICT;
CREATE INDEX steps_of_remediation ON steps (remediation);

-- What people read through Alertmanager.
CREATE TABLE outcomes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    remediation INTEGER NOT NULL REFERENCES remediations (id) ON DELETE CASCADE,
    event       TEXT NOT NULL UNIQUE,
    created_ms  INTEGER NOT NULL,
    labels      TEXT NOT NULL,             -- a JSON object
    annotations TEXT NOT NULL,             -- a JSON object
    taken_ms    INTEGER,                   -- when Alertmanager took it,
    ends_ms     INTEGER,                   -- and how long it is to keep it
    dropped     TEXT                       -- why it is no longer tried
) STRICT;
CREATE INDEX outcomes_of_remediation ON outcomes (remediation);
CREATE INDEX outcomes_waiting ON outcomes (id) WHERE taken_ms IS NULL AND dropped IS NULL;
CREATE INDEX outcomes_live ON outcomes (ends_ms) WHERE taken_ms IS NOT NULL;

-- For people.
CREATE VIEW history AS
SELECT r.id, strftime('%Y-%m-%d %H:%M:%S', coalesce(r.acted_ms, r.accepted_ms) / 1000, 'unixepoch') AS time_utc,
       r.user, r.command, r.playbook, r.before, r.after,
       CASE WHEN r.state = 'done' OR r.state = 'watching' THEN r.verdict ELSE r.state END AS verdict,
       r.ended_ms - coalesce(r.acted_ms, r.accepted_ms) AS ms, r.summary
FROM remediations r;
";

/// Each verdict that nothing could be done is mailed once in a while, not only that of a limit.
const VERSION_2: &str = r"
CREATE INDEX told ON remediations (playbook, user, verdict, ended_ms);
";

/// An outcome that Alertmanager has had time to mail is not posted again after a crash of Alertmanager.
const VERSION_3: &str = r"
ALTER TABLE outcomes ADD COLUMN settled_ms INTEGER;
";

/// A directory that is away does not report who is in a group; who was in it is remembered.
const VERSION_4: &str = r"
CREATE TABLE groups (
    name TEXT PRIMARY KEY,
    gid  INTEGER NOT NULL,
    uids TEXT NOT NULL                     -- all who were in it since the last reload, a JSON array
) STRICT;
";

/// The journal's version; a fault if it is newer than those that are known here.
pub(super) fn version(connection: &Connection) -> Result<i64, Fault> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > known {
        return Err(Fault::Newer { version, known });
    }
    Ok(version)
}

/// Brings the journal to the newest version, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    let version = version(connection)?;
    let done = usize::try_from(version).unwrap_or_default();
    for (index, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        let reached = index.saturating_add(1);
        transaction.execute_batch(&format!("PRAGMA user_version = {reached}"))?;
        transaction.commit()?;
    }
    Ok(())
}
