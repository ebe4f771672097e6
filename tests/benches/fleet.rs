//! What a fleet costs besides its rules: the CPU time of `fleet` and `--check --fleet`, how long a
//! real Alertmanager takes to load one receiver for each host, and how soon as many alerts at once
//! reach their webhooks.
//!
//! `cargo bench -p procstorm-tests --bench fleet [-- HOSTS...]`
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::http::Http;
use procstorm_tests::smtp::Sink;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(300);

/// How long to look for second notifications: three times the routes' `group_interval`.
const AFTER: Duration = Duration::from_secs(15);

const POLICY: &str = "token_file: /etc/procstorm/token
alertmanager: [http://am1:9093, http://am2:9093, http://am3:9093]
playbooks:
  imapd_storm:
    alerts: [ProcNumChkRed]
    command: imapd
    threshold: 90
    steps: [archive_mail_file, kill_user_proc]
";

fn main() -> Result<(), Fault> {
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    for hosts in if asked.is_empty() { vec![1000] } else { asked } {
        measure(hosts)?;
    }
    Ok(())
}

fn name(host: usize) -> String {
    format!("h{host:05}")
}

fn measure(hosts: usize) -> Result<(), Fault> {
    let dir = tempfile::tempdir().or_fault("no directory")?;
    generate(hosts, dir.path())?;
    let webhooks = Webhooks::serve()?;
    let mails = Sink::start(None)?;
    let config = dir.path().join("out/alertmanager.yml");
    point_here(&config, &webhooks, &mails, dir.path())?;
    let begun = Instant::now();
    let alertmanager = Alertmanager::start(&config, dir.path())?;
    let pid = alertmanager.daemon.pid();
    let size = fs::metadata(&config).or_fault("no configuration")?.len();
    println!(
        "fleet: Alertmanager with {hosts} receivers ({} KB): ready after {:.2} s, {:.2} CPU seconds, \
         RSS {} MB",
        size / 1000,
        begun.elapsed().as_secs_f64(),
        cpu_seconds(pid)?,
        rss_mb(pid)?
    );
    let (before, begun) = (cpu_seconds(pid)?, Instant::now());
    let reload = Http::new()?.post(&format!("{}/-/reload", alertmanager.url()), &[], "")?;
    if reload.status != 200 {
        return Err(Fault::new(format!("reload: {}", reload.body)));
    }
    println!(
        "fleet: reload of it: {:.2} s, {:.2} CPU seconds",
        begun.elapsed().as_secs_f64(),
        cpu_seconds(pid)? - before
    );
    dispatch(hosts, &alertmanager, &webhooks)?;
    let mailed = wait::until("a mail for each host", LIMIT, || {
        let count = mails.mails().len();
        (count >= hosts).then_some(count)
    })?;
    println!(
        "fleet: {mailed} mails; Alertmanager has used {:.1} CPU seconds, RSS {} MB",
        cpu_seconds(pid)?,
        rss_mb(pid)?
    );
    Ok(())
}

/// The files of a fleet, as an operator makes and checks them.
fn generate(hosts: usize, dir: &Path) -> Result<(), Fault> {
    let targets: String = (0..hosts).map(|host| format!("    - '{}:9957'\n", name(host))).collect();
    let list = format!("- labels: {{role: mail}}\n  targets:\n{targets}");
    fs::write(dir.join("targets.yml"), list).or_fault("no list")?;
    let policies = dir.join("policies");
    fs::create_dir(&policies).or_fault("no directory")?;
    fs::write(policies.join("mail.yml"), POLICY).or_fault("no policy")?;
    let repository = programs::project();
    let base = repository.join("alertmanager/alertmanager.yml").display().to_string();
    let rules = repository.join("rules").display().to_string();
    let credentials = dir.join("credentials").display().to_string();
    let common = ["--policies", "policies"];
    let make = ["fleet", "--targets", "targets.yml", "--output", "out", "--base", &base];
    let make = [&make[..], &["--credentials", &credentials], &common].concat();
    let check = ["--check", "--fleet", "targets.yml", "--rules", &rules];
    let check = [&check[..], &["--alertmanager", "out/alertmanager.yml"], &common].concat();
    timed(&format!("procstorm-remediator fleet, {hosts} hosts"), dir, &make)?;
    timed(&format!("procstorm-remediator --check --fleet, {hosts} hosts"), dir, &check)
}

/// Runs the remediator's program, and says what CPU time it took. The shell's `time` waits for it.
fn timed(what: &str, dir: &Path, args: &[&str]) -> Result<(), Fault> {
    let output = Command::new("bash")
        .args(["-c", "TIMEFORMAT='cpu %U %S real %R'; time \"$@\"", "bash"])
        .arg(programs::ours("procstorm-remediator")?)
        .args(args)
        .current_dir(dir)
        .output()
        .or_fault("no bash")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let times = complaint.lines().rev().find_map(|line| line.strip_prefix("cpu "));
    let (true, Some(times)) = (output.status.success(), times) else {
        return Err(Fault::new(format!("{what}: {complaint}")));
    };
    let words: Vec<f64> = times.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [user, system, real] = words.as_slice() else {
        return Err(Fault::new(format!("{what}: {times}")));
    };
    println!("fleet: {what}: {:.2} CPU seconds, {real:.2} s", user + system);
    Ok(())
}

/// Sends to this process what the configuration sends to hosts and to a mail server. Each host's
/// token and the authority's certificate are read as they would be.
fn point_here(config: &Path, webhooks: &Webhooks, mails: &Sink, dir: &Path) -> Result<(), Fault> {
    let text = fs::read_to_string(config).or_fault("no configuration")?;
    let mut out = String::new();
    let credentials = dir.join("credentials");
    fs::create_dir(&credentials).or_fault("no directory")?;
    let authority = rcgen::generate_simple_self_signed(["ca".to_owned()]).or_fault("no key")?;
    fs::write(credentials.join("ca.crt"), authority.cert.pem()).or_fault("no certificate")?;
    for line in text.lines() {
        let url = line.trim_start().strip_prefix("- url: 'https://");
        let host = url.and_then(|rest| rest.strip_suffix(":9958/webhook'"));
        match host {
            Some(host) => {
                let token = credentials.join(format!("{host}.token"));
                fs::write(token, format!("token of {host}")).or_fault("no token")?;
                out += &format!("      - url: 'http://127.0.0.1:{}/{host}'\n", webhooks.port);
            }
            None => out += &format!("{line}\n"),
        }
    }
    let out = out.replace("localhost:25", &mails.address().to_string());
    fs::write(config, out).or_fault("cannot write")?;
    let templates = config.with_file_name("templates");
    fs::create_dir(&templates).or_fault("no directory")?;
    let shipped = programs::project().join("alertmanager/templates/procstorm.tmpl");
    fs::copy(shipped, templates.join("procstorm.tmpl")).or_fault("no template").map(drop)
}

/// One alert for each host, all in one post, as Prometheus sends the alerts of one evaluation.
fn dispatch(hosts: usize, alertmanager: &Alertmanager, webhooks: &Webhooks) -> Result<(), Fault> {
    let alerts: Vec<Value> = (0..hosts).map(alert).collect();
    let (before, begun) = (cpu_seconds(alertmanager.daemon.pid())?, Instant::now());
    alertmanager.post_alerts(&alerts)?;
    let taken = begun.elapsed();
    wait::until("a notification of each host", LIMIT, || {
        (webhooks.arrivals().len() >= hosts).then_some(())
    })?;
    let mut delays: Vec<f64> = webhooks
        .arrivals()
        .values()
        .filter_map(|times| times.first())
        .map(|at| at.saturating_duration_since(begun).as_secs_f64())
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = (delays.len() * percent / 100).min(delays.len().saturating_sub(1));
        delays.get(index).copied().unwrap_or_default()
    };
    let cpu = cpu_seconds(alertmanager.daemon.pid())? - before;
    wait::nap(AFTER);
    let twice = webhooks.arrivals().values().filter(|times| times.len() > 1).count();
    println!(
        "fleet: {hosts} groups at once: the post taken after {:.2} s, webhooks after {:.2} s (p50), \
         {:.2} s (p99), {:.2} s (all), {cpu:.2} CPU seconds; {twice} hosts twice within {} s",
        taken.as_secs_f64(),
        at(50),
        at(99),
        at(100),
        AFTER.as_secs()
    );
    match twice {
        0 => Ok(()),
        twice => Err(Fault::new(format!("{twice} hosts were notified twice"))),
    }
}

