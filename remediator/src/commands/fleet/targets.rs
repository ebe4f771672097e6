//! The list of hosts: a file of Prometheus' `file_sd_configs`, in YAML or JSON.
//!
//! - [`Targets::read`]: the hosts, and what is wrong with the list.
//! - [`Host`]: a host as the list names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::commands::agreement::rules::ReadError;
use crate::commands::agreement::{Finding, Place};
use crate::policy::yaml::{self, Fault, Node};

/// The largest list that is read: 100,000 hosts have some 10 MB.
const FILE_MAX: u64 = 64 << 20;

/// A host of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The label `host` of its alerts: the label of this name or, as in the shipped `prometheus.yml`,
    /// the target without port and brackets.
    pub name: String,
    /// The target as it is written.
    pub target: String,
    /// The target without its port: where Prometheus and Alertmanager find it.
    pub address: String,
    /// Its label `role`; empty if it has none.
    pub role: String,
    /// All of its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub place: Place,
}

/// The list.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The file.
    pub file: PathBuf,
    /// Its hosts, in the order of the list, each once.
    pub hosts: Vec<Host>,
    /// What is wrong with it.
    pub faults: Vec<Finding>,
}

impl Targets {
    /// Reads a list.
    pub fn read(file: &Path) -> Result<Self, ReadError> {
        let read = || {
            if std::fs::metadata(file)?.len() > FILE_MAX {
                return Err(std::io::Error::other(format!("it is larger than {FILE_MAX} bytes")));
            }
            std::fs::read_to_string(file)
        };
        let text = read().map_err(|error| ReadError::Io(file.to_owned(), error))?;
        Self::parse(file, &text)
    }

    /// What a list says, which `file` is only the name of.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ReadError> {
        let mut targets = Self { file: file.to_owned(), hosts: Vec::new(), faults: Vec::new() };
        let read = || -> Result<Vec<Host>, Fault> {
            let Some(root) = yaml::read(text)? else { return Ok(Vec::new()) };
            let mut hosts = Vec::new();
            for group in root.items()? {
                hosts.extend(group_of(file, group)?);
            }
            Ok(hosts)
        };
        let hosts = read().map_err(|fault| ReadError::fault(file, fault))?;
        if hosts.is_empty() {
            let place = Place { file: file.to_owned(), line: 1 };
            targets.faults.push(Finding { place, what: "no host is in it".to_owned() });
        }
        targets.take(hosts);
        Ok(targets)
    }

    /// Takes each host once. Names are compared as Alertmanager compares labels, and as DNS does.
    fn take(&mut self, hosts: Vec<Host>) {
        let mut seen: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for host in hosts {
            if let Some(what) = unfit_host(&host) {
                self.faults.push(Finding { place: host.place, what });
                continue;
            }
            let key = host.name.to_ascii_lowercase();
            if let Some((line, name)) = seen.get(&key) {
                let what = format!("host {:?} is already in line {line}, as {name:?}", host.name);
                self.faults.push(Finding { place: host.place, what });
                continue;
            }
            seen.insert(key, (host.place.line, host.name.clone()));
            self.hosts.push(host);
        }
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

/// The hosts of one group of targets.
fn group_of(file: &Path, group: &Node) -> Result<Vec<Host>, Fault> {
    group.entries()?;
    let labels = group.texts_of("labels")?;
    let mut hosts = Vec::new();
    for target in group.items_of("targets")? {
        let text = target.text()?;
        let address = address(text)
            .ok_or_else(|| Fault::new(target.line, format!("{text:?} is not HOST or HOST:PORT")))?;
        let name = labels.get("host").filter(|host| !host.is_empty()).unwrap_or(&address);
        hosts.push(Host {
            name: name.clone(),
            role: labels.get("role").cloned().unwrap_or_default(),
            labels: labels.clone(),
            place: Place { file: file.to_owned(), line: target.line },
            target: text.to_owned(),
            address,
        });
    }
    Ok(hosts)
}

/// A target without its port, and without the brackets of an IPv6 address: as the shipped
/// `relabel_configs` make the label `host`.
fn address(target: &str) -> Option<String> {
    let (name, port) = match target.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match target.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (target, None),
        },
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (port_fits && !name.is_empty()).then(|| name.to_owned())
}

