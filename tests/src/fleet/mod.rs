//! A fleet: hosts with their own daemons, a pair of Prometheus, three Alertmanagers in a cluster. Each
//! is a machine of its own ([`network`]), and all of it is made from one list of hosts by
//! `procstorm-remediator fleet`, checked by `--check --fleet`, and set up as the documents tell.
//!
//! - [`network`]: the machines and what connects them.
//! - [`host`]: a host with its exporter, remediator, accounts, mail files and journal.
//! - [`round`]: storms on some of the hosts, and what became of each.
//! - [`Fleet`]: all of it.

pub mod host;
pub mod network;
pub mod round;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::alertmanager::Alertmanager;
use crate::exposition;
use crate::http::Http;
use crate::prometheus::Prometheus;
use crate::smtp::Sink;
use crate::stack::{Person, SHOWN_BY_NAME, Site, replace_once, shipped};
use crate::storm::Storm;

use host::Host;
use network::{Machine, Network};

/// How long anything may take, on a machine with much else to do.
const LIMIT: Duration = Duration::from_secs(120);

/// The file of the rules, and the group that has the alerts.
const RULES: &str = "procstorm.rules.yml";
const GROUP: &str = "procstorm_alerts";

/// Between two evaluations, as shipped.
const INTERVAL: Duration = Duration::from_secs(5);

/// The members of the cluster.
const MEMBERS: usize = 3;

/// The nice value of all that is part of a fleet.
const PRIORITY: i32 = -15;

/// What a fleet is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many hosts.
    pub hosts: usize,
    /// From how many hosts on the brake holds. As shipped: 10.
    pub brake_hosts: usize,
    /// The users of each host, who have other uids on each.
    pub people: Vec<&'static str>,
    /// Hosts whose clock is so many seconds ahead of the others'.
    pub ahead: Vec<(usize, i64)>,
}

/// A running fleet. The test that has it runs in a network of its own.
#[derive(Debug)]
pub struct Fleet {
    // In the order in which they are to end: what calls others goes first.
    /// The pair, which scrapes all hosts.
    pub pair: Vec<Prometheus>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The cluster.
    pub members: Vec<Alertmanager>,
    /// The machines of the cluster, in the same order.
    pub member_machines: Vec<Arc<Machine>>,
    /// Gets the mails.
    pub mail: Sink,
    /// For questions to any of them.
    pub http: Http,
    /// How long after the first of the pair the second evaluates.
    pub apart: Duration,
    _pair_machines: Vec<Machine>,
    _network: Network,
}

