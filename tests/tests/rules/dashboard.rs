//! Every query of the shipped dashboard against a real Prometheus with the shipped rules, in a
//! storm that a page of numbers tells of: data in every panel, in every annotation, and in what
//! the variables offer; counts that are exact; and colours, units and links.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use procstorm_remediator::verdict::{Severity, Verdict};
use procstorm_testkit::{programs, wait};
use procstorm_tests::dashboard::Dashboard;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// How many processes each run kills. Few enough runs of it make some thousands.
const KILLED: u64 = 100;

fn exporter() -> String {
    let mut page = String::from(
        "procstorm_processes{user=\"alice\",command=\"imapd\"} 97\n\
         procstorm_processes{user=\"bob\",command=\"bash\"} 3\n\
         procstorm_user_processes{user=\"alice\"} 97\n\
         procstorm_user_processes{user=\"bob\"} 3\n\
         procstorm_user_tasks{user=\"alice\"} 110\n\
         procstorm_user_tasks_limit{user=\"alice\"} 120\n",
    );
    for name in ["duration_seconds", "processes", "vanished_total", "blind"] {
        page += &format!("procstorm_scan_{name} 1\n");
    }
    for name in ["denied_processes", "folded_processes"] {
        page += &format!("procstorm_scan_{name} 0\n");
    }
    page + "process_resident_memory_bytes 9e6\nprocess_cpu_seconds_total 1\n\
            procstorm_build_info{version=\"1.0.0\"} 1\n"
}

/// A remediator's page after it has run so often. What it has done it has done in a dry run as
/// often.
fn remediator(runs: u64) -> String {
    let mut page = format!(
        "procstorm_remediations_pending 0\nprocstorm_outcomes_pending 0\n\
         procstorm_config_last_reload_successful 1\n\
         procstorm_build_info{{version=\"1.0.0\"}} 1\n\
         procstorm_alertmanager_clock_skew_seconds -0.5\n\
         procstorm_tls_certificate_not_after_timestamp_seconds{{use=\"server\"}} 4102444800\n\
         procstorm_tls_certificate_not_after_timestamp_seconds{{use=\"client\"}} 4102444799\n\
         process_resident_memory_bytes 9e6\nprocess_cpu_seconds_total 1\n\
         process_start_time_seconds {}\n\
         procstorm_processes_killed_total {}\n\
         procstorm_processes_terminated_total {runs}\n\
         procstorm_processes_gone_total {runs}\n\
         procstorm_webhook_notifications_total{{result=\"accepted\"}} {runs}\n",
        jiff::Timestamp::now().as_second(),
        runs * KILLED,
    );
    for dry_run in ["true", "false"] {
        for name in ["alert_to_action", "remediation_duration"] {
            for bound in ["0.5", "1", "+Inf"] {
                let labels = format!("dry_run=\"{dry_run}\",le=\"{bound}\"");
                page += &format!("procstorm_{name}_seconds_bucket{{{labels}}} {runs}\n");
            }
        }
        for verdict in ["none_seen", "stuck", "dry_run", "limit_reached"] {
            let labels =
                format!("dry_run=\"{dry_run}\",playbook=\"imapd_storm\",verdict=\"{verdict}\"");
            let count = if (verdict == "dry_run") <= (dry_run == "true") { runs } else { 0 };
            page += &format!("procstorm_remediations_total{{{labels}}} {count}\n");
        }
    }
    // These appear with their first event.
    if runs > 0 {
        page += &format!(
            "procstorm_mailbox_archives_total{{result=\"reflink\"}} {runs}\n\
             procstorm_webhook_alerts_total{{decision=\"accepted\"}} {runs}\n\
             procstorm_webhook_alerts_total{{decision=\"other_command\"}} {runs}\n",
        );
    }
    page
}

fn shipped() -> Dashboard {
    let json = fs::read_to_string(programs::project().join("grafana/procstorm.json")).unwrap();
    Dashboard::read(&json).unwrap()
}

