//! Alertmanager's configuration: which receivers an alert reaches, in which group, how often, and
//! what may hold it back on its way.
//!
//! The walk is the one of Alertmanager's own `dispatch/route.go`: the first child that matches
//! takes the alert, later ones only where it says `continue`; a node none of whose children
//! matches takes it itself. What a route mutes is its own, and not its children's.
//!
//! - [`Routing`]: a configuration.
//! - `Route`: a node of the tree.
//! - `Inhibition`: an inhibit rule, as `inhibit/inhibit.go` evaluates it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Place;
use super::matcher::{Answer, EQUAL, LIKE, Labels, Matcher, Value};
use super::rules::ReadError;
use super::times::{Intervals, Span};
use super::webhook::Webhook;
use super::worlds::World;
use crate::policy::duration;
use crate::policy::yaml::{self, Fault, Node};

/// Alertmanager's defaults (its documentation, "Route").
const GROUP_WAIT: Duration = Duration::from_secs(30);
const GROUP_INTERVAL: Duration = Duration::from_secs(5 * 60);
const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3600);

/// The routes of one Alertmanager configuration, its receivers' webhooks, and what it mutes.
#[derive(Debug)]
pub struct Routing {
    /// The file.
    pub file: PathBuf,
    root: Route,
    webhooks: Arc<BTreeMap<String, Vec<Webhook>>>,
    intervals: Arc<Intervals>,
    pub(super) inhibitions: Vec<Inhibition>,
    /// The hosts that routes are for, by their matchers.
    hosts: Arc<BTreeSet<String>>,
}

/// A token that a receiver of one host posts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The host that the route to the receiver is for.
    pub host: String,
    /// The file with the token.
    pub file: PathBuf,
    /// The line of the receiver's webhook.
    pub line: u64,
}

/// A node of the tree of routes, with what it has from those above it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) line: u64,
    receiver: String,
    matchers: Vec<Matcher>,
    goes_on: bool,
    group_by: BTreeSet<String>,
    group_by_all: bool,
    pub(super) group_wait: Duration,
    group_interval: Duration,
    repeat_interval: Duration,
    mutes: Vec<String>,
    active: Vec<String>,
    routes: Vec<Route>,
}

/// A route that takes an alert, and the routes above it, from the uppermost on.
pub(super) type Way<'a> = Vec<&'a Route>;

impl Routing {
    /// Reads an Alertmanager configuration. Whether it is valid in every other respect is
    /// `amtool check-config`'s to say.
    pub fn read(file: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(file).map_err(|e| ReadError::Io(file.to_owned(), e))?;
        Self::parse(file, &text)
    }