impl Fleet {
    /// Starts it below `dir`, and waits until each Prometheus has scraped every daemon and evaluated its
    /// rules, and the members have found each other.
    pub fn start(dir: &Path, plan: &Plan) -> Result<Self, Fault> {
        // In a fleet no member waits for the machine that all of them share here: one that gets no
        // time for longer than the others wait for it is a member that is dead. This thread's
        // children inherit it. Where it is not allowed, the tests run all the same.
        rustix::process::setpriority_process(None, PRIORITY).unwrap_or_default();
        let network = Network::make()?;
        let http = Http::new()?;
        let mail = Sink::start_at(network.address(), None)?;
        let machine = |kind: &str, index: usize, net: u8| {
            let last = u8::try_from(index).or_fault("too many machines")?;
            network.machine(&format!("{kind}{index:02}"), Ipv4Addr::new(10, 77, net, last))
        };
        let numbered = |kind: &'static str, count: usize, net: u8| {
            (1..=count).map(move |index| machine(kind, index, net))
        };
        let pair_machines = numbered("prometheus", 2, 2).collect::<Result<Vec<_>, _>>()?;
        let member_machines = numbered("am", MEMBERS, 3)
            .map(|made| made.map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let machines = numbered("host", plan.hosts, 1).collect::<Result<Vec<_>, _>>()?;

        let files = Files::lay_out(dir, plan)?;
        let addresses = machines.iter().map(Machine::address).collect::<Vec<_>>();
        files.certificates(&addresses)?;
        let members: Vec<_> =
            member_machines.iter().map(|it| format!("http://{}:9093", it.address())).collect();
        let mut hosts = Vec::new();
        for (index, machine) in machines.into_iter().enumerate() {
            let people = people(plan, index);
            let (policies, credentials) = (files.policies(), files.credentials());
            hosts.push(Host::prepare(machine, dir, people, &members, &policies, &credentials)?);
        }
        files.make(&hosts, mail.address())?;
        let config = files.fleet().join("alertmanager.yml");
        let members = Alertmanager::start_on(&member_machines, &config, dir)?;
        for (index, host) in hosts.iter_mut().enumerate() {
            let ahead = plan.ahead.iter().find(|(ahead, _)| *ahead == index);
            host.start(ahead.map(|(_, seconds)| *seconds))?;
        }
        hosts.iter_mut().try_for_each(|host| host.await_ready(&http))?;
        introduce(&hosts, &http)?;
        let mut pair = Vec::new();
        let (rules_apart, apart) = files.rules_apart()?;
        let rules = [files.rules(), rules_apart];
        for (machine, rules) in pair_machines.iter().zip(&rules) {
            let config = files.prometheus(rules, machine.name(), &member_machines)?;
            pair.push(Prometheus::start_on(machine, &config, dir)?);
        }
        members.iter().try_for_each(|member| member.await_cluster(MEMBERS))?;
        let fleet = Self {
            pair,
            hosts,
            members,
            member_machines,
            mail,
            http,
            apart,
            _pair_machines: pair_machines,
            _network: network,
        };
        fleet.pair.iter().try_for_each(|one| fleet.await_watched(one))?;
        Ok(fleet)
    }

    /// Waits until that Prometheus has scraped every daemon, and then evaluated what it saw.
    pub fn await_watched(&self, prometheus: &Prometheus) -> Result<(), Fault> {
        let daemons = self.hosts.len() * 2;
        wait::until(&format!("{daemons} daemons are scraped"), LIMIT, || {
            (prometheus.query("up == 1").ok()?.len() == daemons).then_some(())
        })?;
        let seen = Timestamp::now();
        wait::until("the rules are evaluated", LIMIT, || {
            (prometheus.last_evaluation(GROUP).ok()? > seen).then_some(())
        })
    }
}

/// The users of the host of that index.
fn people(plan: &Plan, index: usize) -> Vec<Person> {
    let first = 40_000 + 100 * u32::try_from(index).unwrap_or_default();
    (first..).zip(&plan.people).map(|(uid, name)| Person::new(name, uid)).collect()
}

/// Waits until each exporter shows each user by name: it waits only shortly for a name that is new to
/// it, and a storm that is first shown under a number would be another's to every rule.
fn introduce(hosts: &[Host], http: &Http) -> Result<(), Fault> {
    for host in hosts {
        let mut visits = Vec::new();
        for person in host.people() {
            visits.push(host.begin_storm(person.uid, "introduced", SHOWN_BY_NAME)?);
        }
        let _visits = visits.into_iter().map(Storm::await_names).collect::<Result<Vec<_>, _>>()?;
        let url = format!("http://{}/metrics", host.exporter_address());
        wait::until(&format!("the exporter of {} knows its users", host.name()), LIMIT, || {
            let lines = exposition::read(&http.get(&url).ok()?.body)?;
            let known = |person: &Person| lines.iter().any(|it| it.label("user") == person.name);
            host.people().iter().all(known).then_some(())
        })?;
    }
    Ok(())
}

/// The directory of the monitoring side, and what is written there.
struct Files {
    dir: PathBuf,
    brake_hosts: usize,
}

impl Files {
    fn lay_out(dir: &Path, plan: &Plan) -> Result<Self, Fault> {
        let files = Self { dir: dir.to_owned(), brake_hosts: plan.brake_hosts };
        for made in [files.policies(), files.credentials(), files.rules()] {
            fs::create_dir(&made).or_fault(format!("cannot make {}", made.display()))?;
        }
        files.write_rules()?;
        Ok(files)
    }

