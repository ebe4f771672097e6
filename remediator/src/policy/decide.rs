//! May this be done? A pure judgement: no clock, no /proc, no name service is asked here.
//!
//! What has passed a check is a type that only this check makes, so that no check can be left out
//! and none is made twice:
//! - [`admit`] makes a [`Request`] of an alert that the policy takes by itself;
//! - [`Request::candidate`] makes a [`Candidate`] of it, whose account may be acted on by its uid;
//! - [`Candidate::authorise`] makes it [`Authorised`]: the policy's lists allow its account;
//! - [`decide`] makes a [`Plan`] of that, if the [`Facts`] say so; nobody acts without one.
//!
//! - [`Refusal`]: why not, with a verdict and a sentence that names its object.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_processes::process::Command;

use super::duration::spoken;
use super::file::{Config, Limits, Playbook, Step};
use super::values::Rate;
use crate::account::standing::Standing;
use crate::account::{Account, Listed, NameFault, UserName};
use crate::alertmanager::Muted;
use crate::alertmanager::{Alert, Status};
use crate::counted::counted;
use crate::verdict::{Mailed, Verdict};

/// An alert that asks for something this host's file allows, for any user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    name: String,
    playbook: Arc<Playbook>,
    user: UserName,
    command: Command,
    dry_run: bool,
}

impl Request {
    /// The playbook's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The playbook.
    #[must_use]
    pub fn playbook(&self) -> &Playbook {
        &self.playbook
    }

    /// The user's name: of an account, or a uid in digits where the exporter found no name.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// The storm's command.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Whether it is only to be said what would be done.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

/// A request whose account the policy allows by its name and uid. What the policy's lists say of its
/// groups or of another name of the uid is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    request: Request,
    account: Account,
}

impl Candidate {
    /// Whose processes; for a uid without a name, the name is the uid in digits.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The request, unless the policy's lists leave the account alone.
    pub fn authorise(self, standing: Standing) -> Result<Authorised, Refusal> {
        let Self { request, account } = self;
        match standing {
            Standing::Open => Ok(Authorised { request, account }),
            Standing::Protected(entry) => Err(Refusal::ProtectedUser { user: account.name, entry }),
            Standing::Excluded => Err(Refusal::ExcludedUser(account.name)),
        }
    }
}

/// A request about an account that may be acted on, whatever the facts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorised {
    request: Request,
    account: Account,
}

impl Authorised {
    /// What the alert asks for.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whose processes; for a uid without a name, the name is the uid in digits.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The playbook.
    #[must_use]
    pub fn playbook(&self) -> &Playbook {
        &self.request.playbook
    }

    /// Which processes.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.request.command
    }

    /// Whether it matters that the uid holds the mail of others: a step ends processes, and the policy
    /// does not allow it.
    #[must_use]
    pub fn minds_shared_uid(&self, config: &Config) -> bool {
        let ends = self.playbook().steps.iter().any(|step| step.ends_processes());
        ends && !config.accounts.allow_shared_uid
    }
}

/// What the name service says about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It has an account of that name.
    Named(Account),
    /// It is another name of an account, which is called so.
    Alias(String),
    /// The name is a uid in digits, and no account has that uid.
    Nameless(u32),
    /// The name is a uid in digits, and its account has a name that we would not take.
    Unusable(NameFault),
    /// The name service has not said who it is for as long as it is waited for: why.
    Unresolved(String),
    /// It knows neither.
    Unknown,
}

/// What is true here and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How many processes of that user and command live and may be ended.
    pub living: u64,
    /// How many more live in containers, and are left alone.
    pub left_alone: u64,
    /// What was done before.
    pub history: History,
    /// How many of the living have started since the dry run that would have ended the storm
    /// ([`History::rehearsed`]); `None` if there was none.
    pub newcomers: Option<u64>,
    /// Names of other users' mail that belongs to the same uid; none where that does not matter.
    pub shared_with: Vec<String>,
    /// What keeps Alertmanager from sending the alert by now, as far as it was asked for.
    pub muted_by: Option<Muted>,
    /// The time of the judgement.
    pub now: Timestamp,
}