    /// What a configuration says, which `file` is only the name of.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ReadError> {
        let read = || {
            let root = yaml::read(text)?.ok_or_else(|| Fault::new(1, "no route is in it"))?;
            Self::from_node(file, &root)
        };
        read().map_err(|fault| ReadError::fault(file, fault))
    }

    fn from_node(file: &Path, node: &Node) -> Result<Self, Fault> {
        let directory = file.parent().unwrap_or(Path::new(""));
        node.entries()?;
        let global = node.get("global").and_then(|global| global.get("http_config"));
        let mut webhooks = BTreeMap::new();
        for receiver in node.items_of("receivers")? {
            let name = receiver.text_of("name")?.unwrap_or_default();
            let configs = receiver.items_of("webhook_configs")?;
            let configs = configs.iter().map(|config| Webhook::read(config, global, directory));
            let configs = configs.collect::<Result<Vec<_>, _>>()?;
            if webhooks.insert(name.to_owned(), configs).is_some() {
                return Err(Fault::new(
                    receiver.line,
                    format!("two receivers are called {name:?}"),
                ));
            }
        }
        let top = node.get("route").ok_or_else(|| Fault::new(1, "no route is in it"))?;
        let root = Route::read(top, &Route::above())?;
        if !root.matchers.is_empty() {
            let problem = "the uppermost route has matchers, and must take every alert";
            return Err(Fault::new(root.line, problem));
        }
        let intervals = Intervals::read(node)?;
        root.check(&webhooks, &intervals)?;
        let inhibitions = node.items_of("inhibit_rules")?;
        let inhibitions = inhibitions.iter().map(Inhibition::read).collect::<Result<_, _>>()?;
        let mut hosts = BTreeSet::new();
        root.add_hosts(&mut hosts);
        let hosts = Arc::new(hosts.into_iter().map(ToOwned::to_owned).collect());
        let (webhooks, intervals) = (Arc::new(webhooks), Arc::new(intervals));
        Ok(Self { file: file.to_owned(), root, webhooks, intervals, inhibitions, hosts })
    }

    /// The receivers of the routes that an alert with these labels reaches, where each can be
    /// told; at least one.
    #[must_use]
    pub fn receivers(&self, labels: &BTreeMap<String, String>) -> Vec<String> {
        let mut known = Labels::default();
        for (name, value) in labels {
            known.know(name, value);
        }
        let reached = self.reached(&mut World::default(), &known);
        reached.iter().filter_map(|path| Some(path.last()?.receiver.clone())).collect()
    }

    /// The routes that an alert with these labels reaches, in this world; at least one.
    pub(super) fn reached(&self, world: &mut World, labels: &Labels) -> Vec<Way<'_>> {
        let mut reached = Vec::new();
        self.root.walk(world, labels, &mut Vec::new(), &mut reached);
        reached
    }

    pub(super) fn webhooks(&self, route: &Route) -> &[Webhook] {
        self.webhooks.get(&route.receiver).map(Vec::as_slice).unwrap_or_default()
    }

    /// The hosts that routes are for, by their matchers.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// The same without the routes that are for other hosts alone: no alert of this host takes them,
    /// and among a thousand they take time.
    #[must_use]
    pub fn for_host(&self, host: &str) -> Self {
        Self {
            file: self.file.clone(),
            root: self.root.for_host(host),
            webhooks: Arc::clone(&self.webhooks),
            intervals: Arc::clone(&self.intervals),
            inhibitions: self.inhibitions.clone(),
            hosts: Arc::clone(&self.hosts),
        }
    }

    /// The hosts that a route is for, each with the line of the first one.
    #[must_use]
    pub fn routes_of_hosts(&self) -> BTreeMap<&str, u64> {
        let mut routes = BTreeMap::new();
        self.root.each(None, &mut |route, host| {
            if let Some(host) = host {
                routes.entry(host).or_insert(route.line);
            }
        });
        routes
    }

    /// The tokens of the receivers that routes for one host alone lead to.
    #[must_use]
    pub fn credentials(&self) -> Vec<Credentials> {
        let mut found = Vec::new();
        self.root.each(None, &mut |route, host| {
            let Some(host) = host else { return };
            for webhook in self.webhooks(route) {
                let Some(file) = webhook.token_file() else { continue };
                let one = Credentials {
                    host: host.to_owned(),
                    file: file.to_owned(),
                    line: webhook.line,
                };
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        });
        found
    }

    /// By what a route holds back what it takes, and when.
    pub(super) fn muted(&self, route: &Route) -> Option<String> {
        let names = |names: &[String]| names.join(", ");
        match self.intervals.span(&route.mutes) {
            Span::Never => {}
            Span::Sometimes => {
                return Some(format!(
                    "this route is muted part of the time (mute_time_intervals: {})",
                    names(&route.mutes)
                ));
            }
            Span::Always => {
                return Some(format!(
                    "this route is always muted (mute_time_intervals: {})",
                    names(&route.mutes)
                ));
            }
        }
        if route.active.is_empty() {
            return None;
        }
        match self.intervals.span(&route.active) {
            Span::Always => None,
            Span::Sometimes => Some(format!(
                "this route is active only part of the time (active_time_intervals: {})",
                names(&route.active)
            )),
            Span::Never => Some(format!(
                "this route is never active (active_time_intervals: {})",
                names(&route.active)
            )),
        }
    }

    /// A fault's place.
    pub(in crate::commands) fn place(&self, line: u64) -> Place {
        Place { file: self.file.clone(), line }
    }
}

