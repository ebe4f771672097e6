//! What people are told of a remediation: the truth, in one line and in several. Pure.
//!
//! - [`Story`]: what happened; [`Story::tell`] makes a [`Told`] of it.
//! - [`FormNote`]: what became of one form of the mail file, as the journal keeps it; [`LockNote`]:
//!   the lock that was found on it after a kill.
//! - [`Told::letter`]: the same as the alert that is posted to Alertmanager.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write};
use std::path::{Path, PathBuf};

use procstorm_toolkit::chain::Chain;
use serde::{Deserialize, Serialize};

use crate::alertmanager::OUTCOME;
use crate::journal::letters::NewLetter;
use crate::printable::printable;
use crate::steps::archive::{
    Archived, Dotlock, Failure, Form, FormPlan, FormReport, Method, Planned,
};
use crate::steps::kill::{Changed, KillVerdict, Other, Replacement, Report, Source, Traced};
use crate::verdict::{Severity, Verdict};

/// The label of a mail file that does not exist, in metrics and in the journal.
pub const NO_MAIL_FILE: &str = "no_mail_file";

/// How many pids a mail names; the journal has them all.
const PIDS_TOLD: usize = 200;

/// What became of one form of a mail file, or would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormNote {
    /// Which form.
    pub form: Form,
    /// The mail file.
    pub source: PathBuf,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

impl FormNote {
    /// Whether there was nothing to be saved.
    fn is_absent(&self) -> bool {
        matches!(self.fate, Fate::Absent { .. })
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was saved.
    Archived(Archived),
    /// It would be saved.
    Planned(Planned),
    /// It could not be, or would not be: the fault's label and text.
    Failed {
        /// In a word.
        label: String,
        /// In a sentence.
        text: String,
    },
    /// There is nothing to be saved: why, as a label and a text.
    Absent {
        /// In a word.
        label: String,
        /// In a sentence.
        text: String,
    },
}

impl Fate {
    /// There is no mail file at `path`.
    #[must_use]
    pub fn no_mail_file(path: &Path) -> Self {
        let text = format!("there is no mail file {} (a Maildir needs no archive)", path.display());
        Self::Absent { label: NO_MAIL_FILE.to_owned(), text }
    }

    /// A failure to archive. A Maildir is none: each of its messages is a file, which no killed
    /// program leaves torn.
    fn not_archived(failure: &Failure) -> Self {
        let (label, text) = (failure.label().to_owned(), Chain(&failure).to_string());
        if matches!(failure, Failure::MaildirUnsupported { .. }) {
            Self::Absent { label, text }
        } else {
            Self::Failed { label, text }
        }
    }
}

impl From<&FormReport> for FormNote {
    fn from(report: &FormReport) -> Self {
        let fate = match &report.result {
            Ok(archived) => Fate::Archived(archived.clone()),
            Err(failure) => Fate::not_archived(failure),
        };
        Self { form: report.form, source: report.source.clone(), fate }
    }
}

impl From<&FormPlan> for FormNote {
    fn from(plan: &FormPlan) -> Self {
        let fate = match &plan.action {
            Ok(planned) => Fate::Planned(planned.clone()),
            Err(failure) => Fate::not_archived(failure),
        };
        Self { form: plan.form, source: plan.source.clone(), fate }
    }
}

/// The line that tells of it.
impl Display for FormNote {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let source = self.source.display();
        match &self.fate {
            Fate::Archived(archived) => {
                let (path, bytes) = (archived.path.display(), archived.bytes);
                write!(f, "saved user mail file as {path} ({bytes} bytes")?;
                let remarks = [
                    (archived.method == Method::Identical, "unchanged since it was saved there"),
                    (archived.changed, "it changed during the copy"),
                    (archived.uncertain, "a change during the copy may not have shown"),
                    (!archived.locked && archived.method != Method::Identical, "not locked"),
                    (archived.dotlock, "a mail program had it locked"),
                ];
                for (_, remark) in remarks.iter().filter(|(applies, _)| *applies) {
                    write!(f, ", {remark}")?;
                }
                f.write_str(")")
            }
            Fate::Planned(Planned::Copy { path, bytes }) => {
                let path = path.display();
                write!(f, "would save user mail file {source} as {path} ({bytes} bytes)")
            }
            Fate::Planned(Planned::Identical { path }) => {
                write!(f, "user mail file {source} is saved already as {}", path.display())
            }
            Fate::Failed { text, .. } => {
                write!(f, "could not save user mail file {source}: {text}")
            }
            Fate::Absent { text, .. } => f.write_str(text),
        }
    }
}

