//! Reads a report out of the journal.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::{Event, Hit, Refused, Report, SCHEMA};
use crate::journal::{Fault, file, ms, open_to_read, time};
use crate::policy::Step;
use crate::verdict::Verdict;

/// How many lines of each kind are shown.
const LINES_MAX: usize = 1000;

/// The verdicts of remediations that began to act and then had nobody to hit, or could not; but some
/// of them also end kills that ended a part of the storm.
const MISSES: [Verdict; 9] = [
    Verdict::ArchiveFailed,
    Verdict::NoLongerTrue,
    Verdict::Denied,
    Verdict::Blind,
    Verdict::Failed,
    Verdict::Refused,
    Verdict::LimitReached,
    Verdict::Silenced,
    Verdict::LeftAlone,
];

/// What the journal in `state` says about a span of time.
pub(super) fn read(
    host: &str,
    state: &Path,
    since: Timestamp,
    until: Timestamp,
) -> Result<Report, Fault> {
    let mut report = Report {
        schema_version: SCHEMA,
        host: host.to_owned(),
        journal: file(state).display().to_string(),
        has_journal: false,
        since,
        until,
        hits: Vec::new(),
        refusals: Vec::new(),
        events: Vec::new(),
        left_out: 0,
    };
    let Some(mut connection) = open_to_read(state)? else { return Ok(report) };
    // One state of it for all questions, whatever the daemon writes meanwhile.
    let journal = connection.transaction()?;
    let span = [ms(since), ms(until)];
    report.has_journal = true;
    report.hits = rows(&journal, &hits(), span, hit)?;
    report.refusals = rows(&journal, &refused(), span, refusal)?;
    report.refusals.extend(rows(&journal, &not_taken(), span, refusal)?);
    report.refusals.sort_by(|a, b| b.alerts.cmp(&a.alerts).then_with(|| a.user.cmp(&b.user)));
    report.events = rows(&journal, &events(), span, event)?;
    report.left_out = [cut(&mut report.hits), cut(&mut report.refusals), cut(&mut report.events)]
        .iter()
        .fold(0, |sum, left| sum.saturating_add(*left));
    Ok(report)
}

/// Cuts a list. Returns how many are gone.
fn cut<T>(list: &mut Vec<T>) -> u64 {
    let gone = list.len().saturating_sub(LINES_MAX);
    list.truncate(LINES_MAX);
    u64::try_from(gone).unwrap_or(u64::MAX)
}

fn rows<T>(
    journal: &Connection,
    query: &str,
    span: [i64; 2],
    read: fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = journal.prepare(query)?;
    let mut rows = statement.query(params![span[0], span[1]])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

/// Whether the row of `remediations` under that name began to act, and hit somebody: it is no miss by
/// its verdict, or its kill ended some. Never NULL. A record that is no JSON says of nobody that they
/// were ended, and only `CASE` promises that it is not read as JSON all the same.
fn is_hit(row: &str) -> String {
    let misses: Vec<_> = MISSES.iter().map(|verdict| format!("'{verdict}'")).collect();
    format!(
        "({row}.acted_ms IS NOT NULL AND (coalesce({row}.verdict, '') NOT IN ({}) OR EXISTS (
             SELECT 1 FROM steps s WHERE s.remediation = {row}.id AND s.name = '{}'
                 AND CASE WHEN json_valid(s.detail) THEN coalesce(s.detail ->> '$.exited', 0)
                         + coalesce(s.detail ->> '$.terminated', 0) ELSE 0 END > 0)))",
        misses.join(", "),
        Step::KillUserProc.label()
    )
}

/// What began to act, and was not a miss.
fn hit_rows() -> String {
    format!(
        "FROM remediations WHERE acted_ms >= ?1 AND acted_ms <= ?2 AND {}",
        is_hit("remediations")
    )
}

/// More than this is not read, whatever a journal holds.
const READ_MAX: u32 = 100_000;

fn hits() -> String {
    format!(
        "SELECT user, command, playbook, dry_run, coalesce(verdict, state) AS how, count(*) AS times,
                coalesce(max(before), 0), coalesce(sum(before), 0), min(acted_ms), max(acted_ms)
         {} GROUP BY user, command, playbook, dry_run, how
         ORDER BY times DESC, user, command LIMIT {READ_MAX}",
        hit_rows()
    )
}