impl Route {
    /// What the uppermost route has from Alertmanager itself.
    fn above() -> Self {
        Self {
            line: 0,
            receiver: String::new(),
            matchers: Vec::new(),
            goes_on: false,
            group_by: BTreeSet::new(),
            group_by_all: false,
            group_wait: GROUP_WAIT,
            group_interval: GROUP_INTERVAL,
            repeat_interval: REPEAT_INTERVAL,
            mutes: Vec::new(),
            active: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// A route takes from the one above what it does not say itself.
    fn read(node: &Node, above: &Self) -> Result<Self, Fault> {
        node.entries()?;
        let interval = |key: &str, inherited| match node.text_of(key)? {
            None => Ok(inherited),
            Some(text) => duration::parse(text).ok_or_else(|| {
                Fault::new(
                    node.line,
                    format!("{key}: {text:?} is not a duration such as 30s or 5m"),
                )
            }),
        };
        let texts = |key: &str| -> Result<Vec<String>, Fault> {
            node.items_of(key)?.iter().map(|item| item.text().map(ToOwned::to_owned)).collect()
        };
        let mut matchers = Matcher::list(node, "matchers")?;
        matchers.extend(Matcher::mapping(node, "match", EQUAL)?);
        matchers.extend(Matcher::mapping(node, "match_re", LIKE)?);
        let group_by = texts("group_by")?;
        let all = group_by.iter().any(|label| label == "...");
        // As in dispatch/route.go: labels replace those from above, `...` alone leaves them.
        let (group_by, group_by_all) = match (all, group_by.is_empty()) {
            (true, _) => (above.group_by.clone(), true),
            (false, true) => (above.group_by.clone(), above.group_by_all),
            (false, false) => (group_by.into_iter().collect(), false),
        };
        let receiver = node.text_of("receiver")?.filter(|receiver| !receiver.is_empty());
        let mut route = Self {
            line: node.line,
            receiver: receiver.unwrap_or(&above.receiver).to_owned(),
            matchers,
            goes_on: node.get("continue").map(Node::truth).transpose()?.unwrap_or(false),
            group_by,
            group_by_all,
            group_wait: interval("group_wait", above.group_wait)?,
            group_interval: interval("group_interval", above.group_interval)?,
            repeat_interval: interval("repeat_interval", above.repeat_interval)?,
            mutes: texts("mute_time_intervals")?,
            active: texts("active_time_intervals")?,
            routes: Vec::new(),
        };
        let children = node.items_of("routes")?;
        route.routes =
            children.iter().map(|child| Self::read(child, &route)).collect::<Result<_, _>>()?;
        Ok(route)
    }

    /// What a route names must be there, else Alertmanager does not take the file.
    fn check(
        &self,
        receivers: &BTreeMap<String, Vec<Webhook>>,
        intervals: &Intervals,
    ) -> Result<(), Fault> {
        if self.receiver.is_empty() {
            return Err(Fault::new(self.line, "the uppermost route needs a receiver"));
        }
        if !receivers.contains_key(&self.receiver) {
            let what = format!("there is no receiver {:?}", self.receiver);
            return Err(Fault::new(self.line, what));
        }
        if let Some(name) = self.mutes.iter().chain(&self.active).find(|name| !intervals.has(name))
        {
            return Err(Fault::new(self.line, format!("there is no time interval {name:?}")));
        }
        self.routes.iter().try_for_each(|route| route.check(receivers, intervals))
    }

    /// Adds the paths to the routes that take the alert. Whether one did.
    fn walk<'a>(
        &'a self,
        world: &mut World,
        labels: &Labels,
        above: &mut Way<'a>,
        taken_by: &mut Vec<Way<'a>>,
    ) -> bool {
        if !self.matchers.iter().all(|matcher| world.matches(matcher, labels)) {
            return false;
        }
        above.push(self);
        let mut taken = false;
        for child in &self.routes {
            if child.walk(world, labels, above, taken_by) {
                taken = true;
                if !child.goes_on {
                    break;
                }
            }
        }
        if !taken {
            taken_by.push(above.clone());
        }
        above.pop();
        true
    }

    fn add_hosts<'a>(&'a self, hosts: &mut BTreeSet<&'a str>) {
        let matchers = self.matchers.iter().filter(|matcher| matcher.label == "host");
        hosts.extend(matchers.flat_map(Matcher::names).filter(|name| !name.is_empty()));
        self.routes.iter().for_each(|route| route.add_hosts(hosts));
    }

