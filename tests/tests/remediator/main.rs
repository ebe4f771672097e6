//! The remediator's program, with an Alertmanager that fails when a test wants it to.
//!
//! - `bad_luck`: wrong clocks, changed policies, late journals.
//! - `called_off`: steps that are aborted at the daemon's end.
//! - `certificates`: those of a fleet, made, used and renewed.
//! - `clocks`: clocks that differ between hosts.
//! - `course`: recount, cool-down, limits, recurrence, silences.
//! - `crash`: `kill -9` of the daemon at any instant.
//! - `dry_run`: dry runs: what is said and how often; limits.
//! - `hangups`: a client that hangs up while its alert is recorded.
//! - `hostile_clients`: clients that mean harm.
//! - `hung_mail`: mail file systems that hang.
//! - `journal`: a journal or an archive that cannot be written.
//! - `names`: a name service that does not answer.
//! - `old_journal`: a journal of an earlier version.
//! - `outcomes`: outcomes reach Alertmanager in order, once each.
//! - `permanent`: what can never be done comes to an end.
//! - `scarcity`: no descriptor, no memory.
//! - `secrets`: the token.
//! - `starved`: no pid.
//! - `status_page`: the status pages in a browser.
//! - `web`: requests, start, reload, stop.

mod bad_luck;
mod called_off;
mod certificates;
mod clocks;
mod course;
mod crash;
mod dry_run;
mod hangups;
mod hostile_clients;
mod hung_mail;
mod journal;
mod names;
mod old_journal;
mod outcomes;
mod permanent;
mod scarcity;
mod secrets;
mod starved;
mod status_page;
mod web;

use procstorm_remediator::journal::{Fault as JournalFault, Journal};
use procstorm_tests::host::Host;
use serde_json::Value;

/// Works on the journal of a host whose daemon is stopped.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn with_journal<T>(host: &Host, work: impl AsyncFnOnce(Journal) -> Result<T, JournalFault>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let journal = Journal::start(&host.dir().join("state")).unwrap();
    runtime.block_on(async {
        let value = work(journal.clone()).await;
        journal.close().await;
        value.unwrap()
    })
}

/// Changes the journal of a host whose daemon is stopped.
fn change_journal(host: &Host, statements: &str) {
    let statements = statements.to_owned();
    with_journal(host, async |journal| {
        journal.write(move |transaction| Ok(transaction.execute_batch(&statements)?)).await
    });
}

/// The text under a key; empty if there is none.
fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
