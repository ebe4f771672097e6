//! How long it takes from the start of a storm to the request that a remediator gets, by the
//! interval of scrapes and evaluations: with Prometheus, and, where `victoria-metrics` and `vmalert`
//! are in `PATH`, with these.
//!
//! `cargo bench -p procstorm-tests --bench delay [-- SECONDS...]`
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "storms begin at any time between two scrapes")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::programs;
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::daemon::Daemon;
use procstorm_tests::http::Http;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;
use procstorm_tests::stack::Site;
use procstorm_tests::webhook::Webhook;
use serde_json::Value;

const STORMS: usize = 30;

/// How long to wait for one storm's request.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> Result<(), Fault> {
    let asked: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    for seconds in if asked.is_empty() { vec![5, 15] } else { asked } {
        let shipped = programs::project().join("rules/procstorm.rules.yml");
        measure("Prometheus", seconds, |bench| bench.prometheus(&shipped))?;
        if programs::other("victoria-metrics").is_err() || programs::other("vmalert").is_err() {
            println!("delay: victoria-metrics or vmalert is not in PATH: not measured");
            continue;
        }
        for offset in ["30s", "1ms"] {
            let name = format!("VictoriaMetrics, -search.latencyOffset={offset}");
            measure(&name, seconds, |bench| bench.victoria_metrics(&shipped, offset))?;
        }
    }
    Ok(())
}

/// What is scraped, what evaluates, and where.
struct Bench<'a> {
    dir: &'a Path,
    seconds: u64,
    target: &'a ScrapeTarget,
    alertmanager: &'a Alertmanager,
}

/// The programs that evaluate. They end with this value.
type Running = (Option<Prometheus>, Vec<Daemon>);

impl Bench<'_> {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Fault> {
        let path = self.dir.join(name);
        fs::write(&path, text).or_fault(format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn jobs(&self) -> String {
        format!(
            "scrape_configs:\n  - job_name: procstorm\n    static_configs: [{{targets: \
             ['127.0.0.1:{}'], labels: {{host: moscow, role: mail}}}}]\n",
            self.target.port()
        )
    }

    fn prometheus(&self, rules: &Path) -> Result<Running, Fault> {
        let text = format!(
            "global: {{scrape_interval: {seconds}s, scrape_timeout: 4s, evaluation_interval: \
             {seconds}s}}\nrule_files: ['{}']\nalerting: {{alertmanagers: [{{static_configs: \
             [{{targets: ['{}']}}]}}]}}\n{}",
            rules.display(),
            self.alertmanager.url().trim_start_matches("http://"),
            self.jobs(),
            seconds = self.seconds,
        );
        let config = self.write("prometheus.yml", &text)?;
        Ok((Some(Prometheus::start(&config, self.dir)?), Vec::new()))
    }

    fn victoria_metrics(&self, rules: &Path, offset: &str) -> Result<Running, Fault> {
        let text = format!(
            "global: {{scrape_interval: {}s, scrape_timeout: 4s}}\n{}",
            self.seconds,
            self.jobs()
        );
        let config = self.write("scrape.yml", &text)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let url = format!("http://{address}");
        let mut storage = Command::new(programs::other("victoria-metrics")?);
        storage.args([
            format!("-promscrape.config={}", config.display()),
            format!("-storageDataPath={}", self.dir.join("data").display()),
            format!("-httpListenAddr={address}"),
            format!("-search.latencyOffset={offset}"),
        ]);
        let http = Http::new()?;
        let log = self.dir.join("victoria-metrics.log");
        let mut storage = Daemon::start("victoria-metrics", &storage, &log)?;
        storage.ready(|| http.is_ok(&format!("{url}/health")))?;
        let mut alerts = Command::new(programs::other("vmalert")?);
        let address = format!("127.0.0.1:{}", free_port()?);
        alerts.args([
            format!("-rule={}", rules.display()),
            format!("-evaluationInterval={}s", self.seconds),
            format!("-datasource.url={url}"),
            format!("-remoteWrite.url={url}"),
            format!("-remoteRead.url={url}"),
            format!("-notifier.url={}", self.alertmanager.url()),
            format!("-httpListenAddr={address}"),
        ]);
        let mut alerts = Daemon::start("vmalert", &alerts, &self.dir.join("vmalert.log"))?;
        alerts.ready(|| http.is_ok(&format!("http://{address}/health")))?;
        Ok((None, vec![storage, alerts]))
    }
}

/// The page of an exporter, on which so many users have a storm.
fn page(storms: usize) -> String {
    let line = |user| format!("procstorm_processes{{user=\"user{user}\",command=\"imapd\"}} 97\n");
    (0..storms).map(line).collect()
}

fn measure(
    name: &str,
    seconds: u64,
    start: impl Fn(&Bench<'_>) -> Result<Running, Fault>,
) -> Result<(), Fault> {
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let webhook = Webhook::serve()?;
    let target = ScrapeTarget::serve([("/metrics".to_owned(), page(0))])?;
    let site = Site::lay_out(dir.path(), &[])?;
    // Nobody takes mails there, which holds up nobody else.
    let config = site.alertmanager(([127, 0, 0, 1], 1).into(), &webhook.address().to_string())?;
    let alertmanager = Alertmanager::start(&config, dir.path())?;
    let bench = Bench { dir: dir.path(), seconds, target: &target, alertmanager: &alertmanager };
    let running = start(&bench)?;

    // The first storm waits for the programs to know the table. The others begin at any time
    // between two scrapes.
    let mut begun = Vec::new();
    let mut came = BTreeMap::<String, Instant>::new();
    for storm in 0..=STORMS {
        target.set("/metrics", page(storm + 1));
        begun.push(Instant::now());
        if storm == 0 {
            wait_for(&webhook, &mut came, 1)?;
        }
        let part = u32::try_from(storm * 37 % 100).unwrap_or_default();
        thread::sleep(Duration::from_millis(500) + Duration::from_secs(seconds) * part / 100);
    }
    wait_for(&webhook, &mut came, STORMS + 1)?;
    drop(running);

    let mut delays: Vec<f64> = begun
        .iter()
        .enumerate()
        .skip(1)
        .filter_map(|(storm, begun)| {
            Some(came.get(&format!("user{storm}"))?.duration_since(*begun))
        })
        .map(|delay| delay.as_secs_f64())
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |index: usize| delays.get(index).copied().unwrap_or_default();
    println!(
        "delay: {name}, every {seconds} s: median {:.1} s, least {:.1}, most {:.1}, of {} storms",
        at(delays.len() / 2),
        at(0),
        at(delays.len().saturating_sub(1)),
        delays.len()
    );
    Ok(())
}

/// Waits until requests about so many users have come. The first of each is what counts.
fn wait_for(
    webhook: &Webhook,
    came: &mut BTreeMap<String, Instant>,
    users: usize,
) -> Result<(), Fault> {
    while came.len() < users {
        let (at, body) = webhook.next(LIMIT)?;
        for alert in body.get("alerts").and_then(Value::as_array).into_iter().flatten() {
            let user = alert.pointer("/labels/user").and_then(Value::as_str).unwrap_or_default();
            came.entry(user.to_owned()).or_insert(at);
        }
    }
    Ok(())
}
