//! What is true here and now: which processes live, whose mail a uid holds, what is silenced.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;
use rustix::io::Errno;

use super::attempt::Attempt;
use super::context::Context;
use super::since;
use crate::active::{Force, RETRY};
use crate::alertmanager::Muted;
use crate::journal::Remediation;
use crate::policy::Authorised;
use crate::steps::kill::{Source, Survey, SurveyError, Target, source, started_within, survey};
use crate::stopping::Stopping;

/// How long Alertmanager may take to say what is silenced: a storm goes on meanwhile.
const SILENCE_DEADLINE: Duration = Duration::from_secs(2);

/// How long descriptors or memory that are short are waited for.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_secs(15);

impl Context {
    /// Names of other users' mail behind the same uid, if the playbook kills and the policy minds.
    pub(super) async fn shared_with(&self, force: &Force, authorised: &Authorised) -> Vec<String> {
        let account = authorised.account();
        if !authorised.minds_shared_uid(&force.config) {
            return Vec::new();
        }
        force.mailroom.others(account.clone(), &self.abort).await.unwrap_or_else(|trouble| {
            tracing::warn!(
                user = account.name.as_str(),
                error = %Chain(&trouble),
                "could not tell whether the uid owns other users' mail; continuing as if it owned none"
            );
            Vec::new()
        })
    }

    /// Which processes there are.
    pub(super) async fn survey(&self, target: Target) -> Result<Survey, SurveyError> {
        let procfs = self.parts.procfs.clone();
        self.hands.run(move || survey(&procfs, &target)).await.unwrap_or_else(|error| {
            let path = self.parts.procfs.clone();
            Err(SurveyError::Read { path, source: std::io::Error::other(error) })
        })
    }

    /// The same, tried again for a while where descriptors or memory are short: a storm may have
    /// taken them.
    pub(super) async fn survey_patiently(
        &self,
        target: Target,
    ) -> Result<Result<Survey, SurveyError>, Stopping> {
        let begun = Instant::now();
        loop {
            let looked = self.survey(target).await;
            match &looked {
                Err(error) if is_passing(error) && begun.elapsed() < SHORT_OF_DESCRIPTORS => {
                    tracing::warn!(error = %Chain(error), "could not look at the processes; will retry");
                    self.pause(RETRY).await?;
                }
                Ok(_) | Err(_) => return Ok(looked),
            }
        }
    }

    /// Where the storm comes from.
    pub(super) async fn source(&self, attempt: &Attempt<'_>, survey: &Survey) -> Option<Source> {
        let (procfs, target) = (self.parts.procfs.clone(), attempt.target());
        let pids = survey.living.clone();
        self.hands.run(move || source(&procfs, &target, &pids)).await.ok().flatten()
    }

    /// How many of the processes have started since a dry run that would have killed all there were;
    /// `None` if the playbook kills none.
    pub(super) async fn started_since(
        &self,
        attempt: &Attempt<'_>,
        survey: &Survey,
        dry_run: Timestamp,
    ) -> Option<u64> {
        if !attempt.authorised.playbook().steps.iter().any(|step| step.ends_processes()) {
            return None;
        }
        let ago = since(dry_run, Timestamp::now());
        let (procfs, pids) = (self.parts.procfs.clone(), survey.living.clone());
        self.hands.run(move || started_within(&procfs, &pids, ago)).await.ok()
    }

    /// What keeps Alertmanager from sending the alert, if it is something that came since it was
    /// accepted: Alertmanager does not send what is silenced already. If it cannot be asked,
    /// nothing is silenced: a storm is not left alone because the mail system is down.
    pub(super) async fn muted_by(&self, force: &Force, remediation: &Remediation) -> Option<Muted> {
        if remediation.repeats.is_none() && !remediation.deferred {
            return None;
        }
        let alertmanager = force.alertmanager.as_ref()?;
        let question = alertmanager.muted_by(&remediation.alert.labels);
        match tokio::time::timeout(SILENCE_DEADLINE, question).await {
            Ok(Ok(muted)) => muted,
            Err(_elapsed) => {
                tracing::warn!(
                    remediation = remediation.id,
                    "could not query silences (timed out); continuing as if there were none"
                );
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    remediation = remediation.id,
                    error = %Chain(&error),
                    "could not query silences; continuing as if there were none"
                );
                None
            }
        }
    }
}

/// Whether the processes may be seen in a moment, when others need less.
fn is_passing(error: &SurveyError) -> bool {
    let SurveyError::Read { source, .. } = error else { return false };
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    Errno::from_io_error(source).is_some_and(|errno| passing.contains(&errno))
}
