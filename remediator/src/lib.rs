//! The webhook daemon that archives a mailbox and kills a process storm, and proves it.
//!
//! The way of an alert, from the socket to the mail about its outcome:
//! - [`web`]: who speaks? Also the pages that people look at.
//! - [`alertmanager::notification`]: what is said?
//! - [`journal`]: it is written down.
//! - [`policy`]: may it be done?
//! - [`engine`]: is it still true? It is done, and watched.
//! - [`steps`]: what is done: [`steps::archive`] saves a user's mail file, [`steps::kill`] ends a
//!   storm and proves it.
//! - [`outcome`]: what people read about it.
//! - [`delivery`], [`alertmanager::client`]: brings it to Alertmanager.
//!
//! What that rests on:
//! - [`account`]: whose mail and processes, and whom the policy protects.
//! - [`active`]: the policy in force, with what was opened for it.
//! - [`args`], [`startup`], [`daemon`]: from the command line to the end.
//! - [`commands`]: what a person asks at the command line: `--check`, `explain`, `restore`.
//! - [`metrics`]: what Prometheus reads.
//! - [`reach`]: whether the name service answers in the sandbox as outside.
//! - [`sandbox`]: what the daemon gives up once it has started.
//! - `counted`: counts with their nouns.
//! - `stopping`: how what acts waits while the daemon may stop.
//! - [`verdict`]: how a remediation ends, and what follows from it.

pub mod account;
pub mod active;
pub mod alertmanager;
pub mod args;
pub mod commands;
mod counted;
pub mod daemon;
pub mod delivery;
pub mod engine;
pub mod journal;
pub mod metrics;
pub mod outcome;
pub mod policy;
pub mod reach;
pub mod sandbox;
pub mod startup;
pub mod steps;
mod stopping;
pub mod verdict;
pub mod web;

pub use procstorm_toolkit::printable;
