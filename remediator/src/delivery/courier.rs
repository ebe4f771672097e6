//! Brings one Alertmanager the outcomes that it should have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::chain::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Outbox;
use crate::alertmanager::{Alertmanager, ApiError, Posted};
use crate::journal::{Fault, Journal, Letter};
use crate::metrics::{DeliveryResult, Metrics};

/// How long Alertmanager is to keep an outcome: long enough for a mail server that is down.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Pauses after failures: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How many letters are read from the journal at once.
const BATCH: u32 = 50;

/// How long the last attempt before the end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a delivery was not finished.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Journal(#[from] Fault),
    #[error(transparent)]
    Alertmanager(#[from] ApiError),
}

/// Which members have refused which outcomes. One that all refuse would be refused each time. One
/// that only some refuse is not dropped: theirs may be the wrong address.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    members: usize,
    by: Arc<Mutex<BTreeMap<i64, BTreeSet<String>>>>,
}

impl Refusals {
    pub(super) fn of(members: usize) -> Self {
        Self { members, by: Arc::default() }
    }

    /// Notes a refusal. Returns whether all members have refused now.
    fn note(&self, id: i64, member: String) -> bool {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = by.entry(id).or_default();
        refused.insert(member);
        let all = refused.len() >= self.members;
        if all {
            by.remove(&id);
        }
        all
    }

    /// Forgets the refusals of one that nobody will post again.
    fn forget(&self, id: i64) {
        self.by.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// How many notifications a member could not deliver, and since when that number has not changed.
#[derive(Debug, Default)]
struct Quiet(Option<(f64, Instant)>);

impl Quiet {
    /// Notes the number, `None` if it is not known. Returns since when none has failed: another number
    /// is a failure, and a smaller one is a restart.
    fn note(&mut self, count: Option<f64>, now: Instant) -> Option<Instant> {
        let same = |before: f64, count: f64| (before - count).abs() < 0.5;
        self.0 = match (self.0, count) {
            (_, None) => None,
            (Some((before, since)), Some(count)) if same(before, count) => Some((count, since)),
            (_, Some(count)) => Some((count, now)),
        };
        self.0.map(|(_, since)| since)
    }
}

/// One member, and what is known of it.
pub(super) struct Courier {
    member: Alertmanager,
    name: String,
    journal: Journal,
    metrics: Metrics,
    confirm: Duration,
    settled: Duration,
    refusals: Refusals,
    /// The outcomes that the member has, by their events, and since when they are known to be there.
    held: BTreeMap<String, Instant>,
    /// What it has refused.
    refused: BTreeSet<i64>,
    /// Whether it has said what it has. Until then, what another member has taken may be there.
    has_said: bool,
    confirm_at: Instant,
    quiet: Quiet,
}

impl Courier {
    pub(super) fn new(member: Alertmanager, outbox: &Outbox, refusals: Refusals) -> Self {
        Self {
            name: member.name(),
            member,
            journal: outbox.journal.clone(),
            metrics: outbox.metrics.clone(),
            confirm: outbox.confirm,
            settled: outbox.settled,
            refusals,
            held: BTreeMap::new(),
            refused: BTreeSet::new(),
            has_said: false,
            // At once, so that the skew of the clocks is known before it is needed.
            confirm_at: Instant::now(),
            quiet: Quiet::default(),
        }
    }

    /// Delivers until `stop`, then tries once more.
    pub(super) async fn run(
        mut self,
        mut bell: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (shortest, longest) = BACK_OFF;
        let mut pause = shortest;
        loop {
            bell.mark_unchanged();
            // What is cut off here is posted again, as the same alert.
            let failed = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                failed = self.attend() => failed,
            };
            let until = self.confirm_at.saturating_duration_since(Instant::now());
            let wait = if failed { pause } else { until };
            pause = if failed { (pause * 2).min(longest) } else { shortest };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                // After a failure new letters are no reason to hurry.
                Ok(()) = bell.changed(), if !failed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        match timeout(FAREWELL, self.deliver()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    alertmanager = self.name,
                    error = %Chain(&error),
                    "undelivered outcomes stay for the next start"
                );
            }
            Err(_) => tracing::warn!(
                alertmanager = self.name,
                "undelivered outcomes stay for the next start"
            ),
        }
    }