    fn policies(&self) -> PathBuf {
        self.dir.join("policies")
    }

    fn credentials(&self) -> PathBuf {
        self.dir.join("credentials")
    }

    fn rules(&self) -> PathBuf {
        self.dir.join("rules")
    }

    fn fleet(&self) -> PathBuf {
        self.dir.join("fleet")
    }

    /// The shipped rules, without the rows of the role that the fleet has no host of, and with the
    /// brake's mark. A storm that only rises is exempt: until all of its processes are there, they bear
    /// the name of the program that raises them.
    fn write_rules(&self) -> Result<(), Fault> {
        let rules = shipped("rules/procstorm.rules.yml")?;
        let rows = rules.lines().filter(|line| !line.contains("role: nis")).collect::<Vec<_>>();
        let mark =
            |hosts: usize| format!("'role:procstorm_brake_hosts:threshold', expr: vector({hosts})");
        let rules = replace_once(&(rows.join("\n") + "\n"), &mark(10), &mark(self.brake_hosts))?;
        let exempt = |label: &str| {
            format!(
                "      - {{record: 'procstorm_processes:exemption', expr: vector(1), labels: {{{label}}}}}\n"
            )
        };
        let prometheus = exempt("user: prometheus");
        let both = format!("{prometheus}{}", exempt("command: storm"));
        let rules = replace_once(&rules, &prometheus, &both)?;
        write(&self.rules().join(RULES), &rules)
    }

    /// A certificate for each address, and the authority that signed them.
    fn certificates(&self, addresses: &[Ipv4Addr]) -> Result<(), Fault> {
        let fault = "no certificate";
        let mut params = CertificateParams::new(Vec::new()).or_fault(fault)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().or_fault(fault)?;
        let ca = CertifiedIssuer::self_signed(params, key).or_fault(fault)?;
        write(&self.credentials().join("ca.crt"), &ca.pem())?;
        for address in addresses {
            let key = KeyPair::generate().or_fault(fault)?;
            let params = CertificateParams::new(vec![address.to_string()]).or_fault(fault)?;
            let certificate = params.signed_by(&key, &ca).or_fault(fault)?;
            write(&self.credentials().join(format!("{address}.crt")), &certificate.pem())?;
            write(&self.credentials().join(format!("{address}.key")), &key.serialize_pem())?;
        }
        Ok(())
    }

    /// Makes what is made of the list of hosts, and has it checked.
    fn make(&self, hosts: &[Host], smtp: std::net::SocketAddr) -> Result<(), Fault> {
        let list: String = hosts
            .iter()
            .map(|host| {
                format!(
                    "- labels: {{role: mail, host: {}}}\n  targets: ['{}']\n",
                    host.name(),
                    host.exporter_address()
                )
            })
            .collect();
        let targets = self.dir.join("targets.yml");
        write(&targets, &list)?;
        let base = self.dir.join("base");
        fs::create_dir(&base).or_fault("cannot make a directory")?;
        let base = Site::lay_out(&base, &[])?.alertmanager(smtp, "127.0.0.1:9958")?;
        let mut make = Command::new(programs::ours("procstorm-remediator")?);
        make.arg("fleet").arg("--targets").arg(&targets);
        make.arg("--policies").arg(self.policies()).arg("--output").arg(self.fleet());
        make.arg("--base").arg(base).arg("--credentials").arg(self.credentials());
        succeed(make)?;
        let mut check = Command::new(programs::ours("procstorm-remediator")?);
        check.arg("--check").arg("--fleet").arg(&targets).arg("--policies").arg(self.policies());
        check.arg("--rules").arg(self.rules());
        check.arg("--alertmanager").arg(self.fleet().join("alertmanager.yml"));
        succeed(check)
    }