fn events() -> String {
    format!(
        "SELECT id, acted_ms, user, command, playbook, dry_run, verdict, before, after,
                coalesce(summary, '')
         {} ORDER BY acted_ms DESC, id DESC LIMIT {READ_MAX}",
        hit_rows()
    )
}

/// What was taken, and then not done. Of several sentences the newest.
fn refused() -> String {
    format!(
        "WITH kinds AS (
             SELECT user, command, playbook, dry_run, verdict, count(*) AS times, max(id) AS newest,
                    max(before) AS largest, min(ended_ms) AS first, max(ended_ms) AS last
             FROM remediations
             WHERE ended_ms >= ?1 AND ended_ms <= ?2 AND verdict IS NOT NULL
                 AND NOT {}
             GROUP BY user, command, playbook, dry_run, verdict LIMIT {READ_MAX})
         SELECT user, command, playbook, dry_run, verdict,
                (SELECT summary FROM remediations WHERE id = newest),
                (SELECT count(*) FROM (
                    SELECT DISTINCT a.fingerprint, a.starts_at FROM alerts a
                    JOIN remediations r ON a.remediation = r.id
                    WHERE r.playbook = kinds.playbook AND r.user = kinds.user
                        AND r.verdict = kinds.verdict AND r.command = kinds.command
                        AND r.dry_run = kinds.dry_run
                        AND r.ended_ms >= ?1 AND r.ended_ms <= ?2 AND NOT {})),
                times, largest, first, last
         FROM kinds",
        is_hit("remediations"),
        is_hit("r")
    )
}

/// Alerts that were not taken. One that is resolved asks for nothing.
fn not_taken() -> String {
    format!(
        "WITH kinds AS (
             SELECT user, command, playbook, refusal, max(id) AS newest,
                    count(DISTINCT fingerprint || ' ' || starts_at) AS alerts, count(*) AS times,
                    min(received_ms) AS first, max(received_ms) AS last
             FROM alerts
             WHERE received_ms >= ?1 AND received_ms <= ?2 AND decision = 'refused'
                 AND status = 'firing'
             GROUP BY user, command, playbook, refusal LIMIT {READ_MAX})
         SELECT user, command, playbook, NULL, refusal,
                (SELECT reason FROM alerts WHERE id = newest), alerts, times, NULL, first, last
         FROM kinds"
    )
}

fn count(row: &Row<'_>, index: usize) -> Result<u64, Fault> {
    let count: i64 = row.get(index)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

fn count_if_known(row: &Row<'_>, index: usize) -> Result<Option<u64>, Fault> {
    let count: Option<i64> = row.get(index)?;
    Ok(count.map(|count| u64::try_from(count).unwrap_or_default()))
}

fn hit(row: &Row<'_>) -> Result<Hit, Fault> {
    Ok(Hit {
        user: row.get(0)?,
        command: row.get(1)?,
        playbook: row.get(2)?,
        dry_run: row.get(3)?,
        verdict: row.get(4)?,
        times: count(row, 5)?,
        largest: count(row, 6)?,
        processes: count(row, 7)?,
        first: time(row.get(8)?)?,
        last: time(row.get(9)?)?,
    })
}

fn refusal(row: &Row<'_>) -> Result<Refused, Fault> {
    Ok(Refused {
        user: row.get(0)?,
        command: row.get(1)?,
        playbook: row.get(2)?,
        dry_run: row.get(3)?,
        why: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        reason: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        alerts: count(row, 6)?,
        times: count(row, 7)?,
        largest: count_if_known(row, 8)?,
        first: time(row.get(9)?)?,
        last: time(row.get(10)?)?,
    })
}

fn event(row: &Row<'_>) -> Result<Event, Fault> {
    Ok(Event {
        remediation: row.get(0)?,
        time: time(row.get(1)?)?,
        user: row.get(2)?,
        command: row.get(3)?,
        playbook: row.get(4)?,
        dry_run: row.get(5)?,
        verdict: row.get(6)?,
        before: count_if_known(row, 7)?,
        after: count_if_known(row, 8)?,
        summary: row.get(9)?,
    })
}