    /// Shows `look` each route at and below this one, with the one host that it is for, if it is for
    /// one; `above` is the host that those above are for.
    fn each<'a>(
        &'a self,
        above: Option<&'a str>,
        look: &mut impl FnMut(&'a Self, Option<&'a str>),
    ) {
        let mut matchers = self.matchers.iter().filter(|matcher| matcher.label == "host");
        let host = matchers.find_map(|matcher| match matcher.names().as_slice() {
            [host] if !host.is_empty() => Some(*host),
            _ => None,
        });
        let host = host.or(above);
        look(self, host);
        self.routes.iter().for_each(|route| route.each(host, look));
    }

    /// The same without the routes below it that are for another host.
    fn for_host(&self, host: &str) -> Self {
        let is_others = |route: &&Self| {
            let of_host = route.matchers.iter().filter(|matcher| matcher.label == "host");
            of_host.filter_map(|matcher| matcher.only_value(true)).any(|value| value != host)
        };
        let routes = self.routes.iter().filter(|route| !is_others(route));
        Self {
            line: self.line,
            receiver: self.receiver.clone(),
            matchers: self.matchers.clone(),
            goes_on: self.goes_on,
            group_by: self.group_by.clone(),
            group_by_all: self.group_by_all,
            group_wait: self.group_wait,
            group_interval: self.group_interval,
            repeat_interval: self.repeat_interval,
            mutes: self.mutes.clone(),
            active: self.active.clone(),
            routes: routes.map(|route| route.for_host(host)).collect(),
        }
    }

    /// Whether alerts that differ in `label` are told apart.
    pub(super) fn groups_by(&self, label: &str) -> bool {
        self.group_by_all || self.group_by.contains(label)
    }

    /// Whether each notification is of one alert alone.
    pub(super) fn groups_by_all(&self) -> bool {
        self.group_by_all
    }

    /// Whether it is for the host of this name alone.
    pub(super) fn is_for_host(&self, host: &str) -> bool {
        let mut matchers = self.matchers.iter().filter(|matcher| matcher.label == "host");
        matchers.any(|matcher| matcher.names() == [host])
    }

    /// Whether its matchers on a label take this value.
    pub(super) fn takes(&self, label: &str, value: &str) -> bool {
        let mut matchers = self.matchers.iter().filter(|matcher| matcher.label == label);
        matchers.all(|matcher| matcher.matches_text(value) != Answer::No)
    }

    /// How long until a group that does not change is notified again: `repeat_interval` rounded up
    /// to the next tick of `group_interval` AFTER it, so that 5m of 5m is 10m.
    pub(super) fn effective_repeat(&self) -> Duration {
        let tick = self.group_interval.as_millis();
        let Some(ticks) = self.repeat_interval.as_millis().checked_div(tick) else {
            return self.repeat_interval;
        };
        // On the tick itself, a fraction of a second decides whether this one or the next tells.
        // With short ticks that costs nothing, and the rounding is left out.
        if tick <= 10_000 {
            return self.repeat_interval;
        }
        let whole = (ticks + 1).saturating_mul(tick);
        Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
    }
}

