//! Prometheus' rule files: which rows of the threshold table (or alerts) ask for a playbook.
//!
//! - [`Rules`]: what the files say, as far as a playbook is concerned.
//! - [`Request`]: a row or an alert that asks.
//! - [`AlertRule`]: an alert, with the labels that its rule and its group give it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Place, role_of};
use crate::policy::duration;
use crate::policy::yaml::{self, Fault, Node};

/// Somebody who asks for a playbook: a row of the threshold table, or an alert rule.
#[derive(Clone, Debug)]
pub struct Request {
    /// The playbook's name.
    pub playbook: String,
    /// The count from which on it is asked for; `None` where the expression is not `vector(N)`.
    pub threshold: Option<u64>,
    /// The labels that the asking alert will bear from here.
    pub labels: BTreeMap<String, String>,
    /// The alert rule that asks, as its place in [`Rules::alerts`]; `None` for a row.
    pub alert: Option<usize>,
    /// Where it stands.
    pub place: Place,
}

/// An alert rule.
#[derive(Clone, Debug)]
pub struct AlertRule {
    /// The alert's name.
    pub name: String,
    /// What its rule and its group give it. Some are templates, known only when it fires.
    pub labels: BTreeMap<String, String>,
    /// How long its condition must hold before it fires, with the delays of its group.
    pub delay: Duration,
    /// How long it fires after its condition has ended.
    pub keep_firing: Duration,
    /// The most alerts that it may make at once, if there is such a limit.
    pub limit: Option<u64>,
    /// Its expression.
    pub expr: String,
    /// Where it stands.
    pub place: Place,
}

/// What the rule files say, as far as a playbook is concerned.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Who asks.
    pub requests: Vec<Request>,
    /// The alerts, of which several can have one name.
    pub alerts: Vec<AlertRule>,
}

/// Why rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory or a file cannot be read.
    #[error("cannot read {}", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// A file is not YAML, or a value in it is wrong.
    #[error("{0}: {1}")]
    Value(Place, String),
    /// A directory without a rule file.
    #[error("{0}: no *.rules.yml or *.rules.yaml in it")]
    Empty(PathBuf),
}

impl ReadError {
    pub(in crate::commands) fn fault(file: &Path, fault: Fault) -> Self {
        Self::Value(Place { file: file.to_owned(), line: fault.line }, fault.what)
    }
}

impl Rules {
    /// The same without the rows of other roles.
    #[must_use]
    pub fn for_role(&self, role: &str) -> Self {
        let mut rules = self.clone();
        rules.requests.retain(|request| role_of(request, self).is_none_or(|its| its == role));
        rules
    }

    /// The roles of which a row asks for a playbook, each with its first row.
    #[must_use]
    pub fn roles_with_playbooks(&self) -> BTreeMap<String, Place> {
        let mut roles = BTreeMap::new();
        for request in &self.requests {
            if let Some(role) = role_of(request, self) {
                roles.entry(role).or_insert_with(|| request.place.clone());
            }
        }
        roles
    }

    /// Reads a rule file, or all `*.rules.yml` and `*.rules.yaml` of a directory.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let mut rules = Self::default();
        let files = if path.is_dir() { rule_files(path)? } else { vec![path.to_owned()] };
        if files.is_empty() {
            return Err(ReadError::Empty(path.to_owned()));
        }
        for file in files {
            let text =
                std::fs::read_to_string(&file).map_err(|e| ReadError::Io(file.clone(), e))?;
            rules.add(&file, &text)?;
        }
        Ok(rules)
    }

    /// What one rule file says, which `path` is only the name of.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ReadError> {
        let mut rules = Self::default();
        rules.add(path, text)?;
        Ok(rules)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), ReadError> {
        self.add_file(path, text).map_err(|fault| ReadError::fault(path, fault))
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Fault> {
        let Some(file) = yaml::read(text)? else { return Ok(()) };
        file.entries()?;
        for group in file.items_of("groups")? {
            let of_group = group.texts_of("labels")?;
            let delay = span(group, "interval")?.saturating_add(span(group, "query_offset")?);
            let limit = group.text_of("limit")?.and_then(|text| text.parse().ok());
            for rule in group.items_of("rules")? {
                // A rule's own labels stand over its group's; an empty one takes it away.
                let mut labels = of_group.clone();
                labels.extend(rule.texts_of("labels")?);
                let expr = rule.text_of("expr")?.unwrap_or_default().to_owned();
                let place = Place { file: path.to_owned(), line: rule.line };
                let alert = rule.text_of("alert")?.filter(|name| !name.is_empty());
                if let Some(playbook) = labels.get("playbook").filter(|name| !name.is_empty()) {
                    self.requests.push(Request {
                        playbook: playbook.clone(),
                        threshold: constant(&expr),
                        labels: labels.clone(),
                        alert: alert.map(|_| self.alerts.len()),
                        place: place.clone(),
                    });
                }
                if let Some(name) = alert {
                    self.alerts.push(AlertRule {
                        name: name.to_owned(),
                        labels,
                        delay: delay.saturating_add(span(rule, "for")?),
                        keep_firing: span(rule, "keep_firing_for")?,
                        limit: limit.filter(|limit| *limit > 0),
                        expr,
                        place,
                    });
                }
            }
        }
        Ok(())
    }
}

