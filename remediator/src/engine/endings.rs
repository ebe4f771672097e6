//! How a remediation ends: verdict, outcome and counters.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::chain::Chain;

use super::attempt::Attempt;
use super::context::Context;
use super::playbook_of;
use crate::active::Force;
use crate::journal::course::Ending;
use crate::journal::records::Recurrence;
use crate::journal::{Remediation, State};
use crate::outcome::{Story, Subject, Told};
use crate::policy::{Refusal, Request};
use crate::steps::kill::{Source, SurveyError, told};
use crate::stopping::Stopping;
use crate::verdict::Verdict;

/// What was seen of the storm when it was refused.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How many live, if known.
    pub(super) living: Option<u64>,
    /// Where they come from, if known.
    pub(super) source: Option<Source>,
}

/// Writes down how remediations end.
#[derive(Clone, Debug)]
pub(super) struct Endings {
    context: Context,
}

impl Endings {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Writes down how it ended, and the outcome that people read.
    pub(super) async fn conclude(
        &self,
        attempt: &Attempt<'_>,
        mut story: Story<'_>,
    ) -> Result<(), Stopping> {
        let Attempt { remediation, force, authorised } = attempt;
        let journal = &self.context.parts.journal;
        let recurrence = match remediation.repeats {
            Some(_) => self.context.persist(|| journal.recurrence(remediation.id)).await?,
            None => Recurrence::default(),
        };
        story.recurrence = recurrence.count;
        let told = story.tell();
        let is_posted = !story.repeats(&told, &recurrence.told);
        let settle = authorised.playbook().settle;
        let is_watched = told.verdict.is_watched() && !settle.is_zero();
        let settle = is_watched.then(|| SignedDuration::try_from(settle).ok()).flatten();
        let watch_until = settle.and_then(|settle| Timestamp::now().checked_add(settle).ok());
        self.end(remediation.id, force, &told, &story, watch_until, is_posted).await
    }

    async fn end(
        &self,
        id: i64,
        force: &Force,
        told: &Told,
        story: &Story<'_>,
        watch_until: Option<Timestamp>,
        is_posted: bool,
    ) -> Result<(), Stopping> {
        let dry_run = story.subject.dry_run;
        let is_posted = is_posted && !(dry_run && self.was_told(id, told.verdict).await?);
        let now = Timestamp::now();
        let event = format!("{id}-{}", now.as_millisecond());
        let ending = Ending {
            verdict: told.verdict,
            summary: told.summary.clone(),
            after: told.after,
            letter: (is_posted && force.alertmanager.is_some()).then(|| told.letter(story, event)),
            watch_until,
            dry_run: story.subject.dry_run,
        };
        let journal = &self.context.parts.journal;
        self.context.persist(|| journal.end(id, ending.clone(), now)).await?;
        let Subject { user, command, playbook, before, .. } = story.subject;
        tracing::info!(
            remediation = id,
            user,
            command,
            playbook,
            verdict = told.verdict.label(),
            severity = told.severity.label(),
            dry_run,
            before,
            after = told.after,
            summary = told.summary,
            "ended"
        );
        self.context.parts.metrics.remediation(playbook, told.verdict, dry_run);
        self.context.parts.letters.notify_one();
        Ok(())
    }

    /// Whether people have been told this verdict of the alert of this dry run already. What cannot be
    /// read of it was not told.
    async fn was_told(&self, id: i64, verdict: Verdict) -> Result<bool, Stopping> {
        let journal = &self.context.parts.journal;
        match self.context.persist(|| journal.remediation(id)).await? {
            Ok(remediation) => {
                self.context.persist(|| journal.was_told_in_dry_run(&remediation, verdict)).await
            }
            Err(_unreadable) => Ok(false),
        }
    }

    /// Writes down why nothing is done. An alert that came after the look at the facts asks for
    /// another look.
    pub(super) async fn refuse(
        &self,
        remediation: &Remediation,
        force: &Force,
        refusal: &Refusal,
        asked: Option<(&Request, Seen)>,
    ) -> Result<(), Stopping> {
        let window = asked.as_ref().and_then(|(request, _)| {
            let limits = &request.playbook().limits;
            refusal.told_once_in(limits)
        });
        if let (Some(window), Some((request, mut seen))) = (window, asked) {
            if let Refusal::LeftAlone { left_alone, .. } = refusal {
                seen.living = seen.living.map(|living| living.saturating_add(*left_alone));
            }
            return self.give_up(remediation, force, refusal, window, request, seen).await;
        }
        let reason = refusal.to_string();
        let dry_run = is_dry_run(remediation, force);
        if self.dismiss(remediation, refusal.verdict(), &reason, dry_run).await? {
            tracing::info!(
                remediation = remediation.id,
                user = remediation.alert.label("user"),
                playbook = remediation.alert.label("playbook"),
                refusal = refusal.verdict().label(),
                reason,
                "refused"
            );
        }
        Ok(())
    }

