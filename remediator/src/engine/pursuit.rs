//! A remediation's way from accepted to done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use procstorm_processes::process::Command;
use procstorm_toolkit::chain::Chain;

use super::claims::Claim;
use super::detail::{StepDetail, recorded_archives};
use super::{Shared, Stopping};
use crate::active::Force;
use crate::journal::course::Ending;
use crate::journal::records::{Question, Recurrence};
use crate::journal::{Case, State};
use crate::outcome::{End, Part, Story, Subject, Told};
use crate::policy::{Authorised, Decision, Facts, History, Plan, Refusal, Request, admit, decide};
use crate::policy::{Config, Playbook, Step};
use crate::steps::archive::note;
use crate::steps::kill::{Source, Survey, SurveyError, Target, release_stopped, source, told};
use crate::verdict::Verdict;

/// How often the storm's return is looked for, at most.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// After so many panics over a remediation it is given up.
const PANICS_MAX: u32 = 3;

/// What was seen of the storm when it was refused.
#[derive(Debug, Default)]
struct Seen {
    /// How many live, if known.
    living: Option<u64>,
    /// Where they come from, if known.
    source: Option<Source>,
}

/// A remediation that may be done if the facts say so, under the policy in force.
struct Matter<'a> {
    case: &'a Case,
    force: &'a Arc<Force>,
    authorised: &'a Authorised,
}

impl Matter<'_> {
    fn target(&self) -> Target {
        Target { uid: self.authorised.account().uid, command: *self.authorised.command() }
    }
}

impl Shared {
    /// Sees a remediation through, and those that follow from it.
    pub(super) async fn pursue(self: Arc<Self>, mut claim: Claim) {
        loop {
            let id = claim.id();
            let advanced = match claim.panics() {
                0..PANICS_MAX => self.advance(id).await,
                panics => self.abandon(id, &format!("its task panicked {panics} times")).await,
            };
            match advanced {
                Ok(Some(next)) => match claim.follow(next) {
                    Some(following) => claim = following,
                    None => return,
                },
                Ok(None) => return,
                Err(Stopping) => {
                    tracing::info!(
                        remediation = id,
                        "shutting down; the remediation will resume at the next start"
                    );
                    return;
                }
            }
        }
    }

    /// Brings it on by one state. Returns which to go on with.
    async fn advance(&self, id: i64) -> Result<Option<i64>, Stopping> {
        let case = match self.persist(|| self.parts.journal.case(id)).await? {
            Ok(case) => case,
            // It would read the same for ever.
            Err(why) => return self.abandon(id, &why).await,
        };
        match case.state {
            State::Accepted | State::Acting => {
                self.until_due(&case).await?;
                self.judge(&case).await?;
                Ok(Some(id))
            }
            State::Watching => self.watch(&case).await,
            State::Done => Ok(None),
        }
    }

    /// Ends what can never be brought on, and tells people: left unfinished, it would take in every
    /// later alert of its kind.
    async fn abandon(&self, id: i64, why: &str) -> Result<Option<i64>, Stopping> {
        let journal = &self.parts.journal;
        let Some(whose) = self.persist(|| journal.whose(id)).await? else {
            tracing::warn!(remediation = id, "the journal holds no such remediation");
            return Ok(None);
        };
        let force = self.force();
        let subject = Subject {
            host: &force.config.host,
            user: &whose.user,
            command: &whose.command,
            playbook: &whose.playbook,
            before: None,
        };
        let story = Story::nothing(subject, Verdict::Failed, why);
        self.end(id, &force, &story.tell(), &story, None, true).await?;
        Ok(None)
    }

    /// Waits until it is due. Nothing waits for more than its cool-down: what seems to was
    /// written before the clock was set back.
    async fn until_due(&self, case: &Case) -> Result<(), Stopping> {
        if !case.deferred {
            return Ok(());
        }
        let force = self.force();
        let cooldown = playbook_of(&force.config, case).map(|playbook| playbook.cooldown);
        let left = since(Timestamp::now(), case.due).min(cooldown.unwrap_or_default());
        if left.is_zero() { Ok(()) } else { self.pause(left).await }
    }

