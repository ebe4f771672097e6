//! Does what a plan says, and what a kill that was cut off has left to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use procstorm_processes::process::Command;
use procstorm_toolkit::chain::Chain;

use super::attempt::{Attempt, unread_of};
use super::context::Context;
use super::endings::Endings;
use super::lanes::Lanes;
use super::since;
use crate::active::Force;
use crate::journal::Remediation;
use crate::outcome::{End, Part, Story, Subject};
use crate::policy::Plan;
use crate::steps;
use crate::steps::count;
use crate::steps::kill::{Source, Survey, Target, release_stopped, told, was_interrupted};
use crate::steps::run::{Run, Took, Work};
use crate::stopping::Stopping;
use crate::verdict::Verdict;

/// Takes the steps of plans.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) context: Context,
    endings: Endings,
    lanes: Arc<Lanes>,
}

impl Actor {
    pub(super) fn new(context: Context, lanes: Arc<Lanes>) -> Self {
        let endings = Endings::new(context.clone());
        Self { context, endings, lanes }
    }

    /// Takes the steps, and writes down how they ended.
    pub(super) async fn act(
        &self,
        attempt: &Attempt<'_>,
        plan: &Plan,
        survey: &Survey,
    ) -> Result<(), Stopping> {
        let Attempt { remediation, force, authorised } = attempt;
        let request = authorised.request();
        let (began, clock) = (Timestamp::now(), Instant::now());
        let before = remediation.before.unwrap_or_else(|| count(&survey.living));
        if remediation.repeats.is_none() && remediation.acted.is_none() {
            self.count_reaction(remediation, force, plan, began);
        }
        tracing::info!(
            remediation = remediation.id, user = request.user().as_str(), command = %request.command().to_text(),
            playbook = request.name(), processes = before, dry_run = plan.is_dry_run(), "acts"
        );
        let source = match remediation.repeats {
            Some(_) => self.context.source(attempt, survey).await,
            None => None,
        };
        let work = self.context.work(attempt, before);
        let done = take_steps(&work, plan, &survey.living, source.as_ref()).await?;
        let subject = work.subject;
        self.context.parts.metrics.duration(clock.elapsed(), plan.is_dry_run());
        let nothing = || End::nothing(&subject, Verdict::Failed, "the playbook has no step");
        let end = done.end.unwrap_or_else(nothing);
        let story = Story { subject, recurrence: 0, end, parts: done.parts };
        self.endings.conclude(attempt, story).await
    }

    /// A dry run counts from the notification: an alert may have stood for days when the daemon begins
    /// to watch. Else it is from the alert's start.
    ///
    /// The alert's start is by the clock of Prometheus, which Alertmanager's stands for. What
    /// would have begun before its alert was measured by a clock that is wrong, and is left out.
    fn count_reaction(
        &self,
        remediation: &Remediation,
        force: &Force,
        plan: &Plan,
        began: Timestamp,
    ) {
        let metrics = &self.context.parts.metrics;
        if plan.is_dry_run() {
            return metrics.reaction(since(remediation.accepted, began), true);
        }
        let alertmanager = force.alertmanager.as_ref();
        let began = alertmanager.map_or(began, |alertmanager| alertmanager.here(began));
        match Duration::try_from(began.duration_since(remediation.alert.starts_at)) {
            Ok(time) => metrics.reaction(time, false),
            Err(_) => tracing::warn!(
                remediation = remediation.id,
                starts_at = %remediation.alert.starts_at,
                "the alert begins in the future; this host's clock or Prometheus' is wrong"
            ),
        }
    }

    /// The steps were cut off by a restart, and do not go on: what is left is no storm, or the policy has
    /// changed from live to dry run, or back.
    pub(super) async fn end_interrupted(
        &self,
        attempt: &Attempt<'_>,
        living: u64,
    ) -> Result<(), Stopping> {
        let before = attempt.remediation.before.unwrap_or(living);
        let unread = unread_of(attempt.remediation);
        let work = self.context.work(attempt, before);
        let mut parts = Vec::new();
        // All of them: the playbook may name others by now than when the steps were cut off.
        for step in steps::all() {
            parts.extend(step.cut_off(&work).await?);
        }
        parts.push(Part::unread(&unread));
        // What was cut off was begun under the policy of that time.
        let subject = Subject { dry_run: attempt.remediation.dry_run, ..work.subject };
        let end = End::interrupted(&subject, living);
        let story = Story { subject, recurrence: 0, end, parts };
        self.endings.conclude(attempt, story).await
    }

    /// Resumes the processes that a kill that was cut off had stopped, whatever is decided next. It
    /// goes by the record, since policy and name service may say something else by now.
    pub(super) async fn release(&self, remediation: &Remediation) {
        let command = Command::new(remediation.alert.label("command").as_bytes());
        let (true, Some(uid), Some(command)) =
            (was_interrupted(remediation), remediation.uid, command)
        else {
            return;
        };
        let _lane = self.lanes.enter(uid, command).await;
        let (procfs, id) = (self.context.parts.procfs.clone(), remediation.id);
        let target = Target { uid, command };
        match self.context.hands.run(move || release_stopped(&procfs, &target)).await {
            Ok(Ok(released)) => tracing::info!(
                remediation = id,
                resumed = released.resumed.len(),
                denied = released.denied.len(),
                "resumed (SIGCONT) the processes that a kill that was cut off had stopped"
            ),
            Ok(Err(error)) => {
                tracing::error!(remediation = id, error = %Chain(&error), "could not resume (SIGCONT) stopped processes")
            }
            Err(error) => {
                tracing::error!(remediation = id, %error, "could not resume (SIGCONT) stopped processes")
            }
        }
    }
}

/// Does what the plan says, in its order, and returns what the steps came to.
async fn take_steps(
    work: &Work<'_>,
    plan: &Plan,
    living: &[i32],
    source: Option<&Source>,
) -> Result<Took, Stopping> {
    let source = source.map(told::source_part);
    let mut done = Took::default();
    for step in plan.steps() {
        let (source, end) = (source.as_ref(), done.end.as_ref());
        let took = steps::of(*step).run(&Run { work, plan, living, source, end }).await?;
        done.end = took.end.or(done.end);
        done.parts.extend(took.parts);
        if took.stops {
            break;
        }
    }
    Ok(done)
}
