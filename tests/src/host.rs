//! One host with a remediator of its own, and an Alertmanager that does what a test wants.
//!
//! - [`Host`]: the remediator's program, its policy, its directories; posts alerts to it.
//! - [`Post`]: an alert as Alertmanager would post it.
//! - [`Receiver`]: what stands for Alertmanager's API: keeps what it is given, fails when told to.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::header::{DATE, HeaderValue};
use hyper::{Method, StatusCode};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::{Beside as _, Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::{programs, wait};
use procstorm_toolkit::web::{Request, Response, Settings, reply, serve};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::daemon::Daemon;
use crate::http::{Answer, Http};
use crate::storm::Storm;

/// The token of every host.
pub const TOKEN: &str = "a-token-for-the-loopback-alone";

/// How long anything on a host may take, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// A remediator and all that belongs to it. Users have no names here, unless it is started among
/// some: an alert calls them by their uids.
#[derive(Debug)]
pub struct Host {
    /// The running program.
    pub daemon: Daemon,
    dir: TempDir,
    address: String,
    accounts: Accounts,
    http: Http,
}

impl Host {
    /// Starts a remediator with the playbook `storm` for command `command` from 5 processes on.
    /// `changes` are lines of the playbook, `top` lines of the whole policy.
    pub fn start(command: &str, changes: &str, top: &str) -> Result<Self, Fault> {
        Self::start_among(&[], command, changes, top)
    }

    /// The same, among users with names, who exist for it alone. Needs root if there are any.
    pub fn start_among(
        users: &[(&str, u32)],
        command: &str,
        changes: &str,
        top: &str,
    ) -> Result<Self, Fault> {
        Self::start_served(users, None, command, changes, top)
    }

    /// The same, with the NSS module `service`, a name and a path, as a further name service.
    pub fn start_served(
        users: &[(&str, u32)],
        service: Option<(&str, &Path)>,
        command: &str,
        changes: &str,
        top: &str,
    ) -> Result<Self, Fault> {
        let dir = tempfile::tempdir().or_fault("no directory")?;
        for name in ["mail", "arc"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).or_fault("no directory")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).or_fault("no mode")?;
        }
        let token = dir.path().join("token");
        fs::write(&token, TOKEN).or_fault("no token")?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).or_fault("no mode")?;
        Self::write_policy(dir.path(), command, changes, top)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let http = Http::new()?;
        let accounts = match users {
            [] => Accounts::of_the_machine(),
            some => Accounts::only(some, dir.path())?,
        };
        let accounts = match service {
            Some((name, module)) => accounts.served_by(name, module)?,
            None => accounts,
        };
        let program = accounts.command(&programs::ours("procstorm-remediator")?)?;
        let daemon = launch(dir.path(), &address, program, &[])?;
        let mut host = Self { daemon, dir, address, accounts, http };
        host.wait_until_healthy()?;
        Ok(host)
    }

    /// Writes another policy, to be read at a reload or restart.
    pub fn change_policy(&self, command: &str, changes: &str, top: &str) -> Result<(), Fault> {
        Self::write_policy(self.dir.path(), command, changes, top)
    }

    fn write_policy(dir: &Path, command: &str, changes: &str, top: &str) -> Result<(), Fault> {
        let at = |name: &str| dir.join(name).display().to_string();
        let state = if top.contains("state:") { String::new() } else { at("state") };
        let state = if state.is_empty() { state } else { format!("state: {state}\n") };
        let accounts =
            if top.contains("accounts:") { "" } else { "accounts: {allow_nameless: true}" };
        // Changes may end with further playbooks, which have thresholds of their own.
        let is_changed = changes.lines().any(|line| line.starts_with("    threshold:"));
        let threshold = if is_changed { "" } else { "    threshold: 5\n" };
        let policy = format!(
            "host: moscow\n{state}token_file: {}\nmail: {{spool: {}, archive: {}, reserve: 0%}}\n\
             {accounts}\n{top}\nplaybooks:\n  storm:\n    \
             alerts: [Storm]\n    command: {command}\n{threshold}    \
             steps: [archive_mail_file, kill_user_proc]\n{changes}\n",
            at("token"),
            at("mail"),
            at("arc"),
        );
        fs::write(dir.join("remediator.yml"), policy).or_fault("no policy")
    }

    fn wait_until_healthy(&mut self) -> Result<(), Fault> {
        let url = self.url("/-/healthy");
        let http = &self.http;
        self.daemon.ready(|| http.is_ok(&url))
    }

    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&self) -> Result<(), Fault> {
        let ready = || (self.get("/-/ready").ok()?.status == 200).then_some(());
        let waited = wait::until("ready", LIMIT, ready);
        waited.beside(|| {
            let said = self.get("/-/ready").map(|answer| answer.body);
            format!("{said:?}\n{}", self.daemon.log())
        })
    }

    /// Waits until none of a storm's processes lives.
    pub fn wait_until_dead(&self, storm: &Storm) -> Result<(), Fault> {
        let dead = || (storm.living().ok()? == 0).then_some(());
        wait::until("the storm is dead", LIMIT, dead).beside(|| self.daemon.log())
    }

    /// Where everything is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A page's address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives a user a mail file.
    pub fn put_mail(&self, uid: u32, content: &[u8]) -> Result<PathBuf, Fault> {
        let path = self.dir.path().join("mail").join(uid.to_string());
        fs::write(&path, content).or_fault("no mail")?;
        chown(&path, Some(uid), Some(uid)).or_fault("no owner")?;
        Ok(path)
    }

    /// The files in the archive, oldest name first.
    pub fn archived(&self) -> Result<Vec<PathBuf>, Fault> {
        let entries = fs::read_dir(self.dir.path().join("arc")).or_fault("no archive")?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        Ok(paths)
    }

    /// Posts alerts with the token.
    pub fn post(&self, alerts: &[Post]) -> Result<Answer, Fault> {
        self.post_body(notification(alerts).to_string().into_bytes())
    }

    /// Posts anything with the token.
    pub fn post_body(&self, body: Vec<u8>) -> Result<Answer, Fault> {
        let authorization = format!("Bearer {TOKEN}");
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/json")];
        self.http.post(&self.url("/webhook"), &headers, body)
    }

    /// Gets a page.
    pub fn get(&self, path: &str) -> Result<Answer, Fault> {
        self.http.get(&self.url(path))
    }

    /// All remediations, oldest first.
    pub fn remediations(&self) -> Result<Vec<Value>, Fault> {
        let page = self.http.json(&self.url("/api/v1/remediations?limit=500"))?;
        let mut list = page.get("remediations").and_then(Value::as_array).cloned();
        let list = list.as_mut().map(std::mem::take).unwrap_or_default();
        Ok(list.into_iter().rev().collect())
    }

    /// Their verdicts, oldest first.
    pub fn verdicts(&self) -> Result<Vec<String>, Fault> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = self.remediations()?;
        Ok(all.iter().filter_map(|one| one.get("verdict")).map(text).collect())
    }

    /// Waits until these are the verdicts.
    pub fn wait_for_verdicts(&self, wanted: &[&str]) -> Result<(), Fault> {
        let waited = wait::until(&format!("verdicts {wanted:?}"), LIMIT, || {
            self.verdicts().is_ok_and(|verdicts| verdicts == wanted).then_some(())
        });
        waited.map_err(|fault| {
            Fault::new(format!(
                "{}, but {:?}\n{}",
                fault.whole(),
                self.verdicts(),
                self.daemon.log()
            ))
        })
    }

    /// Raises a storm that is watched for, until its remediation is called off because of a silence,
    /// and returns that storm. The remediator gives Alertmanager two seconds to tell its silences,
    /// and then assumes none, which it says: on a busy machine it may have to be asked again.
    pub fn raise_until_silenced(&self, uid: u32, command: &[u8]) -> Result<Storm, Fault> {
        let unknown = "continuing as if there were none";
        for asked in 0..5 {
            let before = self.verdicts()?.len();
            let storm = Storm::raise(uid, command, 8)?;
            let verdict = wait::until("the storm's return is judged", LIMIT, || {
                let verdicts = self.verdicts().ok()?;
                verdicts.get(before).filter(|verdict| *verdict != "running").cloned()
            })?;
            if verdict == "silenced" {
                return Ok(storm);
            }
            let excuses = self.daemon.log().matches(unknown).count();
            if verdict != "none_seen" || excuses <= asked {
                let log = self.daemon.log();
                return Err(Fault::new(format!("{verdict} instead of silenced\n{log}")));
            }
        }
        Err(Fault::new("Alertmanager never tells its silences in time"))
    }

    /// The value of a series, by the line's beginning; 0 if there is none.
    pub fn metric(&self, series: &str) -> Result<f64, Fault> {
        let page = self.get("/metrics")?;
        let line = page.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(Ok(0.0), |value| value.parse().or_fault(series.to_owned()))
    }

    /// Waits until a series has a value.
    pub fn wait_for_metric(&self, series: &str, value: f64) -> Result<(), Fault> {
        wait::until(&format!("{series} {value}"), LIMIT, || {
            self.metric(series).is_ok_and(|now| (now - value).abs() < 0.5).then_some(())
        })
    }

    /// Tells it to read its policy anew.
    pub fn reload(&self) -> Result<(), Fault> {
        self.daemon.signal(Signal::HUP)
    }

    /// Tells it to read its policy again, and waits until that is in force.
    pub fn reload_and_wait(&self) -> Result<(), Fault> {
        let reloads = || self.daemon.log().matches("configuration reloaded").count();
        let before = reloads();
        self.reload()?;
        wait::until("reloaded", LIMIT, || (reloads() > before).then_some(()))
            .beside(|| self.daemon.log())
    }

    /// Tells it to stop, and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus, Fault> {
        self.daemon.terminate(LIMIT)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) -> Result<(), Fault> {
        self.daemon.signal(Signal::KILL)?;
        wait::until("killed", LIMIT, || self.daemon.exited().ok().flatten()).map(drop)
    }

    /// Starts it again, with further arguments, and does not wait for it.
    pub fn relaunch(&mut self, further: &[&str]) -> Result<(), Fault> {
        let program = self.accounts.command(&programs::ours("procstorm-remediator")?)?;
        self.daemon = launch(self.dir.path(), &self.address, program, further)?;
        Ok(())
    }

    /// Starts it again, and waits until it answers.
    pub fn restart(&mut self) -> Result<(), Fault> {
        self.relaunch(&[])?;
        self.wait_until_healthy()
    }

    /// Starts it again with a clock that is so many seconds ahead of the machine's, by
    /// `libfaketime`, and waits until it answers.
    pub fn restart_ahead(&mut self, seconds: i64) -> Result<(), Fault> {
        let library = faketime().ok_or_else(|| Fault::new("no libfaketime: run tests/tools.sh"))?;
        let mut program = self.accounts.command(&programs::ours("procstorm-remediator")?)?;
        program.env("LD_PRELOAD", library).env("FAKETIME", format!("{seconds:+}"));
        program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.daemon = launch(self.dir.path(), &self.address, program, &[])?;
        self.wait_until_healthy()
    }

    /// Starts it again as its unit does: as an ordinary user, here `uid`, with four capabilities.
    /// It begins a new journal, which is that user's. Waits until it answers. Needs root.
    pub fn restart_as(&mut self, uid: u32) -> Result<(), Fault> {
        let dir = self.dir.path();
        let state = dir.join("state");
        fs::remove_dir_all(&state).or_fault("no journal to remove")?;
        fs::create_dir(&state).or_fault("no directory")?;
        chown(&state, Some(uid), Some(uid)).or_fault("no owner")?;
        // To where anybody may run it. By another program: what we have open for writing ourselves
        // cannot be run as long as a child of another test has not let go of it.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).or_fault("no mode")?;
        let program = dir.join("procstorm-remediator");
        let mut copy = Command::new("cp");
        copy.arg(programs::ours("procstorm-remediator")?).arg(&program);
        let copied = copy.status().or_fault("cannot copy the program")?;
        if !copied.success() {
            return Err(Fault::new("cannot copy the program"));
        }
        let mut command = Command::new(programs::other("setpriv")?);
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
        command.arg("--clear-groups");
        for set in ["inh-caps", "ambient-caps", "bounding-set"] {
            command.arg(format!("--{set}=-all,{CAPABILITIES}"));
        }
        // Changing the user has undone what the kernel was asked for before.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        self.daemon = launch(dir, &self.address, command, &[])?;
        self.wait_until_healthy()
    }
}