impl AlertRule {
    /// The values that its expression selects by `label="..."`, each once.
    #[must_use]
    pub fn selects(&self, label: &str) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        let mut rest = self.expr.as_str();
        while let Some(at) = rest.find(label) {
            let before = rest.get(..at).unwrap_or_default();
            rest = rest.get(at.saturating_add(label.len())..).unwrap_or_default();
            let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if before.ends_with(of_word) {
                continue;
            }
            let Some(value) = rest.trim_start().strip_prefix('=') else { continue };
            let value = value.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
            let Some(quote) = quote else { continue };
            let value = value.get(1..).and_then(|value| value.split_once(quote));
            if let Some((value, _)) = value
                && !found.contains(&value)
            {
                found.push(value);
            }
        }
        found
    }
}

fn span(node: &Node, key: &str) -> Result<Duration, Fault> {
    let Some(text) = node.text_of(key)?.filter(|text| !text.is_empty()) else {
        return Ok(Duration::ZERO);
    };
    duration::parse(text).ok_or_else(|| {
        Fault::new(node.line, format!("{key}: {text:?} is not a duration such as 30s"))
    })
}

fn rule_files(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut files = read().map_err(|error| ReadError::Io(directory.to_owned(), error))?;
    let is_rules = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".rules.yml") || name.ends_with(".rules.yaml")
    };
    files.retain(is_rules);
    files.sort();
    Ok(files)
}

/// N of `vector(N)`, rounded up to whole processes, in the forms that PromQL has for it.
fn constant(expr: &str) -> Option<u64> {
    let lines = expr.lines().map(|line| line.split('#').next().unwrap_or_default());
    let expr: String = lines.collect::<Vec<_>>().join(" ");
    let inner = without_parentheses(&expr).strip_prefix("vector")?.trim_start();
    let inner = inner.strip_prefix('(')?.strip_suffix(')')?;
    number(without_parentheses(inner))
}

fn without_parentheses(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        text = inner.trim();
    }
    text
}

fn number(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text).trim_start();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    let octal = text.len() > 1 && text.starts_with('0') && !text.contains(['.', 'e', 'E']);
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    // A number with a leading 0 is octal, if its digits allow it: not in use, and not read.
    if octal || text.starts_with('-') || !text.chars().all(numeric) {
        return None;
    }
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let value: f64 = text.parse().ok()?;
    let whole = format!("{:.0}", value.ceil());
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_in_each_form() {
        for (expr, expected) in [
            ("vector(90)", Some(90)),
            (" vector ( 90 ) # a comment\n", Some(90)),
            ("(vector((90.0)))", Some(90)),
            ("vector(89.5)", Some(90)),
            ("vector(9e1)", Some(90)),
            ("vector(0x5A)", Some(90)),
            ("vector(+90)", Some(90)),
            ("vector(-1)", None),
            ("vector(010)", None),
            ("vector(1) + vector(89)", None),
            ("vector(30 * 3)", None),
            ("vector(Inf)", None),
            ("vector(1e400)", None),
            ("vector(time())", None),
            ("scalar(x)", None),
        ] {
            assert_eq!(constant(expr), expected, "{expr}");
        }
    }

    #[test]
    fn selectors_are_found_in_an_expression() {
        let text = "groups: [{name: g, rules: [{alert: A, expr: 'x{level=\"red\", \
                    myrole=\"no\", role = `mail`, host=~\"a\", level=\"red\"} > 1'}]}]";
        let rules = Rules::parse(Path::new("a.yml"), text).expect("rules");
        let alert = rules.alerts.first().expect("an alert");
        assert_eq!(alert.selects("level"), ["red"]);
        assert_eq!(alert.selects("role"), ["mail"]);
        assert_eq!(alert.selects("host"), Vec::<&str>::new());
    }
}