/// What was done before, within this playbook's windows. For a live remediation dry runs do not
/// count; for a dry run they do, as if they had acted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When the last remediation of this user and command began to act.
    pub last: Option<Timestamp>,
    /// How many acted on this user within the window of `limits.per_user`.
    pub for_user: u32,
    /// How many acted on any user within the window of `limits.total`.
    pub in_total: u32,
    /// When the last dry run of this playbook would have killed this user's processes of this command.
    pub rehearsed: Option<Timestamp>,
}

/// What follows from policy and facts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may be done, now.
    Act(Plan),
    /// It may be done, but not before then: the cool-down runs.
    Wait(Timestamp),
    /// It must not be done.
    Refuse(Refusal),
}

/// What may be done: the leave to do it, which only [`decide`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    authorised: Authorised,
}

impl Plan {
    /// What it is the leave for.
    #[must_use]
    pub fn authorised(&self) -> &Authorised {
        &self.authorised
    }

    /// On whom; for a uid without a name, the name is the uid in digits.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.authorised.account
    }

    /// On which processes.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.authorised.request.command
    }

    /// The playbook: what, in which order, and how.
    #[must_use]
    pub fn playbook(&self) -> &Playbook {
        &self.authorised.request.playbook
    }

    /// What, in this order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.playbook().steps
    }

    /// Whether it is only said, not done.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.authorised.request.dry_run
    }
}

/// Why nothing is done. Texts from outside are shown escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The alert does not fire.
    #[error("the alert is resolved")]
    Resolved,
    /// The alert is about another machine.
    #[error("the alert is for host {named}, this is {ours:?}")]
    OtherHost {
        /// The host it names.
        named: Quoted,
        /// Our own name.
        ours: String,
    },
    /// The alert asks for nothing.
    #[error("the alert names no playbook")]
    NoPlaybook,
    /// The alert names a playbook that this host does not have.
    #[error("there is no playbook {0}")]
    UnknownPlaybook(Quoted),
    /// This alert may not name that playbook.
    #[error("alert {alert} may not name playbook {playbook:?}")]
    AlertNotAllowed {
        /// The alert's name.
        alert: Quoted,
        /// The playbook's.
        playbook: String,
    },
    /// The alert is about another command than the playbook's.
    #[error("command {named} is not exactly {playbook:?}'s {expected}")]
    OtherCommand {
        /// The command it names.
        named: Quoted,
        /// The playbook's name.
        playbook: String,
        /// The playbook's commands, as text.
        expected: String,
    },
    /// The user's name cannot be one.
    #[error(transparent)]
    BadUserName(NameFault),
    /// The name service does not know the user.
    #[error("there is no user {0}")]
    UnknownUser(UserName),
    /// The name service takes it for an account that it calls otherwise: a second name of the
    /// same uid, or another case. The exporter's alerts bear the account's own name, and
    /// `accounts.protected` is a list of those.
    #[error("user {user} is called {name} by the name service")]
    Alias {
        /// The name that the alert bears.
        user: UserName,
        /// The account's own.
        name: Quoted,
    },
    /// The name service did not answer, or failed, for as long as it is waited for.
    #[error("cannot tell who user {user} is: {why}")]
    UnresolvedUser {
        /// The name that the alert bears.
        user: UserName,
        /// What the name service said last.
        why: String,
    },
    /// The uid has no name, and the configuration leaves such alone.
    #[error("uid {0} has no name (accounts.allow_nameless)")]
    NamelessUid(u32),
    /// The user is protected by the configuration.
    #[error("user {user} is protected (accounts.protected: {entry})")]
    ProtectedUser {
        /// The user.
        user: UserName,
        /// The entry that covers it.
        entry: Listed,
    },
    /// The configuration allows others only.
    #[error("user {0} is not among those who may be acted on (accounts.only)")]
    ExcludedUser(UserName),
    /// Other users' mail belongs to the same uid, and so do their processes.
    #[error(
        "uid {uid} of user {user} owns other users' mail as well ({}): their processes cannot be told \
         from the user's (accounts.allow_shared_uid)", .mail.join(", ")
    )]
    SharedUid {
        /// The user.
        user: UserName,
        /// Its uid.
        uid: u32,
        /// Some names of the others' mail, in quotes.
        mail: Vec<String>,
    },
    /// The user is root.
    #[error("user {0} has uid 0")]
    Root(UserName),
    /// The user is the daemon's own.
    #[error("user {0} is the daemon's own (accounts.allow_own_uid)")]
    OwnUid(UserName),
    /// The user is one of the system's.
    #[error("user {user} has uid {uid}, below {min_uid} (accounts.min_uid)")]
    SystemUid {
        /// The user.
        user: UserName,
        /// Its uid.
        uid: u32,
        /// The least uid that may be acted on.
        min_uid: u32,
    },
    /// There is no storm, or no more.
    #[error(
        "{}, below the threshold of {threshold}",
        counted(*.living, "process lives", "processes live")
    )]
    BelowThreshold {
        /// How many live.
        living: u64,
        /// From how many on it is a storm.
        threshold: u64,
    },
    /// A dry run would have ended the storm before, and since then too few have started for another.
    #[error(
        "an earlier dry run would have killed these {living} processes; {newcomers} of them have \
         started since, below the threshold of {threshold}"
    )]
    WouldBeGone {
        /// How many live.
        living: u64,
        /// How many of them would live, had the earlier remediation been live.
        newcomers: u64,
        /// From how many on it is a storm.
        threshold: u64,
    },
    /// There is a storm, but in containers, which are left alone.
    #[error(
        "{left_alone} processes live in containers (pid namespaces that the user has not made) and \
         were left alone (nested_namespaces), {living} elsewhere, below the threshold of {threshold}"
    )]
    LeftAlone {
        /// How many are left alone.
        left_alone: u64,
        /// How many might be ended.
        living: u64,
        /// From how many on it is a storm.
        threshold: u64,
    },
    /// A person has silenced the alert since it was accepted.
    #[error("silence {0} covers the alert")]
    Silenced(Quoted),
    /// An inhibition rule keeps the alert back since it was accepted.
    #[error("alert {0} inhibits the alert")]
    Inhibited(Quoted),
    /// It was done too often; a person must look.
    #[error("{count} remediations for {whom} within {window}, the limit (limits.{key})", window = spoken(rate.window))]
    LimitReached {
        /// For whom: the user, or all users.
        whom: String,
        /// The limit's key in the configuration.
        key: &'static str,
        /// How many there were.
        count: u32,
        /// How many there may be.
        rate: Rate,
    },
}