/// The library that gives a program another clock, of Debian's package of that name.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let path = PathBuf::from(format!("/usr/lib/{machine}/faketime/libfaketime.so.1"));
    path.is_file().then_some(path)
}

/// What the unit gives the daemon.
const CAPABILITIES: &str = "+kill,+dac_read_search,+chown,+fowner";

/// Starts the daemon of `dir`; `command` runs the program with what is added to it.
fn launch(
    dir: &Path,
    address: &str,
    mut command: Command,
    further: &[&str],
) -> Result<Daemon, Fault> {
    command.arg(format!("--config.file={}", dir.join("remediator.yml").display()));
    if !further.iter().any(|argument| argument.starts_with("--web.listen-address")) {
        command.arg(format!("--web.listen-address={address}"));
    }
    command.args(further);
    Daemon::start("procstorm-remediator", &command, &dir.join("remediator.log"))
}

/// An alert as it is posted.
#[derive(Clone, Debug)]
pub struct Post {
    status: &'static str,
    labels: Vec<(String, String)>,
    starts_at: &'static str,
}

impl Post {
    /// The alert that would be acted upon.
    #[must_use]
    pub fn storm(uid: u32, command: &str) -> Self {
        let labels = [
            ("alertname", "Storm"),
            ("playbook", "storm"),
            ("host", "moscow"),
            ("user", &uid.to_string()),
            ("command", command),
        ];
        let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { status: "firing", labels: owned.to_vec(), starts_at: "2026-11-23T13:51:45.789Z" }
    }

