//! The remediator's program, with an Alertmanager that fails when a test wants it to.
//!
//! - `bad_luck`: wrong clocks, changed policies, late journals.
//! - `called_off`: steps that are aborted at the daemon's end.
//! - `clocks`: clocks that differ between hosts.
//! - `course`: recount, cool-down, limits, recurrence, silences, dry runs.
//! - `crash`: `kill -9` of the daemon at any instant.
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
mod clocks;
mod course;
mod crash;
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