impl Refusal {
    /// The verdict of a remediation that ends with it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Resolved => Verdict::Resolved,
            Self::OtherHost { .. } => Verdict::OtherHost,
            Self::NoPlaybook => Verdict::NoPlaybook,
            Self::UnknownPlaybook(_) => Verdict::UnknownPlaybook,
            Self::AlertNotAllowed { .. } => Verdict::AlertNotAllowed,
            Self::OtherCommand { .. } => Verdict::OtherCommand,
            Self::BadUserName(_) => Verdict::BadUserName,
            Self::UnknownUser(_) => Verdict::UnknownUser,
            Self::UnresolvedUser { .. } => Verdict::UnresolvedUser,
            Self::Alias { .. } => Verdict::Alias,
            Self::NamelessUid(_) => Verdict::NamelessUid,
            Self::ProtectedUser { .. } => Verdict::ProtectedUser,
            Self::ExcludedUser(_) => Verdict::ExcludedUser,
            Self::SharedUid { .. } => Verdict::SharedUid,
            Self::Root(_) => Verdict::Root,
            Self::OwnUid(_) => Verdict::OwnUid,
            Self::SystemUid { .. } => Verdict::SystemUid,
            // As a live remediation would find.
            Self::BelowThreshold { .. } | Self::WouldBeGone { .. } => Verdict::NoLongerTrue,
            Self::LeftAlone { .. } => Verdict::LeftAlone,
            Self::Silenced(_) | Self::Inhibited(_) => Verdict::Silenced,
            Self::LimitReached { .. } => Verdict::LimitReached,
        }
    }

    /// Within how long people get only one mail about it, under these limits of the playbook; `None` if
    /// they get none.
    #[must_use]
    pub fn told_once_in(&self, limits: &Limits) -> Option<Duration> {
        match self.verdict().mailed() {
            Mailed::HourlyIfIdle => Some(TOLD_EVERY),
            Mailed::OncePerUserLimitIfIdle => Some(limits.per_user.window),
            Mailed::OncePerLimitIfIdle => {
                let rate =
                    if let Self::LimitReached { rate, .. } = self { *rate } else { limits.total };
                Some(rate.window)
            }
            Mailed::Always | Mailed::NeverIfIdle | Mailed::Never => None,
        }
    }
}

