//! What a person asks at the command line.
//!
//! - [`check`]: `--check`, what the policy means; with [`agreement`], whether policy, rules and
//!   Alertmanager's routes fit together.
//! - `describe`: the policy in plain sentences, for `--check`.
//! - [`explain`]: what the policy would do with a payload.
//! - [`restore`]: brings archived mail back into a mailbox.
//! - [`complaint`]: how the program says why it failed.

pub mod agreement;
pub mod check;
pub mod complaint;
mod describe;
pub mod explain;
pub mod restore;
