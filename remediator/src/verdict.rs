//! How a remediation ends, in one word: the label `verdict` of metrics and outcomes, and the text
//! in the journal and on the pages. What follows from a verdict is decided here and nowhere else.
//!
//! - [`Verdict`]: all of them; a new one is one entry below.
//! - [`Severity`]: how much a person must care.
//! - [`Mailed`]: when people get a mail about it.
//!
//! A kill's report and a refusal hold more than a word: they map to a verdict where they are
//! defined. The labels are a public interface: a change breaks queries, routes and journals.

use std::fmt::{self, Display, Formatter};

/// How much a person must care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well, and proven.
    Info,
    /// The storm is over, but not all went well.
    Warning,
    /// The storm may go on.
    Critical,
}

impl Severity {
    /// The value of the label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// When people get a mail about a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mailed {
    /// Each time.
    Always,
    /// Each time that steps were taken; if nothing was done, once an hour for each user.
    HourlyIfIdle,
    /// The same, but once in the window of `limits.per_user`.
    OncePerUserLimitIfIdle,
    /// The same, but once in the window of the limit that was reached.
    OncePerLimitIfIdle,
    /// Each time that steps were taken; never if nothing was done.
    NeverIfIdle,
    /// Never.
    Never,
}

/// What is fixed about a verdict.
struct Entry {
    label: &'static str,
    severity: Severity,
    mailed: Mailed,
    good: bool,
    watched: bool,
    meaning: &'static str,
}

