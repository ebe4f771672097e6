//! The whole system on one machine, wired as it is shipped: a mail server, Alertmanager,
//! remediator, exporter, Prometheus. All on free ports of the loopback, all files in one
//! directory, all of it gone with the value.
//!
//! - [`site`]: that directory, and the shipped configuration adapted to it.
//! - [`Remediation`]: what the remediator says it has done.

pub mod site;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::{programs, wait};
use rustix::process::Signal;
use serde_json::Value;

use crate::alertmanager::Alertmanager;
use crate::daemon::Daemon;
use crate::exposition;
use crate::http::Http;
use crate::prometheus::Prometheus;
use crate::smtp::Sink;
use crate::storm::Storm;

pub(crate) use site::replace_once;
pub use site::{Person, Site, Timing};

/// How long the stack may take until Prometheus has scraped its targets, or evaluated its rules.
const WATCHED_LIMIT: Duration = Duration::from_secs(120);

/// The group of rules that fires.
const ALERTS: &str = "procstorm_alerts";

/// A running system.
#[derive(Debug)]
pub struct Stack {
    // In the order in which they are to end: who calls others goes first.
    /// Evaluates the shipped rules.
    pub prometheus: Prometheus,
    /// Ours, that counts.
    pub exporter: Daemon,
    /// Ours, that acts.
    pub remediator: Daemon,
    /// Routes as shipped.
    pub alertmanager: Alertmanager,
    /// Gets the mails.
    pub mail: Sink,
    /// Where all files are.
    pub site: Site,
    /// For questions to any of them.
    pub http: Http,
    addresses: Addresses,
    accounts: Accounts,
}

/// What is not as shipped. The default is a stack as shipped.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// How often Prometheus looks.
    pub timing: Timing,
    /// The directory with `rules` and `alertmanager`, if it is a changed copy of the shipped one.
    pub configuration: Option<PathBuf>,
    /// Further flags of the exporter.
    pub exporter: Vec<String>,
}

/// Where our two daemons listen, `host:port`.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The exporter.
    pub exporter: String,
    /// The remediator.
    pub remediator: String,
}

impl Stack {
    /// Starts everything below `dir`, for the people given, and waits until the exporter knows their
    /// names, and Prometheus has scraped both daemons and evaluated its rules. As root the people
    /// exist for the daemons alone; otherwise they must be the machine's own.
    pub fn start(dir: &Path, people: &[Person], timing: Timing) -> Result<Self, Fault> {
        Self::start_as(dir, people, &Setup { timing, ..Setup::default() })
    }

    /// The same, set up in another way than as shipped.
    pub fn start_as(dir: &Path, people: &[Person], setup: &Setup) -> Result<Self, Fault> {
        let mut site = Site::lay_out(dir, people)?;
        if let Some(configuration) = &setup.configuration {
            site = site.with(configuration);
        }
        let accounts = site.accounts(people)?;
        let addresses = Addresses {
            exporter: format!("127.0.0.1:{}", free_port()?),
            remediator: format!("127.0.0.1:{}", free_port()?),
        };
        let http = Http::new()?;
        let mail = Sink::start(Some(site.mails()))?;
        let config = site.alertmanager(mail.address(), &addresses.remediator)?;
        let alertmanager = Alertmanager::start(&config, dir)?;
        site.remediator(alertmanager.url())?;
        let remediator = start_remediator(&site, &accounts, &addresses, &http)?;
        let exporter = start_exporter(&site, &accounts, &addresses, &http, &setup.exporter)?;
        for person in people {
            introduce(person, &addresses, &http)?;
        }
        let config = site.prometheus(alertmanager.url(), &addresses, setup.timing)?;
        let prometheus = Prometheus::start(&config, dir)?;
        let stack = Self {
            prometheus,
            exporter,
            remediator,
            alertmanager,
            mail,
            site,
            http,
            addresses,
            accounts,
        };
        stack.wait_until_watched()?;
        Ok(stack)
    }

    /// Waits until Prometheus has seen both daemons, and then judged what it saw.
    fn wait_until_watched(&self) -> Result<(), Fault> {
        wait::until("Prometheus scrapes both daemons", WATCHED_LIMIT, || {
            (self.prometheus.query("up == 1").ok()?.len() == 2).then_some(())
        })?;
        // From now on what was scraped can be asked for.
        let seen = Timestamp::now();
        wait::until("Prometheus evaluates its rules", WATCHED_LIMIT, || {
            (self.prometheus.last_evaluation(ALERTS).ok()? > seen).then_some(())
        })
    }

    /// The exporter's URL, without a slash at the end.
    #[must_use]
    pub fn exporter_url(&self) -> String {
        format!("http://{}", self.addresses.exporter)
    }

    /// The remediator's URL, without a slash at the end.
    #[must_use]
    pub fn remediator_url(&self) -> String {
        format!("http://{}", self.addresses.remediator)
    }

    /// What the remediator has done or is doing, newest first.
    pub fn remediations(&self) -> Result<Vec<Remediation>, Fault> {
        let url = format!("{}/api/v1/remediations", self.remediator_url());
        let answer = self.http.json(&url)?;
        let list = answer.get("remediations").and_then(Value::as_array);
        let list = list.ok_or_else(|| Fault::new(format!("{url}: no remediations")))?;
        Ok(list.iter().cloned().map(Remediation).collect())
    }

