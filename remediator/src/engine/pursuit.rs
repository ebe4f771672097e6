//! A task for each remediation, from accepted to done.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accounts::AccountLookup;
use super::claims::{Claim, Claims};
use super::context::Context;
use super::endings::Endings;
use super::judge::Judge;
use super::watch::Watcher;
use super::{playbook_of, since};
use crate::journal::{Remediation, State};
use crate::stopping::Stopping;

/// How often the journal is read for what nobody pursues: after a panic, it is taken up again.
const LOOK: Duration = Duration::from_secs(10);

/// After so many panics over a remediation it is given up.
const PANICS_MAX: u32 = 3;

/// Pursues remediations.
#[derive(Debug)]
pub(super) struct Pursuits {
    context: Context,
    accounts: Arc<AccountLookup>,
    claims: Claims,
    judge: Judge,
    watcher: Watcher,
    endings: Endings,
}

impl Pursuits {
    /// Pursuits of which `parallel` act at once.
    pub(super) fn new(context: Context, parallel: usize) -> Self {
        let accounts = Arc::new(AccountLookup::new(context.clone()));
        Self {
            claims: Claims::default(),
            judge: Judge::new(context.clone(), Arc::clone(&accounts), parallel),
            watcher: Watcher::new(context.clone()),
            endings: Endings::new(context.clone()),
            accounts,
            context,
        }
    }

    /// Pursues what is begun, until the daemon stops and all have come to an end.
    pub(super) async fn dispatch(
        self: Arc<Self>,
        mut begun: mpsc::UnboundedReceiver<i64>,
        unpursued: mpsc::UnboundedSender<i64>,
    ) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).look_for_unpursued(unpursued));
        tasks.spawn(Arc::clone(&self.accounts).look_after());
        let mut stop = self.context.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                id = begun.recv() => match id {
                    Some(id) => {
                        if let Some(claim) = self.claims.claim(id) {
                            tasks.spawn(Arc::clone(&self).pursue(claim));
                        }
                    }
                    None => break,
                },
                Some(ended) = tasks.join_next() => report_panic(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            report_panic(ended);
        }
    }

    /// Has everything pursued that the journal calls unfinished: what an earlier daemon left, and
    /// whatever lost its task since. Nothing else would, and it would take in every later alert of
    /// its kind.
    async fn look_for_unpursued(self: Arc<Self>, begin: mpsc::UnboundedSender<i64>) {
        loop {
            let Ok(ids) = self.context.persist(|| self.context.parts.journal.unfinished()).await
            else {
                return;
            };
            for id in ids.into_iter().filter(|id| !self.claims.is_claimed(*id)) {
                tracing::info!(remediation = id, "resumed");
                if begin.send(id).is_err() {
                    return;
                }
            }
            if self.context.pause(LOOK).await == Err(Stopping) {
                return;
            }
        }
    }

    /// Sees a remediation through, and those that follow from it.
    async fn pursue(self: Arc<Self>, mut claim: Claim) {
        loop {
            let id = claim.id();
            let advanced = match claim.panics() {
                0..PANICS_MAX => self.advance(id).await,
                panics => {
                    self.endings.abandon(id, &format!("its task panicked {panics} times")).await
                }
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
        let remediation =
            match self.context.persist(|| self.context.parts.journal.remediation(id)).await? {
                Ok(remediation) => remediation,
                // Each further read would fail alike.
                Err(why) => return self.endings.abandon(id, &why).await,
            };
        match remediation.state {
            State::Accepted | State::Acting => {
                self.until_due(&remediation).await?;
                self.judge.judge(&remediation).await?;
                Ok(Some(id))
            }
            State::Watching => self.watcher.watch(&remediation).await,
            State::Done => Ok(None),
        }
    }

    /// Waits until it is due. Nothing waits for more than its cool-down: what seems to was
    /// written before the clock was set back.
    async fn until_due(&self, remediation: &Remediation) -> Result<(), Stopping> {
        if !remediation.deferred {
            return Ok(());
        }
        let force = self.context.force();
        let cooldown = playbook_of(&force.config, remediation).map(|playbook| playbook.cooldown);
        let left = since(Timestamp::now(), remediation.due).min(cooldown.unwrap_or_default());
        if left.is_zero() { Ok(()) } else { self.context.pause(left).await }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a remediation's task panicked; it is taken up again");
    }
}
