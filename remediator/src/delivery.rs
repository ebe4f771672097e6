//! Brings outcomes to Alertmanager: in order, once each, for as long as it takes.
//!
//! Alertmanager keeps alerts in its memory alone. One that is restarted before it has mailed an
//! outcome has lost it: so for as long as an outcome should live, it is asked now and then which
//! it still has, and the missing are posted again, unchanged.
//!
//! An outcome lives by Alertmanager's clock, as the `Date` of its answers tells it: one whose end
//! lies in Alertmanager's past is taken, and never mailed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::chain::Chain;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::active::InForce;
use crate::alertmanager::{Alertmanager, ApiError, Posted};
use crate::journal::{Fault, Journal, Letter};
use crate::metrics::{DeliveryResult, Metrics};

/// How long Alertmanager is to keep an outcome: long enough for a mail server that is down.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How often Alertmanager is asked what it still has, unless told otherwise.
pub const CONFIRM: Duration = Duration::from_secs(60);

/// Pauses after failures: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How many letters are read from the journal at once.
const BATCH: u32 = 50;

/// How long the last attempt before the end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What delivers.
#[derive(Debug)]
pub struct Outbox {
    /// Where they wait.
    pub journal: Journal,
    /// Where they go.
    pub force: InForce,
    /// Says that there are new ones.
    pub letters: Arc<Notify>,
    /// Counters.
    pub metrics: Metrics,
    /// How often Alertmanager is asked what it still has.
    pub confirm: Duration,
}

/// Why a delivery was not finished.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Journal(#[from] Fault),
    #[error(transparent)]
    Alertmanager(#[from] ApiError),
}

impl Outbox {
    /// Delivers until `stop`, then tries once more, so that the outcome of a last kill arrives.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (shortest, longest) = BACK_OFF;
        let mut pause = shortest;
        // At once, so that the skew of the clocks is known before it is needed.
        let mut confirm_at = Instant::now();
        loop {
            // What is cut off here is posted again, as the same alert.
            let failed = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                failed = self.attend(&mut confirm_at) => failed,
            };
            let wait = if failed { pause } else { self.confirm };
            pause = if failed { (pause * 2).min(longest) } else { shortest };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                // After a failure new letters are no reason to hurry.
                () = self.letters.notified(), if !failed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        match timeout(FAREWELL, self.deliver()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "undelivered outcomes stay for the next start")
            }
            Err(_) => tracing::warn!("undelivered outcomes stay for the next start"),
        }
    }

    /// Delivers, and asks what Alertmanager has, if it is time. Returns whether some still wait.
    async fn attend(&self, confirm_at: &mut Instant) -> bool {
        let delivered = self.deliver().await;
        if let Err(error) = &delivered {
            self.metrics.outcome(DeliveryResult::Failed);
            tracing::warn!(error = %Chain(error), "could not deliver outcomes to Alertmanager; will retry");
        }
        if Instant::now() >= *confirm_at {
            *confirm_at = Instant::now() + self.confirm;
            if let Err(error) = self.confirm().await {
                tracing::warn!(error = %Chain(&error), "could not ask Alertmanager which outcomes it has; will retry");
            }
        }
        let alertmanager = self.force.borrow().alertmanager.clone();
        self.metrics.clock_skew(alertmanager.and_then(|alertmanager| alertmanager.skew()));
        delivered.is_err()
    }

    async fn deliver(&self) -> Result<(), Undelivered> {
        let Some(alertmanager) = self.force.borrow().alertmanager.clone() else { return Ok(()) };
        loop {
            let letters = self.journal.waiting(BATCH).await?;
            if letters.is_empty() {
                return self.drop_unreadable().await;
            }
            let mut now = alertmanager.now().await?;
            for letter in letters {
                now = self.post(&alertmanager, letter, now).await?;
            }
        }
    }

    /// What is left once all others are delivered can only be what cannot be read.
    async fn drop_unreadable(&self) -> Result<(), Undelivered> {
        if self.journal.pending().await?.outcomes > 0 {
            for _ in 0..self.journal.drop_unreadable().await? {
                self.metrics.outcome(DeliveryResult::Rejected);
            }
        }
        Ok(())
    }

    /// Posts one, `now` by Alertmanager's clock. Returns what time it is there afterwards.
    async fn post(
        &self,
        alertmanager: &Alertmanager,
        letter: Letter,
        now: Timestamp,
    ) -> Result<Timestamp, Undelivered> {
        let event = letter.content.event.clone();
        match self.give(alertmanager, &letter, now).await {
            Ok(ends) => {
                self.journal.taken(vec![letter.id], Timestamp::now(), ends).await?;
                tracing::info!(event, "delivered an outcome to Alertmanager");
                self.metrics.outcome(DeliveryResult::Taken);
            }
            // It would be refused each time, and hold up all behind it.
            Err(error) if error.is_final() => {
                let reason = Chain(&error).to_string();
                tracing::error!(
                    event,
                    error = reason,
                    "Alertmanager rejected an outcome; it is dropped"
                );
                self.journal.drop_letter(letter.id, reason).await?;
                self.metrics.outcome(DeliveryResult::Rejected);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(alertmanager.here(Timestamp::now()))
    }

    /// Posts one until it is sure to live long enough. Returns when it ends.
    async fn give(
        &self,
        alertmanager: &Alertmanager,
        letter: &Letter,
        now: Timestamp,
    ) -> Result<Timestamp, ApiError> {
        let ends = end_of_life(now);
        alertmanager.post(&[posted(letter.clone(), ends)]).await?;
        // The answer bears a date of its own: a clock may have been set since it was asked for.
        let now = alertmanager.here(Timestamp::now());
        if (ends.duration_since(now) - LIFE).abs() < LIFE / 2 {
            return Ok(ends);
        }
        let ends = end_of_life(now);
        alertmanager.post(&[posted(letter.clone(), ends)]).await?;
        Ok(ends)
    }

    /// Posts again what Alertmanager should have and has not.
    async fn confirm(&self) -> Result<(), Undelivered> {
        let Some(alertmanager) = self.force.borrow().alertmanager.clone() else { return Ok(()) };
        // Asked even if there is nothing to confirm: this is how the skew of the clocks is known.
        let now = alertmanager.now().await?;
        let live = self.journal.live(now).await?;
        if live.is_empty() {
            return Ok(());
        }
        let known = alertmanager.known_events().await?;
        let lost: Vec<_> =
            live.into_iter().filter(|letter| !known.contains(&letter.content.event)).collect();
        for letter in lost {
            let Some(ends) = letter.ends else { continue };
            let event = letter.content.event.clone();
            alertmanager.post(&[posted(letter, ends)]).await?;
            tracing::warn!(event, "Alertmanager had lost an outcome; posted it again");
            self.metrics.outcome(DeliveryResult::Repeated);
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