/// An inhibit rule: while an alert of its source fires, none of its target is notified that has the
/// same values of certain labels.
#[derive(Clone, Debug)]
pub(super) struct Inhibition {
    pub(super) line: u64,
    /// Each a way to be the source; since 0.31 there can be several.
    sources: Vec<Source>,
    target: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Source {
    matchers: Vec<Matcher>,
    equal: Vec<String>,
}

impl Inhibition {
    fn read(node: &Node) -> Result<Self, Fault> {
        let matchers = |node: &Node, side: &str| -> Result<Vec<Matcher>, Fault> {
            let mut matchers = Matcher::list(node, &format!("{side}_matchers"))?;
            matchers.extend(Matcher::mapping(node, &format!("{side}_match"), EQUAL)?);
            matchers.extend(Matcher::mapping(node, &format!("{side}_match_re"), LIKE)?);
            Ok(matchers)
        };
        let source = |node: &Node| -> Result<Source, Fault> {
            let equal = node.items_of("equal")?;
            let equal = equal.iter().map(|label| label.text().map(ToOwned::to_owned));
            Ok(Source {
                matchers: matchers(node, "source")?,
                equal: equal.collect::<Result<_, _>>()?,
            })
        };
        let more = node.items_of("sources")?;
        let sources = if more.is_empty() {
            vec![source(node)?]
        } else {
            more.iter().map(source).collect::<Result<_, _>>()?
        };
        Ok(Self { line: node.line, sources, target: matchers(node, "target")? })
    }

    /// Whether it is about an alert of these labels, in this world.
    pub(super) fn is_about(&self, world: &mut World, alert: &Labels) -> bool {
        self.target.iter().all(|matcher| world.matches(matcher, alert))
    }

    /// Whether an alert with the labels of `other`, where they are known, can hold back `alert`,
    /// which it is about. What is not known of the other may be anything, but not an alert of one
    /// of the names in `but`.
    pub(super) fn holds(
        &self,
        alert: &Labels,
        other: &BTreeMap<String, String>,
        but: &BTreeSet<&str>,
    ) -> bool {
        self.sources.iter().any(|source| source.holds(&self.target, alert, other, but))
    }
}

impl Source {
    fn holds(
        &self,
        target: &[Matcher],
        alert: &Labels,
        other: &BTreeMap<String, String>,
        but: &BTreeSet<&str>,
    ) -> bool {
        // What must be the same in both is known of the other, if it is known of the alert; and
        // what the other must be to be a source.
        let mut other = other.clone();
        for label in &self.equal {
            if let Value::Known(value) = alert.get(label)
                && other.entry(label.clone()).or_insert_with(|| value.clone()) != &value
            {
                return false;
            }
        }
        for matcher in &self.matchers {
            if let Some(value) = matcher.only_value(true) {
                other.entry(matcher.label.clone()).or_insert_with(|| value.to_owned());
            }
        }
        if other.get("alertname").is_some_and(|name| but.contains(name.as_str())) {
            return false;
        }
        let answer = |matcher: &Matcher| match other.get(&matcher.label) {
            Some(value) => matcher.matches_text(value),
            None => Answer::Depends,
        };
        let is_source = self.matchers.iter().all(|matcher| answer(matcher) != Answer::No);
        // One that is of both sides does not hold back another that is of both.
        let both_sides = self
            .matchers
            .iter()
            .all(|matcher| matcher.matches(&alert.get(&matcher.label)) == Answer::Yes);
        let is_target = target.iter().all(|matcher| {
            let same = self.matchers.iter().any(|one| one.text == matcher.text);
            same || answer(matcher) == Answer::Yes
        });
        is_source && !(both_sides && is_target)
    }
}