/// How often the same storm is mailed that cannot be acted on for a reason that stays.
const TOLD_EVERY: Duration = Duration::from_secs(3600);

/// A text from outside: cut to 64 characters, and shown in quotes with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// The text's beginning.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl std::fmt::Display for Quoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Judges an alert by itself: is it for this host, and does it ask for what the file allows?
pub fn admit(config: &Config, alert: &Alert) -> Result<Request, Refusal> {
    if alert.status == Status::Resolved {
        return Err(Refusal::Resolved);
    }
    if alert.label("host") != config.host {
        let named = Quoted::new(alert.label("host"));
        return Err(Refusal::OtherHost { named, ours: config.host.clone() });
    }
    let (name, playbook) = named_playbook(config, alert)?;
    // Exactly, as the original's `$c eq (P)`: a rule that matches `imapd` anywhere also fires for
    // `/usr/sbin/imapd`, which is another command, and which this playbook would not end.
    let Some(command) = playbook.command_named(alert.label("command")) else {
        return Err(Refusal::OtherCommand {
            named: Quoted::new(alert.label("command")),
            playbook: name.to_owned(),
            expected: playbook.told_commands(),
        });
    };
    let user = UserName::new(alert.label("user")).map_err(Refusal::BadUserName)?;
    unprotected(config, &user)?;
    let dry_run = config.is_dry_run(name);
    let (name, playbook) = (name.to_owned(), Arc::new(playbook.clone()));
    Ok(Request { name, playbook, user, command, dry_run })
}

/// Whether a name is none that is protected, by the name alone.
fn unprotected(config: &Config, user: &UserName) -> Result<(), Refusal> {
    let is_named = |entry: &&Listed| matches!(entry, Listed::Name(name) if name == user);
    match config.accounts.protected.iter().find(is_named) {
        Some(entry) => Err(Refusal::ProtectedUser { user: user.clone(), entry: entry.clone() }),
        None => Ok(()),
    }
}

fn named_playbook<'c>(
    config: &'c Config,
    alert: &Alert,
) -> Result<(&'c str, &'c Playbook), Refusal> {
    let name = alert.label("playbook");
    if name.is_empty() {
        return Err(Refusal::NoPlaybook);
    }
    let Some((name, playbook)) = config.playbooks.get_key_value(name) else {
        return Err(Refusal::UnknownPlaybook(Quoted::new(name)));
    };
    if !playbook.alerts.iter().any(|allowed| allowed == alert.label("alertname")) {
        let alert = Quoted::new(alert.label("alertname"));
        return Err(Refusal::AlertNotAllowed { alert, playbook: name.clone() });
    }
    Ok((name, playbook))
}

/// Judges by the facts what is authorised.
pub fn decide(config: &Config, authorised: Authorised, facts: &Facts) -> Decision {
    let playbook = authorised.playbook();
    if let Err(refusal) = still_true(playbook, facts)
        .and_then(|()| unshared(config, authorised.account(), facts))
        .and_then(|()| unmuted(facts))
        .and_then(|()| not_rehearsed(&authorised, facts))
    {
        return Decision::Refuse(refusal);
    }
    // The cool-down comes before the limits: a storm that has merely to wait is not given up.
    if let Some(until) = cool_down(playbook, facts) {
        return Decision::Wait(until);
    }
    if let Err(refusal) = within_limits(playbook, authorised.request(), &facts.history) {
        return Decision::Refuse(refusal);
    }
    Decision::Act(Plan { authorised })
}

impl Request {
    /// The request with its account, if that is one that may be acted on at all.
    pub fn candidate(
        self,
        config: &Config,
        identity: &Identity,
        own_uid: u32,
    ) -> Result<Candidate, Refusal> {
        let account = self.allowed_account(config, identity, own_uid)?;
        Ok(Candidate { request: self, account })
    }

