//! Takes the step `kill_user_proc`.

use std::sync::Arc;
use std::time::Duration;

use super::{Bounds, KillVerdict, Report, Target, end_storm, told};
use crate::journal::Remediation;
use crate::outcome::{End, Part};
use crate::policy::Step;
use crate::steps::archive::{left_lock, note};
use crate::steps::count;
use crate::steps::millis;
use crate::steps::run::{Ran, Run, Took, Work};
use crate::stopping::Stopping;
use crate::verdict::Verdict;

/// Whether a kill was begun whose end is not on record.
pub(crate) fn was_interrupted(remediation: &Remediation) -> bool {
    let kill = Step::KillUserProc.label();
    remediation.steps.iter().any(|step| step.name == kill && step.ended.is_none())
}

/// Kills, and says how that ended.
pub(super) async fn run(run: &Run<'_>) -> Result<Took, Stopping> {
    let (subject, living) = (&run.work.subject, run.living);
    let mut took = Took::default();
    if run.plan.is_dry_run() {
        took.parts.push(told::part_dry(living));
        took.parts.extend(run.source.cloned());
        took.end = Some(told::end_dry(subject, living));
        return Ok(took);
    }
    let was_interrupted = was_interrupted(run.work.remediation);
    let has_hit = match kill(run).await? {
        Ran::Known(report) => {
            took.parts.push(told::part(&report));
            // Otherwise the report names those that came during the kill, with their source.
            if report.replacements.is_empty() {
                took.parts.extend(run.source.cloned());
            }
            took.end = Some(match (&report.verdict, report.left) {
                // The processes that the kill before the restart had hit were still dying when they
                // were counted: that kill ended them, and they did not exit by themselves.
                (KillVerdict::NoLongerTrue, Some(left)) if was_interrupted => {
                    End::interrupted(subject, left)
                }
                _ => told::end(subject, &report),
            });
            // A kill that was cut off before has no report, and has hit some, too.
            report.asked > 0 || report.signalled > 0 || was_interrupted
        }
        // An earlier run of the daemon ended the kill.
        Ran::Unread(record) => {
            took.parts.push(Part::unread(&[record.to_string()]));
            took.parts.extend(run.source.cloned());
            let left = count(living);
            took.end = Some(End::interrupted(subject, left));
            true
        }
    };
    if has_hit {
        took.parts.extend(lock_part(run.work).await?);
    }
    Ok(took)
}

/// What is said about a lock that the killed processes have left on the mail file, if there is one.
pub(super) async fn lock_part(work: &Work<'_>) -> Result<Option<Part>, Stopping> {
    Ok(left_lock(work).await?.as_ref().map(note::lock_part))
}

async fn kill(run: &Run<'_>) -> Result<Ran<Report>, Stopping> {
    let Run { work, plan, .. } = run;
    let name = Step::KillUserProc.label();
    if let Some(ran) = work.recorded(name) {
        return Ok(ran);
    }
    let step = work.begin_step(name).await?;
    let target = Target { uid: plan.account().uid, command: *plan.command() };
    let bounds = Bounds {
        allow_own_uid: work.in_force.borrow().config.accounts.allow_own_uid,
        grace: plan.playbook().grace,
        threshold: plan.playbook().threshold,
        nested_namespaces: plan.playbook().kills_nested(),
        ..work.bounds.clone()
    };
    let (procfs, abort) = (work.procfs.to_owned(), Arc::clone(work.abort));
    let ended = work.hands.run(move || end_storm(&procfs, &target, &bounds, &abort));
    let report = match ended.await {
        Ok(report) => report,
        Err(panic) => Report::idle(KillVerdict::Failed(panic.to_string()), Duration::ZERO),
    };
    work.metrics.killed(report.ended(), report.terminated, report.gone);
    let verdict = report.verdict.label();
    tracing::info!(
        remediation = work.remediation.id, user = plan.account().name.as_str(), uid = target.uid,
        command = %target.command.to_text(), verdict, matched = report.matched,
        asked = report.asked, terminated = report.terminated, signalled = report.signalled, exited = report.exited, left = report.left,
        changed = report.changed, left_alone = report.nested,
        zombies = report.zombie_count, stuck = report.stuck_count,
        replacements = report.replacement_count, rounds = report.rounds,
        ms = millis(report.elapsed), "kill ended"
    );
    if report.verdict == KillVerdict::Aborted {
        return Err(Stopping);
    }
    let good = Verdict::from(&report.verdict).is_good();
    work.end_step(step, verdict, good, &report).await?;
    Ok(Ran::Known(report))
}
