//! Who a user is, and what protects an account: questions to the name service, with patience.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procstorm_processes::name_service::NameService;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::workers::Workers;

use super::context::Context;
use crate::account::protection::{Protection, groups_of};
use crate::account::{Account, Protected, UserName};
use crate::policy::{Config, Identity};
use crate::stopping::Stopping;

/// So many names are asked for at once.
const ASKERS: usize = 4;

/// How long the name service may take for one question.
const NAME_DEADLINE: Duration = Duration::from_secs(2);

/// How long it holds what the name service said of the protected accounts.
const PROTECTION_HOLDS: Duration = Duration::from_secs(30);

/// How long after a name service did not answer it is asked again,
const NAME_RETRY: Duration = Duration::from_secs(5);

/// and for how long at all: then a mail says so, and the next alert asks again.
const NAME_PATIENCE: Duration = Duration::from_secs(300);

/// Asks the name service.
#[derive(Debug)]
pub(super) struct AccountLookup {
    context: Context,
    names: NameService,
    /// Who waits for the name service: up to some seconds for each name.
    askers: Workers,
    /// Whom the policy protects, and when the name service was asked for them.
    protection: Mutex<Option<(Instant, Arc<Protection>)>>,
}

impl AccountLookup {
    pub(super) fn new(context: Context) -> Self {
        let (names, askers) = (NameService::default(), Workers::start("ask", ASKERS));
        Self { context, names, askers, protection: Mutex::default() }
    }

    /// Who the user is. A name service that does not answer is asked again for a while, unless the
    /// journal remembers the uid: an account that had its processes killed an hour ago is no other.
    pub(super) async fn identity(&self, user: &UserName) -> Result<Identity, Stopping> {
        let begun = Instant::now();
        loop {
            let (names, who) = (self.names.clone(), user.clone());
            let why = match self.askers.run(move || look_up(&names, &who)).await {
                Ok(Ok(identity)) => match self.context.parts.reach.doubt(&identity) {
                    None => return Ok(identity),
                    Some(doubt) => {
                        tracing::warn!(%user, doubt, "the user is not found");
                        doubt
                    }
                },
                Ok(Err(error)) => {
                    tracing::warn!(%user, error, "name service unavailable");
                    error
                }
                Err(error) => {
                    tracing::error!(%user, %error, "the name service's task panicked");
                    error.to_string()
                }
            };
            let name = user.as_str().to_owned();
            let known = self
                .context
                .persist(|| self.context.parts.journal.last_known_uid(name.clone()))
                .await?;
            if let Some(uid) = known {
                tracing::warn!(
                    %user,
                    uid,
                    "name service unavailable; using the uid recorded at the last remediation"
                );
                return Ok(Identity::Named(Account { name: user.clone(), uid }));
            }
            if begun.elapsed() >= NAME_PATIENCE {
                return Ok(Identity::Unresolved(why));
            }
            self.context.pause(NAME_RETRY).await?;
        }
    }

    /// What protects an account, by its uid and groups; as the inner error why that cannot be told.
    /// A name service that does not answer is asked again for a while, as for the account itself:
    /// a user who may be protected is left alone.
    pub(super) async fn protected_by(
        &self,
        config: &Config,
        account: &Account,
    ) -> Result<Result<Option<Protected>, String>, Stopping> {
        let (begun, user) = (Instant::now(), account.name.as_str());
        loop {
            let protection = self.protection(config).await;
            if let Some(protected) = protection.of(account, &[]) {
                return Ok(Ok(Some(protected.clone())));
            }
            let hidden =
                self.context.parts.reach.protected_by(&config.accounts.protected, account.uid);
            if let Ok(Some(protected)) = hidden {
                return Ok(Ok(Some(protected)));
            }
            let why = if let Err(why) = hidden {
                why
            } else if let Some(entry) = protection.unanswered() {
                format!("the name service does not say who {} is", entry.kind())
            } else if !protection.has_groups() {
                return Ok(Ok(None));
            } else if let Some(groups) = self.groups_of(account.uid).await {
                return Ok(Ok(protection.of(account, &groups).cloned()));
            } else {
                let known = || self.context.parts.journal.last_known_uid(user.to_owned());
                if self.context.persist(known).await? == Some(account.uid) {
                    tracing::warn!(
                        user,
                        "name service unavailable; taken to be in no group, as at the last \
                         remediation"
                    );
                    return Ok(Ok(None));
                }
                format!("the name service does not say in which groups {user} is")
            };
            tracing::warn!(user, error = why, "cannot tell whether the account is protected");
            if begun.elapsed() >= NAME_PATIENCE {
                return Ok(Err(why));
            }
            self.context.pause(NAME_RETRY).await?;
        }
    }

