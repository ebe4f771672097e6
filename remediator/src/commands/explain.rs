//! `explain`: what would be done with a captured payload, and why. Nothing is done.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use jiff::Timestamp;
use procstorm_processes::name_service::NameService;
use procstorm_toolkit::chain::Chain;

use crate::account::memory::Memory;
use crate::account::standing::{Lists, Standing, Unknown};
use crate::account::{Account, UserName};
use crate::active::Force;
use crate::alertmanager::{Alert, BadPayload, Notification};
use crate::args::Args;
use crate::counted::counted;
use crate::engine::{groups, look_up};
use crate::policy::{Authorised, Decision, Facts, History, Identity, Plan, admit, decide};
use crate::policy::{Config, LoadError};
use crate::printable::printable;
use crate::sandbox::{Places, files};
use crate::steps::kill::{Survey, Target, survey};
use crate::steps::{self, Look, count};

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The policy has faults.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The payload cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is not a notification: the webhook would answer 400.
    #[error("cannot use {}", .0.display())]
    Payload(PathBuf, #[source] BadPayload),
}

/// [`explain`] of a payload under the policy of `args`; `machine` is the host's name where that
/// gives none. The caller stands for the daemon with these arguments.
pub fn report(args: &Args, machine: &str, payload: &Path) -> Result<String, ExplainError> {
    let config = Config::read(&args.config_file, machine)?;
    let body = std::fs::read(payload).map_err(|e| ExplainError::Read(payload.to_owned(), e))?;
    let notification = Notification::parse(&body)
        .map_err(|error| ExplainError::Payload(payload.to_owned(), error))?;
    let own_uid = nix::unistd::geteuid().as_raw();
    let confined = (!args.no_sandbox).then(|| confined(&config)).flatten();
    Ok(explain(&config, &notification, &args.procfs, own_uid, confined))
}

/// What would be done with each alert of `notification`, in the state that the machine is in now.
///
/// Not considered are the cool-down, the limits and who was in a protected group before: they depend
/// on what the daemon has done and seen.
/// `own_uid` is the uid that the daemon would run as, `confined` the name service as it answers
/// there.
#[must_use]
pub fn explain(
    config: &Config,
    notification: &Notification,
    procfs: &Path,
    own_uid: u32,
    confined: Option<NameService>,
) -> String {
    let force = Force::new(config.clone(), None);
    let names = NameService::default();
    let confined = confined.as_ref();
    let looker = Looker { force: &force, names: &names, confined, procfs, own_uid };
    let alerts = notification.alerts.iter().zip(1..);
    let mut text: String = alerts
        .map(|(alert, number)| format!("{}\n{}\n", Heading(number, alert), looker.verdict(alert)))
        .collect();
    if notification.truncated > 0 {
        let count = counted(notification.truncated, "alert", "alerts");
        text.push_str(&format!("Alertmanager left {count} out: set max_alerts to 0.\n"));
    }
    text.push_str(
        "The cooldown, the limits, and who was in a protected group before are not considered here.\n",
    );
    text
}

/// The name service as the daemon has it: on threads that read only what its sandbox leaves open.
/// `None` where it cannot be had.
fn confined(config: &Config) -> Option<NameService> {
    let read =
        config.sandbox.read.iter().cloned().chain(config.mail.spool.parent().map(Path::to_owned));
    let places = Places { read: read.collect(), write: Vec::new() };
    let thread = thread::Builder::new().name("confined".to_owned()).spawn(move || {
        // For this thread, and those that the name service starts here.
        files::restrict(&places).restricts().then(NameService::default)
    });
    thread.ok()?.join().ok()?
}

struct Heading<'a>(usize, &'a Alert);

impl Display for Heading<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(number, alert) = self;
        let of = |label| printable(alert.label(label));
        write!(
            f,
            "Alert {number}: {}, user {}, command {}",
            of("alertname"),
            of("user"),
            of("command")
        )
    }
}

/// Looks at the machine, and touches nothing.
struct Looker<'a> {
    force: &'a Force,
    names: &'a NameService,
    confined: Option<&'a NameService>,
    procfs: &'a Path,
    own_uid: u32,
}

