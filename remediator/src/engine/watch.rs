//! Watches for the storm's return.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;

use super::context::Context;
use super::{playbook_of, since};
use crate::journal::Remediation;
use crate::policy::Config;
use crate::steps::count;
use crate::steps::kill::Target;
use crate::stopping::Stopping;

/// How often the storm's return is looked for, at most.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Watches after the steps.
#[derive(Debug)]
pub(super) struct Watcher {
    context: Context,
}

impl Watcher {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Watches for the storm's return. Returns the remediation that follows, if it does.
    pub(super) async fn watch(&self, remediation: &Remediation) -> Result<Option<i64>, Stopping> {
        let journal = &self.context.parts.journal;
        let until = Instant::now() + self.left_to_watch(remediation);
        loop {
            let force = self.context.force();
            let last = Instant::now() >= until;
            if self.is_back(&force.config, remediation).await {
                let next = self
                    .context
                    .persist(|| journal.repeat(remediation.id, Timestamp::now()))
                    .await?;
                tracing::warn!(remediation = remediation.id, next, "the storm is back");
                return Ok(Some(next));
            }
            if last {
                let ended = self.context.persist(|| journal.end_watch(remediation)).await?;
                return Ok((!ended).then_some(remediation.id));
            }
            let left = until.saturating_duration_since(Instant::now());
            self.context.pause(left.clamp(Duration::from_millis(20), WATCH_PAUSE)).await?;
        }
    }

    /// How long the watch goes on. By the clock of the journal it is read only once, since that
    /// may be set; and never more than the playbook says.
    fn left_to_watch(&self, remediation: &Remediation) -> Duration {
        let force = self.context.force();
        let settle = playbook_of(&force.config, remediation).map(|playbook| playbook.settle);
        let left = remediation.watch_until.map(|until| since(Timestamp::now(), until));
        left.unwrap_or_default().min(settle.unwrap_or_default())
    }

    /// Whether there is a storm again. What cannot be counted is not back: the next alert asks.
    async fn is_back(&self, config: &Config, remediation: &Remediation) -> bool {
        let Some((playbook, uid)) = playbook_of(config, remediation).zip(remediation.uid) else {
            return false;
        };
        // The policy may be another by now, and know that command no more.
        let Some(command) = playbook.command_named(remediation.alert.label("command")) else {
            return false;
        };
        let target = Target { uid, command };
        match self.context.survey(target).await {
            Ok(survey) => {
                let survey = survey.with_nested(playbook.kills_nested());
                count(&survey.living) >= playbook.threshold
            }
            Err(error) => {
                tracing::warn!(remediation = remediation.id, error = %Chain(&error), "cannot look for the storm's return");
                false
            }
        }
    }
}