/// What was found at the name of the user's lock file after a kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockNote {
    /// A lock file is there.
    Left(Dotlock),
    /// Whether one is there is not known, and why.
    Unknown(String),
}

/// The line that tells of it.
impl Display for LockNote {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(lock) => write!(
                f,
                "lock file {} is there ({lock}); mail programs may wait for it: see \"A mail lock \
                 that is left\" in the runbook",
                lock.path.display()
            ),
            Self::Unknown(why) => write!(f, "could not look for a lock on the mail file: {why}"),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Story<'a> {
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
    /// What became of the mail files; `None` if that was no step.
    pub archives: Option<&'a [FormNote]>,
    /// The lock on the mail file that was found after the kill; `None` if there was none.
    pub lock: Option<&'a LockNote>,
    /// A sentence for each step that an earlier run of the daemon ended, and whose record cannot be
    /// read.
    pub unread: &'a [String],
    /// How often the storm had come back before; 0 for the first remediation of it.
    pub recurrence: u64,
    /// Where the storm comes from; `None` if that is not known or not asked for.
    pub source: Option<&'a Source>,
    /// How it ended.
    pub end: End<'a>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum End<'a> {
    /// The processes were killed, or it was tried.
    Killed(&'a Report),
    /// Killing is no step of the playbook.
    NoKill,
    /// The mail file could not be saved, and the playbook stops then.
    Stopped,
    /// It was a dry run: these processes would have been killed, if that is a step.
    DryRun(Option<&'a [i32]>),
    /// The daemon was restarted in the middle, and so many were left, too few for a storm.
    Interrupted(u64),
    /// Nothing was done, although there is a storm, or there may be one: verdict and reason.
    Nothing(Verdict, &'a str),
}

/// What people are told.
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

impl Story<'_> {
    /// The truth about it.
    #[must_use]
    pub fn tell(&self) -> Told {
        let (verdict, mut summary) = self.ending();
        let (severity, after) = (self.severity(verdict), self.after());
        // Nor is a storm that was ended before and is back.
        let severity = match self.recurrence {
            0 => severity,
            count => {
                summary.push_str(&format!("; the storm had come back, recurrence {count}"));
                severity.max(Severity::Warning)
            }
        };
        // An archive that failed is never "all is well", and the subject of the mail says so.
        let severity = match self.unsaved() {
            Some(unsaved) => {
                summary.push_str(&unsaved);
                severity.max(Severity::Warning)
            }
            None => severity,
        };
        // Nor is a mailbox that nobody can write to.
        let severity = match self.lock {
            Some(LockNote::Left(lock)) => {
                summary.push_str(&format!("; lock {} is there", lock.path.display()));
                severity.max(Severity::Warning)
            }
            Some(LockNote::Unknown(_)) | None => severity,
        };
        let severity = if self.unread.is_empty() {
            severity
        } else {
            summary.push_str("; the journal's record of what was done cannot be read");
            severity.max(Severity::Warning)
        };
        Told {
            verdict,
            severity,
            summary: printable(&summary),
            description: self.description(verdict, after),
            after,
        }
    }

    /// What was not saved of the user's mail, as the end of a sentence; `None` if all was.
    fn unsaved(&self) -> Option<String> {
        let failed = |note: &&FormNote| matches!(note.fate, Fate::Failed { .. });
        let failed: Vec<_> = self.archives?.iter().filter(failed).collect();
        let could = match self.end {
            End::DryRun(_) => "could not be saved",
            End::Killed(_)
            | End::NoKill
            | End::Stopped
            | End::Interrupted(_)
            | End::Nothing(..) => "NOT saved",
        };
        match failed.as_slice() {
            [] => None,
            [one] => Some(format!("; mail file {} {could}", one.source.display())),
            several => Some(format!("; {} mail files {could}", several.len())),
        }
    }

    /// How many of the user's mail files were saved.
    fn saved(&self) -> usize {
        let saved = |note: &&FormNote| matches!(note.fate, Fate::Archived(_));
        self.archives.map_or(0, |notes| notes.iter().filter(saved).count())
    }

    /// Where the storm came from, if the kill saw none that came later: those it names with theirs.
    fn origin(&self) -> Option<String> {
        let Source { uid, process } = self.source?;
        let is_said = match self.end {
            End::Killed(report) => !report.replacements.is_empty(),
            End::NoKill
            | End::Stopped
            | End::DryRun(_)
            | End::Interrupted(_)
            | End::Nothing(..) => false,
        };
        (!is_said).then(|| origin(*uid, process))
    }

    /// Whether it says nothing that `told` did not: the labels of the last outcome of this storm. A
    /// mail file that was not saved and a lock that was left are always news.
    #[must_use]
    pub fn repeats(&self, told: &Told, before: &BTreeMap<String, String>) -> bool {
        let is = |name: &str, value: &str| before.get(name).is_some_and(|known| known == value);
        self.recurrence > 0
            && self.lock.is_none()
            && self.unsaved().is_none()
            && self.unread.is_empty()
            && is("verdict", told.verdict.label())
            && is("severity", told.severity.label())
    }

    fn severity(&self, verdict: Verdict) -> Severity {
        match &self.end {
            End::Killed(report) => report.severity(),
            End::NoKill
            | End::Stopped
            | End::DryRun(_)
            | End::Interrupted(_)
            | End::Nothing(..) => verdict.severity(),
        }
    }

    /// How many live on, if known.
    fn after(&self) -> Option<u64> {
        match &self.end {
            End::Killed(report) => report.living(),
            End::NoKill | End::Stopped | End::DryRun(_) => self.before,
            End::Interrupted(left) => Some(*left),
            End::Nothing(..) => None,
        }
    }

    fn ending(&self) -> (Verdict, String) {
        let whose = format!("{} {}", self.user, self.command);
        let before = number(self.before);
        match &self.end {
            End::Killed(report) => ((&report.verdict).into(), killed(report, &whose, &before)),
            End::NoKill => {
                let saved = match (self.saved(), self.archives) {
                    (0, Some(notes)) if notes.iter().all(FormNote::is_absent) => {
                        format!("{} has no mail file", self.user)
                    }
                    (0, _) => format!("saved no mail of {}", self.user),
                    (_, _) => format!("saved the mail of {}", self.user),
                };
                (Verdict::Archived, format!("{saved}; {before} {whose} processes live on"))
            }
            End::Stopped => {
                (Verdict::ArchiveFailed, format!("did not kill the {before} {whose} processes"))
            }
            End::DryRun(pids) => {
                let count = pids.map_or(0, <[i32]>::len);
                let summary = match pids {
                    Some(_) => format!("dry run: would kill {count} {whose} processes"),
                    None => format!("dry run: would save the mail of {}", self.user),
                };
                (Verdict::DryRun, summary)
            }
            End::Interrupted(left) => {
                let shown = if *left == 0 { "no".to_owned() } else { left.to_string() };
                let summary = format!(
                    "{shown} {whose} processes are left of {before}; the daemon was restarted \
                     while it acted"
                );
                (Verdict::Interrupted, summary)
            }
            End::Nothing(verdict, why) => {
                (*verdict, format!("did not act on {whose} processes: {why}"))
            }
        }
    }

    fn description(&self, verdict: Verdict, after: Option<u64>) -> String {
        let mut lines = Vec::new();
        match self.archives {
            Some([]) => lines.push(format!("{} has no mail file", self.user)),
            Some(notes) => lines.extend(notes.iter().map(ToString::to_string)),
            None => {}
        }
        match &self.end {
            End::Killed(report) => kill_lines(report, &mut lines),
            End::DryRun(Some(pids)) => lines.push(format!("would kill pids {}", listed(pids))),
            End::NoKill
            | End::Stopped
            | End::DryRun(None)
            | End::Interrupted(_)
            | End::Nothing(..) => {}
        }
        lines.extend(self.lock.map(ToString::to_string));
        lines.extend_from_slice(self.unread);
        if self.recurrence > 0 {
            lines.push(format!(
                "recurrence {}: the storm came back soon after the remediation before; outcomes \
                 that say the same again are not posted until the limit is reached",
                self.recurrence
            ));
        }
        lines.extend(self.origin());
        let (before, after) = (number(self.before), number(after));
        lines.push(format!("processes: {before} before, {after} after; verdict: {verdict}"));
        lines.push(format!("playbook {} on {}", self.playbook, self.host));
        let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
        lines.join("\n")
    }
}

/// What stands for a count that is not known.
const UNKNOWN: &str = "unknown";

fn number(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string())
}

fn killed(report: &Report, whose: &str, before: &str) -> String {
    let Report { matched, nested, changed, threshold, .. } = report;
    let ended = report.ended();
    let left = number(report.left);
    match &report.verdict {
        // All are the ones that exited under our hands, and no others.
        KillVerdict::NoneSeenForMs(_) if ended == *matched && *nested == 0 && *changed == 0 => {
            format!("killed all {whose} processes")
        }
        KillVerdict::NoneSeenForMs(_) if *nested == 0 && *changed == 0 => {
            let others = matched.saturating_sub(ended);
            format!("no {whose} processes are left: {ended} were killed, {others} ended otherwise")
        }
        KillVerdict::Evaded => {
            format!(
                "killed {ended} of {matched} {whose} processes; {changed} had another name or \
                 owner when they were stopped, and were let go"
            )
        }
        KillVerdict::LeftAlone | KillVerdict::NoneSeenForMs(_) => {
            format!(
                "killed {ended} {whose} processes; {nested} in other pid namespaces were left \
                 alone"
            )
        }
        KillVerdict::BelowThreshold => {
            let back = report.replacement_count;
            format!(
                "killed {ended} {whose} processes; most were ended, {back} came back meanwhile and \
                 {}, below the threshold of {threshold}",
                alive(&left)
            )
        }
        KillVerdict::NoLongerTrue => {
            format!("no {whose} processes were left to kill, of {before} before")
        }
        KillVerdict::Respawning => {
            format!("killed {ended} {whose} processes, but new ones appear: {}", alive(&left))
        }
        KillVerdict::Stuck => {
            let stuck = report.stuck_count;
            format!("killed {ended} {whose} processes; {stuck} do not exit")
        }
        KillVerdict::Denied => {
            let denied = report.denied;
            format!("killed {ended} {whose} processes; no right to signal {denied} others")
        }
        KillVerdict::Unfinished | KillVerdict::Aborted => {
            format!("killed {ended} {whose} processes; time was over, {}", alive(&left))
        }
        KillVerdict::Blind => {
            format!("did not kill {whose} processes: other users' are hidden from us")
        }
        KillVerdict::Refused(why) | KillVerdict::Failed(why) => {
            format!("did not kill {whose} processes: {why}")
        }
    }
}

/// So many live; or how many is not known, which is not none.
fn alive(left: &str) -> String {
    match left {
        UNKNOWN => "how many live is unknown".to_owned(),
        count => format!("{count} live"),
    }
}

fn kill_lines(report: &Report, lines: &mut Vec<String>) {
    let mut line = format!(
        "killed {} processes in {} ms, {} rounds",
        report.ended(),
        report.elapsed.as_millis(),
        report.rounds
    );
    if report.asked > 0 {
        line.push_str(&format!(": {} by SIGTERM, {} by SIGKILL", report.terminated, report.exited));
    }
    if let KillVerdict::NoneSeenForMs(ms) = report.verdict
        && write!(line, "; none seen for {ms} ms").is_err()
    {
        // Writing to a String cannot fail.
    }
    lines.push(line);
    if report.gone > 0 {
        lines.push(format!("{} ended otherwise before they were killed", report.gone));
    }
    if report.nested > 0 {
        lines.push(format!(
            "{} live in pid namespaces that are not this host's own, and were left alone",
            report.nested
        ));
    }
    if let Some(first) = report.changed_to.first() {
        lines.push(format!(
            "{} had another name or owner when they were stopped, and were let go: {}{}",
            report.changed,
            changed(first),
            if report.changed > 1 { ", and others" } else { "" }
        ));
    }
    if let Some(first) = report.zombies.first() {
        lines.push(format!(
            "{} are dead but not reaped, pid {} by its parent {}{}",
            report.zombie_count,
            first.pid,
            first.parent,
            named(report.careless.iter().find(|one| one.pid == first.parent))
        ));
    }
    if !report.stuck.is_empty() {
        lines.push(format!("do not exit: pids {}", listed(&report.stuck)));
    }
    if let Some(Traced { pid, tracer }) = report.traced.first() {
        lines.push(format!(
            "{} of them are traced, pid {pid} by {}{}: end the tracer, and they exit",
            report.traced.len(),
            tracer.pid,
            named(Some(tracer))
        ));
    }
    if let Some(first) = report.replacements.first() {
        lines.push(format!(
            "{} appeared during the kill, pid {} from parent {} ({})",
            report.replacement_count, first.pid, first.parent, first.parent_command
        ));
        lines.push(origin(report.uid, first));
    }
}

/// A process's command and uid, in brackets.
fn named(one: Option<&Other>) -> String {
    one.map(|one| format!(" ({}, uid {})", one.command, one.uid)).unwrap_or_default()
}

/// Programs that start a process for each connection, by the names of their masters.
const PER_CONNECTION: [&str; 6] = ["dovecot", "couriertcpd", "sshd", "master", "inetd", "xinetd"];

/// Programs that keep a number of processes ready, by the beginnings of their masters' names.
const PRE_FORKING: [&str; 6] = ["php-fpm", "apache2", "httpd", "uwsgi", "gunicorn", "nginx"];

/// Where those that appeared come from, and what that means: a person must not end a master that
/// serves everybody.
fn origin(uid: u32, first: &Replacement) -> String {
    let Replacement { parent, parent_command, parent_uid, .. } = first;
    let whose = format!("pid {parent} ({parent_command})");
    match parent_uid {
        None => "their parent has exited; see what else the user runs".to_owned(),
        Some(_) if *parent == 1 => {
            "their parent has exited, or init starts them; see what else the user runs".to_owned()
        }
        Some(own) if *own == uid && uid != 0 => {
            format!("{whose} is the user's own process and starts them: end it first")
        }
        Some(other) => {
            let kind = if PRE_FORKING.iter().any(|name| parent_command.starts_with(name)) {
                "a pre-forking server, which keeps a number of them ready: limit the pool"
            } else if PER_CONNECTION.contains(&parent_command.as_str()) {
                "a server that starts one for each connection, so a client reconnects: stop the \
                 client or lock the account"
            } else {
                "see \"Servers that start new ones\" in the runbook"
            };
            format!(
                "{whose} of uid {other} starts them and may serve other users: do not end it; \
                 {kind}"
            )
        }
    }
}

/// What one that was let go is by now.
fn changed(one: &Changed) -> String {
    let Changed { pid, uid, command } = one;
    match uid {
        Some(uid) => format!("pid {pid} is now {command:?} of uid {uid}"),
        None => format!("pid {pid} has exited since"),
    }
}

fn listed(pids: &[i32]) -> String {
    let shown: Vec<_> = pids.iter().take(PIDS_TOLD).map(ToString::to_string).collect();
    let more = pids.len().saturating_sub(PIDS_TOLD);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(" "))
}

impl Told {
    /// The alert that is posted: an event of its own, so that Alertmanager mails it once.
    #[must_use]
    pub fn letter(&self, story: &Story<'_>, event: String) -> NewLetter {
        let labels = [
            ("alertname", OUTCOME),
            ("host", story.host),
            ("user", story.user),
            ("command", story.command),
            ("playbook", story.playbook),
            ("verdict", self.verdict.label()),
            ("severity", self.severity.label()),
            ("event", &event),
        ];
        let annotations = [("summary", &self.summary), ("description", &self.description)];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let labels: BTreeMap<_, _> = labels.into_iter().map(owned).collect();
        let annotations =
            annotations.into_iter().map(|(name, value)| owned((name, value))).collect();
        NewLetter { event, labels, annotations }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::steps::kill::Zombie;

    fn told(verdict: KillVerdict, change: impl FnOnce(&mut Report)) -> Told {
        let mut report = Report::idle(verdict, Duration::from_millis(120));
        (report.exited, report.signalled, report.matched) = (95, 95, 95);
        report.left = Some(0);
        change(&mut report);
        story(End::Killed(&report), Some(&[])).tell()
    }

    fn story<'a>(end: End<'a>, archives: Option<&'a [FormNote]>) -> Story<'a> {
        Story {
            host: "moscow",
            user: "alice",
            command: "imapd",
            playbook: "imapd_storm",
            before: Some(95),
            archives,
            lock: None,
            unread: &[],
            recurrence: 0,
            source: None,
            end,
        }
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
        let first = story(End::Killed(&report), Some(&[]));
        let again = Story {
            recurrence: 2,
            source: Some(&source),
            ..story(End::Killed(&report), Some(&[]))
        };
        let told = again.tell();
        assert_eq!(told.severity, Severity::Warning);
        let text = "killed all alice imapd processes; the storm had come back, recurrence 2";
        assert_eq!(told.summary, text);
        assert!(told.description.contains("a client reconnects"), "{}", told.description);
        let labels = |story: &Story<'_>| story.tell().letter(story, "7-1".to_owned()).labels;
        assert!(!again.repeats(&told, &BTreeMap::new()), "nobody was told");
        assert!(!again.repeats(&told, &labels(&first)), "it was info");
        assert!(again.repeats(&told, &labels(&again)));
        assert!(!first.repeats(&first.tell(), &labels(&first)), "another storm");
        let lock = LockNote::Unknown("no answer".to_owned());
        let locked = Story { lock: Some(&lock), ..again.clone() };
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
            origin(1001, &Replacement { pid: 8, parent, parent_command, parent_uid })
        };
        assert!(from("runner", 9, Some(1001)).contains("user's own process"));
        assert!(from("dovecot", 9, Some(0)).contains("a client reconnects"));
        assert!(from("php-fpm8.2", 9, Some(0)).contains("pre-forking"));
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
        let told = story(End::Killed(&report), Some(&notes)).tell();
        assert_eq!(told.severity, Severity::Warning);
        assert!(
            told.summary.ends_with("; mail file /var/mail/alice NOT saved"),
            "the subject of the mail says so: {}",
            told.summary
        );
        let both = [notes[0].clone(), notes[0].clone()];
        let told_both = story(End::Interrupted(0), Some(&both)).tell();
        assert!(told_both.summary.ends_with("; 2 mail files NOT saved"), "{}", told_both.summary);
        let archived = story(End::NoKill, Some(&notes)).tell();
        assert!(archived.summary.starts_with("saved no mail of alice"), "{}", archived.summary);
        let dry = story(End::DryRun(None), Some(&notes)).tell();
        assert!(dry.summary.ends_with("could not be saved"), "{}", dry.summary);
        let line = "could not save user mail file /var/mail/alice: is a link";
        assert!(told.description.lines().any(|shown| shown == line), "{}", told.description);
        let stopped = story(End::Stopped, Some(&notes)).tell();
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
            Story { lock: Some(lock), ..story(End::Killed(&report), Some(&[])) }.tell()
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
        let told = Story { unread: &unread, ..story(End::NoKill, Some(&[])) }.tell();
        assert_eq!((told.severity, told.verdict.label()), (Severity::Warning, "archived"));
        let remark = "; the journal's record of what was done cannot be read";
        assert!(told.summary.ends_with(remark), "{}", told.summary);
        let line = "step kill_user_proc ended as \"stuck\", but?its record";
        assert!(told.description.lines().any(|shown| shown == line), "{}", told.description);
    }

    #[test]
    fn a_letter_is_an_event_of_its_own() {
        let story = story(End::Nothing(Verdict::Blind, "hidden"), None);
        let told = story.tell();
        let letter = told.letter(&story, "7-1".to_owned());
        let label = |name: &str| letter.labels.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(label("alertname"), "ProcstormOutcome");
        assert_eq!(
            (label("event"), label("verdict"), label("severity")),
            ("7-1", "blind", "critical")
        );
        assert_eq!(letter.annotations.get("summary"), Some(&told.summary));
    }
}
