//! Is it still allowed, and still true?

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore};

use super::accounts::AccountLookup;
use super::action::Actor;
use super::attempt::Attempt;
use super::context::Context;
use super::endings::{Endings, Seen};
use super::lanes::Lanes;
use crate::active::Force;
use crate::journal::records::Question;
use crate::journal::{Remediation, State};
use crate::policy::{Authorised, Decision, Facts, History, Refusal, Request, admit, decide};
use crate::steps::count;
use crate::steps::kill::Survey;
use crate::stopping::Stopping;

/// Judges remediations, and has those done that may be.
#[derive(Debug)]
pub(super) struct Judge {
    context: Context,
    accounts: Arc<AccountLookup>,
    actor: Actor,
    endings: Endings,
    lanes: Arc<Lanes>,
    /// So many act at once.
    acting: Semaphore,
    /// Held from the look at the history until the decision is in the journal, so that two
    /// cannot both be the last that a limit allows.
    turn: Mutex<()>,
}

impl Judge {
    /// A judge under whom `parallel` act at once.
    pub(super) fn new(context: Context, accounts: Arc<AccountLookup>, parallel: usize) -> Self {
        let lanes = Arc::new(Lanes::default());
        Self {
            actor: Actor::new(context.clone(), Arc::clone(&lanes)),
            endings: Endings::new(context.clone()),
            context,
            accounts,
            lanes,
            acting: Semaphore::new(parallel.min(Semaphore::MAX_PERMITS)),
            turn: Mutex::new(()),
        }
    }

    /// Is it still allowed, and still true? Then it is done.
    pub(super) async fn judge(&self, remediation: &Remediation) -> Result<(), Stopping> {
        self.actor.release(remediation).await;
        let force = self.context.force();
        // Asked again, since the configuration may be another than when it was accepted.
        let request = match admit(&force.config, &remediation.alert) {
            Ok(request) => request,
            Err(refusal) => return self.endings.refuse(remediation, &force, &refusal, None).await,
        };
        let authorised = match self.authorise(&force, request.clone()).await? {
            Ok(authorised) => authorised,
            Err(refusal) => {
                return self
                    .endings
                    .refuse(remediation, &force, &refusal, Some((&request, Seen::default())))
                    .await;
            }
        };
        let attempt = Attempt { remediation, force: &force, authorised: &authorised };
        let target = attempt.target();
        let _lane = self.lanes.enter(target.uid, target.command).await;
        // The semaphore is never closed; without a permit nothing is done.
        let Ok(_permit) = self.acting.acquire().await else { return Err(Stopping) };
        if self.context.is_stopping() {
            return Err(Stopping);
        }
        let survey = match self.context.survey_patiently(target).await? {
            Ok(survey) => survey.with_nested(authorised.playbook().kills_nested()),
            Err(error) => return self.endings.cannot_see(&attempt, &error).await,
        };
        let facts = Facts {
            shared_with: self.context.shared_with(&force, &authorised).await,
            living: count(&survey.living),
            left_alone: count(&survey.nested),
            history: History::default(),
            newcomers: None,
            muted_by: self.context.muted_by(&force, remediation).await,
            now: Timestamp::now(),
        };
        self.decide(&attempt, &survey, facts).await
    }

    /// The request, if its account may be acted on.
    async fn authorise(
        &self,
        force: &Force,
        request: Request,
    ) -> Result<Result<Authorised, Refusal>, Stopping> {
        let identity = self.accounts.identity(request.user()).await?;
        let candidate =
            match request.candidate(&force.config, &identity, self.context.parts.own_uid) {
                Ok(candidate) => candidate,
                Err(refusal) => return Ok(Err(refusal)),
            };
        Ok(match self.accounts.standing(&force.config, candidate.account()).await? {
            Ok(standing) => candidate.authorise(standing),
            Err(why) => {
                Err(Refusal::UnresolvedUser { user: candidate.account().name.clone(), why })
            }
        })
    }

    /// Decides, with nobody else deciding at the same time, and does what follows.
    async fn decide(
        &self,
        attempt: &Attempt<'_>,
        survey: &Survey,
        mut facts: Facts,
    ) -> Result<(), Stopping> {
        let Attempt { remediation, force, authorised } = attempt;
        let (request, account) = (authorised.request(), authorised.account());
        let left = facts.living.saturating_add(facts.left_alone);
        let turn = self.turn.lock().await;
        let question = Question {
            id: remediation.id,
            playbook: request.name().to_owned(),
            uid: account.uid,
            command: request.command().to_text().into_owned(),
            limits: request.playbook().limits,
            dry_run: request.is_dry_run(),
        };
        let journal = &self.context.parts.journal;
        facts.history =
            self.context.persist(|| journal.history(question.clone(), Timestamp::now())).await?;
        if let Some(rehearsed) = facts.history.rehearsed {
            facts.newcomers = self.context.started_since(attempt, survey, rehearsed).await;
        }
        facts.now = Timestamp::now();
        // The wait for others to end may have been long: what was asked before it was asked of a
        // policy that is no longer in force.
        if !Arc::ptr_eq(force, &self.context.force()) {
            tracing::info!(remediation = remediation.id, "the policy was reloaded; judged again");
            return Ok(());
        }
        match decide(&force.config, (*authorised).clone(), &facts) {
            Decision::Wait(until) => {
                tracing::info!(remediation = remediation.id, %until, "waits for the cooldown");
                self.context.persist(|| journal.defer(remediation.id, until)).await
            }
            Decision::Refuse(refusal) => {
                drop(turn);
                let is_over =
                    matches!(refusal, Refusal::BelowThreshold { .. } | Refusal::LeftAlone { .. });
                if remediation.state == State::Acting && is_over {
                    return self.actor.end_interrupted(attempt, left).await;
                }
                let is_limit = matches!(refusal, Refusal::LimitReached { .. });
                let source =
                    if is_limit { self.context.source(attempt, survey).await } else { None };
                let seen = Seen { living: Some(facts.living), source };
                self.endings.refuse(remediation, force, &refusal, Some((request, seen))).await
            }
            Decision::Act(plan) => {
                let (id, living, now) = (remediation.id, facts.living, Timestamp::now());
                let (uid, dry) = (account.uid, plan.is_dry_run());
                // What a live remediation did before a restart is not taken for the work of a dry run,
                // and what a dry run has only planned not for that of a live one.
                let has_begun = remediation.state == State::Acting && !remediation.steps.is_empty();
                if has_begun && remediation.dry_run != dry {
                    drop(turn);
                    return self.actor.end_interrupted(attempt, left).await;
                }
                self.context.persist(|| journal.begin(id, uid, living, dry, now)).await?;
                drop(turn);
                // A journal that cannot be written holds it up for as long as that lasts.
                if !Arc::ptr_eq(force, &self.context.force()) {
                    tracing::info!(remediation = id, "the policy was reloaded; judged again");
                    return Ok(());
                }
                self.actor.act(attempt, &plan, survey).await
            }
        }
    }
}
