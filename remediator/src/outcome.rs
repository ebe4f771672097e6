//! What people read about a remediation: the truth, in one line and in several. Pure.
//!
//! - [`Story`]: what happened; [`Story::tell`] makes a [`Told`] of it. How it ended is an [`End`], and
//!   each step has its [`Part`]: they come from the steps, which alone know what they did.
//! - [`Told::letter`]: the same as the alert that is posted to Alertmanager.

use std::collections::BTreeMap;

use crate::alertmanager::OUTCOME;
use crate::journal::letters::NewLetter;
use crate::printable::printable;
use crate::verdict::{Severity, Verdict};

/// Whom and what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The host's name.
    pub host: &'a str,
    /// The user's.
    pub user: &'a str,
    /// The command's.
    pub command: &'a str,
    /// The playbook's.
    pub playbook: &'a str,
    /// How many processes lived before, if known.
    pub before: Option<u64>,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
    /// Whether the user hears of it as well: the alert has the label `tell="user"`.
    pub tells_user: bool,
}

impl Subject<'_> {
    /// The user and the command.
    #[must_use]
    pub fn whose(&self) -> String {
        format!("{} {}", self.user, self.command)
    }

    /// How many processes lived before, or `unknown`.
    #[must_use]
    pub fn before_told(&self) -> String {
        number(self.before)
    }
}

/// How it ended, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The verdict.
    pub verdict: Verdict,
    /// How much a person must care.
    pub severity: Severity,
    /// In one line.
    pub summary: String,
    /// How many processes live on, if known.
    pub after: Option<u64>,
}

impl End {
    /// As severe as the verdict is; how many live on is not known.
    #[must_use]
    pub fn of(verdict: Verdict, summary: String) -> Self {
        Self { verdict, severity: verdict.severity(), summary, after: None }
    }

    /// Nothing was done, although there is a storm, or there may be one. In a dry run that is not
    /// critical: nothing would have been done in any case.
    #[must_use]
    pub fn nothing(subject: &Subject<'_>, verdict: Verdict, why: &str) -> Self {
        let (did, severity) = match subject.dry_run {
            true => ("dry run: would not act", Severity::Warning),
            false => ("did not act", Severity::Critical),
        };
        let summary = format!("{did} on {} processes: {why}", subject.whose());
        Self { severity, ..Self::of(verdict, summary) }
    }

    /// The daemon was restarted in the middle, and so many were left: too few for a storm, or the policy
    /// says by now that it is a dry run, or is none any more.
    #[must_use]
    pub fn interrupted(subject: &Subject<'_>, left: u64) -> Self {
        let shown = match left {
            0 => format!("no {} processes are", subject.whose()),
            1 => format!("1 {} process is", subject.whose()),
            left => format!("{left} {} processes are", subject.whose()),
        };
        let summary = format!(
            "{shown} left of {}; the daemon was restarted while it acted",
            subject.before_told()
        );
        Self { after: Some(left), ..Self::of(Verdict::Interrupted, summary) }
    }
}

/// What one step has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Lines of the mail.
    pub lines: Vec<String>,
    /// What the subject of the mail says besides how it ended.
    pub remark: Option<String>,
    /// How much a person must care at least.
    pub severity: Severity,
    /// Whether it is posted even if nothing else is new about a storm that came back.
    pub is_news: bool,
}

impl Default for Part {
    /// Nothing to say.
    fn default() -> Self {
        Self::remarked(None)
    }
}

impl Part {
    /// A remark is a warning, and news; without one all is well.
    #[must_use]
    pub fn remarked(remark: Option<String>) -> Self {
        let is_news = remark.is_some();
        let severity = if is_news { Severity::Warning } else { Severity::Info };
        Self { lines: Vec::new(), remark, severity, is_news }
    }

    /// About steps whose records cannot be read: a sentence each.
    #[must_use]
    pub fn unread(sentences: &[String]) -> Self {
        let remark = "the journal's record of what was done cannot be read".to_owned();
        let remark = (!sentences.is_empty()).then_some(remark);
        Self { lines: sentences.to_vec(), ..Self::remarked(remark) }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Story<'a> {
    /// Whom and what it is about.
    pub subject: Subject<'a>,
    /// How often the storm had come back before; 0 for the first remediation of it.
    pub recurrence: u64,
    /// How it ended.
    pub end: End,
    /// What each step has to say, in order.
    pub parts: Vec<Part>,
}

/// What people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The verdict.
    pub verdict: Verdict,
    /// How much a person must care.
    pub severity: Severity,
    /// In one line.
    pub summary: String,
    /// In several.
    pub description: String,
    /// How many processes were left, if known.
    pub after: Option<u64>,
}

