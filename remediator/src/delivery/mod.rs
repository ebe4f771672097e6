//! Brings outcomes to Alertmanager: in order, once each, for as long as it takes.
//!
//! - [`Outbox`]: as long as the daemon runs, one courier for each member of Alertmanager's cluster.
//! - `courier`: brings one member what it should have.
//!
//! Members do not pass alerts on to each other, so every outcome goes to each of them. It counts as
//! delivered as soon as one has it; the others get it when they answer again.
//!
//! Alertmanager keeps alerts in its memory alone. One that is restarted before it has mailed an
//! outcome has lost it: so until an outcome is settled, each member is asked now and then which it
//! still has, and what it lacks is posted again, unchanged. An outcome is settled when a member has
//! held it for [`SETTLED`] and has not failed to deliver any mail in that time; then it has been
//! mailed, and a member that crashes and forgets what it sent must not get it again.
//!
//! An outcome lives by Alertmanager's clock, as the `Date` of its answers tells it: one whose end
//! lies in Alertmanager's past is taken, and never mailed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::active::InForce;
use crate::alertmanager::Members;
use crate::journal::Journal;
use crate::metrics::Metrics;

mod courier;

use courier::{Courier, Refusals};

/// How often Alertmanager is asked what it still has, unless told otherwise.
pub const CONFIRM: Duration = Duration::from_secs(60);

/// How long a member must have held an outcome, without a failed mail, until it has certainly been
/// mailed: members wait for each other (`--cluster.peer-timeout`, 15 s for each), and a mail server
/// may keep one waiting for a `group_interval`.
pub const SETTLED: Duration = Duration::from_secs(180);

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
    /// How long a member must have held an outcome until it is settled.
    pub settled: Duration,
}

impl Outbox {
    /// Delivers until `stop`, then tries once more, so that the outcome of a last kill arrives.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (bell, _) = watch::channel(0_u64);
        loop {
            let members = self.force.borrow_and_update().alertmanager.clone();
            let mut couriers = self.send(members.as_ref(), &bell, &stop);
            let stopped = self.attend(members.as_ref(), &bell, &mut stop).await;
            if stopped {
                // Each makes its last attempt.
                while couriers.join_next().await.is_some() {}
                return;
            }
            // What is cut off here is posted again, as the same alert.
            couriers.shutdown().await;
            for member in members.iter().flat_map(Members::each) {
                self.metrics.forget_member(&member.name());
            }
        }
    }

    fn send(
        &self,
        members: Option<&Members>,
        bell: &watch::Sender<u64>,
        stop: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut couriers = JoinSet::new();
        let each = members.map(Members::each).unwrap_or_default();
        let refusals = Refusals::of(each.len());
        for member in each {
            let courier = Courier::new(member.clone(), self, refusals.clone());
            couriers.spawn(courier.run(bell.subscribe(), stop.clone()));
        }
        couriers
    }

    /// Rings for the couriers, until others are needed or, which is returned as `true`, none.
    async fn attend(
        &mut self,
        members: Option<&Members>,
        bell: &watch::Sender<u64>,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut may_change = true;
        let mut look = tokio::time::interval(self.confirm);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return true,
                changed = self.force.changed(), if may_change => match changed {
                    Ok(()) => return false,
                    // Nobody is left who could change it.
                    Err(_) => may_change = false,
                },
                () = self.letters.notified() => bell.send_modify(|rung| *rung = rung.wrapping_add(1)),
                _ = look.tick() => {}
            }
            self.metrics.clock_skew(members.and_then(Members::skew));
        }
    }
}