    /// Is it still allowed, and still true? Then it is done.
    async fn judge(&self, case: &Case) -> Result<(), Stopping> {
        self.release(case).await;
        let force = self.force();
        // Asked again, since the configuration may be another than when it was accepted.
        let request = match admit(&force.config, &case.alert) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(case, &force, &refusal, None).await,
        };
        let authorised = match self.authorise(&force, request.clone()).await? {
            Ok(authorised) => authorised,
            Err(refusal) => {
                return self
                    .refuse(case, &force, &refusal, Some((&request, Seen::default())))
                    .await;
            }
        };
        let matter = Matter { case, force: &force, authorised: &authorised };
        let target = matter.target();
        let _lane = self.lanes.enter(target.uid, target.command).await;
        // The semaphore is never closed; without a permit nothing is done.
        let Ok(_permit) = self.acting.acquire().await else { return Err(Stopping) };
        if *self.stop.borrow() {
            return Err(Stopping);
        }
        let survey = match self.survey_patiently(target).await? {
            Ok(survey) => survey.with_nested(authorised.playbook().kills_nested()),
            Err(error) => return self.cannot_see(&matter, &error).await,
        };
        let facts = Facts {
            shared_with: self.shared_with(&force, &authorised).await,
            living: count(&survey.living),
            left_alone: count(&survey.nested),
            history: History::default(),
            muted_by: self.muted_by(&force, case).await,
            now: Timestamp::now(),
        };
        self.settle_it(&matter, &survey, facts).await
    }

    /// The request, if its account may be acted on.
    async fn authorise(
        &self,
        force: &Force,
        request: Request,
    ) -> Result<Result<Authorised, Refusal>, Stopping> {
        let identity = self.identity(request.user()).await?;
        let candidate = match request.candidate(&force.config, &identity, self.parts.own_uid) {
            Ok(candidate) => candidate,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(match self.protected_by(&force.config, candidate.account()).await? {
            Ok(protected_by) => candidate.authorise(protected_by),
            Err(why) => {
                Err(Refusal::UnresolvedUser { user: candidate.account().name.clone(), why })
            }
        })
    }

    /// Decides, with nobody else deciding at the same time, and does what follows.
    async fn settle_it(
        &self,
        matter: &Matter<'_>,
        survey: &Survey,
        mut facts: Facts,
    ) -> Result<(), Stopping> {
        let Matter { case, force, authorised } = matter;
        let (request, account) = (authorised.request(), authorised.account());
        let turn = self.turn.lock().await;
        let question = Question {
            id: case.id,
            playbook: request.name().to_owned(),
            uid: account.uid,
            command: request.command().to_text().into_owned(),
            limits: request.playbook().limits,
        };
        let journal = &self.parts.journal;
        facts.history =
            self.persist(|| journal.history(question.clone(), Timestamp::now())).await?;
        facts.now = Timestamp::now();
        match decide(&force.config, (*authorised).clone(), &facts) {
            Decision::Wait(until) => {
                tracing::info!(remediation = case.id, %until, "waits for the cool-down");
                self.persist(|| journal.defer(case.id, until)).await
            }
            Decision::Refuse(refusal) => {
                drop(turn);
                let is_over =
                    matches!(refusal, Refusal::BelowThreshold { .. } | Refusal::LeftAlone { .. });
                if case.state == State::Acting && is_over {
                    let left = facts.living.saturating_add(facts.left_alone);
                    return self.end_interrupted(matter, left).await;
                }
                let is_limit = matches!(refusal, Refusal::LimitReached { .. });
                let source = if is_limit { self.source(matter, survey).await } else { None };
                let seen = Seen { living: Some(facts.living), source };
                self.refuse(case, force, &refusal, Some((request, seen))).await
            }
            Decision::Act(plan) => {
                let (id, living, now) = (case.id, facts.living, Timestamp::now());
                let (uid, dry) = (account.uid, plan.is_dry_run());
                self.persist(|| journal.begin(id, uid, living, dry, now)).await?;
                drop(turn);
                self.act(matter, &plan, survey).await
            }
        }
    }

    async fn act(&self, matter: &Matter<'_>, plan: &Plan, survey: &Survey) -> Result<(), Stopping> {
        let Matter { case, force, authorised } = matter;
        let request = authorised.request();
        let (began, clock) = (Timestamp::now(), Instant::now());
        let before = case.before.unwrap_or_else(|| count(&survey.living));
        if case.repeats.is_none() && case.acted.is_none() {
            self.count_reaction(case, force, began);
        }
        tracing::info!(
            remediation = case.id, user = request.user().as_str(), command = %request.command().to_text(),
            playbook = request.name(), processes = before, dry_run = plan.is_dry_run(), "acts"
        );
        let source = match case.repeats {
            Some(_) => self.source(matter, survey).await,
            None => None,
        };
        let subject = matter.subject(Some(before));
        let living = &survey.living;
        let done = self.take_steps(force, case, plan, &subject, living, source.as_ref()).await?;
        self.parts.metrics.duration(clock.elapsed());
        let nothing = || End::nothing(&subject, Verdict::Failed, "the playbook has no step");
        let end = done.end.unwrap_or_else(nothing);
        self.conclude(matter, &Story { subject, recurrence: 0, end, parts: done.parts }).await
    }

    /// The alert's start is by the clock of whoever found it, which Alertmanager's stands for. What
    /// would have begun before its alert was measured by a clock that is wrong, and is left out.
    fn count_reaction(&self, case: &Case, force: &Force, began: Timestamp) {
        let alertmanager = force.alertmanager.as_ref();
        let began = alertmanager.map_or(began, |alertmanager| alertmanager.here(began));
        match Duration::try_from(began.duration_since(case.alert.starts_at)) {
            Ok(time) => self.parts.metrics.reaction(time),
            Err(_) => tracing::warn!(
                remediation = case.id,
                starts_at = %case.alert.starts_at,
                "the alert begins in the future; this host's clock or Prometheus' is wrong"
            ),
        }
    }

    /// Writes down how it ended, and what people are told.
    async fn conclude(&self, matter: &Matter<'_>, story: &Story<'_>) -> Result<(), Stopping> {
        let Matter { case, force, authorised } = matter;
        let journal = &self.parts.journal;
        let recurrence = match case.repeats {
            Some(_) => self.persist(|| journal.recurrence(case.id)).await?,
            None => Recurrence::default(),
        };
        let story = &Story { recurrence: recurrence.count, ..story.clone() };
        let told = story.tell();
        let is_posted = !story.repeats(&told, &recurrence.told);
        let settle = authorised.playbook().settle;
        let is_watched = told.verdict.is_watched() && !settle.is_zero();
        let settle = is_watched.then(|| SignedDuration::try_from(settle).ok()).flatten();
        let watch_until = settle.and_then(|settle| Timestamp::now().checked_add(settle).ok());
        self.end(case.id, force, &told, story, watch_until, is_posted).await
    }

    /// Where the storm comes from.
    async fn source(&self, matter: &Matter<'_>, survey: &Survey) -> Option<Source> {
        let (procfs, target) = (self.parts.procfs.clone(), matter.target());
        let pids = survey.living.clone();
        self.hands.run(move || source(&procfs, &target, &pids)).await.ok().flatten()
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
        let now = Timestamp::now();
        let event = format!("{id}-{}", now.as_millisecond());
        let ending = Ending {
            verdict: told.verdict,
            summary: told.summary.clone(),
            after: told.after,
            letter: (is_posted && force.alertmanager.is_some()).then(|| told.letter(story, event)),
            watch_until,
        };
        let journal = &self.parts.journal;
        self.persist(|| journal.end(id, ending.clone(), now)).await?;
        let Subject { user, command, playbook, before, .. } = story.subject;
        tracing::info!(
            remediation = id,
            user,
            command,
            playbook,
            verdict = told.verdict.label(),
            severity = told.severity.label(),
            before,
            after = told.after,
            summary = told.summary,
            "ended"
        );
        self.parts.metrics.remediation(playbook, told.verdict);
        self.parts.letters.notify_one();
        Ok(())
    }

    /// Writes down why nothing is done. An alert that came after the look at the facts asks for
    /// another look.
    async fn refuse(
        &self,
        case: &Case,
        force: &Force,
        refusal: &Refusal,
        asked: Option<(&Request, Seen)>,
    ) -> Result<(), Stopping> {
        if let (Some(window), Some((request, mut seen))) = (refusal.told_once_in(), asked) {
            let (window, left_alone) = if let Refusal::LeftAlone { left_alone, .. } = refusal {
                (request.playbook().limits.per_user.window, *left_alone)
            } else {
                (window, 0)
            };
            seen.living = seen.living.map(|living| living.saturating_add(left_alone));
            return self.give_up(case, force, refusal, window, request, seen).await;
        }
        let (verdict, reason) = (refusal.verdict(), refusal.to_string());
        let journal = &self.parts.journal;
        let refused = self
            .persist(|| journal.refuse(case, verdict, reason.clone(), Timestamp::now()))
            .await?;
        if refused {
            let playbook = case.alert.label("playbook");
            tracing::info!(
                remediation = case.id,
                user = case.alert.label("user"),
                playbook,
                refusal = verdict.label(),
                reason,
                "refused"
            );
            self.parts.metrics.remediation(playbook, verdict);
        }
        Ok(())
    }

    /// There may be a storm, and nothing is done: people are told, once in this window.
    async fn give_up(
        &self,
        case: &Case,
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
        let subject = Subject { host, user, command: &command, playbook, before };
        let parts = seen.source.iter().map(told::source_part).collect();
        let story = Story { parts, ..Story::nothing(subject, refusal.verdict(), &reason) };
        let journal = &self.parts.journal;
        let told_before = self
            .persist(|| {
                let (playbook, user) = (playbook.to_owned(), user.to_owned());
                journal.was_told(playbook, user, refusal.verdict(), window, Timestamp::now())
            })
            .await?;
        if told_before {
            let verdict = refusal.verdict();
            let refused = self
                .persist(|| journal.refuse(case, verdict, reason.clone(), Timestamp::now()))
                .await?;
            if refused {
                tracing::warn!(remediation = case.id, user, playbook, reason, "refused");
                self.parts.metrics.remediation(playbook, verdict);
            }
            return Ok(());
        }
        self.end(case.id, force, &story.tell(), &story, None, true).await
    }

    /// The recount failed: nothing is known, and nothing is done.
    async fn cannot_see(&self, matter: &Matter<'_>, error: &SurveyError) -> Result<(), Stopping> {
        let verdict = match error {
            SurveyError::Blind { .. } => Verdict::Blind,
            SurveyError::Read { .. } => Verdict::Failed,
        };
        let reason = Chain(error).to_string();
        let story = Story::nothing(matter.subject(None), verdict, &reason);
        self.conclude(matter, &story).await
    }

    /// The steps were cut off by a restart, and what is left of the storm is none.
    async fn end_interrupted(&self, matter: &Matter<'_>, living: u64) -> Result<(), Stopping> {
        let before = matter.case.before.unwrap_or(living);
        let archives = recorded_archives(&matter.case.steps).and_then(Result::ok);
        let unread = unread_of(matter.case);
        let lock = self.left_lock(matter.force, matter.case, matter.authorised.account()).await?;
        let subject = matter.subject(Some(before));
        let mut parts: Vec<_> =
            archives.iter().map(|notes| note::part(subject.user, notes, false)).collect();
        parts.extend(lock.as_ref().map(note::lock_part));
        parts.push(Part::unread(&unread));
        let end = End::interrupted(&subject, living);
        let story = Story { subject, recurrence: 0, end, parts };
        self.conclude(matter, &story).await
    }

    /// Whoever was stopped by a kill that was cut off goes on, whatever is decided next: by what
    /// is on record, since policy and name service may say something else by now.
    async fn release(&self, case: &Case) {
        let command = Command::new(case.alert.label("command").as_bytes());
        let (true, Some(uid), Some(command)) = (was_interrupted(case), case.uid, command) else {
            return;
        };
        let _lane = self.lanes.enter(uid, command).await;
        let (procfs, id) = (self.parts.procfs.clone(), case.id);
        let target = Target { uid, command };
        match self.hands.run(move || release_stopped(&procfs, &target)).await {
            Ok(Ok(released)) => tracing::info!(
                remediation = id,
                resumed = released.resumed.len(),
                denied = released.denied.len(),
                "a kill was cut off: whoever it had stopped goes on"
            ),
            Ok(Err(error)) => {
                tracing::error!(remediation = id, error = %Chain(&error), "cannot let processes go on")
            }
            Err(error) => tracing::error!(remediation = id, %error, "cannot let processes go on"),
        }
    }

    /// Watches for the storm's return. Returns the remediation that follows, if it does.
    async fn watch(&self, case: &Case) -> Result<Option<i64>, Stopping> {
        let journal = &self.parts.journal;
        let until = Instant::now() + self.left_to_watch(case);
        loop {
            let force = self.force();
            let last = Instant::now() >= until;
            if self.is_back(&force.config, case).await {
                let next = self.persist(|| journal.repeat(case.id, Timestamp::now())).await?;
                tracing::warn!(remediation = case.id, next, "the storm is back");
                return Ok(Some(next));
            }
            if last {
                let ended = self.persist(|| journal.end_watch(case)).await?;
                return Ok((!ended).then_some(case.id));
            }
            let left = until.saturating_duration_since(Instant::now());
            self.pause(left.clamp(Duration::from_millis(20), WATCH_PAUSE)).await?;
        }
    }

    /// How long the watch goes on. By the clock of the journal it is told only once, since that
    /// may be set; and never more than the playbook says.
    fn left_to_watch(&self, case: &Case) -> Duration {
        let force = self.force();
        let settle = playbook_of(&force.config, case).map(|playbook| playbook.settle);
        let left = case.watch_until.map(|until| since(Timestamp::now(), until));
        left.unwrap_or_default().min(settle.unwrap_or_default())
    }

    /// Whether there is a storm again. What cannot be counted is not back: the next alert asks.
    async fn is_back(&self, config: &Config, case: &Case) -> bool {
        let Some((playbook, uid)) = playbook_of(config, case).zip(case.uid) else { return false };
        // The policy may be another by now, and know that command no more.
        let Some(command) = playbook.command_named(case.alert.label("command")) else {
            return false;
        };
        let target = Target { uid, command };
        match self.survey(target).await {
            Ok(survey) => {
                let survey = survey.with_nested(playbook.kills_nested());
                count(&survey.living) >= playbook.threshold
            }
            Err(error) => {
                tracing::warn!(remediation = case.id, error = %Chain(&error), "cannot look for the storm's return");
                false
            }
        }
    }
}

impl Matter<'_> {
    fn subject(&self, before: Option<u64>) -> Subject<'_> {
        Subject {
            host: &self.force.config.host,
            user: self.authorised.account().name.as_str(),
            command: text(self.authorised.command()),
            playbook: self.authorised.request().name(),
            before,
        }
    }
}

/// A sentence for each step that has ended and whose record cannot be read. Logs each of them.
fn unread_of(case: &Case) -> Vec<String> {
    let unread = case.steps.iter().filter_map(|row| StepDetail::of(row)?.err());
    unread.inspect(|record| record.log(case.id)).map(|record| record.to_string()).collect()
}

/// A playbook's command is text, since it stands in a file of text.
fn text(command: &Command) -> &str {
    std::str::from_utf8(command.as_bytes()).unwrap_or_default()
}

fn playbook_of<'c>(config: &'c Config, case: &Case) -> Option<&'c Playbook> {
    config.playbooks.get(case.alert.label("playbook"))
}

/// Whether a kill was begun of which no end is on record.
pub(super) fn was_interrupted(case: &Case) -> bool {
    let kill = Step::KillUserProc.label();
    case.steps.iter().any(|step| step.name == kill && step.ended.is_none())
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// The time from one to the other; none if that is the earlier one.
fn since(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}
