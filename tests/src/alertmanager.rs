//! A real Alertmanager on a free port, alone or one of a cluster.

use std::path::Path;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::{programs, wait};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::exposition;
use crate::http::Http;
use crate::pages::with_pages;
use crate::prometheus::first_page;

/// How long the members of a cluster may take to find each other.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    /// Its process.
    pub daemon: Daemon,
    url: String,
    http: Http,
}

impl Alertmanager {
    /// Starts it, alone (no cluster), with the configuration file `config`; its data and its log
    /// go to `dir`.
    pub fn start(config: &Path, dir: &Path) -> Result<Self, Fault> {
        Self::start_with(config, dir, &["--cluster.listen-address=".to_owned()])
    }

    /// Starts two that know each other and gossip quickly, below `dir`, and waits until each of
    /// them sees both. The second in the order of their names, which they choose themselves,
    /// notifies only what the first has not within `peer_timeout`.
    pub fn start_pair(
        config: &Path,
        dir: &Path,
        peer_timeout: Duration,
    ) -> Result<[Self; 2], Fault> {
        let first = format!("127.0.0.1:{}", free_port()?);
        let start = |name: &str, listen: &str, peer: Option<&str>| {
            let mut flags = vec![
                format!("--cluster.listen-address={listen}"),
                format!("--cluster.peer-timeout={}ms", peer_timeout.as_millis()),
                "--cluster.gossip-interval=20ms".to_owned(),
                "--cluster.pushpull-interval=1s".to_owned(),
                "--cluster.settle-timeout=30s".to_owned(),
            ];
            flags.extend(peer.map(|peer| format!("--cluster.peer={peer}")));
            let dir = dir.join(name);
            std::fs::create_dir(&dir).or_fault(format!("cannot make {}", dir.display()))?;
            Self::start_with(config, &dir, &flags)
        };
        let one = start("one", &first, None)?;
        let other = start("other", &format!("127.0.0.1:{}", free_port()?), Some(&first))?;
        for member in [&one, &other] {
            wait::until("a cluster of two", SETTLE_LIMIT, || member.is_one_of(2).then_some(()))?;
        }
        Ok([one, other])
    }

    fn start_with(config: &Path, dir: &Path, flags: &[String]) -> Result<Self, Fault> {
        let mut command = with_pages(&programs::other("alertmanager")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
        command.args(flags);
        let http = Http::new()?;
        let (daemon, url) = Daemon::serve("alertmanager", command, dir, &http)?;
        Ok(Self { daemon, url, http })
    }

    /// Where it answers, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where a person sees its alerts: its page, or its API, as Debian's has no page.
    #[must_use]
    pub fn alerts_page(&self) -> String {
        first_page(&self.http, &self.url, &["/"], "/api/v2/alerts")
    }

    /// The alerts that it holds active, as its API shows them.
    pub fn alerts(&self) -> Result<Vec<Value>, Fault> {
        let alerts = self.http.json(&format!("{}/api/v2/alerts", self.url))?;
        Ok(alerts.as_array().cloned().unwrap_or_default())
    }

    /// Gives it alerts, as Prometheus does.
    pub fn post_alerts(&self, alerts: &[Value]) -> Result<(), Fault> {
        self.post("/api/v2/alerts", &Value::from(alerts)).map(drop)
    }

    /// Silences the alerts of a user, as a person does. Returns the silence's id.
    pub fn silence_user(&self, user: &str, from: &str, to: &str) -> Result<String, Fault> {
        let silence = json!({
            "matchers": [{"name": "user", "value": user, "isRegex": false, "isEqual": true}],
            "startsAt": from, "endsAt": to, "createdBy": "a person", "comment": "let it be",
        });
        let answer = self.post("/api/v2/silences", &silence)?;
        let id = answer.get("silenceID").and_then(Value::as_str);
        Ok(id.ok_or_else(|| Fault::new(format!("no silence: {answer}")))?.to_owned())
    }

    /// Whether it knows of a silence of that id, and of its being in force.
    pub fn knows_silence(&self, id: &str) -> Result<bool, Fault> {
        let silences = self.http.json(&format!("{}/api/v2/silences", self.url))?;
        let is_it = |silence: &Value| {
            silence.get("id").and_then(Value::as_str) == Some(id)
                && silence.pointer("/status/state").and_then(Value::as_str) == Some("active")
        };
        Ok(silences.as_array().is_some_and(|all| all.iter().any(is_it)))
    }

    /// The sum of a metric's series, over those that bear the labels; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, Fault> {
        let page = self.http.get(&format!("{}/metrics", self.url))?;
        let lines = exposition::read(&page.body)
            .ok_or_else(|| Fault::new(format!("{}/metrics cannot be read", self.url)))?;
        let wanted = |line: &&exposition::Line| {
            line.name == name && labels.iter().all(|(label, value)| line.label(label) == *value)
        };
        Ok(lines.iter().filter(wanted).map(|line| line.value).sum())
    }

    fn is_one_of(&self, members: usize) -> bool {
        let status = self.http.json(&format!("{}/api/v2/status", self.url)).unwrap_or_default();
        let peers = status.pointer("/cluster/peers").and_then(Value::as_array);
        status.pointer("/cluster/status").and_then(Value::as_str) == Some("ready")
            && peers.is_some_and(|peers| peers.len() == members)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        let url = format!("{}{path}", self.url);
        let headers = [("content-type", "application/json")];
        let answer = self.http.post(&url, &headers, body.to_string())?;
        if answer.status != 200 {
            return Err(Fault::new(format!("{url} says {}: {}", answer.status, answer.body)));
        }
        Ok(serde_json::from_str(&answer.body).unwrap_or_default())
    }
}
