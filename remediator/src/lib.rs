//! The webhook daemon that archives a mailbox and kills a process storm, and proves it.
//!
//! - [`account`]: whose mail and processes.
//! - [`agreement`]: whether policy, rules and Alertmanager's routes fit together.
//! - [`kill`]: ends a storm, and proves it.
//! - [`mailbox`]: saves a user's mail file.
//! - [`sandbox`]: what the daemon gives up once it has started.

pub mod account;
pub mod agreement;
pub mod kill;
pub mod mailbox;
pub mod sandbox;
