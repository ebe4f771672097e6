//! Every query of the shipped dashboard against a real Prometheus with the shipped rules, in a
//! storm that a page of numbers tells of: data in every panel, in every annotation, and in what
//! the variables offer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use procstorm_testkit::{programs, wait};
use procstorm_tests::dashboard::Dashboard;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;

const LIMIT: Duration = Duration::from_secs(90);

fn exporter() -> String {
    let mut page = String::from(
        "procstorm_processes{user=\"alice\",command=\"imapd\"} 97\n\
         procstorm_processes{user=\"bob\",command=\"bash\"} 3\n\
         procstorm_user_processes{user=\"alice\"} 97\n\
         procstorm_user_processes{user=\"bob\"} 3\n",
    );
    for name in ["duration_seconds", "processes", "vanished_total", "blind"] {
        page += &format!("procstorm_scan_{name} 1\n");
    }
    for name in ["denied_processes", "folded_processes"] {
        page += &format!("procstorm_scan_{name} 0\n");
    }
    page + "process_resident_memory_bytes 9e6\nprocess_cpu_seconds_total 1\n"
}

/// A remediator's page before (0) and after it has run.
fn remediator(runs: u64) -> String {
    let mut page = format!(
        "procstorm_remediations_pending 0\nprocstorm_outcomes_pending 0\n\
         procstorm_config_last_reload_successful 1\n\
         process_resident_memory_bytes 9e6\nprocess_cpu_seconds_total 1\n\
         procstorm_processes_killed_total {}\n\
         procstorm_processes_terminated_total {runs}\n\
         procstorm_processes_gone_total {runs}\n\
         procstorm_webhook_notifications_total{{result=\"accepted\"}} {runs}\n\
         procstorm_mailbox_archives_total{{result=\"reflink\"}} {runs}\n",
        runs * 97
    );
    for name in ["alert_to_action", "remediation_duration"] {
        for bound in ["0.5", "1", "+Inf"] {
            page += &format!("procstorm_{name}_seconds_bucket{{le=\"{bound}\"}} {runs}\n");
        }
    }
    if runs > 0 {
        let labels = "playbook=\"imapd_storm\",verdict=\"none_seen\"";
        page += &format!("procstorm_remediations_total{{{labels}}} {runs}\n");
    }
    page
}

fn shipped() -> Dashboard {
    let json = fs::read_to_string(programs::project().join("grafana/procstorm.json")).unwrap();
    Dashboard::read(&json).unwrap()
}

#[test]
fn each_panel_shows_data_in_a_storm() {
    let dashboard = shipped();
    let pages = [("/exporter", exporter()), ("/remediator", remediator(0))];
    let target = ScrapeTarget::serve(pages.map(|(path, page)| (path.to_owned(), page))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let job = |name: &str, path: &str| {
        format!(
            "  - job_name: {name}\n    metrics_path: {path}\n    static_configs: \
             [{{targets: ['127.0.0.1:{}'], labels: {{host: moscow, role: mail}}}}]\n",
            target.port()
        )
    };
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\nscrape_configs:\n{}{}",
        programs::project().join("rules/procstorm.rules.yml").display(),
        job("procstorm", "/exporter"),
        job("procstorm-remediator", "/remediator"),
    );
    fs::write(&config, text).unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    // A rate needs a value before and one after.
    wait::until("the remediator's first page", LIMIT, || {
        let seen = prometheus.query("procstorm_processes_killed_total == 0");
        seen.is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    // It runs on: what shows only for a while after a run may else be over before the last panel
    // has its data.
    let (mut runs, begun) = (0, Instant::now());
    let full = wait::until("data everywhere", LIMIT, || {
        if begun.elapsed() >= Duration::from_secs(5) * runs {
            runs += 1;
            target.set("/remediator", remediator(runs.into()));
        }
        dashboard.empty(&prometheus).unwrap().is_empty().then_some(())
    });
    assert!(full.is_ok(), "without data: {:?}", dashboard.empty(&prometheus));
    println!(
        "dashboard: {} panels with {} queries, {} annotations, {} variables: data in each",
        dashboard.panels().len(),
        dashboard.panels().iter().map(|(_, queries)| queries.len()).sum::<usize>(),
        dashboard.annotations().len(),
        dashboard.variables().len(),
    );
}

#[test]
fn the_alerts_link_to_this_dashboard() {
    let rules = fs::read_to_string(programs::project().join("rules/procstorm.rules.yml")).unwrap();
    let link = format!("https://grafana.example.org/d/{}?var-host=", shipped().uid());
    let links = rules.lines().filter(|line| line.contains("dashboard_url:"));
    assert!(links.inspect(|line| assert!(line.contains(&link), "{line}")).count() > 1);
    assert_eq!(shipped().variables().len(), 3, "host, role, user");
}
