//! A real Alertmanager on a free port, alone or one of a cluster.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::{programs, wait};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::exposition;
use crate::fleet::network::Machine;
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
    /// How it was started.
    config: PathBuf,
    dir: PathBuf,
    flags: Vec<String>,
    /// The machine on whose network it is, if not on ours.
    machine: Option<Arc<Machine>>,
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
        let members = Self::start_cluster(config, dir, 2, peer_timeout)?;
        members.try_into().map_err(|_members| Fault::new("not a pair"))
    }

    /// Starts so many of them, as [`start_pair`](Self::start_pair) does two.
    pub fn start_cluster(
        config: &Path,
        dir: &Path,
        count: usize,
        peer_timeout: Duration,
    ) -> Result<Vec<Self>, Fault> {
        let first = format!("127.0.0.1:{}", free_port()?);
        let mut members = Vec::new();
        for index in 0..count {
            let listen = match index {
                0 => first.clone(),
                _ => format!("127.0.0.1:{}", free_port()?),
            };
            let mut flags = vec![
                format!("--cluster.listen-address={listen}"),
                format!("--cluster.peer-timeout={}ms", peer_timeout.as_millis()),
                "--cluster.gossip-interval=20ms".to_owned(),
                "--cluster.pushpull-interval=1s".to_owned(),
                "--cluster.settle-timeout=30s".to_owned(),
            ];
            flags.extend((index > 0).then(|| format!("--cluster.peer={first}")));
            let dir = dir.join(format!("member-{index}"));
            std::fs::create_dir(&dir).or_fault(format!("cannot make {}", dir.display()))?;
            members.push(Self::start_with(config, &dir, &flags)?);
        }
        for member in &members {
            let whole = || member.is_one_of(count).then_some(());
            wait::until(&format!("a cluster of {count}"), SETTLE_LIMIT, whole)?;
        }
        Ok(members)
    }

    /// Starts a cluster of one member on each of the machines, with the flags that the documents tell
    /// and otherwise stock settings, and does not wait until they have found each other. Each is one
    /// of our processes, and on its machine's network.
    pub fn start_on(
        machines: &[Arc<Machine>],
        config: &Path,
        dir: &Path,
    ) -> Result<Vec<Self>, Fault> {
        let mut members = Vec::new();
        for machine in machines {
            let mut flags = vec![
                "--cluster.peer-timeout=1s".to_owned(),
                format!("--cluster.listen-address={}:9094", machine.address()),
            ];
            let others = machines.iter().filter(|other| other.name() != machine.name());
            flags.extend(others.map(|other| format!("--cluster.peer={}:9094", other.address())));
            let dir = dir.join(machine.name());
            std::fs::create_dir(&dir).or_fault(format!("cannot make {}", dir.display()))?;
            let address = format!("{}:9093", machine.address());
            let on = Some(Arc::clone(machine));
            members.push(Self::launch(config, &dir, &flags, &address, on)?);
        }
        members.iter_mut().try_for_each(Self::await_ready)?;
        Ok(members)
    }

    /// Waits until it is one of a cluster of so many.
    pub fn await_cluster(&self, members: usize) -> Result<(), Fault> {
        wait::until(&format!("a cluster of {members}"), SETTLE_LIMIT, || {
            self.is_one_of(members).then_some(())
        })
    }

    /// Starts it, alone, with a web configuration that asks for TLS: so it answers nobody here, and
    /// is taken to be ready when it listens.
    pub fn start_guarded(config: &Path, dir: &Path, web_config: &Path) -> Result<Self, Fault> {
        let flags = [
            "--cluster.listen-address=".to_owned(),
            format!("--web.config.file={}", web_config.display()),
        ];
        let mut started = Self::launch(config, dir, &flags, &free_address()?, None)?;
        let address = started.url.trim_start_matches("http://").to_owned();
        started.daemon.ready(|| TcpStream::connect(&address).is_ok())?;
        started.url = format!("https://{address}");
        Ok(started)
    }

    /// Kills it, as a crash of its machine does: what it had in memory is lost.
    pub fn kill(&mut self) -> Result<(), Fault> {
        self.daemon.kill()
    }

    /// Starts it again, on the same address and with the same files.
    pub fn restart(&mut self) -> Result<(), Fault> {
        let address = self.url.trim_start_matches("http://").to_owned();
        let machine = self.machine.clone();
        *self = Self::launch(&self.config, &self.dir, &self.flags, &address, machine)?;
        self.await_ready()
    }

    fn start_with(config: &Path, dir: &Path, flags: &[String]) -> Result<Self, Fault> {
        let mut started = Self::launch(config, dir, flags, &free_address()?, None)?;
        started.await_ready()?;
        Ok(started)
    }

    fn launch(
        config: &Path,
        dir: &Path,
        flags: &[String],
        address: &str,
        machine: Option<Arc<Machine>>,
    ) -> Result<Self, Fault> {
        let mut command = with_pages(&programs::other("alertmanager")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.args(flags);
        if let Some(machine) = &machine {
            command = machine.on_its_network(&command)?;
        }
        let daemon = Daemon::start("alertmanager", &command, &dir.join("alertmanager.log"))?;
        Ok(Self {
            daemon,
            url: format!("http://{address}"),
            http: Http::new()?,
            config: config.to_owned(),
            dir: dir.to_owned(),
            flags: flags.to_owned(),
            machine,
        })
    }

    fn await_ready(&mut self) -> Result<(), Fault> {
        let url = format!("{}/-/ready", self.url);
        let http = &self.http;
        self.daemon.ready(|| http.is_ok(&url))
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

fn free_address() -> Result<String, Fault> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}
