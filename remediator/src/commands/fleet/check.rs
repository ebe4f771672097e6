//! `--check --fleet`: do the list of hosts, their policies, the rules and Alertmanager's
//! configuration fit together? Each host is checked as `--check` checks one; and then what only shows
//! when all are looked at together: hosts that are missing, tokens that are swapped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::policies::{File, Policies};
use super::remediators::Remediators;
use super::targets::{Host, Targets};
use super::{FleetError, lines};
use crate::args::Args;
use crate::commands::agreement::routes::{Credentials, Routing};
use crate::commands::agreement::rules::Rules;
use crate::commands::agreement::webhook::Here;
use crate::commands::agreement::{Finding, Place, check};
use crate::commands::check::alertmanagers;
use crate::counted::counted;

/// The port that the shipped socket unit has.
const LISTEN: &str = ":9958";

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The list of hosts.
    pub fleet: &'a Path,
    /// The directory of their policies.
    pub policies: &'a Path,
    /// A rule file, or a directory of them.
    pub rules: &'a Path,
    /// Alertmanager's configuration.
    pub alertmanager: &'a Path,
    /// The daemons' `--web.listen-address`; none is all addresses, with the usual port.
    pub listen: &'a [String],
}

/// The answer to `--check --fleet`, if that is asked.
pub fn asked(args: &Args) -> Option<Result<String, FleetError>> {
    let question = Question {
        fleet: args.fleet.as_deref()?,
        policies: args.policies.as_deref()?,
        rules: args.rules.as_deref()?,
        alertmanager: args.alertmanager.as_deref()?,
        listen: &args.listen,
    };
    Some(report(&question))
}

/// What was found: of each finding, the hosts that it is about.
#[derive(Default)]
struct Found {
    order: Vec<Finding>,
    hosts: BTreeMap<(Place, String), Vec<Host>>,
}

impl Found {
    fn add(&mut self, finding: Finding, host: &Host) {
        let key = (finding.place.clone(), finding.what.clone());
        let hosts = self.hosts.entry(key).or_default();
        if hosts.is_empty() {
            self.order.push(finding);
        }
        if hosts.last().is_none_or(|last| last.name != host.name) {
            hosts.push(host.clone());
        }
    }

    /// Each finding once, with the hosts that it is about.
    fn told(self) -> Vec<Finding> {
        let Self { order, hosts } = self;
        let told = |finding: Finding| {
            let about = hosts.get(&(finding.place.clone(), finding.what.clone()));
            let about = about.map(Vec::as_slice).unwrap_or_default();
            let Some(first) = about.first() else { return finding };
            let more = match about.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let what = format!("host {:?} ({}){more}: {}", first.name, first.place, finding.what);
            Finding { place: finding.place, what }
        };
        order.into_iter().map(told).collect()
    }
}

/// What was checked in plain sentences, if nothing disagrees.
pub fn report(question: &Question<'_>) -> Result<String, FleetError> {
    let targets = Targets::read(question.fleet)?;
    let (rules, routing) = (Rules::read(question.rules)?, Routing::read(question.alertmanager)?);
    let mut policies = Policies::of(question.policies);
    let mut faults = targets.faults.clone();
    let (mut wrong, mut unsure) = (Found::default(), Found::default());
    let mut armed = Remediators::default();
    let asked = rules.roles_with_playbooks();
    let mut rows: BTreeMap<&str, Rules> = BTreeMap::new();
    for host in &targets.hosts {
        let Some(file) = policies.of_host(host)? else {
            faults.extend(lacks_policy(host, &asked, question.policies));
            continue;
        };
        armed.add(host, file);
        if let Some(finding) = Policies::names_other(file, host) {
            wrong.add(finding, host);
            continue;
        }
        let verdict = check(
            &file.policy(host),
            rows.entry(&host.role).or_insert_with(|| rules.for_role(&host.role)),
            &routing.for_host(&host.name),
            &here(file, question.listen),
        );
        verdict.disagreements.into_iter().for_each(|finding| wrong.add(finding, host));
        verdict.unsure.into_iter().for_each(|finding| unsure.add(finding, host));
    }
    faults.extend(wrong.told());
    faults.extend(armed.unheard());
    faults.extend(strangers(&targets, &routing));
    faults.extend(credentials(&targets, &routing.credentials(), &routing));
    if !faults.is_empty() {
        return Err(FleetError::Faults(faults));
    }
    Ok(spoken(&targets, &armed, &unsure.told(), question))
}

