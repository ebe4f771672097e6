//! All members of an Alertmanager cluster. They pass silences and the record of what was sent on to
//! each other, but not alerts: so each is given every outcome, and any may be asked about silences.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Uri;
use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::certificate::Validity;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::client::{Alertmanager, ApiError, Muted};
use super::line::Line;
use crate::policy::Access;

/// How long the others are waited for once one member has said that an alert is not silenced: one
/// that is dead must not hold up what ends a storm.
const OTHERS: Duration = Duration::from_secs(1);

/// The members, at least one. Clones share what is known of their clocks.
#[derive(Clone, Debug)]
pub struct Members(Vec<Alertmanager>);

impl Members {
    /// Clients of the Alertmanagers at `addresses`; `None` if there are none.
    #[must_use]
    pub fn new(addresses: &[Uri], access: &Access) -> Option<Self> {
        if addresses.is_empty() {
            return None;
        }
        let line = Line::new(access, addresses.len());
        let member = |base: &Uri| Alertmanager::new(base.clone(), line.clone());
        Some(Self(addresses.iter().map(member).collect()))
    }

    /// Each of them.
    #[must_use]
    pub fn each(&self) -> &[Alertmanager] {
        &self.0
    }

    /// How far this host's clock is ahead of theirs, as far as it is known: of the member whose clock
    /// is nearest, since one member with a wrong clock does not make this host's wrong.
    #[must_use]
    pub fn skew(&self) -> Option<SignedDuration> {
        let skews = self.0.iter().filter_map(Alertmanager::skew);
        skews.min_by_key(|skew| skew.abs())
    }

    /// A time by this host's clock, by theirs as far as that is known.
    #[must_use]
    pub fn here(&self, time: Timestamp) -> Timestamp {
        let known = self.0.iter().filter_map(|member| Some((member.skew()?.abs(), member)));
        let nearest = known.min_by_key(|(skew, _)| *skew);
        nearest.map_or(time, |(_, member)| member.here(time))
    }

    /// How long the certificate is valid that is shown to them now; `None` if there is none, or if
    /// none of them was asked yet.
    #[must_use]
    pub fn certificate(&self) -> Option<Validity> {
        self.0.first()?.certificate()
    }

    /// What keeps any of them from sending the alert of these labels. Fails only if none can be
    /// asked.
    pub async fn muted_by(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<Muted>, ApiError> {
        let mut questions = JoinSet::new();
        for member in self.0.clone() {
            let labels = labels.clone();
            questions.spawn(async move { member.muted_by(&labels).await });
        }
        let mut failure = None;
        let mut until: Option<Instant> = None;
        loop {
            let next = questions.join_next();
            let answer = match until {
                None => next.await,
                Some(until) => timeout_at(until, next).await.unwrap_or(None),
            };
            match answer {
                Some(Ok(Ok(Some(muted)))) => return Ok(Some(muted)),
                Some(Ok(Ok(None))) => until = until.or(Some(Instant::now() + OTHERS)),
                Some(Ok(Err(error))) => failure = Some(error),
                // A question that panicked is one without an answer.
                Some(Err(_panic)) => {}
                None => break,
            }
        }
        match (until, failure) {
            (None, Some(error)) => Err(error),
            _ => Ok(None),
        }
    }
}
