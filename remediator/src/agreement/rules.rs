//! Prometheus' rule files: which rows of the threshold table (or alerts) ask for a playbook.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Place;

/// Somebody who asks for a playbook: a row of the threshold table, or an alert rule.
#[derive(Clone, Debug)]
pub struct Request {
    /// The playbook's name.
    pub playbook: String,
    /// The count from which on it is asked for; `None` where the expression is not `vector(N)`.
    pub threshold: Option<u64>,
    /// The labels that the asking alert will bear from here.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub place: Place,
}

/// What the rule files say, as far as a playbook is concerned.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Who asks.
    pub requests: Vec<Request>,
    /// The alerts, each with the labels that its rule gives it.
    pub alerts: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory or a file cannot be read.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    /// A file is not YAML, or not what its program reads.
    #[error("{0}: {1}")]
    Yaml(PathBuf, #[source] Box<serde_saphyr::Error>),
    /// A value is wrong where it stands.
    #[error("{0}: {1}")]
    Value(Place, String),
    /// A directory without a rule file.
    #[error("{0}: no *.rules.yml or *.rules.yaml in it")]
    Empty(PathBuf),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    rules: Vec<Spanned<Rule>>,
}

#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    #[serde(default)]
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Rules {
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
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| ReadError::Yaml(path.to_owned(), Box::new(error)))?;
        for rule in file.groups.into_iter().flat_map(|group| group.rules) {
            let line = rule.referenced.line();
            let Rule { alert, expr, mut labels } = rule.value;
            if let Some(playbook) = labels.get("playbook").cloned() {
                self.requests.push(Request {
                    playbook,
                    threshold: constant(&expr),
                    labels: labels.clone(),
                    place: Place { file: path.to_owned(), line },
                });
            }
            if let Some(name) = alert {
                // A label that is a template is known only when the alert fires.
                labels.retain(|_, value| !value.contains("{{"));
                self.alerts.insert(name, labels);
            }
        }
        Ok(())
    }
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

/// N of `vector(N)`.
fn constant(expr: &str) -> Option<u64> {
    expr.trim().strip_prefix("vector(")?.strip_suffix(')')?.trim().parse().ok()
}