    /// Another directory with the same rules, for the second of the pair, as the documents tell: one
    /// from which Prometheus evaluates them as nearly as can be in the middle between two evaluations
    /// of the first. With it, how long after the first that is.
    fn rules_apart(&self) -> Result<(PathBuf, Duration), Fault> {
        let first = self.rules().join(RULES);
        // The moment depends on the path and on the group's name alone, so this shows it for each.
        let probe =
            format!("groups: [{{name: {GROUP}, rules: [{{record: probe, expr: vector(1)}}]}}]\n");
        let mut paths = vec![first.clone()];
        for name in ["b", "second", "replica-b", "rules-b", "pair-b", "other", "twin", "b2"] {
            let dir = self.dir.join(name);
            fs::create_dir(&dir).or_fault("cannot make a directory")?;
            write(&dir.join(RULES), &probe)?;
            paths.push(dir.join(RULES));
        }
        let list: Vec<_> = paths.iter().map(|path| format!("'{}'", path.display())).collect();
        let config = self.dir.join("probe.yml");
        write(
            &config,
            &format!("global: {{evaluation_interval: 5s}}\nrule_files: [{}]\n", list.join(", ")),
        )?;
        let dir = self.dir.join("probe");
        fs::create_dir(&dir).or_fault("cannot make a directory")?;
        let prometheus = Prometheus::start(&config, &dir)?;
        let phases = wait::until("all probes are evaluated", LIMIT, || {
            let phases: Option<Vec<_>> =
                paths.iter().map(|path| prometheus.phase(path, GROUP, INTERVAL).ok()?).collect();
            phases
        })?;
        let first_phase = phases.first().copied().unwrap_or_default();
        let later = |phase: Duration| {
            let later = phase + INTERVAL - first_phase;
            later.checked_sub(INTERVAL).unwrap_or(later)
        };
        let delays = phases.iter().map(|phase| later(*phase));
        let best = paths.iter().zip(delays).skip(1);
        let best = best.min_by_key(|(_, delay)| delay.abs_diff(INTERVAL / 2));
        let (path, delay) = best.ok_or_else(|| Fault::new("no directory"))?;
        fs::copy(first, path).or_fault("cannot copy the rules")?;
        Ok((path.parent().unwrap_or(&self.dir).to_owned(), delay))
    }

    /// The shipped configuration of Prometheus, changed as the documents tell for a pair before a
    /// cluster, and for lists of hosts.
    fn prometheus(
        &self,
        rules: &Path,
        replica: &str,
        members: &[Arc<Machine>],
    ) -> Result<PathBuf, Fault> {
        let lists = |name: &str| {
            format!("    file_sd_configs: [{{files: ['{}']}}]\n", self.fleet().join(name).display())
        };
        let members: Vec<_> = members.iter().map(|it| format!("'{}:9093'", it.address())).collect();
        let ca = self.credentials().join("ca.crt");
        let mut text = shipped("rules/prometheus.yml")?;
        for (from, to) in [
            (
                "  evaluation_interval: 5s\n",
                format!("  evaluation_interval: 5s\n  external_labels: {{replica: {replica}}}\n"),
            ),
            (
                "alerting:\n",
                "alerting:\n  alert_relabel_configs:\n    - {action: labeldrop, regex: replica}\n"
                    .to_owned(),
            ),
            ("'localhost:9093'", members.join(", ")),
            (
                "    static_configs:\n      - {targets: ['moscow:9957'], labels: {role: mail}}\n      \
                 - {targets: ['nantes:9957'], labels: {role: nis}}\n",
                lists("procstorm.json"),
            ),
            (
                "    static_configs:\n      - {targets: ['moscow:9958'], labels: {role: mail}}\n",
                format!(
                    "    scheme: https\n    tls_config: {{ca_file: '{}'}}\n{}",
                    ca.display(),
                    lists("procstorm-remediator.json")
                ),
            ),
        ] {
            text = replace_once(&text, from, &to).or_fault("rules/prometheus.yml")?;
        }
        let path = rules.join(format!("{replica}.yml"));
        write(&path, &text)?;
        Ok(path)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).or_fault(format!("cannot write {}", path.display()))
}

/// Runs a command, and shows what it said if it fails.
fn succeed(mut command: Command) -> Result<(), Fault> {
    let output = command.output().or_fault("cannot start it")?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Fault::new(format!("{command:?}: {}", String::from_utf8_lossy(&said))))
}
