//! What a plan does: each step on record before it begins and after it ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;

use super::action::Actor;
use super::attempt::was_interrupted;
use super::context::Stopping;
use super::detail::{LOCK_STEP, Unreadable, recorded, recorded_archives};
use crate::account::Account;
use crate::active::Force;
use crate::journal::Remediation;
use crate::outcome::{End, Part, Subject};
use crate::policy::Plan;
use crate::policy::{OnArchiveFailure, Step};
use crate::steps::archive::mailroom::Trouble;
use crate::steps::archive::note::{self, Fate, FormNote, LockNote, NO_MAIL_FILE};
use crate::steps::archive::{Failure, Form, FormReport, Planned};
use crate::steps::kill::{Bounds, KillVerdict, Report, Source, Target, end_storm, told};
use crate::verdict::Verdict;

/// What the steps came to.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How it ended, by the step that says most about it.
    pub(super) end: Option<End>,
    /// What each step has to say.
    pub(super) parts: Vec<Part>,
}

/// A step that has ended, now or in an earlier run of the daemon.
enum Ran<T> {
    /// What it did, now or in an earlier run of the daemon.
    Known(T),
    /// An earlier run of the daemon ended it, and its record cannot be read. It is not done again.
    Unread(Unreadable),
}

impl Actor {
    /// Does what the plan says, in its order. What the journal knows to be done is not done again.
    pub(super) async fn take_steps(
        &self,
        force: &Arc<Force>,
        case: &Remediation,
        plan: &Plan,
        subject: &Subject<'_>,
        living: &[i32],
        source: Option<&Source>,
    ) -> Result<Done, Stopping> {
        let source = source.map(told::source_part);
        let mut done = Done::default();
        let dry = plan.is_dry_run();
        for step in plan.steps() {
            match step {
                Step::ArchiveMailFile => {
                    let (failed, notes) = match self.archive(force, case, plan).await? {
                        Ran::Known(notes) => {
                            done.parts.push(note::part(subject.user, &notes, dry));
                            (notes.iter().any(FormNote::is_failed), Some(notes))
                        }
                        Ran::Unread(record) => {
                            done.parts.push(Part::unread(&[record.to_string()]));
                            (!record.is_good(), None)
                        }
                    };
                    if failed
                        && !dry
                        && plan.playbook().on_archive_failure == OnArchiveFailure::Stop
                    {
                        done.end = Some(note::end_stopped(subject));
                        done.parts.extend(source);
                        return Ok(done);
                    }
                    done.end.get_or_insert_with(|| match dry {
                        true => note::end_dry(subject),
                        false => note::end(subject, notes.as_deref()),
                    });
                }
                Step::KillUserProc if dry => {
                    done.parts.push(told::part_dry(living));
                    done.parts.extend(source.clone());
                    done.end = Some(told::end_dry(subject, living));
                }
                Step::KillUserProc => {
                    let was_interrupted = was_interrupted(case);
                    let has_hit = match self.kill(case, plan).await? {
                        Ran::Known(report) => {
                            done.parts.push(told::part(&report));
                            // Else the report names those that came during the kill, with theirs.
                            if report.replacements.is_empty() {
                                done.parts.extend(source.clone());
                            }
                            done.end = Some(match (&report.verdict, report.left) {
                                // Those whom the kill before the restart had hit were still dying
                                // when they were counted: that kill ended them, and they did not
                                // go by themselves.
                                (KillVerdict::NoLongerTrue, Some(left)) if was_interrupted => {
                                    End::interrupted(subject, left)
                                }
                                _ => told::end(subject, &report),
                            });
                            // A kill that was cut off before, of which no report tells, has hit
                            // some, too.
                            report.asked > 0 || report.signalled > 0 || was_interrupted
                        }
                        // An earlier run of the daemon ended the kill.
                        Ran::Unread(record) => {
                            done.parts.push(Part::unread(&[record.to_string()]));
                            done.parts.extend(source.clone());
                            let left = u64::try_from(living.len()).unwrap_or(u64::MAX);
                            done.end = Some(End::interrupted(subject, left));
                            true
                        }
                    };
                    if has_hit
                        && let Some(lock) = self.left_lock(force, case, plan.account()).await?
                    {
                        done.parts.push(note::lock_part(&lock));
                    }
                }
            }
        }
        Ok(done)
    }

