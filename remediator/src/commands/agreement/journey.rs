//! The way of one alert: from the rule that makes it, by Alertmanager's routes, past its inhibit
//! rules and time intervals, to a webhook of this host.
//!
//! - [`labels_of`]: what the alert will bear.
//! - [`follow`]: whether it arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::matcher::{Labels, Value};
use super::routes::{Route, Routing, Way};
use super::rules::{AlertRule, Request, Rules};
use super::webhook::{Here, Judgement};
use super::worlds::{World, explore};
use super::{Finding, Playbook, Policy, Verdict};
use crate::policy::duration::spoken;

/// How many cool-downs a storm that is no longer watched may wait until it is notified again. A
/// notification that comes later than that leaves the daemon idle while it could act.
const REPEAT_IN_COOLDOWNS: u32 = 10;

/// What stands for a host's name in a url that is a template, and would lead elsewhere.
const FORGED_HOSTS: [&str; 8] =
    ["evil:1", "evil/x", "evil?x", "evil#x", "user@evil", "evil.example.org:1/x?", "[::1]", ""];

/// An alert that asks for a playbook.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) policy: &'a Policy,
    pub(super) request: &'a Request,
    pub(super) playbook: &'a Playbook,
    pub(super) alert: &'a AlertRule,
    /// The role of this host, as far as it is known.
    pub(super) role: Option<&'a str>,
}

/// What the alert will bear when it fires on this host.
fn labels_of(asking: Asking<'_>) -> Labels {
    let Asking { policy, request, playbook, alert, role } = asking;
    let mut labels = Labels::default();
    let any = || Value::Any { never: Vec::new() };
    labels.set("user", Value::Any { never: policy.left_alone.clone() });
    labels.set("instance", any());
    labels.set("job", Value::Assumed("procstorm".to_owned()));
    labels.know("host", &policy.host);
    match playbook.commands.as_slice() {
        [command] => labels.know("command", command),
        // Any of them: what a route says of one is not said of all.
        _ => labels.set("command", any()),
    }
    if request.alert.is_none() {
        for label in ["level", "class"] {
            match request.labels.get(label).map(String::as_str) {
                // The row of each class that has none of its own.
                Some("default") if label == "class" => labels.set(label, any()),
                Some(value) => labels.know(label, value),
                None => {}
            }
        }
    }
    match role {
        Some(role) => labels.know("role", role),
        None => labels.set("role", any()),
    }
    labels.know("playbook", &request.playbook);
    for (name, value) in &alert.labels {
        match copied(value) {
            Some(other) => labels.set(name, labels.get(other)),
            None if value.contains("{{") => labels.set(name, any()),
            None => labels.know(name, value),
        }
    }
    labels.know("alertname", &alert.name);
    labels
}

/// Of a template that is another label's value: that label.
fn copied(value: &str) -> Option<&str> {
    let inside = value.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let name = inside.trim_matches('-').trim().strip_prefix("$labels.")?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name)
}

/// How an alert fares in one world.
#[derive(Default)]
struct Fate {
    /// Why it does not arrive, or is not acted on.
    lost: Vec<Finding>,
    /// Why that cannot be told.
    unsure: Vec<Finding>,
    /// What is worth a word though it arrives.
    notes: Vec<Finding>,
}

/// Adds to `verdict` whether the alert arrives.
pub(super) fn follow(
    asking: Asking<'_>,
    rules: &Rules,
    routing: &Routing,
    here: &Here,
    verdict: &mut Verdict,
) {
    let (labels, place) = (labels_of(asking), &asking.alert.place);
    let name = &asking.alert.name;
    let worlds = explore(|world| {
        let mut fate = arrive(asking, &labels, routing, here, world);
        held_back(asking, &labels, rules, routing, world, &mut fate);
        fate
    });
    let Some(worlds) = worlds else {
        let what = format!("the routes depend on too much that is not known of alert {name:?}");
        return verdict.unsure(place, what);
    };
    let assumed: BTreeSet<&String> = worlds.iter().flat_map(|(world, _)| &world.assumed).collect();
    for label in assumed {
        let taken = match labels.get(label) {
            Value::Assumed(value) if !value.is_empty() => format!("to have {label}={value:?}"),
            Value::Known(_) | Value::Assumed(_) | Value::Any { .. } => {
                format!("to have no label {label}")
            }
        };
        let what = format!("alert {name:?} is taken {taken}, as no rule says otherwise");
        verdict.note(place, what);
    }
    let all_lost = worlds.iter().all(|(_, fate)| !fate.lost.is_empty());
    for (world, fate) in worlds {
        for mut finding in fate.lost {
            if all_lost {
                verdict.disagreements.push(finding);
            } else {
                finding.what = format!("where {}: {}", world.conditions(), finding.what);
                verdict.unsure.push(finding);
            }
        }
        verdict.unsure.extend(fate.unsure);
        verdict.notes.extend(fate.notes);
    }
}

