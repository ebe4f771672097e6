//! Do the three files agree? The host's policy, Prometheus' rules and Alertmanager's routes are
//! edited by different people, and each is valid without the others. What falls between them is
//! found here, before a storm finds it.
//!
//! - [`rules`]: which rule requests a playbook, and at which threshold.
//! - [`routes`]: Alertmanager's configuration: where such an alert goes, and what holds it back.
//! - [`webhook`]: whether that is this host's daemon, and whether it takes the post.
//! - `journey`: one alert's way through it; `worlds`: where the way depends on what is not known.
//! - `matcher`, `go_regex`, `times`: Alertmanager's own languages.
//! - [`check`]: all of it, as a [`Verdict`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) mod go_regex;
mod journey;
mod matcher;
pub mod routes;
pub mod rules;
mod times;
pub mod webhook;
mod worlds;

use journey::{Asking, late};
use routes::Routing;
use rules::{AlertRule, Request, Rules};
use webhook::Here;

use crate::policy::duration::spoken;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 where the parser gave none.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What the policy says of one playbook, as far as the others must fit it.
#[derive(Clone, Debug)]
pub struct Playbook {
    /// Which alerts may name it.
    pub alerts: Vec<String>,
    /// The commands that it kills.
    pub commands: Vec<String>,
    /// The count from which on it acts.
    pub threshold: u64,
    /// How long it waits between two runs for one user.
    pub cooldown: Duration,
    /// Where it stands.
    pub place: Place,
}

/// The policy: the host's name and its playbooks.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The host for which it acts.
    pub host: String,
    /// Users that are never acted on: no alert needs to reach the webhook for them.
    pub left_alone: Vec<String>,
    /// The playbooks by their names.
    pub playbooks: BTreeMap<String, Playbook>,
}

/// One thing that was found: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where to mend it.
    pub place: Place,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Whether the three fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In what they do not, in the order of the rules.
    pub disagreements: Vec<Finding>,
    /// Where that depends on what is not in the files.
    pub unsure: Vec<Finding>,
    /// What else a person should know; none of it keeps an alert from this host.
    pub notes: Vec<Finding>,
    /// The role that this host is taken to have, where rows of several ask for its playbooks.
    pub role: Option<String>,
}

impl Verdict {
    /// Whether an alert of each row reaches this host.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty() && self.unsure.is_empty()
    }

    fn disagree(&mut self, place: &Place, what: String) {
        self.disagreements.push(Finding { place: place.clone(), what });
    }

    fn unsure(&mut self, place: &Place, what: String) {
        self.unsure.push(Finding { place: place.clone(), what });
    }

    fn note(&mut self, place: &Place, what: String) {
        self.notes.push(Finding { place: place.clone(), what });
    }

    /// Says each thing once.
    fn tidied(mut self) -> Self {
        for findings in [&mut self.disagreements, &mut self.unsure, &mut self.notes] {
            let mut seen = BTreeSet::new();
            findings.retain(|one| seen.insert((one.place.clone(), one.what.clone())));
        }
        self
    }
}

/// Holds the three against each other.
///
/// Which role this host has is not in the files. Where rows of several roles ask for its
/// playbooks, it may have any of them: what fits for one is enough, and is said.
#[must_use]
pub fn check(policy: &Policy, rules: &Rules, routing: &Routing, here: &Here) -> Verdict {
    let requests: Vec<&Request> =
        rules.requests.iter().filter(|request| is_for(policy, request, rules)).collect();
    let known = requests.iter().filter(|one| policy.playbooks.contains_key(&one.playbook));
    let roles: BTreeSet<String> = known.filter_map(|one| role_of(one, rules)).collect();
    let for_role =
        |role: Option<&str>| check_role(policy, rules, &requests, routing, here, role).tidied();
    let mut verdicts: Vec<(&String, Verdict)> =
        roles.iter().map(|role| (role, for_role(Some(role)))).collect();
    match verdicts.len() {
        0 => for_role(None),
        1 => verdicts.pop().map(|(_, verdict)| verdict).unwrap_or_default(),
        _ => of_several_roles(&verdicts),
    }
}

