//! Alertmanager's routes: which receivers an alert reaches, in which group, how often.
//!
//! The walk is the one of Alertmanager's own `dispatch/route.go`: the first child that matches
//! takes the alert, later ones only where it says `continue`; a node none of whose children
//! matches takes it itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Place;
use super::rules::ReadError;
use crate::duration;

/// Alertmanager's defaults (its documentation, "Route").
const GROUP_INTERVAL: Duration = Duration::from_mins(5);
const REPEAT_INTERVAL: Duration = Duration::from_hours(4);

/// The routes of one Alertmanager configuration, and which receivers call a webhook.
#[derive(Debug)]
pub struct Routing {
    /// The file.
    pub file: PathBuf,
    root: Route,
    webhooks: BTreeSet<String>,
}

/// A route that an alert reaches.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The receiver's name.
    pub receiver: String,
    /// Whether the receiver calls a webhook.
    pub is_webhook: bool,
    /// Where the route stands.
    pub place: Place,
    group_by: Vec<String>,
    group_interval: Duration,
    repeat_interval: Duration,
}

impl Reached {
    /// Whether alerts that differ in `label` are told apart.
    #[must_use]
    pub fn groups_by(&self, label: &str) -> bool {
        self.group_by.iter().any(|name| name == label || name == "...")
    }

