//! What the pages and the JSON show.

use jiff::Timestamp;
use serde::Serialize;

use crate::journal::refusals::Refusals;
use crate::verdict::{Severity, Verdict};

/// What stands for the verdict of a remediation, or the outcome of a step, until there is one.
pub const RUNNING: &str = "running";

/// What the daemon may do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It acts.
    Live,
    /// Some playbooks act, and others say what they would do.
    PartlyLive,
    /// It says what it would do.
    DryRun,
    /// Others' processes are hidden from it: it refuses to act.
    Blind,
    /// A storm was left alone because a limit was reached: a person decides.
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
            Self::Live => ("live", "It acts on storms: see the playbooks below."),
            Self::PartlyLive => ("partly live", "Some playbooks act, the others only report."),
            Self::DryRun => ("dry run", "Nothing is saved or killed; it reports what it would do."),
            Self::Blind => ("blind", "Other users' processes are hidden from it: it does not act."),
            Self::Limited => (
                "limit reached",
                "In the last hour it left a storm alone because a limit was reached: see below.",
            ),
            Self::Unrecorded => {
                ("unrecorded", "The journal cannot be written: alerts are refused until it can.")
            }
            Self::Unsaved => {
                ("unsaved", "Spool or archive cannot be used: no mail file is saved until it can.")
            }
        }
    }

    /// The class of its card.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Live => "good",
            Self::PartlyLive | Self::DryRun => "dry",
            Self::Limited | Self::Blind | Self::Unrecorded | Self::Unsaved => "bad",
        }
    }
}

/// The first page.
#[derive(Clone, Debug)]
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
    /// What it does, playbook by playbook.
    pub playbooks: Vec<PlaybookView>,
    /// Whom it never acts on, in a sentence.
    pub left_alone: String,
    /// The alerts of the last day that it refused.
    pub refusals: Refusals,
    /// The remediations of this page, newest first.
    pub remediations: Vec<RemediationView>,
    /// Where the next, older page begins: the id before which it shows.
    pub older_before: Option<i64>,
    /// Where else to look.
    pub links: Vec<Link>,
}

/// A playbook of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaybookView {
    /// Its name.
    pub name: String,
    /// Whether it acts, or only says what it would do.
    pub is_live: bool,
    /// When it acts.
    pub when: String,
    /// What it does, in order.
    pub steps: Vec<String>,
    /// How often it may act.
    pub limits: String,
    /// How often it still may; `None` if the journal does not say.
    pub left: Option<u32>,
    /// Users for whom it may not act at the moment.
    pub exhausted: Vec<String>,
}

/// Where a person may look next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is there.
    pub name: &'static str,
    /// Its address.
    pub url: String,
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
    /// How it ended, at a glance.
    #[must_use]
    pub fn tone(&self) -> Tone {
        Tone::of(&self.verdict)
    }
}

/// What a result means to somebody who only glances at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It has not ended.
    Running,
    /// It was done, and it worked.
    Good,
    /// Nothing was done: it was a dry run.
    DryRun,
    /// Nothing was to be done, and nothing is wrong.
    LeftAlone,
    /// A person should look.
    Attention,
    /// It did not work.
    Bad,
    /// A newer version wrote it, and this one cannot say.
    Unknown,
}

impl Tone {
    /// That of a verdict.
    #[must_use]
    pub fn of(verdict: &str) -> Self {
        if verdict == RUNNING {
            return Self::Running;
        }
        let Some(known) = Verdict::from_label(verdict) else { return Self::Unknown };
        match (known, known.severity()) {
            (Verdict::DryRun, _) => Self::DryRun,
            // The host counted too few: nobody was ended.
            (Verdict::NoLongerTrue, _) => Self::LeftAlone,
            // The policy says so; but a storm goes on.
            (Verdict::LeftAlone, _) => Self::Attention,
            (_, Severity::Info) if known.is_good() => Self::Good,
            (_, Severity::Info) => Self::LeftAlone,
            (_, Severity::Warning) => Self::Attention,
            (_, Severity::Critical) => Self::Bad,
        }
    }

    /// The class of the style, and a sign: not everybody tells colours apart.
    #[must_use]
    pub fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Running => ("work", "…"),
            Self::Good => ("good", "✓"),
            Self::DryRun => ("dry", "○"),
            Self::LeftAlone => ("calm", "–"),
            Self::Attention => ("work", "!"),
            Self::Bad => ("bad", "✗"),
            Self::Unknown => ("calm", "?"),
        }
    }
}

/// One remediation with all that was done.
#[derive(Clone, Debug)]
pub struct RemediationPage {
    /// The host.
    pub host: String,
    /// The remediation.
    pub remediation: RemediationView,
    /// What its verdict means; `None` until there is one that this version knows.
    pub meaning: Option<&'static str>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The remediation after which the storm had come back.
    pub repeats: Option<i64>,
    /// The commands that compare the saved mail with the mailbox.
    pub restore: Vec<String>,
    /// What was asked: the alert's labels.
    pub alert: Vec<(String, String)>,
    /// What was done, in order.
    pub steps: Vec<StepView>,
    /// Where else to look.
    pub links: Vec<Link>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// One step of a remediation.
#[derive(Clone, Debug)]
pub struct StepView {
    /// What it does, in words.
    pub title: &'static str,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_done_and_worked_is_green_and_only_what_failed_is_red() {
        for (verdict, tone) in [
            (Verdict::NoneSeen, Tone::Good),
            (Verdict::BelowThreshold, Tone::Good),
            (Verdict::DryRun, Tone::DryRun),
            (Verdict::NoLongerTrue, Tone::LeftAlone),
            (Verdict::ProtectedUser, Tone::LeftAlone),
            (Verdict::Root, Tone::LeftAlone),
            (Verdict::Silenced, Tone::LeftAlone),
            (Verdict::Archived, Tone::LeftAlone),
            (Verdict::LeftAlone, Tone::Attention),
            (Verdict::Interrupted, Tone::Attention),
            (Verdict::Respawning, Tone::Bad),
            (Verdict::LimitReached, Tone::Bad),
        ] {
            assert_eq!(Tone::of(verdict.label()), tone, "{verdict}");
        }
        assert_eq!(Tone::of(RUNNING), Tone::Running);
        assert_eq!(Tone::of("of_a_newer_version"), Tone::Unknown);
    }
}