    /// Delivers, and asks what the member has, if it is time. Returns whether the delivery failed.
    async fn attend(&mut self) -> bool {
        let delivered = self.deliver().await;
        if let Err(error) = &delivered {
            self.metrics.outcome(DeliveryResult::Failed);
            tracing::warn!(
                alertmanager = self.name,
                error = %Chain(error),
                "could not deliver outcomes to Alertmanager; will retry"
            );
        }
        let mut up = !matches!(delivered, Err(Undelivered::Alertmanager(_)));
        // One that takes nothing says nothing either.
        if up && Instant::now() >= self.confirm_at {
            let confirmed = self.confirm().await;
            let again = if confirmed.is_ok() { self.confirm } else { BACK_OFF.1.min(self.confirm) };
            self.confirm_at = Instant::now() + again;
            if let Err(error) = confirmed {
                up = !matches!(error, Undelivered::Alertmanager(_));
                tracing::warn!(
                    alertmanager = self.name,
                    error = %Chain(&error),
                    "could not ask Alertmanager which outcomes it has; will retry"
                );
            }
        }
        self.metrics.member_up(&self.name, up);
        delivered.is_err()
    }

    async fn deliver(&mut self) -> Result<(), Undelivered> {
        loop {
            self.forget_refused().await?;
            // Those that it has refused may be the oldest.
            let refused = u32::try_from(self.refused.len()).unwrap_or(u32::MAX);
            let letters = self.journal.waiting(BATCH.saturating_add(refused)).await?;
            let letters: Vec<_> =
                letters.into_iter().filter(|letter| !self.refused.contains(&letter.id)).collect();
            if letters.is_empty() {
                // A batch of outcomes that cannot be read hides those behind it.
                if self.drop_unreadable().await? {
                    continue;
                }
                break;
            }
            self.member.now().await?;
            for letter in letters {
                self.post(letter).await?;
            }
        }
        self.catch_up().await
    }