    /// How long until a group that does not change is told again: `repeat_interval` rounded up
    /// to the next tick of `group_interval` AFTER it, so that 5m of 5m is 10m.
    #[must_use]
    pub fn effective_repeat(&self) -> Duration {
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

#[derive(Debug)]
struct Route {
    receiver: String,
    matchers: Vec<Matcher>,
    goes_on: bool,
    group_by: Vec<String>,
    group_interval: Duration,
    repeat_interval: Duration,
    routes: Vec<Route>,
    place: Place,
}

#[derive(Debug)]
struct Matcher {
    label: String,
    value: Regex,
    negated: bool,
}

#[derive(Deserialize)]
struct RawFile {
    route: Spanned<RawRoute>,
    #[serde(default)]
    receivers: Vec<RawReceiver>,
}

#[derive(Deserialize)]
struct RawReceiver {
    name: String,
    #[serde(default)]
    webhook_configs: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawRoute {
    receiver: Option<String>,
    group_by: Option<Vec<String>>,
    group_interval: Option<String>,
    repeat_interval: Option<String>,
    #[serde(default)]
    matchers: Vec<String>,
    #[serde(default, rename = "match")]
    equal: BTreeMap<String, String>,
    #[serde(default, rename = "match_re")]
    like: BTreeMap<String, String>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    #[serde(default)]
    routes: Vec<Spanned<RawRoute>>,
}

impl Routing {
    /// Reads an Alertmanager configuration. Whether it is valid in every other respect is
    /// `amtool check-config`'s to say.
    pub fn read(file: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(file).map_err(|e| ReadError::Io(file.to_owned(), e))?;
        Self::parse(file, &text)
    }

    /// What a configuration says, which `file` is only the name of.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ReadError> {
        let raw: RawFile = serde_saphyr::from_str(text)
            .map_err(|error| ReadError::Yaml(file.to_owned(), Box::new(error)))?;
        let webhooks = raw
            .receivers
            .into_iter()
            .filter(|receiver| !receiver.webhook_configs.is_empty())
            .map(|receiver| receiver.name)
            .collect();
        let above = Route {
            receiver: String::new(),
            matchers: Vec::new(),
            goes_on: false,
            group_by: Vec::new(),
            group_interval: GROUP_INTERVAL,
            repeat_interval: REPEAT_INTERVAL,
            routes: Vec::new(),
            place: Place { file: file.to_owned(), line: 0 },
        };
        let root = Route::from_raw(raw.route, &above)?;
        if !root.matchers.is_empty() {
            let problem = "the uppermost route has matchers, and must take every alert";
            return Err(ReadError::Value(root.place, problem.to_owned()));
        }
        Ok(Self { file: file.to_owned(), root, webhooks })
    }

    /// The routes that an alert with these labels reaches; at least one.
    #[must_use]
    pub fn reached(&self, labels: &BTreeMap<String, String>) -> Vec<Reached> {
        let mut reached = Vec::new();
        self.root.walk(labels, &mut reached);
        reached
            .into_iter()
            .map(|route| Reached {
                receiver: route.receiver.clone(),
                is_webhook: self.webhooks.contains(&route.receiver),
                place: route.place.clone(),
                group_by: route.group_by.clone(),
                group_interval: route.group_interval,
                repeat_interval: route.repeat_interval,
            })
            .collect()
    }
}

impl Route {
    /// A route takes from the one above what it does not say itself.
    fn from_raw(raw: Spanned<RawRoute>, above: &Self) -> Result<Self, ReadError> {
        let place = Place { file: above.place.file.clone(), line: raw.referenced.line() };
        let raw = raw.value;
        let interval = |text: Option<String>, inherited| match text {
            None => Ok(inherited),
            Some(text) => duration::parse(&text)
                .ok_or_else(|| ReadError::Value(place.clone(), format!("{text:?} is no duration"))),
        };
        let mut matchers = raw
            .matchers
            .iter()
            .flat_map(|text| split_matchers(text))
            .map(|text| Matcher::parse(text, &place))
            .collect::<Result<Vec<_>, _>>()?;
        for (label, value) in raw.equal {
            matchers.push(Matcher::new(label, "=", &value, &place)?);
        }
        for (label, value) in raw.like {
            matchers.push(Matcher::new(label, "=~", &value, &place)?);
        }
        let mut route = Self {
            receiver: raw.receiver.unwrap_or_else(|| above.receiver.clone()),
            matchers,
            goes_on: raw.goes_on,
            group_by: raw.group_by.unwrap_or_else(|| above.group_by.clone()),
            group_interval: interval(raw.group_interval, above.group_interval)?,
            repeat_interval: interval(raw.repeat_interval, above.repeat_interval)?,
            routes: Vec::new(),
            place,
        };
        route.routes = raw
            .routes
            .into_iter()
            .map(|child| Self::from_raw(child, &route))
            .collect::<Result<_, _>>()?;
        Ok(route)
    }

    /// Adds the routes that take the alert. Whether one did.
    fn walk<'a>(&'a self, labels: &BTreeMap<String, String>, taken_by: &mut Vec<&'a Self>) -> bool {
        if !self.matchers.iter().all(|matcher| matcher.matches(labels)) {
            return false;
        }
        let mut taken = false;
        for child in &self.routes {
            if child.walk(labels, taken_by) {
                taken = true;
                if !child.goes_on {
                    break;
                }
            }
        }
        if !taken {
            taken_by.push(self);
        }
        true
    }
}

/// One string may hold several matchers: `{a="b", c=~"d"}`. Commas within quotes do not count.
fn split_matchers(text: &str) -> Vec<&str> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == ',' && !quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        ends
    })
    .filter(|part| !part.trim().is_empty())
    .collect()
}

impl Matcher {
    fn parse(text: &str, place: &Place) -> Result<Self, ReadError> {
        let fault = || ReadError::Value(place.clone(), format!("{text:?} is no matcher"));
        let start = text.find(['=', '!']).ok_or_else(fault)?;
        let (label, rest) = text.split_at(start);
        let operator = ["=~", "!~", "!=", "="]
            .into_iter()
            .find(|operator| rest.starts_with(operator))
            .ok_or_else(fault)?;
        let value = rest.strip_prefix(operator).unwrap_or_default().trim();
        let value = match value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
            Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => value.to_owned(),
        };
        Self::new(label.trim().trim_matches('"').to_owned(), operator, &value, place)
    }

    fn new(label: String, operator: &str, value: &str, place: &Place) -> Result<Self, ReadError> {
        let pattern = if operator.ends_with('~') { value.to_owned() } else { regex::escape(value) };
        let value = Regex::new(&format!("^(?:{pattern})$"))
            .map_err(|error| ReadError::Value(place.clone(), error.to_string()))?;
        Ok(Self { label, value, negated: operator.starts_with('!') })
    }

    /// A label that is not there counts as empty.
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.label).map_or("", String::as_str);
        self.value.is_match(value) != self.negated
    }
}
