//! Alerts come in: all alerts of one notification in one transaction, before it is answered.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Fault, Journal, json, ms};
use crate::alertmanager::{Alert, Status};
use crate::policy::{Refusal, Request};
use crate::verdict::Verdict;

/// The most remediations that may be unfinished; then no alert is accepted until some are done.
const UNFINISHED_MAX: i64 = 10_000;

/// An alert, and what the policy says to it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The alert.
    pub alert: Alert,
    /// Its request, or why it is refused.
    pub admission: Result<Request, Refusal>,
}

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A new remediation was made for it: begin it.
    Accepted(i64),
    /// A remediation of the same playbook, user and command is not finished, and serves this
    /// alert too; or a dry run has said already what would be done about this very alert.
    Coalesced(i64),
    /// It was refused, which is on record.
    Refused,
}

impl Journal {
    /// Records the alerts of a notification, in their order. When this returns, nothing of it can
    /// be lost any more.
    pub async fn accept(&self, alerts: Vec<Judged>, now: Timestamp) -> Result<Vec<Receipt>, Fault> {
        self.write(move |tx| alerts.iter().map(|judged| accept(tx, judged, ms(now))).collect())
            .await
    }
}

fn accept(tx: &Transaction<'_>, judged: &Judged, now: i64) -> Result<Receipt, Fault> {
    let receipt = match &judged.admission {
        Err(_refusal) => Receipt::Refused,
        Ok(request) => match serving(tx, request, &judged.alert)? {
            Some(id) => Receipt::Coalesced(id),
            None => Receipt::Accepted(begin(tx, request, now)?),
        },
    };
    record(tx, judged, receipt, now)?;
    Ok(receipt)
}

/// The remediation that serves an alert already.
fn serving(tx: &Transaction<'_>, request: &Request, alert: &Alert) -> Result<Option<i64>, Fault> {
    match unfinished(tx, request)? {
        None if request.is_dry_run() => rehearsed(tx, request, alert),
        found => Ok(found),
    }
}

/// The last dry run of the same playbook, user and command, if it was for this very alert and got as
/// far as it could. A dry run ends nothing, so that Alertmanager repeats the alert as long as the
/// storm lasts.
fn rehearsed(tx: &Transaction<'_>, request: &Request, alert: &Alert) -> Result<Option<i64>, Fault> {
    let mut query = tx.prepare_cached(
        "SELECT id FROM (
             SELECT id, ended_ms FROM remediations
             WHERE playbook = ?1 AND user = ?2 AND command = ?3 AND verdict IN (?4, ?5)
                 AND dry_run = 1
             ORDER BY ended_ms DESC, id DESC LIMIT 1) r
         WHERE EXISTS (SELECT 1 FROM alerts
                       WHERE remediation = r.id AND fingerprint = ?6 AND starts_at = ?7)",
    )?;
    let question = params![
        request.name(),
        request.user().as_str(),
        request.command().to_text(),
        Verdict::DryRun.label(),
        Verdict::ArchiveFailed.label(),
        alert.fingerprint,
        alert.starts_at.to_string(),
    ];
    Ok(query.query_row(question, |row| row.get(0)).optional()?)
}

fn unfinished(tx: &Transaction<'_>, request: &Request) -> Result<Option<i64>, Fault> {
    let mut query = tx.prepare_cached(
        "SELECT id FROM remediations
         WHERE playbook = ?1 AND user = ?2 AND command = ?3 AND state <> 'done'",
    )?;
    let (user, command) = (request.user().as_str(), request.command().to_text());
    Ok(query.query_row(params![request.name(), user, command], |row| row.get(0)).optional()?)
}

fn begin(tx: &Transaction<'_>, request: &Request, now: i64) -> Result<i64, Fault> {
    let waiting: i64 = tx
        .prepare_cached("SELECT count(*) FROM remediations WHERE state <> 'done'")?
        .query_row([], |row| row.get(0))?;
    if waiting >= UNFINISHED_MAX {
        return Err(Fault::Crowded(waiting));
    }
    tx.prepare_cached(
        "INSERT INTO remediations (playbook, user, command, state, accepted_ms, due_ms, dry_run)
         VALUES (?1, ?2, ?3, 'accepted', ?4, ?4, ?5)",
    )?
    .execute(params![
        request.name(),
        request.user().as_str(),
        request.command().to_text(),
        now,
        request.is_dry_run()
    ])?;
    Ok(tx.last_insert_rowid())
}

fn record(tx: &Transaction<'_>, judged: &Judged, receipt: Receipt, now: i64) -> Result<(), Fault> {
    let alert = &judged.alert;
    let status = match alert.status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    };
    let (decision, remediation) = match receipt {
        Receipt::Accepted(id) => ("accepted", Some(id)),
        Receipt::Coalesced(id) => ("coalesced", Some(id)),
        Receipt::Refused => ("refused", None),
    };
    let refusal = judged.admission.as_ref().err();
    tx.prepare_cached(
        "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user, command,
                             playbook, labels, decision, refusal, reason, remediation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        now,
        alert.fingerprint,
        alert.starts_at.to_string(),
        status,
        alert.label("host"),
        alert.label("user"),
        alert.label("command"),
        alert.label("playbook"),
        json(&alert.labels)?,
        decision,
        refusal.map(|refusal| refusal.verdict().label()),
        refusal.map(Refusal::to_string),
        remediation,
    ])?;
    Ok(())
}