/// What keeps a host of the list out of the files that are made of it.
fn unfit_host(host: &Host) -> Option<String> {
    unfit(&host.name)
        // It stands in a quoted url, and need not be the name.
        .or_else(|| unfit(&host.address).map(|what| format!("address {what}")))
        .or_else(|| {
            let parts = |c: char| c.is_whitespace() || c.is_control();
            host.role.contains(parts).then(|| {
                format!(
                    "role {:?} has a blank or a control character, which would end the label in \
                     routes.tsv",
                    host.role
                )
            })
        })
}

/// Why a name cannot be that of a host: it becomes a part of matchers, urls and file names.
pub(in crate::commands) fn unfit(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let fits = name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let fits = fits || name.parse::<std::net::Ipv6Addr>().is_ok();
    (!fits || name.len() > 253)
        .then(|| format!("{name:?} is not a host's name of letters, digits, '.', '-' and '_'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_in_any_form_has_its_host() {
        for (target, host) in [
            ("moscow:9957", Some("moscow")),
            ("moscow", Some("moscow")),
            ("[2001:db8::1]:9957", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("moscow.example.org:9957", Some("moscow.example.org")),
            ("moscow:port", None),
            ("", None),
            (":9957", None),
        ] {
            assert_eq!(address(target).as_deref(), host, "{target}");
        }
    }

    #[test]
    fn a_doubled_host_and_a_hostile_name_are_named_with_their_lines() {
        let text = "- targets: ['moscow:9957']\n  labels: {role: mail}\n- targets:\n    - Moscow\n    \
                    - \"kiev\\\"}\"\n    - nantes:9957\n";
        let targets = Targets::parse(Path::new("t.yml"), text).expect("a list");
        let names: Vec<_> = targets.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["moscow", "nantes"]);
        let faults: Vec<_> = targets.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "t.yml:4: host \"Moscow\" is already in line 1, as \"moscow\"",
                "t.yml:5: \"kiev\\\"}\" is not a host's name of letters, digits, '.', '-' and '_'",
            ]
        );
    }

    #[test]
    fn a_hostile_address_and_a_role_with_a_blank_are_named_with_their_lines() {
        // The label `host` gives each a name that is fit.
        let text = r#"
- {targets: ["moscow'}:9957"], labels: {host: moscow}}
- {targets: ['kiev"'], labels: {host: kiev}}
- {targets: ["brest\n- x:9957"], labels: {host: brest}}
- {targets: ["ro me:9957"], labels: {host: rome}}
- {targets: ["oslo\u0007:9957"], labels: {host: oslo}}
- {targets: ["lyon:9957"], labels: {role: "web mail"}}
- {targets: ["bonn:9957"], labels: {role: "web\tmail"}}
- {targets: ["[2001:db8::1]:9957", "nantes.example.org"], labels: {role: web-mail}}
"#;
        let targets = Targets::parse(Path::new("t.yml"), text).expect("a list");
        let names: Vec<_> = targets.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["2001:db8::1", "nantes.example.org"]);
        let name = "is not a host's name of letters, digits, '.', '-' and '_'";
        let role = "has a blank or a control character, which would end the label in routes.tsv";
        let faults: Vec<_> = targets.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                format!(r#"t.yml:2: address "moscow'}}" {name}"#),
                format!(r#"t.yml:3: address "kiev\"" {name}"#),
                format!(r#"t.yml:4: address "brest\n- x" {name}"#),
                format!(r#"t.yml:5: address "ro me" {name}"#),
                format!(r#"t.yml:6: address "oslo\u{{7}}" {name}"#),
                format!(r#"t.yml:7: role "web mail" {role}"#),
                format!(r#"t.yml:8: role "web\tmail" {role}"#),
            ]
        );
    }
}
