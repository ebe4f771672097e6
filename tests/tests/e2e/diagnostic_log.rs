//! The original's diagnostic log, from a real Prometheus: `rules/log.sh` prints every line at or
//! over a script's low mark, at every run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use procstorm_testkit::{programs, wait};
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;

const LIMIT: Duration = Duration::from_secs(60);

fn page(alice: u64) -> String {
    format!(
        "procstorm_processes{{user=\"alice\",command=\"imapd\"}} {alice}\n\
         procstorm_processes{{user=\"bob\",command=\"bash\"}} 29\n\
         procstorm_processes{{user=\"carol\",command=\"vi\"}} 19\n\
         procstorm_processes{{user=\"eve\",command=\"a\\nb\\\"c\"}} 1031\n"
    )
}

/// What `log.sh` says of one script and host.
fn say(prometheus: &Prometheus, script: &str, host: &str) -> Output {
    let output = Command::new(programs::project().join("rules/log.sh"))
        .args([script, host, "5m"])
        .env("PROMETHEUS_URL", prometheus.url())
        .env("PROMTOOL", programs::other("promtool").unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The log of one script: its lines without their times, and the times.
fn log(prometheus: &Prometheus, script: &str) -> (Vec<String>, Vec<String>) {
    let output = say(prometheus, script, "moscow");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let split = |line: &str| {
        let (time, line) = line.split_once(' ').unwrap();
        (line.to_owned(), time.to_owned())
    };
    text.lines().map(split).unzip()
}

#[test]
fn every_line_at_every_run() {
    let target = ScrapeTarget::serve([("/metrics".to_owned(), page(97))]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs: [{{job_name: procstorm, static_configs: \
         [{{targets: ['127.0.0.1:{}'], labels: {{host: moscow, role: mail}}}}, \
         {{targets: ['127.0.0.1:{}'], labels: {{host: caen}}}}]}}]\n",
        rules.display(),
        target.port(),
        target.port()
    );
    fs::write(&config, text).unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    let seen = |query: &str| {
        let found = || prometheus.query(query).is_ok_and(|found| !found.is_empty());
        wait::until(query, LIMIT, || found().then_some(())).unwrap();
    };
    let runs = "count_over_time(user_command_class:procstorm_processes:logged\
                {user=\"alice\",level=\"red\"}[5m])";
    seen(&format!("{runs} >= 3"));
    target.set("/metrics", page(20));
    seen("user_command_class:procstorm_processes:logged{user=\"alice\"} == 20");

    let (red, times) = log(&prometheus, "red");
    let count = |lines: &[String], wanted: &str| lines.iter().filter(|l| *l == wanted).count();
    assert!(count(&red, "  97 alice imapd") >= 3, "{red:?}");
    assert!(count(&red, "1031 eve a?b\"c") >= count(&red, "  97 alice imapd"), "{red:?}");
    let known = ["  97 alice imapd", "1031 eve a?b\"c"];
    assert!(red.iter().all(|line| known.contains(&line.as_str())), "no line below 30: {red:?}");
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.iter().all(|time| time.ends_with('Z') && time.len() == 20), "{times:?}");

    let (emergency, _) = log(&prometheus, "emergency");
    for line in ["  97 alice imapd", "  20 alice imapd", "  29 bob bash", "1031 eve a?b\"c"] {
        assert!(count(&emergency, line) > 0, "{line} in {emergency:?}");
    }
    assert!(!emergency.iter().any(|line| line.contains("carol")), "no line below 20");

    // Of a quiet host there is nothing to say; of one that is not there, that.
    let told = |host: &str| {
        let output = say(&prometheus, "red", host);
        assert!(output.stdout.is_empty(), "{host}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(told("caen"), "");
    assert!(told("lyon").contains("no data about host \"lyon\""), "{}", told("lyon"));
    println!("diagnostic log: {} lines of red, {} of emergency", red.len(), emergency.len());
}
