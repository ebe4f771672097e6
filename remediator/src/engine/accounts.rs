//! Who a user is, and what the policy's lists say of an account: questions to the name service, with patience.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procstorm_processes::name_service::NameService;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::workers::Workers;

use super::context::Context;
use crate::account::list::groups_of;
use crate::account::memory::Memory;
use crate::account::standing::{Lists, Standing, Unknown};
use crate::account::{Account, Listed, UserName};
use crate::policy::{Config, Identity};
use crate::stopping::Stopping;

/// So many names are asked for at once.
const ASKERS: usize = 4;

/// How long the name service may take for one question.
const NAME_DEADLINE: Duration = Duration::from_secs(2);

/// How long it holds what the name service said of the policy's lists: a storm of many users asks
/// once, and yet each judgement has an answer of its own moment.
const LISTS_HOLD: Duration = Duration::from_secs(5);

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
    /// Whom the policy's lists cover.
    known: Mutex<Option<Known>>,
    /// Who was in the groups that it protects.
    seen: tokio::sync::Mutex<Option<Seen>>,
}

/// Who was in the groups that the policy protects.
#[derive(Debug)]
struct Seen {
    memory: Memory,
    /// As much of it as the journal has.
    written: Memory,
}

/// What the name service said of the policy's lists.
#[derive(Clone, Debug)]
struct Known {
    asked: Instant,
    lists: Arc<Lists>,
    /// Whether no reload came since.
    is_current: bool,
}

