//! What the shipped rules cost in a real Prometheus: milliseconds an evaluation of each group, for
//! fleets of hosts with 500 series each, one line in a thousand of which fires.
//!
//! `cargo bench -p procstorm-tests --bench rules [-- HOSTS...]`
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use procstorm_tests::http::Http;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;
use serde_json::Value;

const SERIES: usize = 500;

/// How many evaluations of each group are looked at.
const EVALUATIONS: usize = 12;

/// How long to wait for them: the largest fleet may need more than its interval.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> Result<(), Fault> {
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    for hosts in if asked.is_empty() { vec![100, 1000] } else { asked } {
        measure(hosts)?;
    }
    Ok(())
}

/// One host's page: a few commands of many users, nearly all of them few.
fn page(host: usize) -> String {
    let commands = ["imapd", "sendmail", "httpd", "bash", "vim"];
    let mut page = String::new();
    for number in 0..SERIES {
        let command = commands.iter().cycle().nth(number).copied().unwrap_or_default();
        let count = if (host * SERIES + number).is_multiple_of(1000) { 97 } else { number % 9 + 1 };
        let user = number / commands.len();
        page.push_str(&format!(
            "procstorm_processes{{user=\"user{user:03}\",command=\"{command}\"}} {count}\n"
        ));
    }
    page
}

fn configuration(hosts: usize, port: u16) -> String {
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let targets: String = (0..hosts)
        .map(|host| {
            format!(
                "      - targets: ['127.0.0.1:{port}']\n        labels: {{host: h{host:04}, role: \
                 mail, __metrics_path__: /{host}}}\n"
            )
        })
        .collect();
    format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 4s, evaluation_interval: 5s}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n  - job_name: procstorm\n    static_configs:\n{targets}",
        rules.display()
    )
}

fn measure(hosts: usize) -> Result<(), Fault> {
    let target = ScrapeTarget::serve((0..hosts).map(|host| (format!("/{host}"), page(host))))?;
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let config = dir.path().join("prometheus.yml");
    fs::write(&config, configuration(hosts, target.port())).or_fault("cannot configure")?;
    let prometheus = Prometheus::start(&config, dir.path())?;
    let all = format!("sum(up) == {hosts}");
    wait::until("a scrape of every host", LIMIT, || {
        prometheus.query(&all).is_ok_and(|found| !found.is_empty()).then_some(())
    })?;

    let http = Http::new()?;
    // By group: when it was evaluated, and the seconds that it took.
    let mut seen = BTreeMap::<String, BTreeMap<String, f64>>::new();
    wait::until("evaluations", LIMIT, || {
        let answer = http.json(&format!("{}/api/v1/rules", prometheus.url())).ok()?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array)?;
        for group in groups {
            let text = |key: &str| group.get(key).and_then(Value::as_str).map(str::to_owned);
            let seconds = group.get("evaluationTime").and_then(Value::as_f64)?;
            seen.entry(text("name")?).or_default().insert(text("lastEvaluation")?, seconds);
        }
        // The first of them may have seen no series yet.
        seen.values().all(|group| group.len() > EVALUATIONS).then_some(())
    })?;
    let alerts = prometheus.query("count(ALERTS{alertname=~\"ProcNumChk.*\"})")?;
    let alerts = alerts.first().map_or(0.0, |sample| sample.value);
    println!("rules: {hosts} hosts, {} series, {alerts} alerts", hosts * SERIES);
    for (group, times) in seen {
        let mut times: Vec<f64> = times.into_values().skip(1).collect();
        times.sort_by(f64::total_cmp);
        let at = |index: usize| times.get(index).copied().unwrap_or_default() * 1e3;
        let (middle, last) = (times.len() / 2, times.len().saturating_sub(1));
        println!(
            "rules:   {group}: median {:.1} ms, least {:.1}, most {:.1}, of {} evaluations",
            at(middle),
            at(0),
            at(last),
            times.len()
        );
    }
    Ok(())
}