    async fn archive(
        &self,
        force: &Arc<Force>,
        case: &Remediation,
        plan: &Plan,
    ) -> Result<Ran<Vec<FormNote>>, Stopping> {
        let name = Step::ArchiveMailFile.label();
        if let Some(recorded) = recorded_archives(&case.steps) {
            return Ok(Ran::of(case, recorded));
        }
        let step = self.begin_step(case.id, name).await?;
        let mut notes = if plan.is_dry_run() {
            self.plan_archive(force, plan).await
        } else {
            self.do_archive(force, plan).await?
        };
        if notes.is_empty() {
            let source = mail_file(force, plan);
            let fate = Fate::no_mail_file(&source);
            notes.push(FormNote { form: Form::Mbox, source, fate });
        }
        for note in &notes {
            self.count_archive(case, plan, note);
        }
        let outcome = archive_outcome(&notes);
        let good = !notes.iter().any(|note| matches!(note.fate, Fate::Failed { .. }));
        self.end_step(step, outcome, good, &notes).await?;
        Ok(Ran::Known(notes))
    }

    async fn do_archive(&self, force: &Arc<Force>, plan: &Plan) -> Result<Vec<FormNote>, Stopping> {
        let archived =
            force.mailroom.archive(plan.account().clone(), Arc::clone(&self.context.abort));
        let reports = match archived.await {
            Ok(reports) => reports,
            Err(Trouble::CalledOff) => return Err(Stopping),
            Err(trouble) => return Ok(vec![unopened(force, plan, &trouble)]),
        };
        let aborted = |report: &FormReport| matches!(report.result, Err(Failure::Aborted { .. }));
        if reports.iter().any(aborted) {
            return Err(Stopping);
        }
        Ok(reports.iter().map(FormNote::from).collect())
    }

    async fn plan_archive(&self, force: &Arc<Force>, plan: &Plan) -> Vec<FormNote> {
        match force.mailroom.plan(plan.account().clone(), &self.context.abort).await {
            Ok(plans) => plans.iter().map(FormNote::from).collect(),
            Err(trouble) => vec![unopened(force, plan, &trouble)],
        }
    }

    fn count_archive(&self, case: &Remediation, plan: &Plan, note: &FormNote) {
        let user = plan.account().name.as_str();
        let (id, source) = (case.id, note.source.display());
        match &note.fate {
            Fate::Archived(archived) => {
                let (path, bytes) = (archived.path.display(), archived.bytes);
                let method = archived.method.label();
                tracing::info!(
                    remediation = id, user, %source, %path, bytes, method,
                    locked = archived.locked, changed = archived.changed,
                    ms = millis(archived.elapsed), "saved user mail file"
                );
                self.context.parts.metrics.archive(method, bytes);
            }
            Fate::Planned(Planned::Copy { path, .. } | Planned::Identical { path }) => {
                let path = path.display();
                tracing::info!(remediation = id, user, %source, %path, "dry run: would save");
            }
            Fate::Absent { label, text } => {
                tracing::warn!(remediation = id, user, %source, reason = text, "no mail file saved");
                // What is found is not counted in a dry run, either.
                if !plan.is_dry_run() {
                    self.context.parts.metrics.archive(label, 0);
                }
            }
            Fate::Failed { label, text } => {
                tracing::error!(remediation = id, user, %source, error = text, "mail file not saved");
                self.context.parts.metrics.archive(label, 0);
            }
        }
    }

    async fn kill(&self, case: &Remediation, plan: &Plan) -> Result<Ran<Report>, Stopping> {
        let name = Step::KillUserProc.label();
        if let Some(recorded) = recorded(&case.steps, name) {
            return Ok(Ran::of(case, recorded));
        }
        let step = self.begin_step(case.id, name).await?;
        let target = Target { uid: plan.account().uid, command: *plan.command() };
        let bounds = Bounds {
            allow_own_uid: self.may_own_uid(),
            grace: plan.playbook().grace,
            threshold: plan.playbook().threshold,
            nested_namespaces: plan.playbook().kills_nested(),
            ..self.context.parts.bounds.clone()
        };
        let (procfs, abort) = (self.context.parts.procfs.clone(), Arc::clone(&self.context.abort));
        let work = self.context.hands.run(move || end_storm(&procfs, &target, &bounds, &abort));
        let report = match work.await {
            Ok(report) => report,
            Err(panic) => Report::idle(KillVerdict::Failed(panic.to_string()), Duration::ZERO),
        };
        self.context.parts.metrics.killed(report.ended(), report.terminated, report.gone);
        let verdict = report.verdict.label();
        tracing::info!(
            remediation = case.id, user = plan.account().name.as_str(), uid = target.uid,
            command = %target.command.to_text(), verdict, matched = report.matched,
            asked = report.asked, terminated = report.terminated, signalled = report.signalled, exited = report.exited, left = report.left,
            changed = report.changed, left_alone = report.nested,
            zombies = report.zombie_count, stuck = report.stuck_count,
            replacements = report.replacement_count, rounds = report.rounds,
            ms = millis(report.elapsed), "killed processes"
        );
        if report.verdict == KillVerdict::Aborted {
            return Err(Stopping);
        }
        let good = Verdict::from(&report.verdict).is_good();
        self.end_step(step, verdict, good, &report).await?;
        Ok(Ran::Known(report))
    }

