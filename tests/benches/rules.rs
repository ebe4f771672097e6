//! What the shipped rules cost in a real Prometheus: for a fleet of hosts with 500 groups each, with
//! all groups shown and with the small ones added together, without a storm and with one on each
//! host.
//!
//! `cargo bench -p procstorm-tests --bench rules [-- [HOSTS] [mark=N]... [even]]`
//!
//! Most of a host's groups are single processes, as on a login node or a mail server; with `even` the
//! groups have 1 to 9 processes, one as often as another.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use procstorm_exporter::exposition::Exposition;
use procstorm_exporter::fold::{Counts, Limits, fold, users};
use procstorm_exporter::scan::Scan;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait::nap;
use procstorm_testkit::{programs, wait};
use procstorm_tests::http::Http;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;
use procstorm_tests::toll::Toll;
use serde_json::Value;

const USERS: usize = 100;

/// Of each user.
const COMMANDS: [&str; 5] = ["imapd", "sendmail", "httpd", "bash", "vim"];

/// The default of `--collector.min-user-processes`.
const USER_MARK: u64 = 100;

/// How many evaluations of each group are looked at, in each state of the fleet.
const EVALUATIONS: usize = 6;

/// How long to wait for them: the largest fleet may need more than its interval.
const LIMIT: Duration = Duration::from_secs(400);

/// A storm, on each host.
const STORM: u64 = 97;

/// The groups of the shipped rules.
const GROUPS: [&str; 3] = ["procstorm_thresholds", "procstorm_alerts", "procstorm_meta"];

/// How many of the dearest rules are named.
const DEAREST: usize = 6;

/// Between two looks at Prometheus' metrics.
const PAUSE: Duration = Duration::from_secs(1);

/// A remediator on each host, or an alert would fire for each that has none.
const REMEDIATORS: &str = "groups: [{name: remediators, rules: [{record: up, \
                           expr: 'up{job=\"procstorm\"}', labels: {job: procstorm-remediator}}]}]\n";

/// The unit of the times in /proc/PID/stat.
const TICKS_PER_SECOND: f64 = 100.0;

/// A fleet.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    hosts: usize,
    /// `--collector.min-processes` of its exporters.
    mark: u64,
    /// Whether the sizes of its groups are spread evenly.
    is_even: bool,
}

fn main() -> Result<(), Fault> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let hosts = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let is_even = words.iter().any(|word| word == "even");
    let marks = words.iter().filter_map(|word| word.strip_prefix("mark=")?.parse().ok());
    let marks: Vec<u64> = marks.collect();
    println!(
        "| mark | storms | series | samples/s | evaluation: median (max) of thresholds + alerts + meta \
         | sum of medians (of max) | cores | resident |\n|---|---|---|---|---|---|---|---|"
    );
    for mark in if marks.is_empty() { vec![1, 10] } else { marks } {
        measure(Fleet { hosts, mark, is_even })?;
    }
    Ok(())
}

/// How many processes one of a host's groups has.
fn size(group: usize, is_even: bool) -> u64 {
    let nth = |sizes: &[u64]| sizes.iter().cycle().nth(group).copied().unwrap_or_default();
    if is_even {
        return nth(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
    match group % 50 {
        // Of fifty groups one, three, six and ten.
        0 => nth(&[10, 12, 15, 19]),
        1..=3 => nth(&[5, 6, 7, 8, 9]),
        4..=9 => nth(&[3, 4]),
        10..=19 => 2,
        _ => 1,
    }
}

/// One host's page, as the exporter writes it.
fn page(fleet: Fleet, host: usize, is_storm: bool) -> Result<String, Fault> {
    let mut counts = Counts::new();
    for group in 0..USERS * COMMANDS.len() {
        let command = COMMANDS.iter().cycle().nth(group).copied().unwrap_or_default();
        // Each host has other users who have many.
        let user = (group / COMMANDS.len() + host) % USERS;
        let commands = counts.entry(format!("user{user:03}").into()).or_default();
        let is_storm = is_storm && group == 0;
        let size = if is_storm { STORM } else { size(group, fleet.is_even) };
        commands.insert(command.to_owned(), size);
    }
    let processes = counts.values().flat_map(BTreeMap::values).sum();
    let limits = Limits { min_processes: fleet.mark, max_series: 5000, max_commands_per_user: 200 };
    // As the exporter's default, but where each group is to be shown.
    let min_user_processes = if fleet.mark == 1 { 1 } else { USER_MARK };
    let user_processes = users(&counts, min_user_processes, limits.max_series);
    let folded = fold(&mut counts, limits);
    let scan = Scan {
        counts,
        user_processes,
        processes,
        folded,
        min_processes: fleet.mark,
        min_user_processes,
        ..Scan::default()
    };
    let page = Exposition::new(true).render(&scan, None).or_fault("cannot render")?;
    String::from_utf8(page).or_fault("not a text")
}

fn configuration(hosts: usize, port: u16) -> String {
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let targets: String = (0..hosts)
        .map(|host| {
            format!(
                "      - targets: ['127.0.0.1:{port}']\n        labels: {{host: h{host:04}, role: \
                 mail, instance: 'h{host:04}:9957', __metrics_path__: /{host}}}\n"
            )
        })
        .collect();
    format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 4s, evaluation_interval: 5s}}\n\
         rule_files: ['{}', remediators.yml]\n\
         scrape_configs:\n  - job_name: procstorm\n    static_configs:\n{targets}",
        rules.display()
    )
}

