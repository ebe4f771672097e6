//! Takes the step `archive_mail_file`.

use std::path::PathBuf;
use std::sync::Arc;

use procstorm_toolkit::chain::Chain;

use super::mailroom::Trouble;
use super::note::{self, Fate, FormNote, NO_MAIL_FILE};
use super::{Failure, Form, FormReport, Planned};
use crate::journal::StepRow;
use crate::outcome::Part;
use crate::policy::{OnArchiveFailure, Step};
use crate::steps::millis;
use crate::steps::record::{Unreadable, recorded};
use crate::steps::run::{Ran, Run, Took};
use crate::stopping::Stopping;

/// What the journal knows of the mail files.
pub(crate) fn recorded_archives(steps: &[StepRow]) -> Option<Result<Vec<FormNote>, Unreadable>> {
    recorded(steps, Step::ArchiveMailFile.label())
}

/// Saves the mail files, and says what became of them.
pub(super) async fn run(run: &Run<'_>) -> Result<Took, Stopping> {
    let (subject, dry) = (&run.work.subject, run.plan.is_dry_run());
    let mut took = Took::default();
    let (failed, notes) = match archive(run).await? {
        Ran::Known(notes) => {
            took.parts.push(note::part(subject.user, &notes, dry));
            (notes.iter().any(FormNote::is_failed), Some(notes))
        }
        Ran::Unread(record) => {
            took.parts.push(Part::unread(&[record.to_string()]));
            (!record.is_good(), None)
        }
    };
    if failed && run.plan.playbook().on_archive_failure == OnArchiveFailure::Stop {
        took.end = Some(note::end_stopped(subject));
        took.parts.extend(run.source.cloned());
        took.stops = true;
    } else if run.end.is_none() {
        took.end = Some(match dry {
            true => note::end_dry(subject),
            false => note::end(subject, notes.as_deref()),
        });
    }
    Ok(took)
}

async fn archive(run: &Run<'_>) -> Result<Ran<Vec<FormNote>>, Stopping> {
    let name = Step::ArchiveMailFile.label();
    if let Some(ran) = run.work.recorded(name) {
        return Ok(ran);
    }
    let step = run.work.begin_step(name).await?;
    let mut notes =
        if run.plan.is_dry_run() { plan_archive(run).await } else { do_archive(run).await? };
    if notes.is_empty() {
        let source = mail_file(run);
        let fate = Fate::no_mail_file(&source);
        notes.push(FormNote { form: Form::Mbox, source, fate });
    }
    for note in &notes {
        count(run, note);
    }
    let good = !notes.iter().any(FormNote::is_failed);
    run.work.end_step(step, outcome(&notes), good, &notes).await?;
    Ok(Ran::Known(notes))
}

async fn do_archive(run: &Run<'_>) -> Result<Vec<FormNote>, Stopping> {
    let (mailroom, account) = (&run.work.force.mailroom, run.plan.account());
    let reports = match mailroom.archive(account.clone(), Arc::clone(run.work.abort)).await {
        Ok(reports) => reports,
        Err(Trouble::CalledOff) => return Err(Stopping),
        Err(trouble) => return Ok(vec![unopened(run, &trouble)]),
    };
    let aborted = |report: &FormReport| matches!(report.result, Err(Failure::Aborted { .. }));
    if reports.iter().any(aborted) {
        return Err(Stopping);
    }
    Ok(reports.iter().map(FormNote::from).collect())
}

async fn plan_archive(run: &Run<'_>) -> Vec<FormNote> {
    match run.work.force.mailroom.plan(run.plan.account().clone(), run.work.abort).await {
        Ok(plans) => plans.iter().map(FormNote::from).collect(),
        Err(trouble) => vec![unopened(run, &trouble)],
    }
}

fn count(run: &Run<'_>, note: &FormNote) {
    let (metrics, user) = (run.work.metrics, run.plan.account().name.as_str());
    let (id, source) = (run.work.remediation.id, note.source.display());
    match &note.fate {
        Fate::Archived(archived) => {
            let (path, bytes) = (archived.path.display(), archived.bytes);
            let method = archived.method.label();
            tracing::info!(
                remediation = id, user, %source, %path, bytes, method,
                locked = archived.locked, changed = archived.changed,
                ms = millis(archived.elapsed), "saved user mail file"
            );
            metrics.archive(method, bytes);
        }
        Fate::Planned(Planned::Copy { path, .. } | Planned::Identical { path }) => {
            let path = path.display();
            tracing::info!(remediation = id, user, %source, %path, "dry run: would save");
        }
        Fate::Absent { label, text } => {
            tracing::warn!(remediation = id, user, %source, reason = text, "no mail file saved");
            // What is found is not counted in a dry run, either.
            if !run.plan.is_dry_run() {
                metrics.archive(label, 0);
            }
        }
        Fate::Failed { label, text } => {
            if run.plan.is_dry_run() {
                tracing::warn!(
                    remediation = id, user, %source, error = text,
                    "dry run: the mail file could not be saved"
                );
            } else {
                tracing::error!(remediation = id, user, %source, error = text, "mail file not saved");
                metrics.archive(label, 0);
            }
        }
    }
}

/// The label of what became of them, in the journal.
fn outcome(notes: &[FormNote]) -> &'static str {
    let planned = |note: &FormNote| matches!(note.fate, Fate::Planned(_));
    match notes {
        notes if notes.iter().all(FormNote::is_absent) => NO_MAIL_FILE,
        notes if notes.iter().any(FormNote::is_failed) => "failed",
        notes if notes.iter().any(planned) => "planned",
        _ => "saved",
    }
}

/// Where the user's mail file should be.
fn mail_file(run: &Run<'_>) -> PathBuf {
    run.work.force.config.mail.spool.join(Form::Mbox.source_name(&run.plan.account().name))
}

/// The note of a mail file of which nothing could be found out.
fn unopened(run: &Run<'_>, trouble: &Trouble) -> FormNote {
    FormNote {
        form: Form::Mbox,
        source: mail_file(run),
        fate: Fate::Failed { label: trouble.label().to_owned(), text: Chain(&trouble).to_string() },
    }
}