/// The routes that the alert takes, and the webhooks at their ends. One that is good is enough.
fn arrive(
    asking: Asking<'_>,
    labels: &Labels,
    routing: &Routing,
    here: &Here,
    world: &mut World,
) -> Fate {
    let Asking { policy, request, alert, .. } = asking;
    let others: Vec<&str> = routing.hosts().filter(|host| *host != policy.host).collect();
    let mut ways: Vec<(Judgement, Fate)> = Vec::new();
    let mut swapped = Vec::new();
    for way in routing.reached(world, labels) {
        let Some(route) = way.last() else { continue };
        for webhook in routing.webhooks(route) {
            let said = webhook.judge(here, &policy.host, &others, route.groups_by_all());
            let place = routing.place(webhook.line);
            let finding = |what: &String| Finding { place: place.clone(), what: what.clone() };
            let mut fate = Fate::default();
            fate.lost.extend(said.elsewhere.iter().chain(&said.wrong).map(finding));
            fate.unsure.extend(said.unsure.iter().map(finding));
            fate.notes.extend(said.notes.iter().map(finding));
            fate.lost.extend(unfit_route(routing, route, asking));
            if said.names_other && way.iter().any(|route| route.is_for_host(&policy.host)) {
                let (line, host) = (route.line, &policy.host);
                let what = format!(
                    "the route of line {line} is for {host:?} alone, and leads to another host"
                );
                swapped.push(finding(&what));
            }
            if webhook.template().is_some() {
                fate.lost.extend(unbounded(routing, &way, webhook.line));
            }
            ways.push((said, fate));
        }
    }
    let nowhere = |webhook: &str| Finding {
        place: request.place.clone(),
        what: format!(
            "alert {:?} with playbook {:?} reaches no {webhook} by {}",
            alert.name,
            request.playbook,
            routing.file.display()
        ),
    };
    if ways.is_empty() {
        return Fate { lost: vec![nowhere("webhook")], ..Fate::default() };
    }
    if ways.iter().all(|(said, _)| said.elsewhere.is_some()) {
        let mut lost = vec![nowhere("webhook of this host")];
        // Only where they lead: what else is wrong with them is another host's.
        lost.extend(ways.into_iter().filter_map(|(_, fate)| fate.lost.into_iter().next()));
        return Fate { lost, ..Fate::default() };
    }
    ways.retain(|(said, _)| said.elsewhere.is_none());
    let faults = |(_, fate): &(Judgement, Fate)| (fate.lost.len(), fate.unsure.len());
    let best = ways.into_iter().min_by_key(faults);
    let mut fate = best.map(|(_, fate)| fate).unwrap_or_default();
    // It arrives another way; but the author of that route meant something else.
    fate.unsure.extend(swapped);
    fate
}

/// Whether an inhibit rule holds it back.
fn held_back(
    asking: Asking<'_>,
    labels: &Labels,
    rules: &Rules,
    routing: &Routing,
    world: &mut World,
    fate: &mut Fate,
) {
    let names = rules.alerts.iter().map(|alert| alert.name.as_str()).collect();
    for inhibition in &routing.inhibitions {
        if !inhibition.is_about(world, labels) {
            continue;
        }
        let place = routing.place(inhibition.line);
        let alert = &asking.alert.name;
        let holder = rules.alerts.iter().find(|other| {
            let mut known = other.labels.clone();
            known.retain(|_, value| !value.contains("{{"));
            known.insert("alertname".to_owned(), other.name.clone());
            inhibition.holds(labels, &known, &BTreeSet::new())
        });
        if let Some(other) = holder {
            let what = format!(
                "this inhibit rule holds back alert {alert:?} while {:?} fires ({})",
                other.name, other.place
            );
            fate.lost.push(Finding { place, what });
        } else if inhibition.holds(labels, &BTreeMap::new(), &names) {
            let what = format!(
                "this inhibit rule holds back alert {alert:?} while an alert of its source fires; \
                 no rule here makes one"
            );
            fate.unsure.push(Finding { place, what });
        }
    }
}

/// What is wrong with a route that brings an alert to the daemon.
fn unfit_route(routing: &Routing, route: &Route, asking: Asking<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Finding { place: routing.place(route.line), what });
    let missing: Vec<&str> =
        ["host", "user", "command"].into_iter().filter(|label| !route.groups_by(label)).collect();
    if !missing.is_empty() {
        add(format!(
            "this route to the webhook does not group by {}: one storm would wait for another's \
             timer",
            missing.join(", ")
        ));
    }
    let cooldown = asking.playbook.cooldown;
    let allowed = cooldown.saturating_mul(REPEAT_IN_COOLDOWNS);
    let repeat = route.effective_repeat();
    if repeat > allowed {
        add(format!(
            "a storm that goes on is notified again after {} s, which is too late: at most \
             {REPEAT_IN_COOLDOWNS} cooldowns of {} s, {} s",
            repeat.as_secs(),
            cooldown.as_secs(),
            allowed.as_secs()
        ));
    }
    if late(route.group_wait, cooldown) {
        let wait = spoken(route.group_wait);
        add(format!("group_wait: a storm is notified {wait} after its alert; write 0s"));
    }
    if let Some(muted) = routing.muted(route) {
        add(muted);
    }
    found
}

/// Whether that is later than a storm may be told.
pub(super) fn late(delay: Duration, cooldown: Duration) -> bool {
    // A policy without a cool-down does not mean that nothing may wait.
    let allowed = cooldown.max(Duration::from_secs(30)).saturating_mul(REPEAT_IN_COOLDOWNS);
    delay > allowed
}

/// A url with a label in it goes where the label says: the routes must allow only names.
fn unbounded(routing: &Routing, way: &Way<'_>, line: u64) -> Option<Finding> {
    let taken = |host: &&&str| way.iter().all(|route| route.takes("host", host));
    let forged = FORGED_HOSTS.iter().find(taken)?;
    Some(Finding {
        place: routing.place(line),
        what: format!(
            "its url is a template, and its routes take host={forged:?}, which leads elsewhere: \
             write the matcher 'host=~\"[a-z0-9][a-z0-9-]*\"' on the route"
        ),
    })
}
