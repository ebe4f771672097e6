//! What a playbook can do.
//!
//! A step has a folder of its own, a name in the policy ([`policy::Step`]), and a
//! line in [`of`]. The folder has all that is the step's: what is said about it before it is taken, how
//! it is taken, its record in the journal, what the status page shows of that, and which places the
//! sandbox must leave open for it. A playbook's steps are run, described and shown through [`Step`]; the
//! engine also counts a storm's processes, and the API lists its archives, by the modules themselves.
//!
//! - [`archive`]: saves a user's mail file.
//! - [`kill`]: ends a storm, and proves it.
//! - `run`: how a step is taken, with a record before and after.
//! - `record`: what a step did, as the journal keeps it; `facts`: as the status page shows it.

pub mod archive;
pub(crate) mod facts;
pub mod kill;
pub(crate) mod record;
pub(crate) mod run;

use std::path::Path;
use std::time::Duration;

use crate::journal::StepRow;
use crate::outcome::Part;
use crate::policy::{self, Config, Plan, Playbook};
use crate::sandbox::Places;
use archive::mailroom::Mailroom;
use record::{Record, Unreadable};
use run::{Run, Running, Took, Work};

/// A step that a playbook can name.
pub(crate) trait Step: Sync {
    /// What it does, as the heading of a part of the status page.
    fn title(&self) -> &'static str;

    /// What it does, for `--check`: the end of a sentence.
    fn describe(&self, book: &Playbook) -> String;

    /// What else `--check` says about it, a sentence each.
    fn remarks(&self, book: &Playbook) -> Vec<&'static str>;

    /// What it would do now, for `explain`. Touches nothing, and may wait.
    fn plan(&self, look: &Look<'_>) -> Outlook;

    /// Takes it, or takes over what an earlier run of the daemon has on record of it.
    fn run<'a>(&'a self, run: &'a Run<'a>) -> Running<'a, Took>;

    /// What it has to say where a restart cut the steps off and too few processes are left for a
    /// storm. It is not taken any more.
    fn cut_off<'a>(&'a self, work: &'a Work<'a>) -> Running<'a, Vec<Part>>;

    /// Its record in the journal.
    fn record(&self, row: &StepRow) -> Result<Box<dyn Record>, Unreadable>;

    /// The places that the sandbox must leave open for it, besides /proc. Creates the missing parts of
    /// them: afterwards the daemon could not.
    fn places(&self, _config: &Config) -> Places {
        Places::default()
    }
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

/// What a step would do.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// For people, a line each.
    pub(crate) lines: Vec<String>,
    /// Whether the steps after it would be left undone.
    pub(crate) stops: bool,
}

/// The step of that name.
pub(crate) fn of(step: policy::Step) -> &'static dyn Step {
    match step {
        policy::Step::ArchiveMailFile => &archive::ArchiveMailFile,
        policy::Step::KillUserProc => &kill::KillUserProc,
    }
}

/// All steps, in the order in which the policy lists them.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn Step> {
    policy::Step::ALL.into_iter().map(of)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How many there are.
pub(crate) fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}