/// The verdict for a host that may have any of these roles: the best one.
fn of_several_roles(verdicts: &[(&String, Verdict)]) -> Verdict {
    let rank = |verdict: &Verdict| (verdict.disagreements.len(), verdict.unsure.len());
    let best = verdicts.iter().min_by_key(|(_, verdict)| rank(verdict));
    let Some((best_role, best)) = best else { return Verdict::default() };
    let for_role = |role: &str, finding: &Finding| Finding {
        place: finding.place.clone(),
        what: format!("for a host of role {role}: {}", finding.what),
    };
    let mut all = best.clone();
    for findings in [&mut all.disagreements, &mut all.unsure] {
        *findings = findings.iter().map(|finding| for_role(best_role, finding)).collect();
    }
    for (role, verdict) in verdicts.iter().filter(|(role, _)| role != best_role) {
        let found = verdict.disagreements.iter().chain(&verdict.unsure);
        all.notes.extend(found.map(|finding| for_role(role, finding)));
    }
    all.role = Some((*best_role).clone());
    all
}

/// Whether a row or alert can be about this host at all.
fn is_for(policy: &Policy, request: &Request, rules: &Rules) -> bool {
    if let Some(host) = request.labels.get("host").filter(|host| !host.contains("{{")) {
        return host == &policy.host;
    }
    let alert = request.alert.and_then(|index| rules.alerts.get(index));
    let hosts = alert.map(|alert| alert.selects("host")).unwrap_or_default();
    hosts.is_empty() || hosts.contains(&policy.host.as_str())
}

/// The role of the hosts that a row or alert is about, where it says so.
pub(super) fn role_of(request: &Request, rules: &Rules) -> Option<String> {
    if let Some(role) = request.labels.get("role").filter(|role| !role.contains("{{")) {
        return Some(role.clone()).filter(|role| !role.is_empty());
    }
    let alert = request.alert.and_then(|index| rules.alerts.get(index))?;
    match alert.selects("role").as_slice() {
        [role] => Some((*role).to_owned()),
        _ => None,
    }
}

/// The verdict for a host of this role; `None` stands for one of any.
fn check_role(
    policy: &Policy,
    rules: &Rules,
    requests: &[&Request],
    routing: &Routing,
    here: &Here,
    role: Option<&str>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let of_role = |request: &&Request| match (role_of(request, rules), role) {
        (Some(its), Some(role)) => its == role,
        _ => true,
    };
    let requests: Vec<&Request> = requests.iter().copied().filter(of_role).collect();
    for request in &requests {
        let Some(playbook) = policy.playbooks.get(&request.playbook) else {
            unknown_playbook(request, &mut verdict);
            continue;
        };
        thresholds(request, playbook, &mut verdict);
        for alert in asking_alerts(request, playbook, rules, &mut verdict) {
            let asking = Asking { policy, request, playbook, alert, role };
            if labels_fit(asking, &mut verdict) {
                timing(asking, &mut verdict);
                journey::follow(asking, rules, routing, here, &mut verdict);
            }
        }
    }
    for (name, playbook) in &policy.playbooks {
        if !requests.iter().any(|request| &request.playbook == name) {
            verdict.disagree(&playbook.place, format!("no rule asks for playbook {name:?}"));
        }
    }
    verdict
}

fn unknown_playbook(request: &Request, verdict: &mut Verdict) {
    let (name, place) = (&request.playbook, &request.place);
    if name.contains("{{") {
        let what = format!("playbook {name:?} is a template, known only when the alert fires");
        verdict.unsure(place, what);
    } else {
        verdict.disagree(place, format!("playbook {name:?} is in no policy"));
    }
}

/// A rule that asks before the host is willing: mail would promise what does not happen.
fn thresholds(request: &Request, playbook: &Playbook, verdict: &mut Verdict) {
    let (name, threshold) = (&request.playbook, playbook.threshold);
    match request.threshold {
        None => verdict.unsure(
            &request.place,
            format!(
                "the count from which on playbook {name:?} is asked for cannot be compared with \
                 the policy's threshold of {threshold}: only vector(N) is understood"
            ),
        ),
        Some(asked) if threshold > asked => verdict.disagree(
            &playbook.place,
            format!(
                "playbook {name:?} acts from {threshold} on, but {} asks for it from {asked} on: \
                 between them nothing is killed",
                request.place
            ),
        ),
        Some(_) => {}
    }
}

