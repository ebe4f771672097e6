//! `fleet`: out of the list of hosts and their policies, the files for Alertmanager and Prometheus.
//!
//! Alertmanager's configuration has no includes, so the receivers and routes are written into a copy
//! of one ([`Base`]); all else in it stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::FleetError;
use super::base::{Base, HEADER};
use super::policies::{File, Policies, line_of};
use super::targets::{Host, Targets};
use crate::args::{Fleet, FleetForm};
use crate::commands::agreement::routes::Routing;
use crate::commands::agreement::{Finding, Place};
use crate::counted::counted;

/// The port that the remediators listen on, by the shipped socket unit.
const PORT: u16 = 9958;

/// A host that a remediator runs on, and its policy.
struct Armed {
    host: Host,
    file: File,
}

/// Writes the files, and says what is in them. Writes none if anything is wrong.
pub fn write(order: &Fleet) -> Result<String, FleetError> {
    let targets = Targets::read(&order.targets)?;
    let mut faults = targets.faults.clone();
    let mut policies = Policies::of(&order.policies);
    let (mut armed, mut without) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for host in &targets.hosts {
        match policies.of_host(host)? {
            Some(file) => {
                faults.extend(Policies::names_other(file, host));
                faults.extend(unfit(host, file, order));
                armed.push(Armed { host: host.clone(), file: file.clone() });
            }
            None => *without.entry(&host.role).or_default() += 1,
        }
    }
    if armed.is_empty() && faults.is_empty() {
        let place = targets.hosts.first().map(|host| host.place.clone());
        let place = place.unwrap_or(Place { file: order.targets.clone(), line: 1 });
        let what = format!(
            "no host of the list has a policy in {}: write ROLE.yml or HOST.yml",
            order.policies.display()
        );
        faults.push(Finding { place, what });
    }
    if !faults.is_empty() {
        return Err(FleetError::Faults(faults));
    }
    let base = Base::read(&order.base)?;
    let text =
        base.with(&routes(&armed, order.alertmanager, &base.times), &receivers(&armed, order))?;
    let alertmanager = order.output.join("alertmanager.yml");
    let mut table = table(&armed, &Routing::parse(&alertmanager, &text)?);
    table.push_str(&base.rows()?);
    let everywhere: Vec<&Host> = targets.hosts.iter().collect();
    let remediators: Vec<&Host> = armed.iter().map(|armed| &armed.host).collect();
    let files = [
        (alertmanager, text),
        (order.output.join("procstorm.json"), list(&everywhere, None)),
        (order.output.join("procstorm-remediator.json"), list(&remediators, Some(PORT))),
        (order.output.join("routes.tsv"), table),
    ];
    for (path, text) in &files {
        put(path, text)?;
    }
    Ok(spoken(&files.map(|(path, _)| path), &targets, armed.len(), &without))
}

/// What keeps a host from being one of this form.
fn unfit(host: &Host, file: &File, order: &Fleet) -> Option<Finding> {
    let place = host.place.clone();
    match order.alertmanager {
        FleetForm::PerHost => None,
        FleetForm::Templated if domain(&host.name).is_none() => Some(Finding {
            place,
            what: format!(
                "host {:?} cannot be told from a forged one by one matcher for all hosts: its first \
                 part must be of the letters a-z, digits and '-'; use --alertmanager 0.25",
                host.name
            ),
        }),
        FleetForm::Templated if file.config.token_file.is_some() => Some(Finding {
            place: Place { file: file.path.clone(), line: line_of("token_file", &file.path) },
            what: format!(
                "token_file: with one receiver for all hosts, a token would go to whatever host a label \
                 names: take the key out, and let the daemon ask for client certificates, for host {:?} \
                 ({})",
                host.name, host.place
            ),
        }),
        FleetForm::Templated => None,
    }
}

/// What follows the first part of a name, with its dot; `None` if the first part is not one that the
/// matcher takes.
fn domain(name: &str) -> Option<&str> {
    let (first, rest) = name.split_at(name.find('.').unwrap_or(name.len()));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let labels = rest.chars().all(|c| plain(c) || c == '.');
    // An address of digits has no domain.
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    (labels
        && !is_address
        && !first.is_empty()
        && !first.starts_with('-')
        && first.chars().all(plain))
    .then_some(rest)
}

/// The settings of every route to a remediator.
fn settings(times: &[(&str, String)]) -> String {
    let times: Vec<_> = times.iter().map(|(key, time)| format!("      {key}: {time}\n")).collect();
    format!(
        "      group_by: [alertname, host, user, command]\n{}      \
         continue: true                   # also mail it\n",
        times.concat()
    )
}

fn routes(armed: &[Armed], form: FleetForm, times: &[(&str, String)]) -> String {
    let settings = settings(times);
    let mut text = String::new();
    match form {
        FleetForm::PerHost => {
            text.push_str(
                "    # An alert of a host that is not in the list reaches no remediator; it is mailed.\n    \
                 - matchers: ['alertname=~\"ProcNumChk.+\"', 'playbook!=\"\"']\n      \
                 receiver: remediator-none\n",
            );
            text.push_str(&settings);
            text.push_str("      routes:\n");
            for Armed { host, .. } in armed {
                let name = &host.name;
                writeln!(
                    text,
                    "        - {{matchers: ['host=\"{name}\"'], receiver: 'remediator-{name}'}}"
                )
                .ok();
            }
        }
        FleetForm::Templated => {
            let domains: BTreeSet<&str> =
                armed.iter().filter_map(|armed| domain(&armed.host.name)).collect();
            let domains: Vec<String> = domains.iter().map(|one| one.replace('.', "[.]")).collect();
            let domains = match domains.as_slice() {
                [one] => one.clone(),
                several => format!("({})", several.join("|")),
            };
            writeln!(
                text,
                "    # The label host becomes a part of the url: the last matcher keeps it a name.\n    \
                 - matchers: ['alertname=~\"ProcNumChk.+\"', 'playbook!=\"\"', \
                 'host=~\"[a-z0-9][a-z0-9-]*{domains}\"']\n      receiver: remediator"
            )
            .ok();
            text.push_str(&settings);
        }
    }
    text
}

