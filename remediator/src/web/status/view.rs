//! What the pages and the JSON show.

use serde::Serialize;

use crate::verdict::Verdict;

/// What stands for the verdict of a remediation, or the outcome of a step, until there is one.
pub const RUNNING: &str = "running";

/// What the daemon may do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It acts.
    Live,
    /// Some playbooks act, and others say what they would do.
    PartlyLive,
    /// It says what it would do.
    DryRun,
    /// Others' processes are hidden from it: it refuses to act.
    Blind,
    /// The limit of runs is reached: a person decides.
    Limited,
    /// Its journal cannot be written: it takes no alert.
    Unrecorded,
    /// Its spool cannot be read or its archive not be written: it saves no mail file.
    Unsaved,
}

impl Mode {
    /// One word, and what it means.
    #[must_use]
    pub fn explained(self) -> (&'static str, &'static str) {
        match self {
            Self::Live => ("live", "Storms are archived and killed."),
            Self::PartlyLive => (
                "partly live",
                "Some playbooks archive and kill; those in dry run only show what they would do.",
            ),
            Self::DryRun => ("dry run", "Nothing is written or killed; what would be is shown."),
            Self::Blind => ("blind", "Other users' processes are hidden from it: it will not act."),
            Self::Limited => ("limited", "A limit of runs is reached: a person has to decide."),
            Self::Unrecorded => {
                ("unrecorded", "The journal cannot be written: alerts are refused until it can.")
            }
            Self::Unsaved => {
                ("unsaved", "Spool or archive cannot be used: no mail file is saved until it can.")
            }
        }
    }

    /// Whether a person should look.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Blind | Self::Limited | Self::Unrecorded | Self::Unsaved)
    }
}

/// The first page.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The host that it acts for.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// What it may do; more than one may hold.
    pub modes: Vec<Mode>,
    /// Why no mail file can be saved, if none can.
    pub unsaved: Option<String>,
    /// Remediations whose steps are not done.
    pub pending: u64,
    /// Remediations whose steps are done, and whose storm may come back.
    pub watched: u64,
    /// Outcomes that Alertmanager has not taken yet.
    pub outcomes_pending: u64,
    /// What keeps the sandbox from being whole; empty when nothing does.
    pub sandbox: Vec<String>,
    /// The remediations of this page, newest first.
    pub remediations: Vec<RemediationView>,
    /// Where the next, older page begins: the id before which it shows.
    pub older_before: Option<i64>,
}

/// One run of a playbook for one user and command.
#[derive(Clone, Debug, Serialize)]
pub struct RemediationView {
    /// Its number in the journal.
    pub id: i64,
    /// When it began, RFC 3339.
    pub started: String,
    /// Whose processes.
    pub user: String,
    /// Which.
    pub command: String,
    /// What was to be done.
    pub playbook: String,
    /// Whether nothing was to be touched.
    pub dry_run: bool,
    /// Processes counted before.
    pub before: Option<u64>,
    /// Processes counted after.
    pub after: Option<u64>,
    /// How it ended, one of the verdicts; [`RUNNING`] until then; or one
    /// that a newer version wrote, as it is.
    pub verdict: String,
    /// In a sentence.
    pub summary: String,
    /// Where the mail was saved.
    pub archives: Vec<String>,
    /// Why mail was not saved; empty if all was, or none was to be.
    pub archive_failures: Vec<String>,
    /// How long it took.
    pub milliseconds: Option<u64>,
}

impl RemediationView {
    /// Whether it ended as it should.
    #[must_use]
    pub fn is_good(&self) -> bool {
        Verdict::from_label(&self.verdict).is_some_and(Verdict::is_good)
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.verdict == RUNNING
    }
}

/// One remediation with all that was done.
#[derive(Clone, Debug, Serialize)]
pub struct RemediationPage {
    /// The host.
    pub host: String,
    /// The remediation.
    #[serde(flatten)]
    pub remediation: RemediationView,
    /// What was asked: the alert's labels.
    pub alert: Vec<(String, String)>,
    /// What was done, in order.
    pub steps: Vec<StepView>,
}

/// One step of a remediation.
#[derive(Clone, Debug, Serialize)]
pub struct StepView {
    /// Its name in the policy: `archive_mail_file`, `kill_user_proc`.
    pub name: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How it ended, in a word; `running` until then.
    pub outcome: String,
    /// Whether that is as it should be.
    pub good: bool,
    /// How long it took.
    pub milliseconds: Option<u64>,
    /// What else is known: name and value.
    pub facts: Vec<(String, String)>,
    /// The pids that it signalled, or would have.
    pub pids: Vec<i32>,
}