fn alert(host: usize) -> Value {
    json!({
        "labels": {
            "alertname": "ProcNumChkRed", "host": name(host), "role": "mail", "user": "alice",
            "command": "imapd", "class": "imapd", "level": "red", "severity": "critical",
            "instance": format!("{}:9957", name(host)), "job": "procstorm",
            "playbook": "imapd_storm",
        },
        "annotations": {
            "inline": "  97 alice imapd", "count": "97", "threshold": "90",
            "summary": format!("A user runs too many processes on {}.", name(host)),
            "runbook_url": "https://example.org/procstorm/blob/main/rules/RUNBOOK.md#procnumchkred",
        },
    })
}

/// When requests for each path arrived.
type Arrivals = Arc<Mutex<BTreeMap<String, Vec<Instant>>>>;

/// The webhooks of all hosts, each a path on one port.
struct Webhooks {
    port: u16,
    arrivals: Arrivals,
    _runtime: Runtime,
}

impl Webhooks {
    fn serve() -> Result<Self, Fault> {
        let runtime = Runtime::new().or_fault("no runtime")?;
        let listener =
            runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).or_fault("no free port")?;
        let port = listener.local_addr().or_fault("no address")?.port();
        let arrivals = Arrivals::default();
        let shared = Arc::clone(&arrivals);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let arrivals = Arc::clone(&shared);
                tokio::spawn(async move { drop(answer(stream, &arrivals).await) });
            }
        });
        Ok(Self { port, arrivals, _runtime: runtime })
    }

    fn arrivals(&self) -> BTreeMap<String, Vec<Instant>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers 200 to each request of a connection.
async fn answer(stream: TcpStream, arrivals: &Arrivals) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
            let value = line.strip_prefix("content-length:");
            length = value.and_then(|value| value.trim().parse().ok()).unwrap_or(length);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let now = Instant::now();
        if let Some(path) = path {
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.entry(path).or_default().push(now);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
    }
}

/// The CPU time of a process and all its threads. The kernel counts it in hundredths of a second
/// (`man 5 proc`, fields 14 and 15).
fn cpu_seconds(pid: u32) -> Result<f64, Fault> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).or_fault("no process")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn rss_mb(pid: u32) -> Result<u64, Fault> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fault("no process")?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = kilobytes.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kilobytes.map(|kb: u64| kb / 1024).ok_or_else(|| Fault::new("no VmRSS"))
}