    /// The groups of an account; `None` where the name service does not answer.
    async fn groups_of(&self, uid: u32) -> Option<Vec<u32>> {
        let names = self.names.clone();
        self.askers.run(move || groups(&names, uid)).await.ok()?
    }

    /// Has the policy's list of protected accounts looked up at the start and at each reload, so
    /// that it is said at once what of it protects nobody.
    pub(super) async fn look_after(self: Arc<Self>) {
        let (mut force, mut stop) = (self.context.parts.force.clone(), self.context.stop.clone());
        loop {
            let now = Arc::clone(&force.borrow_and_update());
            self.protection(&now.config).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = force.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whom the policy protects, as the name service says now or said a moment ago. Says what of the
    /// list protects nobody.
    async fn protection(&self, config: &Config) -> Arc<Protection> {
        let list = config.accounts.protected.clone();
        let before = self.protection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((asked, before)) = &before
            && asked.elapsed() < PROTECTION_HOLDS
            && before.is_of(&list)
        {
            return Arc::clone(before);
        }
        let before = before.map(|(_, before)| before);
        let (names, known) = (self.names.clone(), before.clone());
        let ask = move || Protection::resolve(&list, &names, known.as_deref());
        let Ok(now) = self.askers.run(ask).await else {
            return before.unwrap_or_default();
        };
        if before.as_deref().map(Protection::doubts).as_ref() != Some(&now.doubts()) {
            for doubt in now.doubts() {
                tracing::warn!("accounts.protected: {doubt}");
            }
        }
        self.context.parts.metrics.void_protection(now.void());
        let now = Arc::new(now);
        *self.protection.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&now)));
        now
    }
}

/// The groups of an account; `None` if the name service does not answer in time.
pub(crate) fn groups(names: &NameService, uid: u32) -> Option<Vec<u32>> {
    names.ask(move || groups_of(uid)).recv_timeout(NAME_DEADLINE).ok()?
}

/// Asks for a user's name, or for a uid where the exporter found no name.
pub(crate) fn look_up(names: &NameService, user: &UserName) -> Result<Identity, String> {
    let known =
        names.uid_of(user.as_str(), NAME_DEADLINE).map_err(|error| Chain(&error).to_string())?;
    if let Some(uid) = known {
        return Ok(match name_of(names, uid)? {
            Some(name) if name != user.as_str() => Identity::Alias(name),
            Some(_) | None => Identity::Named(Account { name: user.clone(), uid }),
        });
    }
    let Ok(uid) = user.as_str().parse::<u32>() else { return Ok(Identity::Unknown) };
    match name_of(names, uid)? {
        None => Ok(Identity::Nameless(uid)),
        Some(name) => Ok(match UserName::new(&name) {
            Ok(name) => Identity::Named(Account { name, uid }),
            // Asking again would not change the name.
            Err(fault) => Identity::Unusable(fault),
        }),
    }
}

fn name_of(names: &NameService, uid: u32) -> Result<Option<String>, String> {
    let answer = names.ask(move || NameService::name_of(uid)).recv_timeout(NAME_DEADLINE);
    match answer {
        Ok(Ok(name)) => Ok(name),
        Ok(Err(error)) => Err(format!("the name service cannot resolve uid {uid}: {error}")),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(format!("the name service does not say who uid {uid} is"))
        }
    }
}