    /// The sum of a metric's series at the remediator, over those whose line holds `label`; 0 if
    /// there is none.
    pub fn remediator_metric(&self, name: &str, label: &str) -> Result<f64, Fault> {
        let answer = self.http.get(&format!("{}/metrics", self.remediator_url()))?;
        let lines = answer.body.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// The name of one of its programs that has ended by itself, if one has.
    pub fn ended(&mut self) -> Result<Option<&str>, Fault> {
        for daemon in [
            &mut self.prometheus.daemon,
            &mut self.exporter,
            &mut self.remediator,
            &mut self.alertmanager.daemon,
        ] {
            if daemon.exited()?.is_some() {
                return Ok(Some(daemon.name()));
            }
        }
        Ok(None)
    }

    /// Switches the whole policy between a dry run and live, and waits until the remediator has it.
    pub fn dry_run(&self, dry_run: bool) -> Result<(), Fault> {
        self.site.dry_run(dry_run)?;
        let name = "procstorm_config_last_reload_success_timestamp_seconds";
        let before = self.remediator_metric(name, "")?;
        self.remediator.signal(Signal::HUP)?;
        wait::until("a reload", WATCHED_LIMIT, || {
            (self.remediator_metric(name, "").ok()? > before).then_some(())
        })
    }

    /// Starts the remediator again, on the same address and files, after it was ended or killed.
    pub fn restart_remediator(&mut self) -> Result<(), Fault> {
        self.remediator =
            start_remediator(&self.site, &self.accounts, &self.addresses, &self.http)?;
        Ok(())
    }
}

/// One remediation, as the remediator's API shows it.
#[derive(Debug, Clone)]
pub struct Remediation(Value);

impl Remediation {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.0.get("id").and_then(Value::as_i64).unwrap_or_default()
    }

    /// Whose processes.
    #[must_use]
    pub fn user(&self) -> &str {
        self.text("user")
    }

    /// How it ended; `running` until then.
    #[must_use]
    pub fn verdict(&self) -> &str {
        self.text("verdict")
    }

    /// What it says of itself.
    #[must_use]
    pub fn summary(&self) -> &str {
        self.text("summary")
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(self.verdict(), "" | "running")
    }

    /// Processes counted before it, if it has counted.
    #[must_use]
    pub fn before(&self) -> Option<u64> {
        self.0.get("before").and_then(Value::as_u64)
    }

    /// Processes counted after it, if it has.
    #[must_use]
    pub fn after(&self) -> Option<u64> {
        self.0.get("after").and_then(Value::as_u64)
    }

    /// How long it took.
    #[must_use]
    pub fn milliseconds(&self) -> Option<u64> {
        self.0.get("milliseconds").and_then(Value::as_u64)
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

fn start_remediator(
    site: &Site,
    accounts: &Accounts,
    addresses: &Addresses,
    http: &Http,
) -> Result<Daemon, Fault> {
    let mut command = accounts.command(&programs::ours("procstorm-remediator")?)?;
    command.arg(format!("--config.file={}", site.remediator_yml().display()));
    command.arg(format!("--web.listen-address={}", addresses.remediator));
    let mut daemon = Daemon::start("procstorm-remediator", &command, &site.log("remediator"))?;
    daemon.ready(|| http.is_ok(&format!("http://{}/-/ready", addresses.remediator)))?;
    Ok(daemon)
}

fn start_exporter(
    site: &Site,
    accounts: &Accounts,
    addresses: &Addresses,
    http: &Http,
    flags: &[String],
) -> Result<Daemon, Fault> {
    let mut command = accounts.command(&programs::ours("procstorm-exporter")?)?;
    command.args(flags);
    command.arg(format!("--web.listen-address={}", addresses.exporter));
    let mut daemon = Daemon::start("procstorm-exporter", &command, &site.log("exporter"))?;
    daemon.ready(|| http.is_ok(&format!("http://{}/-/ready", addresses.exporter)))?;
    Ok(daemon)
}

/// So many processes as a user must have for the exporter to show it by its name.
pub(crate) const SHOWN_BY_NAME: usize = 10;

/// Waits until the exporter shows `person` by name. It waits but shortly for a name that is new to
/// it, and a storm that is first shown under a number would be another's to every rule.
fn introduce(person: &Person, addresses: &Addresses, http: &Http) -> Result<(), Fault> {
    let _visit = Storm::raise(person.uid, b"introduced", SHOWN_BY_NAME)?;
    let url = format!("http://{}/metrics", addresses.exporter);
    wait::until(&format!("the exporter knows {}", person.name), WATCHED_LIMIT, || {
        let lines = exposition::read(&http.get(&url).ok()?.body)?;
        lines.iter().any(|line| line.label("user") == person.name).then_some(())
    })
}

/// Reads a file that is shipped.
pub(crate) fn shipped(path: &str) -> Result<String, Fault> {
    std::fs::read_to_string(programs::project().join(path)).or_fault(format!("cannot read {path}"))
}