impl Looker<'_> {
    fn verdict(&self, alert: &Alert) -> String {
        self.judge(alert).unwrap_or_else(|why| format!("  Nothing would be done: {why}."))
    }

    fn judge(&self, alert: &Alert) -> Result<String, String> {
        let config = &self.force.config;
        let request = admit(config, alert).map_err(|refusal| refusal.to_string())?;
        let identity = self.identity(request.user())?;
        let candidate = request
            .candidate(config, &identity, self.own_uid)
            .map_err(|refusal| refusal.to_string())?;
        let standing = self.standing(candidate.account())?;
        let authorised = candidate.authorise(standing).map_err(|refusal| refusal.to_string())?;
        let target = Target { uid: authorised.account().uid, command: *authorised.command() };
        let found = survey(self.procfs, &target).map_err(|error| Chain(&error).to_string())?;
        let found = found.with_nested(authorised.playbook().kills_nested());
        self.decide(authorised, &found)
    }

    /// Who the user is to the daemon.
    fn identity(&self, user: &UserName) -> Result<Identity, String> {
        // Outside first, as the daemon does: what the C library loads for it is there inside.
        let outside = look_up(self.names, user);
        let Some(confined) = self.confined else { return outside };
        let inside = look_up(confined, user);
        let known =
            matches!(outside, Ok(Identity::Named(_) | Identity::Alias(_) | Identity::Unusable(_)));
        if inside == outside || !known {
            return inside;
        }
        let answer = match inside {
            Ok(Identity::Unknown | Identity::Nameless(_)) => "knows no such account".to_owned(),
            Ok(_) => "takes it for another account".to_owned(),
            Err(why) => format!("fails ({why})"),
        };
        Err(format!(
            "in the daemon's sandbox the name service {answer}, though outside of it the account is \
             known: write the directories that its modules read into sandbox.read of the policy"
        ))
    }

    fn decide(&self, authorised: Authorised, found: &Survey) -> Result<String, String> {
        let facts = Facts {
            shared_with: self.shared_with(&authorised),
            living: count(&found.living),
            left_alone: count(&found.nested),
            history: History::default(),
            newcomers: None,
            muted_by: None,
            now: Timestamp::now(),
        };
        match decide(&self.force.config, authorised, &facts) {
            Decision::Act(plan) => Ok(self.act(&plan, found)),
            Decision::Wait(until) => Err(format!("the cooldown runs until {until}")),
            Decision::Refuse(refusal) => Err(refusal.to_string()),
        }
    }

    fn standing(&self, account: &Account) -> Result<Standing, String> {
        let accounts = &self.force.config.accounts;
        let names = self.confined.unwrap_or(self.names);
        let lists = Lists::resolve(&accounts.protected, accounts.only.as_deref(), names, None);
        let mut known = lists.standing(account, None, &Memory::default());
        if known == Err(Unknown::Groups)
            && let Some(groups) = groups(names, account.uid)
        {
            known = lists.standing(account, Some(&groups), &Memory::default());
        }
        known.map_err(|unknown| unknown.told(account))
    }

    fn shared_with(&self, authorised: &Authorised) -> Vec<String> {
        if !authorised.minds_shared_uid(&self.force.config) {
            return Vec::new();
        }
        // As the daemon does: what cannot be found out hinders nothing.
        self.force.mailroom.others_and_wait(authorised.account().clone()).unwrap_or_default()
    }

    fn act(&self, plan: &Plan, found: &Survey) -> String {
        let (account, playbook) = (plan.account(), plan.authorised().request().name());
        let mut lines = vec![format!(
            "  Playbook {playbook} would run{}: {} of uid {} live.",
            if plan.is_dry_run() { " as a dry run, which kills and saves nothing" } else { "" },
            counted(found.living.len(), "process", "processes"),
            account.uid
        )];
        if !found.nested.is_empty() {
            lines.push(format!(
                "  {} more live in containers (pid namespaces that the user has not made) and \
                 would be left alone.",
                found.nested.len()
            ));
        }
        let look = Look {
            plan,
            living: &found.living,
            mailroom: &self.force.mailroom,
            spool: &self.force.config.mail.spool,
        };
        for step in plan.steps() {
            let outlook = steps::of(*step).plan(&look);
            let planned = outlook.lines.into_iter();
            lines.extend(planned.map(|line| format!("  {}: {line}", step.label())));
            if outlook.stops {
                break;
            }
        }
        lines.join("\n")
    }
}