    /// The same, with another label.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.labels.retain(|(known, _)| known != name);
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, of another episode.
    #[must_use]
    pub fn since(mut self, starts_at: &'static str) -> Self {
        self.starts_at = starts_at;
        self
    }

    /// The same, resolved.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        self.status = "resolved";
        self
    }

    /// As Prometheus posts it to Alertmanager: of an episode that began long ago, and that goes
    /// on or is over.
    #[must_use]
    pub fn of_prometheus(&self) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let ends = if self.status == "firing" { "2099-01-01" } else { "2020-01-02" };
        json!({
            "labels": labels,
            "annotations": {"inline": "  95 alice imapd"},
            "startsAt": "2020-01-01T00:00:00Z",
            "endsAt": format!("{ends}T00:00:00Z"),
            "generatorURL": "http://prometheus/graph",
        })
    }
}

/// The body of a notification.
#[must_use]
pub fn notification(alerts: &[Post]) -> Value {
    let alerts: Vec<Value> = alerts
        .iter()
        .map(|alert| {
            let labels: serde_json::Map<String, Value> =
                alert.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({
                "status": alert.status,
                "labels": labels,
                "annotations": {"inline": "  95 alice imapd"},
                "startsAt": alert.starts_at,
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus/graph",
                "fingerprint": "f005e9953eb1eb68",
            })
        })
        .collect();
    json!({
        "version": "4",
        "groupKey": "{}:{}",
        "status": "firing",
        "receiver": "remediator",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "truncatedAlerts": 0,
        "alerts": alerts,
    })
}