impl<'a> Story<'a> {
    /// Nothing was done, although there is a storm, or there may be one.
    #[must_use]
    pub fn nothing(subject: Subject<'a>, verdict: Verdict, why: &str) -> Self {
        let end = End::nothing(&subject, verdict, why);
        Self { subject, recurrence: 0, end, parts: Vec::new() }
    }

    /// Whether it says nothing that `told` did not: the labels of the last outcome of this storm. A
    /// mail file that was not saved and a lock that was left are always news.
    #[must_use]
    pub fn repeats(&self, told: &Told, before: &BTreeMap<String, String>) -> bool {
        let is = |name: &str, value: &str| before.get(name).is_some_and(|known| known == value);
        self.recurrence > 0
            && !self.parts.iter().any(|part| part.is_news)
            && is("verdict", told.verdict.label())
            && is("severity", told.severity.label())
    }

    /// The truth about it.
    #[must_use]
    pub fn tell(&self) -> Told {
        let End { verdict, severity, summary, after } = &self.end;
        // A storm that was ended before and is back is never "all is well".
        let recurrence = (self.recurrence > 0)
            .then(|| format!("the storm had come back, recurrence {}", self.recurrence));
        let recurrence = Part::remarked(recurrence);
        let parts = || std::iter::once(&recurrence).chain(&self.parts);
        let remarks = parts().filter_map(|part| part.remark.as_deref());
        let mut summary: Vec<_> = std::iter::once(summary.as_str()).chain(remarks).collect();
        summary.dedup();
        let severity = parts().map(|part| part.severity).fold(*severity, Severity::max);
        Told {
            verdict: *verdict,
            severity,
            summary: printable(&summary.join("; ")),
            description: self.description(),
            after: *after,
        }
    }

    fn description(&self) -> String {
        let Subject { host, playbook, before, .. } = self.subject;
        let (before, after) = (number(before), number(self.end.after));
        let verdict = self.end.verdict;
        let recurrence = (self.recurrence > 0).then(|| {
            format!(
                "recurrence {}: the storm came back soon after the remediation before; outcomes \
                 that say the same again are not posted until the limit is reached",
                self.recurrence
            )
        });
        let last = [
            format!("processes: {before} before, {after} after; verdict: {verdict}"),
            format!("playbook {playbook} on {host}"),
        ];
        let lines = self.parts.iter().flat_map(|part| &part.lines).chain(&recurrence).chain(&last);
        lines.map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    }
}

