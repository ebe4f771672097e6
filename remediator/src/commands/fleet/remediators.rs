//! What the policies make of the hosts of a fleet: which of them act, and where their outcomes go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use hyper::Uri;

use super::policies::{File, line_of};
use super::targets::Host;
use crate::commands::agreement::{Finding, Place};
use crate::counted::counted;

/// How many hosts are named.
const NAMES_SHOWN: usize = 10;

/// The hosts that have a policy.
#[derive(Debug, Default)]
pub(super) struct Remediators {
    dry: usize,
    /// The hosts that act; with the playbooks, if these are not all.
    live: Vec<String>,
    /// The hosts that post outcomes to nobody.
    silent: Vec<String>,
    /// By place: the hosts all of whose outcomes go to themselves.
    alone: BTreeMap<Place, Local>,
    /// By place: the hosts whose outcomes go to themselves and elsewhere.
    also: BTreeMap<Place, Local>,
}

/// Hosts of one policy that take themselves for an Alertmanager.
#[derive(Debug)]
struct Local {
    address: String,
    hosts: Vec<String>,
}

impl Remediators {
    pub(super) fn count(&self) -> usize {
        self.dry.saturating_add(self.live.len())
    }

    pub(super) fn add(&mut self, host: &Host, file: &File) {
        let (config, name) = (&file.config, host.name.clone());
        let live: Vec<&str> = config.live_playbooks().collect();
        if live.is_empty() {
            self.dry = self.dry.saturating_add(1);
        } else if live.len() == config.playbooks.len() {
            self.live.push(name.clone());
        } else {
            self.live.push(format!("{name} ({})", live.join(" and ")));
        }
        let all = &config.alertmanager;
        let Some(local) = all.iter().find(|uri| is_local(uri)) else {
            if all.is_empty() {
                self.silent.push(name);
            }
            return;
        };
        let place = Place { file: file.path.clone(), line: line_of("alertmanager", &file.path) };
        let places = if all.iter().all(is_local) { &mut self.alone } else { &mut self.also };
        let address = local.authority().map(ToString::to_string).unwrap_or_default();
        let local = || Local { address, hosts: Vec::new() };
        places.entry(place).or_insert_with(local).hosts.push(name);
    }

    /// Hosts whose outcomes never reach the Alertmanager that mails them: it runs on one of them at
    /// most.
    pub(super) fn unheard(&self) -> Vec<Finding> {
        if self.alone.values().map(|local| local.hosts.len()).sum::<usize>() < 2 {
            return Vec::new();
        }
        let told = |(place, Local { address, hosts }): (&Place, &Local)| Finding {
            place: place.clone(),
            what: format!(
                "alertmanager: outcomes of {} go to {address} on {}, and nobody is mailed where no \
                 Alertmanager runs: write the address of Alertmanager as these hosts reach it",
                named(hosts),
                match hosts.as_slice() {
                    [one] => format!("{one} itself"),
                    _ => "each host itself".to_owned(),
                }
            ),
        };
        self.alone.iter().map(told).collect()
    }

    /// Who acts.
    pub(super) fn acting(&self) -> String {
        let hosts = |count: usize| counted(count, "host", "hosts");
        let mut parts = Vec::new();
        if !self.live.is_empty() {
            parts.push(format!("{}: LIVE: {}", hosts(self.live.len()), named(&self.live)));
        }
        if self.dry > 0 {
            parts.push(format!("{}: dry run", hosts(self.dry)));
        }
        parts.iter().map(|part| format!("{part}.\n")).collect()
    }

    /// What the files cannot show of the outcomes' way, and who posts none.
    pub(super) fn doubts(&self) -> String {
        let mut text = String::new();
        for (place, Local { address, hosts }) in self.alone.iter().chain(&self.also) {
            writeln!(
                text,
                "Not compared: whether an Alertmanager runs on {}, where outcomes go to {address} \
                 ({place}).",
                named(hosts)
            )
            .ok();
        }
        if !self.silent.is_empty() {
            writeln!(
                text,
                "Outcomes are only logged, and not mailed, since the policy has no alertmanager: {}.",
                named(&self.silent)
            )
            .ok();
        }
        text
    }
}

fn named(hosts: &[String]) -> String {
    let shown = hosts.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match hosts.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether an address is the machine's own, whichever machine asks.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    let own = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    matches!(host.as_str(), "localhost" | "ip6-localhost" | "ip6-loopback")
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(own)
}