fn measure(fleet: Fleet) -> Result<(), Fault> {
    let hosts = fleet.hosts;
    let quiet = (0..hosts).map(|host| Ok((format!("/{host}"), page(fleet, host, false)?)));
    let target = ScrapeTarget::serve(quiet.collect::<Result<Vec<_>, Fault>>()?)?;
    let storms = (0..hosts).map(|host| Ok((format!("/{host}"), page(fleet, host, true)?)));
    let storms = storms.collect::<Result<Vec<_>, Fault>>()?;
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let config = dir.path().join("prometheus.yml");
    fs::write(dir.path().join("remediators.yml"), REMEDIATORS).or_fault("cannot write rules")?;
    fs::write(&config, configuration(hosts, target.port())).or_fault("cannot configure")?;
    let prometheus = Prometheus::start(&config, dir.path())?;
    let until = |what: &str, query: String| {
        wait::until(what, LIMIT, || {
            prometheus.query(&query).is_ok_and(|found| !found.is_empty()).then_some(())
        })
    };
    until("a scrape of every host", format!("sum(up{{job=\"procstorm\"}}) == {hosts}"))?;
    watch(fleet, &prometheus, 0)?;

    for (path, page) in storms {
        target.set(&path, page);
    }
    until(
        "an alert of every storm",
        format!("count(ALERTS{{alertname=\"ProcNumChkRed\",alertstate=\"firing\"}}) == {hosts}"),
    )?;
    watch(fleet, &prometheus, hosts)
}

/// What Prometheus has taken so far.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    cpu_seconds: f64,
    samples: f64,
    series: f64,
}

impl Reading {
    fn of(prometheus: &Prometheus, http: &Http) -> Result<Self, Fault> {
        let stat = format!("/proc/{}/stat", prometheus.daemon.pid());
        let stat = fs::read_to_string(&stat).or_fault(stat)?;
        // utime and stime, the 14th and 15th, counted behind the name in parentheses.
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: f64 = times.filter_map(|time| time.parse::<f64>().ok()).sum();
        let page = http.get(&format!("{}/metrics", prometheus.url()))?.body;
        let metric = |name: &str| {
            let lines = page.lines().filter_map(|line| line.strip_prefix(name));
            lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        Ok(Self {
            at: Instant::now(),
            cpu_seconds: ticks / TICKS_PER_SECOND,
            samples: metric("prometheus_tsdb_head_samples_appended_total"),
            series: metric("prometheus_tsdb_head_series "),
        })
    }
}

/// Waits for evaluations of each group, and prints what they and all else cost meanwhile.
fn watch(fleet: Fleet, prometheus: &Prometheus, storms: usize) -> Result<(), Fault> {
    let http = Http::new()?;
    // By group: when it was evaluated, and the seconds that it took.
    let mut seen = BTreeMap::<&str, BTreeMap<String, f64>>::new();
    let before = Reading::of(prometheus, &http)?;
    wait::until("evaluations", LIMIT, || {
        // Each question costs Prometheus something, too.
        nap(PAUSE);
        let page = http.get(&format!("{}/metrics", prometheus.url())).ok()?.body;
        for group in GROUPS {
            let is_its = |line: &&str| line.contains(&format!(";{group}\"}}"));
            let value = |name: &str| {
                let line = page.lines().filter(is_its).find(|line| line.starts_with(name))?;
                line.rsplit(' ').next()
            };
            let at = value("prometheus_rule_group_last_evaluation_timestamp_seconds{")?;
            let seconds = value("prometheus_rule_group_last_duration_seconds{")?.parse().ok()?;
            seen.entry(group).or_default().insert(at.to_owned(), seconds);
        }
        // The first of them may be from before.
        seen.values().all(|group| group.len() > EVALUATIONS).then_some(())
    })?;
    let after = Reading::of(prometheus, &http)?;
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let times: Vec<_> = GROUPS.iter().map(|group| middle_and_last(seen.get(group))).collect();
    let each = |of: fn(&(f64, f64)) -> f64| -> f64 { times.iter().map(of).sum() };
    let shown: Vec<String> =
        times.iter().map(|(middle, last)| format!("{middle:.3} ({last:.3})")).collect();
    println!(
        "| {} | {storms} | {:.0} | {:.0} | {} s | {:.2} s ({:.2}) | {:.2} | {} MiB |",
        fleet.mark,
        after.series,
        (after.samples - before.samples) / seconds,
        shown.join(" + "),
        each(|time| time.0),
        each(|time| time.1),
        (after.cpu_seconds - before.cpu_seconds) / seconds,
        Toll::of(prometheus.daemon.pid())?.memory / 1024,
    );
    dearest(prometheus, &http)
}

/// Prints what the dearest rules took at last.
fn dearest(prometheus: &Prometheus, http: &Http) -> Result<(), Fault> {
    let answer = http.json(&format!("{}/api/v1/rules", prometheus.url()))?;
    let groups = answer.pointer("/data/groups").and_then(Value::as_array).into_iter().flatten();
    let rules = groups.filter_map(|group| group.get("rules")?.as_array()).flatten();
    let cost = |rule: &Value| {
        let name = rule.get("name").and_then(Value::as_str)?.to_owned();
        Some((rule.get("evaluationTime").and_then(Value::as_f64)? * 1e3, name))
    };
    let mut costs: Vec<_> = rules.filter_map(cost).collect();
    costs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let shown = costs.iter().take(DEAREST).map(|(ms, name)| format!("{name} {ms:.0} ms"));
    println!("rules: {}", shown.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// The median and the largest of a group's times, without the first, which may be from before.
fn middle_and_last(times: Option<&BTreeMap<String, f64>>) -> (f64, f64) {
    let mut times: Vec<f64> =
        times.into_iter().flat_map(BTreeMap::values).skip(1).copied().collect();
    times.sort_by(f64::total_cmp);
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    (middle, times.last().copied().unwrap_or_default())
}
