//! What a playbook can do.
//!
//! - [`archive`]: saves a user's mail file.
//! - [`kill`]: ends a storm, and proves it.

pub mod archive;
pub mod kill;