    /// Forgets the refused outcomes that wait no longer and that no member has to keep: there is
    /// nothing to post any more.
    async fn forget_refused(&mut self) -> Result<(), Undelivered> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let open = self.journal.open(self.member.here(Timestamp::now())).await?;
        let refusals = &self.refusals;
        self.refused.retain(|id| {
            let is_open = open.contains(id);
            if !is_open {
                refusals.forget(*id);
            }
            is_open
        });
        Ok(())
    }

    /// What is left once all others are delivered or refused can only be what cannot be read. Returns
    /// whether there was any.
    async fn drop_unreadable(&self) -> Result<bool, Undelivered> {
        if self.journal.pending().await?.outcomes == 0 {
            return Ok(false);
        }
        let dropped = self.journal.drop_unreadable().await?;
        for _ in 0..dropped {
            self.metrics.outcome(DeliveryResult::Rejected);
        }
        Ok(dropped > 0)
    }

    /// Posts what another member has taken meanwhile.
    async fn catch_up(&mut self) -> Result<(), Undelivered> {
        if !self.has_said {
            return Ok(());
        }
        for letter in self.lacked().await? {
            self.post(letter).await?;
        }
        Ok(())
    }

    /// The outcomes that this member should have, and is not known to have.
    async fn lacked(&self) -> Result<Vec<Letter>, Fault> {
        let mut live = self.journal.live(self.member.here(Timestamp::now())).await?;
        live.retain(|letter| {
            !self.held.contains_key(&letter.content.event) && !self.refused.contains(&letter.id)
        });
        Ok(live)
    }

    /// Posts one that this member does not have.
    async fn post(&mut self, letter: Letter) -> Result<(), Undelivered> {
        let (id, event) = (letter.id, letter.content.event.clone());
        match self.give(letter).await {
            Ok(ends) => {
                if self.journal.taken(id, Timestamp::now(), ends).await? {
                    tracing::info!(
                        event,
                        alertmanager = self.name,
                        "delivered an outcome to Alertmanager"
                    );
                    self.metrics.outcome(DeliveryResult::Taken);
                }
                self.held.insert(event, Instant::now());
            }
            Err(error) if error.is_final() => self.refuse(id, &event, &error).await?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is refused once would be refused each time, and hold up all behind it.
    async fn refuse(&mut self, id: i64, event: &str, error: &ApiError) -> Result<(), Undelivered> {
        let reason = Chain(error).to_string();
        self.refused.insert(id);
        if !self.refusals.note(id, self.name.clone()) {
            tracing::error!(
                event,
                alertmanager = self.name,
                error = reason,
                "Alertmanager rejected an outcome; the other members may take it"
            );
            return Ok(());
        }
        tracing::error!(
            event,
            alertmanager = self.name,
            error = reason,
            "Alertmanager rejected an outcome; it is dropped"
        );
        if self.journal.drop_letter(id, reason).await? {
            self.metrics.outcome(DeliveryResult::Rejected);
        }
        Ok(())
    }

    /// Posts one until it is sure to live long enough. Returns when it ends.
    async fn give(&self, letter: Letter) -> Result<Timestamp, ApiError> {
        let now = self.member.here(Timestamp::now());
        // The end that another member, or this one, was given is kept: it is the same alert then.
        let left = |ends: &Timestamp| ends.duration_since(now);
        let given = letter.ends.filter(|ends| left(ends).is_positive() && left(ends) <= LIFE);
        let ends = given.unwrap_or_else(|| end_of_life(now));
        self.member.post(&[posted(letter.clone(), ends)]).await?;
        // The answer bears a date of its own: a clock may have been set since it was asked for.
        let now = self.member.here(Timestamp::now());
        let left = ends.duration_since(now);
        let lives = match given {
            Some(_) => left.is_positive() && left < LIFE + LIFE / 2,
            None => (left - LIFE).abs() < LIFE / 2,
        };
        if lives {
            return Ok(ends);
        }
        let ends = end_of_life(now);
        self.member.post(&[posted(letter, ends)]).await?;
        Ok(ends)
    }

    /// Asks what the member has, and posts again what it should have and has not.
    async fn confirm(&mut self) -> Result<(), Undelivered> {
        // Asked even if there is nothing to confirm: this is how the skew of the clocks is known.
        let now = self.member.now().await?;
        let live = self.journal.live(now).await?;
        if live.is_empty() {
            self.held.clear();
            self.has_said = true;
            return Ok(());
        }
        let known = self.member.known_events().await?;
        let before = std::mem::take(&mut self.held);
        let since = |event: String| {
            let since = before.get(&event).copied().unwrap_or_else(Instant::now);
            (event, since)
        };
        self.held = known.into_iter().map(since).collect();
        self.has_said = true;
        for letter in self.lacked().await? {
            let event = letter.content.event.clone();
            self.post(letter).await?;
            if before.contains_key(&event) {
                tracing::warn!(
                    event,
                    alertmanager = self.name,
                    "Alertmanager had lost an outcome; posted it again"
                );
            } else {
                tracing::info!(
                    event,
                    alertmanager = self.name,
                    "Alertmanager lacked an outcome; posted it"
                );
            }
            self.metrics.outcome(DeliveryResult::Repeated);
        }
        self.settle(&live).await
    }

    /// Settles what this member has had for long enough, if it can deliver.
    async fn settle(&mut self, live: &[Letter]) -> Result<(), Undelivered> {
        // Where it does not say, nothing is certain.
        let count = self.member.failures().await.unwrap_or_default();
        let since = self.quiet.note(count, Instant::now());
        if since.is_none_or(|since| since.elapsed() < self.settled) {
            return Ok(());
        }
        let is_settled = |letter: &&Letter| {
            self.held.get(&letter.content.event).is_some_and(|at| at.elapsed() >= self.settled)
        };
        let ids: Vec<_> = live.iter().filter(is_settled).map(|letter| letter.id).collect();
        if !ids.is_empty() {
            self.journal.settled(ids, Timestamp::now()).await?;
        }
        Ok(())
    }
}

/// When an outcome that is given now is to end: as the journal keeps it, so that a post that is
/// repeated is the same alert.
fn end_of_life(now: Timestamp) -> Timestamp {
    let ends = now.checked_add(LIFE).unwrap_or(Timestamp::MAX);
    Timestamp::from_millisecond(ends.as_millisecond()).unwrap_or(ends)
}

fn posted(letter: Letter, ends: Timestamp) -> Posted {
    // By a clock that is ahead of Alertmanager's it would begin in the future, maybe after its end.
    let given = ends.checked_sub(LIFE).unwrap_or(ends);
    Posted {
        labels: letter.content.labels,
        annotations: letter.content.annotations,
        starts_at: letter.created.min(given).to_string(),
        ends_at: ends.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_mail_a_restart_or_silence_begins_the_wait_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut quiet = Quiet::default();
        assert_eq!(quiet.note(Some(3.0), at(0)), Some(at(0)));
        assert_eq!(quiet.note(Some(3.0), at(60)), Some(at(0)));
        assert_eq!(quiet.note(Some(4.0), at(120)), Some(at(120)), "one failed");
        assert_eq!(quiet.note(Some(4.0), at(180)), Some(at(120)));
        assert_eq!(quiet.note(Some(0.0), at(240)), Some(at(240)), "restarted");
        assert_eq!(quiet.note(None, at(300)), None);
        assert_eq!(quiet.note(Some(0.0), at(360)), Some(at(360)));
    }

    #[test]
    fn what_some_members_refuse_is_not_refused_by_all() {
        let refusals = Refusals::of(2);
        assert!(!refusals.note(1, "a".to_owned()));
        assert!(!refusals.note(1, "a".to_owned()), "the same member again");
        assert!(!refusals.note(2, "b".to_owned()), "another outcome");
        assert!(refusals.note(1, "b".to_owned()));
        refusals.forget(2);
        assert!(refusals.by.lock().unwrap().is_empty());
    }
}
