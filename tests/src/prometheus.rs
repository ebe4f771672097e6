//! A real Prometheus on a free port.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::fleet::network::Machine;
use crate::http::Http;
use crate::pages::with_pages;

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// Its process.
    pub daemon: Daemon,
    url: String,
    http: Http,
}

/// One alert, as Prometheus' API shows it.
#[derive(Debug, Clone)]
pub struct Alert(Value);

impl Alert {
    /// One of its labels; empty if it has not that label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.field("labels", name)
    }

    /// One of its annotations; empty if it has not that annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.field("annotations", name)
    }

    /// Whether it fires (and is not merely pending).
    #[must_use]
    pub fn fires(&self) -> bool {
        self.0.get("state").and_then(Value::as_str) == Some("firing")
    }

    fn field(&self, group: &str, name: &str) -> &str {
        self.0.get(group).and_then(|g| g.get(name)).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Prometheus {
    /// Starts it with the configuration file `config`; its data and its log go to `dir`.
    pub fn start(config: &Path, dir: &Path) -> Result<Self, Fault> {
        let mut command = with_pages(&programs::other("prometheus")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        // With the default, an Alertmanager that is down at onset hears of it a minute late.
        command.arg("--rules.alert.resend-delay=5s");
        let http = Http::new()?;
        let (daemon, url) = Daemon::serve("prometheus", command, dir, &http)?;
        Ok(Self { daemon, url, http })
    }

    /// Starts it on port 9090 of a machine, as the README starts it, with the configuration file
    /// `config`; its data and its log go to `dir`. It is one of our processes, and on the machine's
    /// network.
    pub fn start_on(machine: &Machine, config: &Path, dir: &Path) -> Result<Self, Fault> {
        let address = format!("{}:9090", machine.address());
        let mut command = Command::new(programs::other("prometheus")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join(machine.name()).display()));
        command.args(["--rules.alert.resend-delay=5s", "--query.lookback-delta=15s"]);
        command.arg(format!("--web.listen-address={address}"));
        let command = machine.on_its_network(&command)?;
        let log = dir.join(format!("{}.log", machine.name()));
        let mut daemon = Daemon::start("prometheus", &command, &log)?;
        let (http, url) = (Http::new()?, format!("http://{address}"));
        daemon.ready(|| http.is_ok(&format!("{url}/-/ready")))?;
        Ok(Self { daemon, url, http })
    }

    /// Where it answers, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where a person sees its alerts: its page, or where it has none its API. Debian's 2.x has
    /// its pages below `/classic`, Debian's 3.x has none.
    #[must_use]
    pub fn alerts_page(&self) -> String {
        first_page(&self.http, &self.url, &["/classic/alerts", "/alerts"], "/api/v1/alerts")
    }

    /// The result of an instant query.
    pub fn query(&self, expression: &str) -> Result<Vec<Sample>, Fault> {
        let result = self.result("query", &[("query", expression)])?;
        let result =
            result.as_array().ok_or_else(|| Fault::new(format!("{expression}: {result}")))?;
        result.iter().map(Sample::read).collect()
    }

    /// The result of a call of its API, `query` or `query_range`, as it is.
    pub fn result(&self, call: &str, parameters: &[(&str, &str)]) -> Result<Value, Fault> {
        let parameter = |(name, value): &(&str, &str)| format!("{name}={}", percent_encoded(value));
        let parameters: Vec<String> = parameters.iter().map(parameter).collect();
        let url = format!("{}/api/v1/{call}?{}", self.url, parameters.join("&"));
        let mut answer = self.http.json(&url)?;
        let result = answer.pointer_mut("/data/result").map(Value::take);
        result.ok_or_else(|| Fault::new(format!("no result of {url}")))
    }

    /// All alerts that are pending or firing.
    pub fn alerts(&self) -> Result<Vec<Alert>, Fault> {
        let answer = self.http.json(&format!("{}/api/v1/alerts", self.url))?;
        let alerts = answer.pointer("/data/alerts").and_then(Value::as_array);
        Ok(alerts.cloned().unwrap_or_default().into_iter().map(Alert).collect())
    }
}

impl Prometheus {
    /// When the group of rules was last evaluated; the epoch if it was not yet.
    pub fn last_evaluation(&self, group: &str) -> Result<Timestamp, Fault> {
        let answer = self.http.json(&format!("{}/api/v1/rules", self.url))?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array);
        let group = groups
            .into_iter()
            .flatten()
            .find(|found| found.get("name").and_then(Value::as_str) == Some(group))
            .ok_or_else(|| Fault::new(format!("Prometheus has no rules {group}")))?;
        Ok(time(group, "lastEvaluation"))
    }
}

impl Prometheus {
    /// How long after a multiple of the interval it evaluates that file's group of rules; none until it
    /// has.
    pub fn phase(
        &self,
        file: &Path,
        group: &str,
        interval: Duration,
    ) -> Result<Option<Duration>, Fault> {
        let answer = self.http.json(&format!("{}/api/v1/rules", self.url))?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array);
        let is_it = |found: &&Value| {
            found.get("name").and_then(Value::as_str) == Some(group)
                && found.get("file").and_then(Value::as_str).map(Path::new) == Some(file)
        };
        let found = groups.into_iter().flatten().find(is_it);
        let found =
            found.ok_or_else(|| Fault::new(format!("no rules {group} of {}", file.display())))?;
        let since =
            u64::try_from(time(found, "lastEvaluation").as_millisecond()).unwrap_or_default();
        let interval = u64::try_from(interval.as_millis()).unwrap_or(1);
        Ok((since > 0).then(|| Duration::from_millis(since % interval)))
    }
}

/// The first of the `pages` that is there, or else `api`, which always is. In the place of a page
/// that Debian's package has not it says so, with a 200.
pub(crate) fn first_page(http: &Http, url: &str, pages: &[&str], api: &str) -> String {
    let is_there = |page: &&&str| {
        let answer = http.get(&format!("{url}{page}"));
        answer.is_ok_and(|it| it.status == 200 && !it.body.contains("Debian package"))
    };
    format!("{url}{}", pages.iter().find(is_there).unwrap_or(&api))
}

/// A time of Prometheus' API. It writes the year 1 for never.
fn time(json: &Value, name: &str) -> Timestamp {
    let text = json.get(name).and_then(Value::as_str).unwrap_or_default();
    text.parse::<Timestamp>().unwrap_or_default().max(Timestamp::UNIX_EPOCH)
}

/// One sample of a query's result.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The series' labels.
    pub labels: Value,
    /// Its value.
    pub value: f64,
}

impl Sample {
    fn read(json: &Value) -> Result<Self, Fault> {
        let labels = json.get("metric").cloned().unwrap_or_default();
        let value = json.pointer("/value/1").and_then(Value::as_str);
        let value = value.ok_or_else(|| Fault::new(format!("no sample: {json}")))?;
        Ok(Self { labels, value: value.parse().or_fault(format!("no number: {value}"))? })
    }

    /// One of its labels; empty if it has not that label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A text as part of a URL's query.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
