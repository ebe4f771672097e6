//! The webhook daemon that archives a mailbox and kills a process storm, and proves it.
//!
//! - [`account`]: whose mail and processes.
//! - [`agreement`]: whether policy, rules and Alertmanager's routes fit together.
//! - [`config`]: the host's own policy, `remediator.yml`.
//! - [`kill`]: ends a storm, and proves it.
//! - [`mailbox`]: saves a user's mail file.
//! - [`payload`]: what Alertmanager posts.
//! - [`policy`]: may it be done?
//! - [`printable`]: names from outside, made fit for people.
//! - [`sandbox`]: what the daemon gives up once it has started.
//! - [`status`]: the pages that people look at.

pub mod account;
pub mod agreement;
pub mod config;
pub mod kill;
pub mod mailbox;
pub mod payload;
pub mod policy;
pub mod printable;
pub mod sandbox;
pub mod status;
