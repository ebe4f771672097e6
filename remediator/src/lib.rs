//! The webhook daemon that archives a mailbox and kills a process storm, and proves it.
//!
//! The way of an alert, from the socket to the mail that tells of it:
//! - [`web`]: who speaks?
//! - [`payload`]: what is said?
//! - [`journal`]: it is written down.
//! - [`policy`]: may it be done?
//! - [`engine`]: is it still true? It is done, and watched.
//! - [`mailroom`], [`mailbox`]: saves a user's mail file.
//! - [`kill`]: ends a storm, and proves it.
//! - [`outcome`]: what people are told.
//! - [`outbox`], [`alertmanager`]: brings it to Alertmanager.
//!
//! What that rests upon:
//! - [`account`]: whose mail and processes.
//! - [`agreement`]: whether policy, rules and Alertmanager's routes fit together.
//! - [`args`], [`startup`], [`daemon`]: from the command line to the end.
//! - [`check`], [`explain`]: what the policy means, and what it would do with a payload.
//! - [`complaint`]: how the program says why it ended badly.
//! - [`force`]: what of it is in force.
//! - [`metrics`]: what Prometheus is told.
//! - [`protection`]: whom the policy protects, by uid.
//! - [`reach`]: whether the name service answers in the sandbox as outside.
//! - [`resolver`]: host names, looked up without a new thread.
//! - [`printable`]: names from outside, made fit for people.
//! - [`restore`]: brings archived mail back into a mailbox.
//! - [`sandbox`]: what the daemon gives up once it has started.
//! - [`status`]: the pages that people look at.

pub mod account;
pub mod active;
pub mod alertmanager;
pub mod args;
pub mod commands;
pub mod daemon;
pub mod delivery;
pub mod engine;
pub mod journal;
pub mod kill;
pub mod mailbox;
pub mod mailroom;
pub mod metrics;
pub mod outcome;
pub mod policy;
pub mod printable;
pub mod reach;
pub mod sandbox;
pub mod startup;
pub mod status;
pub mod web;
