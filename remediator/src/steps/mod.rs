//! What a playbook can do.
//!
//! A step has a folder of its own, a name in the policy ([`policy::Step`](crate::policy::Step)), and a
//! line in [`of`]. What is said about it before it is taken is a [`Step`]; what it did is a part of the
//! outcome ([`outcome::Part`](crate::outcome::Part)).
//!
//! - [`archive`]: saves a user's mail file.
//! - [`kill`]: ends a storm, and proves it.

pub mod archive;
pub mod kill;

use std::path::Path;

use crate::policy::{self, Plan, Playbook};
use archive::mailroom::Mailroom;

/// A step, as far as it is described before it is taken.
pub(crate) trait Step {
    /// What it does, for `--check`: the end of a sentence.
    fn describe(&self, book: &Playbook) -> String;

    /// What else `--check` says about it, a sentence each.
    fn remarks(&self, book: &Playbook) -> Vec<&'static str>;

    /// What it would do now, for `explain`: a line each. Touches nothing, and may wait.
    fn plan(&self, look: &Look<'_>) -> Vec<String>;
}

/// What a step may look at to say what it would do.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    /// What may be done.
    pub(crate) plan: &'a Plan,
    /// The processes of the storm.
    pub(crate) living: &'a [i32],
    /// Where mail files are saved.
    pub(crate) mailroom: &'a Mailroom,
    /// The directory of the mail files.
    pub(crate) spool: &'a Path,
}

/// The step of that name.
pub(crate) fn of(step: policy::Step) -> &'static dyn Step {
    match step {
        policy::Step::ArchiveMailFile => &archive::ArchiveMailFile,
        policy::Step::KillUserProc => &kill::KillUserProc,
    }
}