/// A Prometheus with the shipped rules that scrapes both pages. The jobs have names of their own:
/// the dashboard must not depend on the shipped ones.
fn watch(target: &ScrapeTarget, dir: &Path) -> Prometheus {
    let config = dir.join("prometheus.yml");
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
        job("counters", "/exporter"),
        job("actors", "/remediator"),
    );
    fs::write(&config, text).unwrap();
    let prometheus = Prometheus::start(&config, dir).unwrap();
    // What is counted needs a value before and one after.
    wait::until("the remediator's first page", LIMIT, || {
        let seen = prometheus.query("procstorm_processes_killed_total == 0");
        seen.is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    prometheus
}

#[test]
fn each_panel_shows_data_in_a_storm_whatever_the_jobs_are_called() {
    let dashboard = shipped();
    let pages = [("/exporter", exporter()), ("/remediator", remediator(0))];
    let target = ScrapeTarget::serve(pages.map(|(path, page)| (path.to_owned(), page))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = watch(&target, dir.path());
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

/// `increase()` extrapolates: it says 101 for 100. A person who reads how many were killed
/// compares it with the mails.
#[test]
fn what_was_counted_is_shown_exactly() {
    const RUNS: u64 = 19;
    let dashboard = shipped();
    let pages = [("/exporter", exporter()), ("/remediator", remediator(0))];
    let target = ScrapeTarget::serve(pages.map(|(path, page)| (path.to_owned(), page))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = watch(&target, dir.path());
    target.set("/remediator", remediator(RUNS));
    let last = format!("procstorm_processes_killed_total == {}", RUNS * KILLED);
    wait::until("the last page", LIMIT, || {
        prometheus.query(&last).is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    let shown = |title: &str| -> Vec<f64> {
        let queries = dashboard.panel(title).unwrap();
        let samples = queries.iter().flat_map(|one| prometheus.query(&one.expression).unwrap());
        samples.map(|sample| sample.value).collect()
    };
    let runs = f64::from(u32::try_from(RUNS).unwrap());
    let killed = f64::from(u32::try_from(KILLED).unwrap());
    assert_eq!(shown("Killed"), [runs * killed]);
    assert_eq!(shown("Remediations"), [runs * 3.0], "three verdicts");
    assert_eq!(shown("With a problem"), [runs * 2.0], "stuck, limit_reached");
    assert_eq!(shown("How remediations ended"), [runs; 3]);
    let over_hosts = shown("Verdicts over all hosts");
    assert_eq!(over_hosts, [runs, runs, runs, 1.0, 1.0, 1.0], "remediations and hosts");
    assert_eq!(shown("Versions"), [1.0, 1.0], "one of each daemon");
    assert_eq!(shown("Largest clock skew"), [0.5], "whatever its sign");
    let certificates = shown("Certificates that expire first");
    assert!(matches!(certificates[..], [a, b] if (a - b).abs() == 1.0), "{certificates:?}");
    assert_eq!(shown("How processes ended"), [runs, runs * (killed - 1.0), runs]);
    assert_eq!(shown("Alerts that were refused"), [runs], "a series that begins with its count");
    assert_eq!(shown("Mail files"), [runs]);
    assert_eq!(shown("Would have acted"), [runs]);
    assert_eq!(shown("Would do nothing"), [runs * 3.0]);
    // A restart of the daemon begins at 0 again: nothing that was seen before is lost. What
    // `increase()` adds to it is rounded.
    target.set("/remediator", remediator(1));
    wait::until("the page after the restart", LIMIT, || {
        let query = format!("procstorm_processes_killed_total == {KILLED}");
        prometheus.query(&query).is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    let after = shown("Killed");
    let least = (runs + 1.0) * killed;
    assert!(matches!(after[..], [it] if it >= least && it.fract() == 0.0), "{after:?}, {least}");
}

/// The panels of the shipped dashboard, each with its title.
fn panels(dashboard: &Dashboard) -> Vec<(&str, &Value)> {
    let panels = dashboard.json().get("panels").and_then(Value::as_array).unwrap();
    let title = |panel| Value::get(panel, "title").and_then(Value::as_str).unwrap();
    panels.iter().map(|panel| (title(panel), panel)).collect()
}

/// Of a unit that is scaled, 1,900 processes are "2 K".
#[test]
fn no_count_is_rounded_to_thousands() {
    let dashboard = shipped();
    let mut seen = 0;
    for (title, panel) in panels(&dashboard) {
        let Some(unit) = panel.pointer("/fieldConfig/defaults/unit") else { continue };
        let unit = unit.as_str().unwrap();
        assert!(["locale", "percentunit", "s", "bytes"].contains(&unit), "{title}: {unit}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} panels have a unit");
}

/// A verdict has on the dashboard the colour that it has in a mail.
#[test]
fn each_verdict_has_its_colour() {
    let dashboard = shipped();
    let mut tables = 0;
    for (title, panel) in panels(&dashboard) {
        let overrides = panel.pointer("/fieldConfig/overrides").and_then(Value::as_array);
        let verdict = overrides
            .into_iter()
            .flatten()
            .find(|one| one.pointer("/matcher/options").and_then(Value::as_str) == Some("Verdict"));
        let Some(verdict) = verdict else { continue };
        tables += 1;
        for expected in Verdict::ALL {
            let colour = match (expected.severity(), expected.is_good()) {
                // It is what was meant, but the storm goes on.
                _ if *expected == Verdict::DryRun => "blue",
                (Severity::Critical, _) => "red",
                (Severity::Warning, _) => "orange",
                (Severity::Info, true) => "green",
                (Severity::Info, false) => "blue",
            };
            let pointer = format!("/properties/0/value/0/options/{expected}/color");
            let found = verdict.pointer(&pointer).and_then(Value::as_str);
            assert_eq!(found, Some(colour), "grafana/procstorm.json, {title}: {expected}");
        }
    }
    assert_eq!(tables, 3, "live, in a dry run, and over all hosts");
    // Those for which a person must look are counted.
    let problems = dashboard.panel("With a problem").unwrap();
    for verdict in Verdict::ALL {
        let bad = verdict.severity() != Severity::Info;
        let named = problems[0].expression.contains(&format!("{verdict}|"))
            || problems[0].expression.contains(&format!("|{verdict}\""));
        assert_eq!(named, bad, "{verdict}: {}", problems[0].expression);
    }
}

/// The addresses that a line of the panel links to.
fn links(panel: &Value) -> Vec<&str> {
    let overrides = panel.pointer("/fieldConfig/overrides").and_then(Value::as_array);
    let properties = overrides.into_iter().flatten().filter_map(|one| one.get("properties"));
    let links = properties
        .filter_map(Value::as_array)
        .flatten()
        .filter(|one| one.get("id").and_then(Value::as_str) == Some("links"));
    let links = links.filter_map(|one| one.get("value").and_then(Value::as_array)).flatten();
    links.filter_map(|link| link.get("url").and_then(Value::as_str)).collect()
}

#[test]
fn each_line_links_to_its_user_its_host_and_its_remediator() {
    let dashboard = shipped();
    let here = format!("/d/{}/", dashboard.uid());
    for title in [
        "Largest group",
        "Share of the threshold",
        "Largest groups",
        "Watched lines",
        "Firing alerts",
    ] {
        let (_, panel) = *panels(&dashboard).iter().find(|(name, _)| *name == title).unwrap();
        let links = links(panel);
        for part in ["&var-user=", "&var-host=", ":9958/"] {
            assert!(links.iter().any(|url| url.contains(part)), "{title}: {part}: {links:?}");
        }
        let own = links.iter().filter(|url| url.starts_with('/'));
        assert!(own.clone().count() >= 2, "{title}");
        for url in own {
            assert!(url.starts_with(&here) && !url.contains("var-user=${__value.raw}"), "{url}");
        }
    }
}

#[test]
fn the_alerts_link_to_this_dashboard() {
    let rules = fs::read_to_string(programs::project().join("rules/procstorm.rules.yml")).unwrap();
    let link = format!("https://grafana.example.org/d/{}?var-host=", shipped().uid());
    let links = rules.lines().filter(|line| line.contains("dashboard_url:"));
    assert!(links.inspect(|line| assert!(line.contains(&link), "{line}")).count() > 1);
    assert_eq!(shipped().variables().len(), 4, "job, role, host, user");
}
