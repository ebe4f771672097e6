//! The webhook daemon that archives a mailbox and kills a process storm, and proves it.
//!
//! - [`account`]: whose mail and processes.
//! - [`kill`]: ends a storm, and proves it.
//! - [`mailbox`]: saves a user's mail file.
//! - [`sandbox`]: what the daemon gives up once it has started.

pub mod account;
pub mod kill;
pub mod mailbox;
pub mod sandbox;