impl AccountLookup {
    pub(super) fn new(context: Context) -> Self {
        let (names, askers) = (NameService::default(), Workers::start("ask", ASKERS));
        let seen = tokio::sync::Mutex::default();
        Self { context, names, askers, known: Mutex::default(), seen }
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

    /// What the policy's lists say about an account, by its uid and groups; as the inner error why
    /// that cannot be told. A name service that does not answer is asked again for a while, as for
    /// the account itself: a user who may be protected is left alone, and so is one who may be
    /// allowed.
    pub(super) async fn standing(
        &self,
        config: &Config,
        account: &Account,
    ) -> Result<Result<Standing, String>, Stopping> {
        let (begun, user) = (Instant::now(), account.name.as_str());
        loop {
            let known = match self.lists(config).await {
                Ok(lists) => self.standing_in(&lists, account).await,
                Err(why) => Err(why),
            };
            let hidden =
                self.context.parts.reach.protected_by(&config.accounts.protected, account.uid);
            let why = match (known, hidden) {
                (Ok(Standing::Protected(entry)), _) | (_, Ok(Some(entry))) => {
                    return Ok(Ok(Standing::Protected(entry)));
                }
                (Ok(standing), Ok(None)) => return Ok(Ok(standing)),
                (_, Err(why)) | (Err(why), Ok(None)) => why,
            };
            tracing::warn!(
                user,
                error = why,
                "cannot tell whether the policy protects the account"
            );
            if begun.elapsed() >= NAME_PATIENCE {
                return Ok(Err(why));
            }
            self.context.pause(NAME_RETRY).await?;
        }
    }

    /// What these lists say about an account, or why that is not known.
    async fn standing_in(&self, lists: &Lists, account: &Account) -> Result<Standing, String> {
        let mut known = lists.standing(account, None, &Memory::default());
        if known == Err(Unknown::Groups)
            && let Some(groups) = self.groups_of(account.uid).await
        {
            let memory = self.learn(lists, Some((account.uid, &groups))).await?;
            known = lists.standing(account, Some(&groups), &memory);
        }
        known.map_err(|unknown| unknown.told(account))
    }

    /// The groups of an account; `None` where the name service does not answer.
    async fn groups_of(&self, uid: u32) -> Option<Vec<u32>> {
        let names = self.names.clone();
        self.askers.run(move || groups(&names, uid)).await.ok()?
    }

    /// Has the policy's lists of accounts looked up at the start and at each reload, so that it is
    /// said at once what of them covers nobody.
    pub(super) async fn look_after(self: Arc<Self>) {
        let (mut force, mut stop) = (self.context.parts.force.clone(), self.context.stop.clone());
        loop {
            let now = Arc::clone(&force.borrow_and_update());
            self.forget().await;
            if let Err(error) = self.lists(&now.config).await {
                tracing::warn!(error, "cannot tell whom the policy's lists cover; will ask again");
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = force.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Forgets what the lists meant: after a reload, a group that is not found is none.
    async fn forget(&self) {
        if let Some(seen) = self.seen.lock().await.as_mut() {
            seen.memory = Memory::default();
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut() {
            known.lists = Arc::new(known.lists.forgotten());
            known.is_current = false;
        }
    }

    /// Whom the policy's lists cover, as the name service says now or said a moment ago. Says what of
    /// them covers nobody.
    async fn lists(&self, config: &Config) -> Result<Arc<Lists>, String> {
        let (protected, only) = (config.accounts.protected.clone(), config.accounts.only.clone());
        let before = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Known { asked, lists, is_current: true }) = &before
            && asked.elapsed() < LISTS_HOLD
            && lists.are_of(&protected, only.as_deref())
        {
            return Ok(Arc::clone(lists));
        }
        let doubts = before.as_ref().map(|known| known.lists.doubts());
        let before = match before {
            Some(known) => known.lists,
            None => Arc::new(self.remembered(&protected).await?),
        };
        let names = self.names.clone();
        let ask = move || Lists::resolve(&protected, only.as_deref(), &names, Some(&before));
        let asked = self.askers.run(ask).await;
        let now = asked.map_err(|error| format!("the name service's task panicked: {error}"))?;
        self.learn(&now, None).await?;
        if doubts.as_ref() != Some(&now.doubts()) {
            for doubt in now.doubts() {
                tracing::warn!("{doubt}");
            }
        }
        self.context.parts.metrics.void_protection(now.protected.void());
        let lists = Arc::new(now);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Known { asked: Instant::now(), lists: Arc::clone(&lists), is_current: true });
        Ok(lists)
    }

    /// What was known of the protected groups before the start.
    async fn remembered(&self, protected: &[Listed]) -> Result<Lists, String> {
        if !protected.iter().any(|entry| matches!(entry, Listed::Group(_))) {
            return Ok(Lists::remembered(protected, &Memory::default()));
        }
        let mut seen = self.seen.lock().await;
        let seen = self.read_once(&mut seen).await?;
        Ok(Lists::remembered(protected, &seen.memory))
    }

    /// Notes who is in the groups that `lists` protects, and that `member`, who is in these groups, is
    /// in them. Returns who was in them at any time.
    async fn learn(&self, lists: &Lists, member: Option<(u32, &[u32])>) -> Result<Memory, String> {
        if !lists.protected.has_groups() {
            return Ok(Memory::default());
        }
        let mut seen = self.seen.lock().await;
        let seen = self.read_once(&mut seen).await?;
        lists.protected.teach(&mut seen.memory, member);
        if seen.memory != seen.written {
            let written = self.context.parts.journal.set_groups(seen.memory.clone()).await;
            written.map_err(|fault| {
                format!("cannot write who is in which group to the journal: {}", Chain(&fault))
            })?;
            seen.written = seen.memory.clone();
        }
        Ok(seen.memory.clone())
    }

    /// What the journal knew at the start, and what was seen since.
    async fn read_once<'a>(&self, seen: &'a mut Option<Seen>) -> Result<&'a mut Seen, String> {
        if let Some(seen) = seen {
            return Ok(seen);
        }
        let written = self.context.parts.journal.groups().await.map_err(|fault| {
            format!("cannot read who was in which group from the journal: {}", Chain(&fault))
        })?;
        Ok(seen.insert(Seen { memory: written.clone(), written }))
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