fn receivers(armed: &[Armed], order: &Fleet) -> String {
    let at = |name: &str| order.credentials.join(name).display().to_string();
    let ca = at("ca.crt");
    let mut text = String::new();
    match order.alertmanager {
        FleetForm::PerHost => {
            text.push_str("  - name: remediator-none\n");
            for Armed { host, file } in armed {
                let (name, url) = (&host.name, authority(&host.address));
                let login = match file.config.token_file {
                    Some(_) => format!(
                        "\n          authorization: {{type: Bearer, credentials_file: '{}'}}",
                        at(&format!("{name}.token"))
                    ),
                    None => String::new(),
                };
                writeln!(
                    text,
                    "  - name: 'remediator-{name}'\n    webhook_configs:\n      \
                     - url: 'https://{url}:{PORT}/webhook'\n        send_resolved: false\n        \
                     http_config:{login}\n          tls_config: {{ca_file: '{ca}'{}}}\n          \
                     follow_redirects: false",
                    match file.config.token_file {
                        Some(_) => String::new(),
                        None => certificate(&order.credentials),
                    }
                )
                .ok();
            }
        }
        FleetForm::Templated => {
            writeln!(
                text,
                "  - name: remediator\n    webhook_configs:\n      \
                 - url: 'https://{{{{ .GroupLabels.host }}}}:{PORT}/webhook'\n        \
                 send_resolved: false\n        http_config:\n          \
                 tls_config: {{ca_file: '{ca}'{}}}\n          follow_redirects: false",
                certificate(&order.credentials)
            )
            .ok();
        }
    }
    text
}

fn certificate(credentials: &Path) -> String {
    let at = |name: &str| credentials.join(name).display().to_string();
    format!(", cert_file: '{}', key_file: '{}'", at("client.crt"), at("client.key"))
}

/// An address as a url has it.
fn authority(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Which receivers an alert of each playbook of each host reaches: rows for `rules/check.sh`.
fn table(armed: &[Armed], routing: &Routing) -> String {
    let mut text = format!("{HEADER}\n");
    for Armed { host, file } in armed {
        let routing = routing.for_host(&host.name);
        for (playbook, book) in &file.config.playbooks {
            for alert in &book.alerts {
                let command = book.commands.first().map(|one| one.to_text().into_owned());
                let labels = [
                    ("alertname", alert.as_str()),
                    ("host", &host.name),
                    ("role", &host.role),
                    ("user", "alice"),
                    ("command", command.as_deref().unwrap_or_default()),
                    ("playbook", playbook),
                ];
                let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
                let labels: Vec<_> = labels.collect();
                let written: Vec<_> =
                    labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let owned =
                    |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
                let receivers = routing.receivers(&labels.iter().map(owned).collect());
                writeln!(text, "{}\t{}", written.join(" "), receivers.join(",")).ok();
            }
        }
    }
    text
}

/// A list for `file_sd_configs`; with the port in place of the hosts' own.
fn list(hosts: &[&Host], port: Option<u16>) -> String {
    let mut text = String::from("[\n");
    for (index, host) in hosts.iter().enumerate() {
        let target = match port {
            Some(port) => format!("{}:{port}", authority(&host.address)),
            None => host.target.clone(),
        };
        let mut labels = host.labels.clone();
        if port.is_some() {
            // How the exporter is scraped says nothing about the remediator.
            labels.retain(|name, _| !name.starts_with("__"));
        }
        labels.insert("host".to_owned(), host.name.clone());
        let comma = if index + 1 == hosts.len() { "" } else { "," };
        writeln!(text, "  {}{comma}", json!({"targets": [target], "labels": labels})).ok();
    }
    text.push_str("]\n");
    text
}

/// Puts a file there at once, so that nobody reads half of it.
fn put(path: &Path, text: &str) -> Result<(), FleetError> {
    let fault = |error| FleetError::Write(path.to_owned(), error);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(fault)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, text).map_err(fault)?;
    std::fs::rename(&new, path).map_err(fault)
}

fn spoken(
    files: &[PathBuf],
    targets: &Targets,
    armed: usize,
    without: &BTreeMap<&str, usize>,
) -> String {
    let mut text = String::new();
    let paths: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    writeln!(
        text,
        "{} in {}, of which {armed} have a remediator. Wrote {}.",
        counted(targets.hosts.len(), "host is", "hosts are"),
        targets.file.display(),
        paths.join(", ")
    )
    .ok();
    for (role, count) in without {
        let hosts = counted(*count, "host has", "hosts have");
        writeln!(text, "{hosts} role {role:?}, and no policy: nothing is done there.").ok();
    }
    text.push_str(
        "Check them with procstorm-remediator --check --fleet. Then copy alertmanager.yml and routes.tsv \
         to the directory of Alertmanager's configuration, where templates/ is, and run check.sh.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_has_a_domain() {
        for (name, domain_of) in [
            ("moscow", Some("")),
            ("moscow.example.org", Some(".example.org")),
            ("192.0.2.1", None),
            ("Moscow", None),
            ("-moscow", None),
            ("mos_cow", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(domain(name), domain_of, "{name}");
        }
    }
}
