//! Do the three files agree? The host's policy, Prometheus' rules and Alertmanager's routes are
//! edited by different people, and each is valid without the others. What falls between them is
//! found here, before a storm finds it.
//!
//! - [`rules`]: who asks for a playbook, and from which count on.
//! - [`routes`]: where such an alert goes, in which group, how often.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub mod routes;
pub mod rules;

use routes::{Reached, Routing};
use rules::{Request, Rules};

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
    /// The command that it kills.
    pub command: String,
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
    /// The playbooks by their names.
    pub playbooks: BTreeMap<String, Playbook>,
}

/// How many cool-downs a storm that is no longer watched may wait until it is told again. A
/// notification that repeats later than that leaves the daemon idle while it could act.
const REPEAT_IN_COOLDOWNS: u32 = 10;

/// One thing in which the files do not agree: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Where to mend it.
    pub place: Place,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// All the disagreements, in the order of the rules. Empty where the three fit.
#[must_use]
pub fn check(policy: &Policy, rules: &Rules, routing: &Routing) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for request in &rules.requests {
        match policy.playbooks.get(&request.playbook) {
            None => found.push(Disagreement {
                place: request.place.clone(),
                what: format!("playbook {:?} is in no policy", request.playbook),
            }),
            Some(playbook) => {
                found.extend(unlike_thresholds(request, playbook));
                found.extend(alerts_gone_astray(policy, request, playbook, rules, routing));
            }
        }
    }
    for (name, playbook) in &policy.playbooks {
        if !rules.requests.iter().any(|request| &request.playbook == name) {
            found.push(Disagreement {
                place: playbook.place.clone(),
                what: format!("no rule asks for playbook {name:?}"),
            });
        }
    }
    found.dedup();
    found
}

/// A rule that asks before the host is willing: mail would promise what does not happen.
fn unlike_thresholds(request: &Request, playbook: &Playbook) -> Option<Disagreement> {
    let asked = request.threshold?;
    (playbook.threshold > asked).then(|| Disagreement {
        place: playbook.place.clone(),
        what: format!(
            "playbook {:?} acts from {} on, but {} asks for it from {asked} on: \
             between them nothing is killed",
            request.playbook, playbook.threshold, request.place
        ),
    })
}

fn alerts_gone_astray(
    policy: &Policy,
    request: &Request,
    playbook: &Playbook,
    rules: &Rules,
    routing: &Routing,
) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for alert in &playbook.alerts {
        let Some(own_labels) = rules.alerts.get(alert) else {
            found.push(Disagreement {
                place: playbook.place.clone(),
                what: format!("no rule makes the alert {alert:?} that may name it"),
            });
            continue;
        };
        let mut labels = request.labels.clone();
        labels.extend(own_labels.clone());
        for (name, value) in [
            ("alertname", alert.as_str()),
            ("host", &policy.host),
            ("command", &playbook.command),
            ("user", "alice"),
            ("playbook", &request.playbook),
        ] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        let webhooks: Vec<Reached> =
            routing.reached(&labels).into_iter().filter(|route| route.is_webhook).collect();
        if webhooks.is_empty() {
            found.push(Disagreement {
                place: request.place.clone(),
                what: format!(
                    "alert {alert:?} with playbook {:?} reaches no webhook by {}",
                    request.playbook,
                    routing.file.display()
                ),
            });
        }
        found.extend(webhooks.iter().flat_map(|route| unfit_route(route, playbook)));
    }
    found
}

/// What is wrong with a route that brings an alert to the daemon.
fn unfit_route(route: &Reached, playbook: &Playbook) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let missing: Vec<&str> =
        ["host", "user", "command"].into_iter().filter(|label| !route.groups_by(label)).collect();
    if !missing.is_empty() {
        found.push(Disagreement {
            place: route.place.clone(),
            what: format!(
                "this route to the webhook does not group by {}: one storm would wait for \
                 another's timer",
                missing.join(", ")
            ),
        });
    }
    let allowed = playbook.cooldown.saturating_mul(REPEAT_IN_COOLDOWNS);
    let repeat = route.effective_repeat();
    if repeat > allowed {
        found.push(Disagreement {
            place: route.place.clone(),
            what: format!(
                "a storm that holds is told again after {} s; the cool-down of {} s lets the \
                 daemon act long before (at most {REPEAT_IN_COOLDOWNS} cool-downs: {} s)",
                repeat.as_secs(),
                playbook.cooldown.as_secs(),
                allowed.as_secs()
            ),
        });
    }
    found
}
