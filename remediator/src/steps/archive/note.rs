//! What became of a mail file, as the journal keeps it and as a mail says it. Pure.
//!
//! - [`FormNote`]: what became of one form of the mail file.
//! - [`LockNote`]: the lock that was found on it after a kill.
//! - [`part`], [`lock_part`]: what an outcome says about them; [`end`], [`end_stopped`], [`end_dry`]:
//!   how a remediation ends that only saves mail.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use procstorm_toolkit::chain::Chain;
use serde::{Deserialize, Serialize};

use super::{Archived, Dotlock, Failure, Form, FormPlan, FormReport, Method, Planned};
use crate::outcome::{End, Part, Subject};
use crate::verdict::{Severity, Verdict};

/// The label of a mail file that does not exist, in metrics and in the journal.
pub const NO_MAIL_FILE: &str = "no_mail_file";

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
    /// Whether it was to be saved, and could not be.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.fate, Fate::Failed { .. })
    }

    /// Whether there was nothing to be saved.
    #[must_use]
    pub fn is_absent(&self) -> bool {
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

/// What an outcome says about a user's mail files: an archive that failed is never "all is well", and
/// the subject of the mail says so.
#[must_use]
pub fn part(user: &str, notes: &[FormNote], dry_run: bool) -> Part {
    let lines = match notes {
        [] => vec![format!("{user} has no mail file")],
        notes => notes.iter().map(ToString::to_string).collect(),
    };
    let could = if dry_run { "could not be saved" } else { "NOT saved" };
    let failed: Vec<_> = notes.iter().filter(|note| note.is_failed()).collect();
    let remark = match failed.as_slice() {
        [] => None,
        [one] => Some(format!("mail file {} {could}", one.source.display())),
        several => Some(format!("{} mail files {could}", several.len())),
    };
    Part { lines, ..Part::remarked(remark) }
}

/// What an outcome says about the lock: a mailbox that nobody can write to is not "all is well".
#[must_use]
pub fn lock_part(note: &LockNote) -> Part {
    let remark = match note {
        LockNote::Left(lock) => Some(format!("lock {} is there", lock.path.display())),
        LockNote::Unknown(_) => None,
    };
    Part { lines: vec![note.to_string()], is_news: true, ..Part::remarked(remark) }
}

/// How a remediation ends that kills nothing. `None` where the record of the archive cannot be read.
#[must_use]
pub fn end(subject: &Subject<'_>, notes: Option<&[FormNote]>) -> End {
    let saved =
        |notes: &[FormNote]| notes.iter().any(|note| matches!(note.fate, Fate::Archived(_)));
    let user = subject.user;
    let saved = match notes {
        Some(notes) if saved(notes) => format!("saved the mail of {user}"),
        Some(notes) if notes.iter().all(FormNote::is_absent) => format!("{user} has no mail file"),
        Some(_) | None => format!("saved no mail of {user}"),
    };
    let (before, whose) = (subject.before_told(), subject.whose());
    let summary = format!("{saved}; {before} {whose} processes live on");
    End { after: subject.before, ..End::of(Verdict::Archived, summary) }
}

/// How it ends if the mail file could not be saved, and the playbook stops then.
#[must_use]
pub fn end_stopped(subject: &Subject<'_>) -> End {
    let (before, whose) = (subject.before_told(), subject.whose());
    let end = |did: &str| {
        let summary = format!("{did} the {before} {whose} processes");
        End { after: subject.before, ..End::of(Verdict::ArchiveFailed, summary) }
    };
    match subject.dry_run {
        true => End { severity: Severity::Warning, ..end("dry run: would not kill") },
        false => end("did not kill"),
    }
}

/// How a dry run ends that would kill nothing.
#[must_use]
pub fn end_dry(subject: &Subject<'_>) -> End {
    let summary = format!("dry run: would save the mail of {}", subject.user);
    End { after: subject.before, ..End::of(Verdict::DryRun, summary) }
}