/// A count, or `unknown`: what was not counted is not zero.
pub(crate) fn number(count: Option<u64>) -> String {
    count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

impl Told {
    /// The alert that is posted: an event of its own, so that Alertmanager mails it once.
    #[must_use]
    pub fn letter(&self, story: &Story<'_>, event: String) -> NewLetter {
        let labels = [
            ("alertname", OUTCOME),
            ("host", story.subject.host),
            ("user", story.subject.user),
            ("command", story.subject.command),
            ("playbook", story.subject.playbook),
            ("verdict", self.verdict.label()),
            ("severity", self.severity.label()),
            ("event", &event),
        ];
        let dry_run = story.subject.dry_run.then_some(("dry_run", "true"));
        let tell = story.subject.tells_user.then_some(("tell", "user"));
        let annotations = [("summary", &self.summary), ("description", &self.description)];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let labels: BTreeMap<_, _> =
            labels.into_iter().chain(dry_run).chain(tell).map(owned).collect();
        let annotations =
            annotations.into_iter().map(|(name, value)| owned((name, value))).collect();
        NewLetter { event, labels, annotations }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::steps::archive::note::{self, Fate, FormNote, LockNote};
    use crate::steps::archive::{Dotlock, Form};
    use crate::steps::kill::told as kill;
    use crate::steps::kill::{
        Changed, KillVerdict, Other, Replacement, Report, Source, Traced, Zombie,
    };

    fn told(verdict: KillVerdict, change: impl FnOnce(&mut Report)) -> Told {
        let mut report = Report::idle(verdict, Duration::from_millis(120));
        (report.exited, report.signalled, report.matched) = (95, 95, 95);
        report.left = Some(0);
        change(&mut report);
        let mut story = story(kill::end(&SUBJECT, &report), Some(&[]));
        story.parts.push(kill::part(&report));
        story.tell()
    }

    const SUBJECT: Subject<'_> = Subject {
        host: "moscow",
        user: "alice",
        command: "imapd",
        playbook: "imapd_storm",
        before: Some(95),
        dry_run: false,
        tells_user: false,
    };

    fn story(end: End, archives: Option<&[FormNote]>) -> Story<'static> {
        let parts = archives.map(|notes| note::part("alice", notes, false));
        Story { subject: SUBJECT, recurrence: 0, end, parts: parts.into_iter().collect() }
    }

    #[test]
    fn a_storm_that_came_back_is_a_warning_and_is_told_again_only_if_something_is_new() {
        let report = Report {
            left: Some(0),
            exited: 95,
            matched: 95,
            ..Report::idle(KillVerdict::NoneSeenForMs(100), Duration::ZERO)
        };
        let parent_command = "dovecot".to_owned();
        let process = Replacement { pid: 8, parent: 9, parent_command, parent_uid: Some(0) };
        let source = Source { uid: 1001, process };
        let first = story(kill::end(&SUBJECT, &report), Some(&[]));
        let mut again = Story { recurrence: 2, ..first.clone() };
        again.parts.push(kill::source_part(&source));
        let told = again.tell();
        assert_eq!(told.severity, Severity::Warning);
        let text = "killed all alice imapd processes; the storm had come back, recurrence 2";
        assert_eq!(told.summary, text);
        assert!(told.description.contains("recurrence 2: the storm came back soon after"));
        assert!(told.description.contains("a client reconnects"), "{}", told.description);
        let labels = |story: &Story<'_>| story.tell().letter(story, "7-1".to_owned()).labels;
        assert!(!again.repeats(&told, &BTreeMap::new()), "no mail was sent");
        assert!(!again.repeats(&told, &labels(&first)), "it was info");
        assert!(again.repeats(&told, &labels(&again)));
        assert!(!first.repeats(&first.tell(), &labels(&first)), "another storm");
        let lock = LockNote::Unknown("no answer".to_owned());
        let mut locked = again.clone();
        locked.parts.push(note::lock_part(&lock));
        assert!(!locked.repeats(&locked.tell(), &labels(&again)), "a lock is always told");
    }

    #[test]
    fn killed_all_is_said_only_when_it_is_so() {
        let good = told(KillVerdict::NoneSeenForMs(100), |_| {});
        assert_eq!(good.summary, "killed all alice imapd processes");
        assert_eq!((good.severity, good.after), (Severity::Info, Some(0)));
        assert_eq!(none_counted().after, None);
        assert!(good.description.contains("none seen for 100 ms"), "{}", good.description);
        for (verdict, severity) in [
            (KillVerdict::Respawning, Severity::Critical),
            (KillVerdict::Stuck, Severity::Critical),
            (KillVerdict::Denied, Severity::Critical),
            (KillVerdict::Unfinished, Severity::Critical),
            (KillVerdict::Blind, Severity::Critical),
            (KillVerdict::Refused("uid 0".to_owned()), Severity::Critical),
            (KillVerdict::Failed("no /proc".to_owned()), Severity::Critical),
            (KillVerdict::NoLongerTrue, Severity::Info),
        ] {
            let told = told(verdict.clone(), |_| {});
            assert!(!told.summary.contains("killed all"), "{verdict:?}: {}", told.summary);
            assert_eq!((told.severity, told.verdict.label()), (severity, verdict.label()));
        }
        let asked = told(KillVerdict::NoneSeenForMs(100), |report| {
            (report.asked, report.terminated, report.exited) = (95, 93, 2);
        });
        assert_eq!(asked.summary, "killed all alice imapd processes");
        assert!(asked.description.contains("killed 95 processes in 120 ms"));
        assert!(asked.description.contains("93 by SIGTERM, 2 by SIGKILL"), "{}", asked.description);
        let back = told(KillVerdict::BelowThreshold, |report| {
            (report.left, report.threshold, report.replacement_count) = (Some(1), 90, 3);
        });
        let text = "3 came back meanwhile and 1 live, below the threshold of 90";
        assert!(back.summary.contains(text), "{}", back.summary);
        assert_eq!((back.severity, back.after), (Severity::Info, Some(1)));
        let some = told(KillVerdict::NoneSeenForMs(100), |report| report.matched = 97);
        assert!(!some.summary.contains("killed all") && some.summary.contains("2 ended otherwise"));
        let evaded = told(KillVerdict::Evaded, |report| {
            (report.matched, report.changed, report.threshold) = (195, 100, 90);
            let changed = Changed { pid: 7, uid: Some(1000), command: "other".to_owned() };
            report.changed_to = vec![changed];
        });
        assert!(evaded.summary.starts_with("killed 95 of 195"), "{}", evaded.summary);
        assert!(evaded.description.contains("pid 7 is now \"other\" of uid 1000"));
        assert_eq!((evaded.severity, evaded.verdict.label()), (Severity::Critical, "evaded"));
        let few = told(KillVerdict::Evaded, |report| (report.changed, report.threshold) = (1, 90));
        assert_eq!(few.severity, Severity::Warning);
        let storm = told(KillVerdict::LeftAlone, |report| {
            (report.nested, report.threshold) = (150, 90);
        });
        assert_eq!((storm.severity, storm.after), (Severity::Critical, Some(150)));
        let nested = told(KillVerdict::LeftAlone, |report| report.nested = 3);
        assert!(!nested.summary.contains("killed all") && nested.summary.contains('3'));
        assert_eq!((nested.severity, nested.after), (Severity::Warning, Some(3)));
    }

    fn none_counted() -> Told {
        told(KillVerdict::Unfinished, |report| report.left = None)
    }

    #[test]
    fn what_was_not_counted_is_unknown_and_not_none() {
        let told = none_counted();
        assert!(told.summary.contains("how many live is unknown"), "{}", told.summary);
        assert!(told.description.contains("95 before, unknown after"), "{}", told.description);
    }

    #[test]
    fn zombies_replacements_and_the_stuck_are_named() {
        let told = told(KillVerdict::Respawning, |report| {
            report.left = Some(7);
            (report.zombies, report.zombie_count) = (vec![Zombie { pid: 4, parent: 5 }], 1);
            (report.stuck, report.stuck_count) = (vec![6], 1);
            let parent_command = "cron\nforged: line".to_owned();
            report.replacements =
                vec![Replacement { pid: 8, parent: 9, parent_command, parent_uid: Some(0) }];
            let other = |pid, command: &str| Other { pid, command: command.to_owned(), uid: 1001 };
            report.careless = vec![other(5, "runner")];
            report.traced = vec![Traced { pid: 6, tracer: other(77, "gdb") }];
            report.replacement_count = 40;
        });
        assert!(told.summary.contains("7 live"), "{}", told.summary);
        for part in [
            "pid 4 by its parent 5 (runner, uid 1001)",
            "pids 6",
            "pid 6 by 77 (gdb, uid 1001)",
            "do not end it",
            "40 appeared",
            "from parent 9 (cron?forged",
        ] {
            assert!(told.description.contains(part), "{part} in {}", told.description);
        }
    }

    #[test]
    fn newcomers_are_named_as_what_they_are() {
        let from = |command: &str, parent, parent_uid| {
            let parent_command = command.to_owned();
            kill::origin(1001, &Replacement { pid: 8, parent, parent_command, parent_uid })
        };
        assert!(from("runner", 9, Some(1001)).contains("user's own process"));
        assert!(from("dovecot", 9, Some(0)).contains("a client reconnects"));
        assert!(from("php-fpm8.2", 9, Some(0)).contains("pre-forking"));
        assert!(from("apache2", 9, Some(33)).contains("for each request"));
        assert!(from("", 9, None).contains("has exited"));
        assert!(from("systemd", 1, Some(0)).contains("has exited"));
        for master in ["dovecot", "php-fpm", "apache2", "sshd", "whatever"] {
            assert!(from(master, 9, Some(0)).contains("do not end it"), "{master}");
        }
    }

    #[test]
    fn an_archive_that_failed_is_never_all_well() {
        let report = Report {
            left: Some(0),
            ..Report::idle(KillVerdict::NoneSeenForMs(100), Duration::ZERO)
        };
        let fate = Fate::Failed { label: "symlink".to_owned(), text: "is a link".to_owned() };
        let notes = [FormNote { form: Form::Mbox, source: "/var/mail/alice".into(), fate }];
        let told = story(kill::end(&SUBJECT, &report), Some(&notes)).tell();
        assert_eq!(told.severity, Severity::Warning);
        assert!(
            told.summary.ends_with("; mail file /var/mail/alice NOT saved"),
            "the subject of the mail says so: {}",
            told.summary
        );
        let both = [notes[0].clone(), notes[0].clone()];
        let told_both = story(End::interrupted(&SUBJECT, 0), Some(&both)).tell();
        assert!(told_both.summary.ends_with("; 2 mail files NOT saved"), "{}", told_both.summary);
        let archived = story(note::end(&SUBJECT, Some(&notes)), Some(&notes)).tell();
        assert!(archived.summary.starts_with("saved no mail of alice"), "{}", archived.summary);
        let parts = vec![note::part("alice", &notes, true)];
        let dry =
            Story { subject: SUBJECT, recurrence: 0, end: note::end_dry(&SUBJECT), parts }.tell();
        assert!(dry.summary.ends_with("could not be saved"), "{}", dry.summary);
        let line = "could not save user mail file /var/mail/alice: is a link";
        assert!(told.description.lines().any(|shown| shown == line), "{}", told.description);
        let stopped = story(note::end_stopped(&SUBJECT), Some(&notes)).tell();
        assert_eq!((stopped.severity, stopped.after), (Severity::Critical, Some(95)));
        let subject =
            "did not kill the 95 alice imapd processes; mail file /var/mail/alice NOT saved";
        assert_eq!(stopped.summary, subject);
    }

    #[test]
    fn a_lock_that_is_left_is_a_warning_and_named_with_its_pid_and_age() {
        let report = Report {
            left: Some(0),
            ..Report::idle(KillVerdict::NoneSeenForMs(100), Duration::ZERO)
        };
        let lock = Dotlock {
            path: "/var/mail/alice.lock".into(),
            age_seconds: Some(7),
            pid: Some(4242),
            host: None,
            runs: Some(false),
            unread: None,
        };
        let tell = |lock: &LockNote| {
            let mut story = story(kill::end(&SUBJECT, &report), Some(&[]));
            story.parts.push(note::lock_part(lock));
            story.tell()
        };
        let told = tell(&LockNote::Left(lock.clone()));
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.summary.ends_with("; lock /var/mail/alice.lock is there"), "{}", told.summary);
        let line = "lock file /var/mail/alice.lock is there (7 s old, holds pid 4242, which no longer \
                    runs)";
        assert!(told.description.contains(line), "{}", told.description);
        let told = tell(&LockNote::Left(Dotlock { runs: Some(true), ..lock }));
        assert!(told.description.contains("a process of that pid runs"), "{}", told.description);
        // What is not known is said, and raises no alarm.
        let told = tell(&LockNote::Unknown("no answer".to_owned()));
        assert_eq!(told.severity, Severity::Info);
        assert!(told.description.contains("could not look for a lock"), "{}", told.description);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_a_warning_and_named() {
        let unread = ["step kill_user_proc ended as \"stuck\", but\nits record".to_owned()];
        let mut story = story(note::end(&SUBJECT, Some(&[])), Some(&[]));
        // Of each step a part of its own, and one remark in the subject for all.
        story.parts.extend([Part::unread(&unread), Part::unread(&unread)]);
        let told = story.tell();
        assert_eq!(told.summary.matches("cannot be read").count(), 1, "{}", told.summary);
        assert_eq!((told.severity, told.verdict.label()), (Severity::Warning, "archived"));
        let remark = "; the journal's record of what was done cannot be read";
        assert!(told.summary.ends_with(remark), "{}", told.summary);
        let line = "step kill_user_proc ended as \"stuck\", but?its record";
        assert!(told.description.lines().any(|shown| shown == line), "{}", told.description);
    }

    #[test]
    fn a_letter_is_an_event_of_its_own() {
        let story = Story::nothing(SUBJECT, Verdict::Blind, "hidden");
        let told = story.tell();
        let letter = told.letter(&story, "7-1".to_owned());
        let label = |name: &str| letter.labels.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(label("alertname"), "ProcstormOutcome");
        assert_eq!(
            (label("event"), label("verdict"), label("severity")),
            ("7-1", "blind", "critical")
        );
        assert_eq!(letter.annotations.get("summary"), Some(&told.summary));
        assert_eq!(label("tell"), "");
        let for_user = Story { subject: Subject { tells_user: true, ..SUBJECT }, ..story };
        let letter = told.letter(&for_user, "7-1".to_owned());
        assert_eq!(letter.labels.get("tell").map(String::as_str), Some("user"));
    }
}