    /// Looks for a lock that those who were killed have left on the mail file. It is a step only
    /// if there is something to tell, and of its own: the kill is on record by then, however long
    /// the spool takes to answer.
    pub(super) async fn left_lock(
        &self,
        force: &Arc<Force>,
        case: &Remediation,
        account: &Account,
    ) -> Result<Option<LockNote>, Stopping> {
        if let Some(recorded) = recorded(&case.steps, LOCK_STEP) {
            return Ok(Some(recorded.unwrap_or_else(|record: Unreadable| {
                record.log(case.id);
                LockNote::Unknown(record.to_string())
            })));
        }
        let procfs = self.context.parts.procfs.clone();
        let found = force.mailroom.left_dotlock(account.clone(), procfs, &self.context.abort).await;
        let (note, outcome) = match found {
            Ok(None) => return Ok(None),
            Ok(Some(lock)) => (LockNote::Left(lock), "left"),
            // Nor as the daemon stops: the kill is over, and how it ended is not to wait for a start.
            Err(trouble) => (LockNote::Unknown(Chain(&trouble).to_string()), "unknown"),
        };
        let user = account.name.as_str();
        tracing::warn!(remediation = case.id, user, found = %note, "mail file lock after the kill");
        let step = self.begin_step(case.id, LOCK_STEP).await?;
        self.end_step(step, outcome, false, &note).await?;
        Ok(Some(note))
    }

    fn may_own_uid(&self) -> bool {
        self.context.force().config.accounts.allow_own_uid
    }

    async fn begin_step(&self, id: i64, name: &'static str) -> Result<i64, Stopping> {
        self.context
            .persist(|| self.context.parts.journal.begin_step(id, name, Timestamp::now()))
            .await
    }

    async fn end_step<T: serde::Serialize>(
        &self,
        step: i64,
        outcome: &str,
        good: bool,
        detail: &T,
    ) -> Result<(), Stopping> {
        let detail = serde_json::to_string(detail).unwrap_or_else(|error| {
            tracing::error!(step, %error, "cannot write a step's record");
            String::new()
        });
        let journal = &self.context.parts.journal;
        self.context
            .persist(|| journal.end_step(step, outcome, good, &detail, Timestamp::now()))
            .await
    }
}

impl<T> Ran<T> {
    /// What an earlier run of the daemon recorded. Logs a record that cannot be read.
    fn of(case: &Remediation, recorded: Result<T, Unreadable>) -> Self {
        match recorded {
            Ok(detail) => Self::Known(detail),
            Err(record) => {
                record.log(case.id);
                Self::Unread(record)
            }
        }
    }
}

fn archive_outcome(notes: &[FormNote]) -> &'static str {
    let failed = |note: &FormNote| matches!(note.fate, Fate::Failed { .. });
    let planned = |note: &FormNote| matches!(note.fate, Fate::Planned(_));
    let absent = |note: &FormNote| matches!(note.fate, Fate::Absent { .. });
    match notes {
        notes if notes.iter().all(absent) => NO_MAIL_FILE,
        notes if notes.iter().any(failed) => "failed",
        notes if notes.iter().any(planned) => "planned",
        _ => "saved",
    }
}

/// Where the user's mail file should be.
fn mail_file(force: &Force, plan: &Plan) -> PathBuf {
    force.config.mail.spool.join(Form::Mbox.source_name(&plan.account().name))
}

/// The note of a mail file of which nothing could be found out.
fn unopened(force: &Force, plan: &Plan, trouble: &Trouble) -> FormNote {
    FormNote {
        form: Form::Mbox,
        source: mail_file(force, plan),
        fate: Fate::Failed { label: trouble.label().to_owned(), text: Chain(&trouble).to_string() },
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
