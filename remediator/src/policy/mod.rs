//! The host's policy: what may be done, to which users, and above which count. Pure but for
//! [`Config::read`]: nothing here looks at a process, a mailbox or the network.
//!
//! - [`mod@file`]: `remediator.yml`, read and checked as a whole.
//! - [`mod@decide`]: may this be done?
//! - `keys`: each key once, with its form, default and meaning; `tree` reads mappings,
//!   `values` reads quantities.
//! - [`duration`]: spans of time, read and written.
//! - `yaml`: a file's values, each with its line.

pub mod decide;
pub mod duration;
pub mod file;
mod keys;
mod tree;
mod values;
pub(crate) mod yaml;

pub use decide::{
    Authorised, Candidate, Decision, Facts, History, Identity, Plan, Quoted, Refusal, Request,
    admit, decide,
};
pub use file::{
    Access, Accounts, Config, DryRun, Limits, Links, LoadError, Mail, NestedNamespaces,
    OnArchiveFailure, Playbook, Readable, Step,
};
pub use keys::{Fallback, Key};
pub use tree::Fault;
pub use values::{Rate, Reserve, Retention};