/// The alerts that will carry the request's playbook. Says which of them may not name it, and
/// which that may are made by no rule.
fn asking_alerts<'a>(
    request: &Request,
    playbook: &Playbook,
    rules: &'a Rules,
    verdict: &mut Verdict,
) -> Vec<&'a AlertRule> {
    let (name, may_name) = (&request.playbook, playbook.alerts.join(", "));
    if let Some(alert) = request.alert.and_then(|index| rules.alerts.get(index)) {
        if playbook.alerts.contains(&alert.name) {
            return vec![alert];
        }
        let what = format!(
            "alert {:?} asks for playbook {name:?}, which only {may_name} may name",
            alert.name
        );
        verdict.disagree(&request.place, what);
        return Vec::new();
    }
    for wanted in &playbook.alerts {
        if !rules.alerts.iter().any(|alert| &alert.name == wanted) {
            let what = format!("no rule makes the alert {wanted:?} that may name it");
            verdict.disagree(&playbook.place, what);
        }
    }
    // A row's playbook is carried by the alerts of its level, unless they say another themselves.
    let level = request.labels.get("level");
    let of_level = |alert: &AlertRule| {
        let levels = alert.selects("level");
        level.is_none_or(|level| levels.is_empty() || levels.contains(&level.as_str()))
    };
    let named: Vec<&AlertRule> =
        rules.alerts.iter().filter(|alert| playbook.alerts.contains(&alert.name)).collect();
    let carries = |alert: &&AlertRule| {
        let own = alert.labels.get("playbook");
        of_level(alert) && own.is_none_or(|own| own == name || own.contains("{{"))
    };
    let carriers: Vec<&AlertRule> = named.iter().copied().filter(carries).collect();
    if carriers.is_empty() && !named.is_empty() {
        let what = format!(
            "no alert that may name playbook {name:?} ({may_name}) carries it from this row"
        );
        verdict.disagree(&request.place, what);
    }
    carriers
}

/// Whether the alert's own labels are those that the daemon acts on.
fn labels_fit(asking: Asking<'_>, verdict: &mut Verdict) -> bool {
    let Asking { policy, playbook, alert, .. } = asking;
    let mut wrong = Vec::new();
    let commands = playbook.commands.as_slice();
    for (label, wanted) in [("host", std::slice::from_ref(&policy.host)), ("command", commands)] {
        if let Some(own) = alert.labels.get(label)
            && !wanted.contains(own)
            && !own.contains("{{")
        {
            let names: Vec<_> = wanted.iter().map(|one| format!("{one:?}")).collect();
            let names = names.join(" or ");
            wrong.push(format!("sets {label}={own:?}, but this host needs {names}"));
        }
    }
    if alert.labels.get("user").is_some_and(String::is_empty) {
        wrong.push("takes its label user away".to_owned());
    }
    for what in &wrong {
        verdict.disagree(&alert.place, format!("alert {:?} {what}", alert.name));
    }
    wrong.is_empty()
}

/// What delays an alert, or keeps it from firing with many others.
fn timing(asking: Asking<'_>, verdict: &mut Verdict) {
    let Asking { playbook, alert, .. } = asking;
    let name = &alert.name;
    let mut say = |span: Duration, what: String| {
        if late(span, playbook.cooldown) {
            verdict.disagree(&alert.place, what);
        } else if !span.is_zero() {
            verdict.note(&alert.place, what);
        }
    };
    let delay = spoken(alert.delay);
    // The wait for the scrape comes before, and is not known from the rules.
    say(
        alert.delay,
        format!(
            "alert {name:?} fires later than the scrape that shows a storm: its interval, \
             query_offset and for add up to {delay}"
        ),
    );
    let keep = spoken(alert.keep_firing);
    say(
        alert.keep_firing,
        format!("keep_firing_for: for {keep} alert {name:?} hides a storm's end, and a second one"),
    );
    if let Some(limit) = alert.limit {
        let what =
            format!("limit: where over {limit} alerts would fire at once, {name:?} does not");
        verdict.unsure(&alert.place, what);
    }
}