macro_rules! verdicts {
    ($($(#[$note:meta])* $name:ident = $label:literal, $severity:ident, $mailed:ident,
       good: $good:literal, watched: $watched:literal, $meaning:literal;)*) => {
        /// How a remediation ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verdict {
            $(#[doc = $meaning] $(#[$note])* $name,)*
        }

        impl Verdict {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        label: $label,
                        severity: Severity::$severity,
                        mailed: Mailed::$mailed,
                        good: $good,
                        watched: $watched,
                        meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

verdicts! {
    // What a kill came to.
    NoneSeen = "none_seen", Info, Always, good: true, watched: true,
        "all were killed or ended otherwise, and none has been seen since";
    NoLongerTrue = "no_longer_true", Info, NeverIfIdle, good: true, watched: true,
        "the host counted fewer than its own threshold, or the processes exited by themselves";
    BelowThreshold = "below_threshold", Info, Always, good: true, watched: true,
        "killed; a few came back (a client that reconnects), but for three rounds in a row fewer than the threshold, and not more each time";
    LeftAlone = "left_alone", Critical, OncePerUserLimitIfIdle, good: false, watched: true,
        "others still run in a container (a pid namespace that the user did not create), and the remediator does not end those";
    Evaded = "evaded", Critical, Always, good: false, watched: true,
        "some changed their name or owner before they were stopped, so the remediator let them go; the mail gives their present names";
    Respawning = "respawning", Critical, Always, good: false, watched: true,
        "killed, but new ones start as fast; the mail names their parent, and says whether it belongs to the user";
    Stuck = "stuck", Critical, Always, good: false, watched: false,
        "some do not exit (usually they are in uninterruptible sleep because a file server is down; or they are frozen or traced)";
    Denied = "denied", Critical, Always, good: false, watched: false,
        "the kernel did not permit the daemon to signal some of them";
    Unfinished = "unfinished", Critical, Always, good: false, watched: true,
        "the kill reached its limit of time or signals before all processes exited; how many are left is in the mail, or `unknown`";
    Interrupted = "interrupted", Warning, Always, good: false, watched: true,
        "the daemon ended while it acted; after its restart fewer processes than the threshold were left, or the policy had changed from live to dry run or back";
    Blind = "blind", Critical, Always, good: false, watched: false,
        "/proc does not show all processes";
    Failed = "failed", Critical, Always, good: false, watched: false,
        "the system refused something, or the daemon could not read its own record of the storm; the mail says what";
    Refused = "refused", Critical, Always, good: false, watched: false,
        "the kill itself refused these processes; the mail says why";
    Aborted = "aborted", Critical, Never, good: false, watched: false,
        "the daemon was stopped while it acted; the next start resumes";

    // Nothing was done, although there may be a storm.
    SharedUid = "shared_uid", Critical, HourlyIfIdle, good: false, watched: false,
        "the uid owns the mail of several users (`vmail`), so its processes belong to all of them; nothing was done";
    UnresolvedUser = "unresolved_user", Critical, HourlyIfIdle, good: false, watched: false,
        "the name service did not give the user's uid within 5 minutes; nothing was done";
    BadUserName = "bad_user_name", Critical, HourlyIfIdle, good: false, watched: false,
        "the account's name holds characters that cannot be part of a file's name (`CORP\\alice`, a blank) or is over 64 bytes long; nothing was done";
    LimitReached = "limit_reached", Critical, OncePerLimitIfIdle, good: false, watched: false,
        "it has acted as often as `limits` allows; nothing was done";

    // The other ends of the steps.
    ArchiveFailed = "archive_failed", Critical, Always, good: false, watched: false,
        "the mail file could not be saved and the playbook says `stop`: nothing was killed";
    Archived = "archived", Info, Always, good: false, watched: false,
        "the playbook saves the mail file and kills nothing";
    DryRun = "dry_run", Info, Always, good: true, watched: false,
        "this is what would be done";

    // Nothing is to be done.
    Silenced = "silenced", Info, Never, good: false, watched: false,
        "the alert was silenced or inhibited after it was accepted";
    UnknownUser = "unknown_user", Info, Never, good: false, watched: false,
        "the name service does not know the user";
    Alias = "alias", Info, Never, good: false, watched: false,
        "the user's name is a second name of an account; the exporter's alerts have the account's main name";
    NamelessUid = "nameless_uid", Info, Never, good: false, watched: false,
        "the uid has no name, and `accounts.allow_nameless` is not set";
    Root = "root", Info, Never, good: false, watched: false,
        "the user is root";
    SystemUid = "system_uid", Info, Never, good: false, watched: false,
        "the user's uid is below `accounts.min_uid`";
    OwnUid = "own_uid", Info, Never, good: false, watched: false,
        "the user is the daemon's own";
    ProtectedUser = "protected_user", Info, Never, good: false, watched: false,
        "`accounts.protected` covers the user";
    ExcludedUser = "excluded_user", Info, Never, good: false, watched: false,
        "`accounts.only` is set and does not cover the user";
    Resolved = "resolved", Info, Never, good: false, watched: false,
        "the alert no longer fires";
    OtherHost = "other_host", Info, Never, good: false, watched: false,
        "the alert is for another host";
    NoPlaybook = "no_playbook", Info, Never, good: false, watched: false,
        "the alert names no playbook";
    UnknownPlaybook = "unknown_playbook", Info, Never, good: false, watched: false,
        "the policy has no playbook of that name";
    AlertNotAllowed = "alert_not_allowed", Info, Never, good: false, watched: false,
        "the playbook does not list this alert";
    OtherCommand = "other_command", Info, Never, good: false, watched: false,
        "the playbook does not list this command";
}

impl Verdict {
    /// The verdict of that label; `None` if this version does not know it. A newer version may
    /// have written it into the journal: it is then shown as it is.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verdict| verdict.label() == label)
    }

    /// Its name in metrics, in outcomes and in the journal.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.entry().label
    }

    /// How much a person must care, at the worst: few processes that a kill left are less than a
    /// storm.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.entry().severity
    }

    /// When people get a mail about it.
    #[must_use]
    pub fn mailed(self) -> Mailed {
        self.entry().mailed
    }

    /// Whether people ever get a mail about it.
    #[must_use]
    pub fn is_mailed(self) -> bool {
        self.mailed() != Mailed::Never
    }

    /// Whether that is as it should be.
    #[must_use]
    pub fn is_good(self) -> bool {
        self.entry().good
    }

    /// Whether to watch for the storm's return after it. After what cannot be done for a reason
    /// that stays, another try does not help: the next alert or a person does.
    #[must_use]
    pub fn is_watched(self) -> bool {
        self.entry().watched
    }

    /// What it means, as README and runbook say it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.entry().meaning
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_label_is_known_and_unique() {
        let labels: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
        assert_eq!(labels.len(), Verdict::ALL.len(), "{labels:?}");
        for &verdict in Verdict::ALL {
            assert_eq!(Verdict::from_label(verdict.label()), Some(verdict));
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(verdict.label().chars().all(is_plain), "{verdict}");
        }
        assert_eq!(Verdict::from_label("of_a_newer_version"), None);
    }

    #[test]
    fn the_labels_are_those_that_were_published() {
        let labels: Vec<_> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
        let published = "none_seen no_longer_true below_threshold left_alone evaded respawning \
            stuck denied unfinished interrupted blind failed refused aborted shared_uid \
            unresolved_user bad_user_name limit_reached archive_failed archived dry_run silenced \
            unknown_user alias nameless_uid root system_uid own_uid protected_user resolved \
            other_host no_playbook unknown_playbook alert_not_allowed other_command excluded_user";
        for label in published.split_whitespace() {
            assert!(labels.contains(&label), "{label} is gone: queries and journals have it");
        }
    }

    /// One of each kind, with all that follows from it.
    #[test]
    fn what_follows_from_a_verdict_is_what_its_entry_says() {
        // Severity, mailed, good, watched.
        for (verdict, wanted) in [
            (Verdict::NoneSeen, ("info", true, true, true)),
            (Verdict::Evaded, ("critical", true, false, true)),
            (Verdict::Interrupted, ("warning", true, false, true)),
            (Verdict::LimitReached, ("critical", true, false, false)),
            (Verdict::Archived, ("info", true, false, false)),
            (Verdict::DryRun, ("info", true, true, false)),
            (Verdict::Root, ("info", false, false, false)),
        ] {
            let is = (verdict.is_mailed(), verdict.is_good(), verdict.is_watched());
            assert_eq!((verdict.severity().label(), is.0, is.1, is.2), wanted, "{verdict}");
        }
    }

    #[test]
    fn each_verdict_is_shown_by_its_label_and_means_something_of_its_own() {
        let meanings: BTreeSet<_> = Verdict::ALL.iter().map(|one| one.meaning()).collect();
        assert_eq!(meanings.len(), Verdict::ALL.len(), "two verdicts mean the same");
        assert!(!meanings.contains(""));
        assert_eq!(Verdict::Root.meaning(), "the user is root");
        assert_eq!(Verdict::NoneSeen.to_string(), "none_seen");
    }

    #[test]
    fn what_is_good_is_no_alarm_and_what_is_never_mailed_is_none_either() {
        for &verdict in Verdict::ALL {
            if verdict.is_good() {
                assert_eq!(verdict.severity(), Severity::Info, "{verdict}");
            }
            if verdict.severity() == Severity::Critical && verdict != Verdict::Aborted {
                assert!(verdict.is_mailed(), "{verdict}");
            }
        }
    }
}