/// What stands for Alertmanager's API.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<u16>,
    pause: Duration,
    posts: Vec<Value>,
    attempts: usize,
    silences: String,
    /// Alerts that it holds besides the outcomes it was given.
    held: Vec<Value>,
    forgetful: bool,
    /// How many seconds its clock is ahead of the machine's.
    ahead: i64,
}

impl Receiver {
    /// Starts one, on a free port.
    pub fn start() -> Result<Self, Fault> {
        let state = Arc::new(Mutex::new(State { silences: "[]".to_owned(), ..State::default() }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .or_fault("no runtime")?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .or_fault("no free port")?;
        let address = listener.local_addr().or_fault("no address")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let kept = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let handler = move |request| answer(Arc::clone(&kept), request);
            let until = async { stopped.await.unwrap_or_default() };
            let served = serve(vec![listener], Settings::default(), handler, until);
            runtime.block_on(served).unwrap_or_default();
        });
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// The line of a policy that makes a remediator post here.
    #[must_use]
    pub fn line(&self) -> String {
        format!("alertmanager: http://{}", self.address)
    }

    /// From now on every request fails with this status, or none does.
    pub fn fail(&self, status: Option<u16>) {
        self.state().failing = status;
    }

    /// From now on every answer takes so long.
    pub fn slow_down(&self, pause: Duration) {
        self.state().pause = pause;
    }

    /// From now on its clock is so many seconds ahead of the machine's.
    pub fn run_ahead(&self, seconds: i64) {
        self.state().ahead = seconds;
    }

    /// Forgets what it was given, as one that was restarted.
    pub fn forget(&self) {
        self.state().forgetful = true;
    }

    /// Holds an alert besides, of which it says this.
    pub fn hold(&self, alert: &Post, status: &Value) {
        let mut alert = alert.of_prometheus();
        if let Some(alert) = alert.as_object_mut() {
            alert.insert("status".to_owned(), status.clone());
        }
        self.state().held = vec![alert];
    }

    /// What it says of silences.
    pub fn silence(&self, silences: &Value) {
        self.state().silences = silences.to_string();
    }

    /// The alerts that it was given, in their order.
    #[must_use]
    pub fn posts(&self) -> Vec<Value> {
        self.state().posts.clone()
    }

    /// How many posts were tried, those that failed included.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// Waits until it was given so many.
    pub fn wait_for_posts(&self, count: usize) -> Result<Vec<Value>, Fault> {
        wait::until(&format!("{count} outcomes"), LIMIT, || {
            Some(self.posts()).filter(|posts| posts.len() >= count)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request) -> Response {
    let mut response = answer_undated(Arc::clone(&state), request).await;
    // After the answer: a clock that was set before an answer was allowed shows in its date.
    let ahead = state.lock().unwrap_or_else(PoisonError::into_inner).ahead;
    let date = Timestamp::now() + SignedDuration::from_secs(ahead);
    let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
    if let Some(date) = date.ok().and_then(|date| HeaderValue::try_from(date).ok()) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn answer_undated(state: Arc<Mutex<State>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let pause = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.attempts += usize::from(method == Method::POST);
        state.pause
    };
    tokio::time::sleep(pause).await;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(status) = state.failing {
        return reply::text(StatusCode::from_u16(status).unwrap_or_default(), "told to fail\n");
    }
    let json = |text: String| reply::content(StatusCode::OK, "application/json", text);
    match (method, path.as_str()) {
        (Method::POST, "/api/v2/alerts") => {
            let alerts: Vec<Value> = serde_json::from_slice(&body).unwrap_or_default();
            state.posts.extend(alerts);
            json("{}".to_owned())
        }
        (Method::GET, "/api/v2/alerts") if state.forgetful => json("[]".to_owned()),
        (Method::GET, "/api/v2/alerts") => {
            let all = state.posts.iter().chain(&state.held).cloned().collect::<Vec<_>>();
            json(Value::from(all).to_string())
        }
        (Method::GET, "/api/v2/silences") => json(state.silences.clone()),
        _ => reply::not_found(),
    }
}