/// A host whose role has rows that ask for a playbook, and that has no policy.
fn lacks_policy(host: &Host, asked: &BTreeMap<String, Place>, directory: &Path) -> Option<Finding> {
    let row = asked.get(&host.role)?;
    let what = format!(
        "host {:?} of role {:?} has no policy, and {row} asks for a playbook: write {} or {}",
        host.name,
        host.role,
        directory.join(format!("{}.yml", host.role)).display(),
        directory.join(format!("{}.yml", host.name)).display(),
    );
    Some(Finding { place: host.place.clone(), what })
}

fn here(file: &File, listen: &[String]) -> Here {
    let listen = if listen.is_empty() { vec![LISTEN.to_owned()] } else { listen.to_vec() };
    Here {
        listen,
        web: None,
        token_file: file.config.token_file.clone(),
        alertmanagers: alertmanagers(&file.config),
        elsewhere: true,
    }
}

/// Routes for hosts that are not in the list: a name that was mistyped, or a host that is gone.
fn strangers(targets: &Targets, routing: &Routing) -> Vec<Finding> {
    let known: BTreeSet<&str> = targets.hosts.iter().map(|host| host.name.as_str()).collect();
    let routes = routing.routes_of_hosts().into_iter();
    let strange = routes.filter(|(host, _)| !known.contains(host));
    strange
        .map(|(host, line)| Finding {
            place: routing.place(line),
            what: format!(
                "a route is for host {host:?}, which is not in {}",
                targets.file.display()
            ),
        })
        .collect()
}

/// Tokens that are another host's, or those of several.
fn credentials(targets: &Targets, all: &[Credentials], routing: &Routing) -> Vec<Finding> {
    let names: BTreeSet<&str> = targets.hosts.iter().map(|host| host.name.as_str()).collect();
    let mut faults = Vec::new();
    let mut files: BTreeMap<&Path, &Credentials> = BTreeMap::new();
    let mut contents: BTreeMap<Vec<u8>, &Credentials> = BTreeMap::new();
    for one in all {
        let mut add = |what| faults.push(Finding { place: routing.place(one.line), what });
        let (host, file) = (&one.host, one.file.display());
        let owner = owner(&one.file, &names);
        if let Some(owner) = owner.filter(|owner| owner != host) {
            add(format!("the receiver of host {host:?} has {file}, the token of host {owner:?}"));
            continue;
        }
        if let Some(other) = files.insert(&one.file, one) {
            add(format!(
                "the receiver of host {host:?} has the token {file} of host {:?} (line {}): an \
                 attacker who has taken over one host could act on the other; give each its own",
                other.host, other.line
            ));
            continue;
        }
        // Where they can be read here.
        let Some(content) = token(&one.file) else { continue };
        if let Some(other) = contents.insert(content, one) {
            add(format!(
                "{file} of host {host:?} holds the same token as {} of host {:?}; give each its own",
                other.file.display(),
                other.host
            ));
        }
    }
    faults
}

/// The host whose token is in a file of this name: `HOST`, `HOST.token` or `procstorm-HOST.token`.
fn owner<'a>(file: &Path, names: &BTreeSet<&'a str>) -> Option<&'a str> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".token").unwrap_or(name);
    let plain = name.strip_prefix("procstorm-").unwrap_or(name);
    names.get(name).or_else(|| names.get(plain)).copied()
}

fn token(file: &PathBuf) -> Option<Vec<u8>> {
    // A token is one line; what is larger is none.
    let small = std::fs::metadata(file).ok()?.len() <= 4096;
    let bytes = small.then(|| std::fs::read(file).ok()).flatten()?;
    let text = bytes.trim_ascii().to_owned();
    (!text.is_empty()).then_some(text)
}

fn spoken(
    targets: &Targets,
    armed: &Remediators,
    unsure: &[Finding],
    question: &Question<'_>,
) -> String {
    let total = counted(targets.hosts.len(), "host", "hosts");
    let (rules, routes) = (question.rules.display(), question.alertmanager.display());
    let mut text = format!(
        "{}: {total}, of which {} have a policy in {}. ",
        targets.file.display(),
        armed.count(),
        question.policies.display()
    );
    if unsure.is_empty() {
        text.push_str(&format!(
            "{rules} and {routes} send every alert that names a playbook of one of them to its own \
             webhook: all agree.\n"
        ));
    } else {
        text.push_str(&format!(
            "No fault was found in {rules} and {routes}. These files do not show whether each alert \
             reaches its host's webhook and is acted on, because:\n{}\n",
            lines(unsure)
        ));
    }
    text.push_str(&armed.acting());
    text.push_str(&armed.doubts());
    text.push_str(
        "Not compared: the hosts' own tokens, certificates and --web.config.file, and whether each \
         host has the policy that is checked here. A receiver with a token, as fleet writes it, shows \
         no client certificate: with client_auth_type: RequireAndVerifyClientCert in its \
         --web.config.file, the host would refuse each webhook.\n",
    );
    text
}