    /// Writes down and counts that nothing is done, without an outcome. Returns false if an alert
    /// that came meanwhile asks for another look.
    async fn dismiss(
        &self,
        remediation: &Remediation,
        verdict: Verdict,
        reason: &str,
        dry_run: bool,
    ) -> Result<bool, Stopping> {
        let journal = &self.context.parts.journal;
        let refuse =
            || journal.refuse(remediation, verdict, reason.to_owned(), dry_run, Timestamp::now());
        let refused = self.context.persist(refuse).await?;
        if refused {
            let playbook = remediation.alert.label("playbook");
            self.context.parts.metrics.remediation(playbook, verdict, dry_run);
        }
        Ok(refused)
    }

    /// There may be a storm, and nothing is done: a mail says so, once in this window.
    async fn give_up(
        &self,
        remediation: &Remediation,
        force: &Force,
        refusal: &Refusal,
        window: Duration,
        request: &Request,
        seen: Seen,
    ) -> Result<(), Stopping> {
        let reason = refusal.to_string();
        let (user, playbook) = (request.user().as_str(), request.name());
        let command = request.command().to_text();
        let (host, before) = (force.config.host.as_str(), seen.living);
        let dry_run = is_dry_run(remediation, force);
        let tells_user = remediation.alert.tells_user();
        let command = command.as_ref();
        let subject = Subject { host, user, command, playbook, before, dry_run, tells_user };
        let parts = seen.source.iter().map(told::source_part).collect();
        let story = Story { parts, ..Story::nothing(subject, refusal.verdict(), &reason) };
        let journal = &self.context.parts.journal;
        let told_before = self
            .context
            .persist(|| {
                let (playbook, user) = (playbook.to_owned(), user.to_owned());
                let (verdict, now) = (refusal.verdict(), Timestamp::now());
                journal.was_told(playbook, user, verdict, dry_run, window, now)
            })
            .await?;
        if told_before {
            if self.dismiss(remediation, refusal.verdict(), &reason, dry_run).await? {
                tracing::warn!(remediation = remediation.id, user, playbook, reason, "refused");
            }
            return Ok(());
        }
        self.end(remediation.id, force, &story.tell(), &story, None, true).await
    }

    /// The recount failed: nothing is known, and nothing is done.
    pub(super) async fn cannot_see(
        &self,
        attempt: &Attempt<'_>,
        error: &SurveyError,
    ) -> Result<(), Stopping> {
        let verdict = match error {
            SurveyError::Blind { .. } => Verdict::Blind,
            SurveyError::Read { .. } => Verdict::Failed,
        };
        let reason = Chain(error).to_string();
        let story = Story::nothing(attempt.subject(None), verdict, &reason);
        self.conclude(attempt, story).await
    }

    /// Ends what can never be brought on, and tells people: left unfinished, it would take in every
    /// later alert of its kind.
    pub(super) async fn abandon(&self, id: i64, why: &str) -> Result<Option<i64>, Stopping> {
        let journal = &self.context.parts.journal;
        let Some(whose) = self.context.persist(|| journal.whose(id)).await? else {
            tracing::warn!(remediation = id, "the journal holds no such remediation");
            return Ok(None);
        };
        let force = self.context.force();
        let subject = Subject {
            host: &force.config.host,
            user: &whose.user,
            command: &whose.command,
            playbook: &whose.playbook,
            before: None,
            dry_run: whose.dry_run,
            // Nothing was done that the user would have to know.
            tells_user: false,
        };
        let story = Story::nothing(subject, Verdict::Failed, why);
        self.end(id, &force, &story.tell(), &story, None, true).await?;
        Ok(None)
    }
}

/// Whether what ends without steps is a dry run: by the policy in force, unless steps were begun under
/// another, or the policy has its playbook no more.
fn is_dry_run(remediation: &Remediation, force: &Force) -> bool {
    match playbook_of(&force.config, remediation) {
        Some(_) if remediation.state == State::Accepted => {
            force.config.is_dry_run(remediation.alert.label("playbook"))
        }
        Some(_) | None => remediation.dry_run,
    }
}
