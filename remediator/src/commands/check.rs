//! `--check`: is the policy good, what does it mean, and do rules and routes agree with it?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use procstorm_processes::name_service::NameService;
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::security::config::ConfigError;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::account::standing::Lists;
use crate::commands::agreement::routes::Routing;
use crate::commands::agreement::rules::{ReadError, Rules};
use crate::commands::agreement::webhook::{Here, WebAsks};
use crate::commands::agreement::{Finding, Place, Playbook, Policy, Verdict, check};
use crate::policy::{Config, LoadError};

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The policy.
    pub policy: &'a Path,
    /// The host's name where the policy gives none.
    pub machine: &'a str,
    /// The daemon's `--web.listen-address`.
    pub listen: &'a [String],
    /// The daemon's `--web.config.file`.
    pub web_config: Option<&'a Path>,
    /// What the policy is held against.
    pub others: Option<Others<'a>>,
}

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
    /// The web configuration has faults.
    #[error(transparent)]
    Web(#[from] ConfigError),
    /// One of the others cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// All can be read, and they do not agree. A line for each disagreement.
    #[error("{}", lines(.0))]
    Disagree(Vec<Finding>),
}

/// The policy in plain sentences, if it is good and the others do not disagree with it. Says that
/// they agree only where an alert of each row reaches this host; else what cannot be told.
pub fn report(question: &Question<'_>) -> Result<String, CheckError> {
    let Question { policy: file, machine, listen, web_config, others } = *question;
    let config = Config::read(file, machine)?;
    let web = web_config.map(Security::open).transpose()?;
    let mut text = config.explain();
    for warning in config.warnings(&std::fs::read_to_string(file).unwrap_or_default()) {
        writeln!(text, "{}:{}: warning: {warning}", file.display(), warning.line).ok();
    }
    let accounts = &config.accounts;
    let lists = Lists::resolve(&accounts.protected, accounts.only.as_deref(), &names(), None);
    text.push_str(&lists.meanings());
    for doubt in lists.doubts().into_iter().chain(lists.contradictions(accounts.min_uid)) {
        writeln!(text, "{}: warning: {doubt}", file.display()).ok();
    }
    for place in config.sandbox.read.iter().filter(|place| !place.exists()) {
        writeln!(
            text,
            "{}: warning: sandbox.read: there is no {}; the daemon will not be ready",
            file.display(),
            place.display()
        )
        .ok();
    }
    if let Some(others) = others {
        let here = Here {
            listen: listen.to_vec(),
            web: web.as_ref().map(asks),
            token_file: config.token_file.clone(),
            alertmanagers: alertmanagers(&config),
            elsewhere: false,
        };
        let (rules, routing) = (Rules::read(others.rules)?, Routing::read(others.alertmanager)?);
        let verdict = check(&policy(&config, file), &rules, &routing, &here);
        if !verdict.disagreements.is_empty() {
            return Err(CheckError::Disagree(verdict.disagreements));
        }
        text.push_str(&spoken(&verdict, rules.requests.len(), others));
        text.push_str(&beyond(&config));
    }
    Ok(text)
}

fn names() -> NameService {
    NameService::default()
}

fn asks(security: &Security) -> WebAsks {
    WebAsks {
        tls: security.speaks_tls(),
        password: security.asks_for_password(),
        certificate: security.verifies_clients(),
    }
}

/// The hosts of the Alertmanagers that outcomes are posted to.
pub(super) fn alertmanagers(config: &Config) -> Vec<String> {
    let hosts = config.alertmanager.iter().filter_map(|uri| uri.host());
    hosts.map(|host| host.trim_matches(['[', ']']).to_owned()).collect()
}

/// What the three files cannot show, whatever stands in them.
fn beyond(config: &Config) -> String {
    let mut text = format!(
        "Not compared: the label host of this host's targets in Prometheus, which must be exactly \
         {:?}",
        config.host
    );
    for (name, playbook) in &config.playbooks {
        let commands: Vec<_> = playbook.commands.iter().map(|command| command.to_text()).collect();
        write!(
            text,
            "; and which commands the rules find, of which {name} acts only on {}",
            commands.join(", ")
        )
        .ok();
    }
    text.push_str(".\n");
    text
}

/// What is said where nothing disagrees.
fn spoken(verdict: &Verdict, asked: usize, others: Others<'_>) -> String {
    let (rules, alertmanager) = (others.rules.display(), others.alertmanager.display());
    let mut text = String::new();
    let role = verdict.role.as_ref().map(|role| format!(" for a host of role {role}"));
    let role = role.unwrap_or_default();
    let places = if asked == 1 { "place" } else { "places" };
    // Writing to a String does not fail.
    if verdict.agrees() {
        writeln!(
            text,
            "{rules} names playbooks at {asked} {places}, and {alertmanager} sends every alert that \
             names one of this host's to its webhook: the three agree{role}."
        )
        .ok();
    } else {
        writeln!(
            text,
            "No fault was found in {rules} and {alertmanager}{role}. These files do not show whether \
             each alert reaches this host's webhook and is acted on, because:"
        )
        .ok();
        writeln!(text, "{}", lines(&verdict.unsure)).ok();
    }
    if !verdict.notes.is_empty() {
        writeln!(text, "Also note:\n{}", lines(&verdict.notes)).ok();
    }
    text
}

pub(super) fn policy(config: &Config, file: &Path) -> Policy {
    let lines = lines_of_playbooks(file);
    let playbooks = config.playbooks.iter().map(|(name, book)| {
        let line = lines.get(name).copied().unwrap_or_default();
        let playbook = Playbook {
            alerts: book.alerts.clone(),
            commands: book.commands.iter().map(|one| one.to_text().into_owned()).collect(),
            threshold: book.threshold,
            cooldown: book.cooldown,
            place: Place { file: file.to_owned(), line },
        };
        (name.clone(), playbook)
    });
    let protected = config.accounts.protected.iter().map(|name| name.to_string());
    Policy {
        host: config.host.clone(),
        left_alone: protected.chain(["root".to_owned()]).collect(),
        playbooks: playbooks.collect(),
    }
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

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