    fn allowed_account(
        &self,
        config: &Config,
        identity: &Identity,
        own_uid: u32,
    ) -> Result<Account, Refusal> {
        let accounts = &config.accounts;
        let user = || self.user.clone();
        let account = match identity {
            Identity::Named(account) => account.clone(),
            Identity::Nameless(uid) if accounts.allow_nameless => {
                Account { name: user(), uid: *uid }
            }
            Identity::Nameless(uid) => return Err(Refusal::NamelessUid(*uid)),
            Identity::Alias(name) => {
                return Err(Refusal::Alias { user: user(), name: Quoted::new(name) });
            }
            Identity::Unusable(fault) => return Err(Refusal::BadUserName(fault.clone())),
            Identity::Unresolved(why) => {
                return Err(Refusal::UnresolvedUser { user: user(), why: why.clone() });
            }
            Identity::Unknown => return Err(Refusal::UnknownUser(user())),
        };
        let Account { name, uid } = &account;
        if *uid == 0 {
            return Err(Refusal::Root(name.clone()));
        }
        if *uid < accounts.min_uid {
            let (user, uid, min_uid) = (name.clone(), *uid, accounts.min_uid);
            return Err(Refusal::SystemUid { user, uid, min_uid });
        }
        if *uid == own_uid && !accounts.allow_own_uid {
            return Err(Refusal::OwnUid(name.clone()));
        }
        // Asked again: the alert may have named the uid, and the name service the protected name.
        unprotected(config, name)?;
        Ok(account)
    }
}

fn unshared(config: &Config, account: &Account, facts: &Facts) -> Result<(), Refusal> {
    if config.accounts.allow_shared_uid || facts.shared_with.is_empty() {
        return Ok(());
    }
    let mail = facts.shared_with.iter().map(|name| Quoted::new(name).to_string()).collect();
    Err(Refusal::SharedUid { user: account.name.clone(), uid: account.uid, mail })
}

fn unmuted(facts: &Facts) -> Result<(), Refusal> {
    match &facts.muted_by {
        Some(Muted::Silence(id)) => Err(Refusal::Silenced(Quoted::new(id))),
        Some(Muted::Inhibition(by)) => Err(Refusal::Inhibited(Quoted::new(by))),
        None => Ok(()),
    }
}

fn still_true(playbook: &Playbook, facts: &Facts) -> Result<(), Refusal> {
    let (living, left_alone, threshold) = (facts.living, facts.left_alone, playbook.threshold);
    if living >= threshold {
        Ok(())
    } else if living.saturating_add(left_alone) >= threshold {
        // The exporter counts them, so that the alert is true; only nobody ends them.
        Err(Refusal::LeftAlone { left_alone, living, threshold })
    } else {
        Err(Refusal::BelowThreshold { living, threshold })
    }
}

/// A dry run ends nothing, so that the same processes would be a storm again and again.
fn not_rehearsed(authorised: &Authorised, facts: &Facts) -> Result<(), Refusal> {
    let (living, threshold) = (facts.living, authorised.playbook().threshold);
    match facts.newcomers.filter(|_| authorised.request.dry_run) {
        Some(newcomers) if newcomers < threshold => {
            Err(Refusal::WouldBeGone { living, newcomers, threshold })
        }
        Some(_) | None => Ok(()),
    }
}

fn cool_down(playbook: &Playbook, facts: &Facts) -> Option<Timestamp> {
    let last = facts.history.last?;
    let span = SignedDuration::try_from(playbook.cooldown).ok()?;
    // A clock that was set back must not hold a kill for longer than the cool-down itself.
    let until = last.min(facts.now).checked_add(span).ok()?;
    (until > facts.now).then_some(until)
}

fn within_limits(playbook: &Playbook, request: &Request, history: &History) -> Result<(), Refusal> {
    let limits = &playbook.limits;
    let checks = [
        (format!("user {}", request.user), "per_user", history.for_user, limits.per_user),
        ("all users".to_owned(), "total", history.in_total, limits.total),
    ];
    for (whom, key, count, rate) in checks {
        if count >= rate.count {
            return Err(Refusal::LimitReached { whom, key, count, rate });
        }
    }
    Ok(())
}
