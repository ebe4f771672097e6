//! `--check`: is the policy good, what does it mean, and do rules and routes agree with it?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::agreement::routes::Routing;
use crate::agreement::rules::{ReadError, Rules};
use crate::agreement::{Disagreement, Place, Playbook, Policy, check};
use crate::config::{Config, LoadError};

/// What the policy is held against; both or neither.
#[derive(Clone, Copy, Debug)]
pub struct Others<'a> {
    /// A rule file, or a directory of them.
    pub rules: &'a Path,
    /// Alertmanager's configuration.
    pub alertmanager: &'a Path,
}

/// Why the check has failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The policy has faults.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// One of the others cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// All can be read, and they do not agree. A line for each disagreement.
    #[error("{}", list(.0))]
    Disagree(Vec<Disagreement>),
}

/// The policy in plain sentences, if it is good and the others agree with it. `machine` is the
/// host's name where the policy gives none.
pub fn report(
    file: &Path,
    machine: &str,
    others: Option<Others<'_>>,
) -> Result<String, CheckError> {
    let config = Config::read(file, machine)?;
    let mut text = config.explain();
    if let Some(Others { rules: rules_path, alertmanager }) = others {
        let rules = Rules::read(rules_path)?;
        let routing = Routing::read(alertmanager)?;
        let disagreements = check(&policy(&config, file), &rules, &routing);
        if !disagreements.is_empty() {
            return Err(CheckError::Disagree(disagreements));
        }
        let (asked, rules_path) = (rules.requests.len(), rules_path.display());
        let places = if asked == 1 { "place" } else { "places" };
        // Writing to a String does not fail.
        writeln!(
            text,
            "{rules_path} asks for its playbooks at {asked} {places}, and {} brings every such alert \
             to a webhook: the three agree.",
            alertmanager.display()
        )
        .ok();
    }
    Ok(text)
}

fn policy(config: &Config, file: &Path) -> Policy {
    let lines = lines_of_playbooks(file);
    let playbooks = config.playbooks.iter().map(|(name, book)| {
        let line = lines.get(name).copied().unwrap_or_default();
        let playbook = Playbook {
            alerts: book.alerts.clone(),
            command: book.command.to_text().into_owned(),
            threshold: book.threshold,
            cooldown: book.cooldown,
            place: Place { file: file.to_owned(), line },
        };
        (name.clone(), playbook)
    });
    Policy { host: config.host.clone(), playbooks: playbooks.collect() }
}

/// Where each playbook begins. The file was read and found good before; if it has changed since,
/// the lines are left out.
fn lines_of_playbooks(file: &Path) -> BTreeMap<String, u64> {
    #[derive(Deserialize)]
    struct Document {
        playbooks: BTreeMap<String, Spanned<serde_json::Value>>,
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let document: Option<Document> = serde_saphyr::from_str(&text).ok();
    let playbooks = document.map(|document| document.playbooks).unwrap_or_default();
    playbooks.into_iter().map(|(name, book)| (name, book.referenced.line())).collect()
}

fn list(disagreements: &[Disagreement]) -> String {
    disagreements.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
