//! The brake across hosts, in a real Prometheus: how many hosts are asked to act before it holds,
//! for storms that come at once and for storms that come one after the other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use procstorm_testkit::{programs, wait};
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;
use tempfile::TempDir;

const HOSTS: usize = 20;

const SOON: Duration = Duration::from_secs(120);

/// Twenty hosts with the shipped rules, evaluated every second. The job has a name of its own: the
/// brake must not depend on the shipped one.
struct Fleet {
    target: ScrapeTarget,
    prometheus: Prometheus,
    _dir: TempDir,
}

fn page(count: u32) -> String {
    format!(
        "procstorm_processes{{user=\"alice\",command=\"imapd\"}} {count}\n\
         procstorm_scan_processes 100\n"
    )
}

impl Fleet {
    /// The brake holds beyond so many hosts and so many percent.
    fn start(hosts: u32, percent: u32) -> Self {
        let target =
            ScrapeTarget::serve((0..HOSTS).map(|host| (format!("/{host}"), page(5)))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let rules =
            fs::read_to_string(programs::project().join("rules/procstorm.rules.yml")).unwrap();
        let row = |name: &str, value: u32| {
            format!("{{record: 'role:procstorm_brake_{name}:threshold', expr: vector({value}), ")
        };
        let changed = rules
            .replace(&row("hosts", 10), &row("hosts", hosts))
            .replace(&row("percent", 10), &row("percent", percent));
        assert!(
            changed.contains(&row("hosts", hosts)) && changed.contains(&row("percent", percent))
        );
        fs::write(dir.path().join("procstorm.rules.yml"), changed).unwrap();
        let port = target.port();
        let targets: String = (0..HOSTS)
            .map(|host| {
                format!(
                    "      - targets: ['127.0.0.1:{port}']\n        labels: {{host: h{host:02}, role: \
                     mail, __metrics_path__: /{host}}}\n"
                )
            })
            .collect();
        let config = dir.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [procstorm.rules.yml]\n\
                 scrape_configs:\n  - job_name: counts\n    static_configs:\n{targets}"
            ),
        )
        .unwrap();
        let prometheus = Prometheus::start(&config, dir.path()).unwrap();
        let fleet = Self { target, prometheus, _dir: dir };
        fleet.wait_for(&format!("sum(up) == {HOSTS}"));
        fleet
    }

    fn storm(&self, host: usize) {
        self.target.set(&format!("/{host}"), page(95));
    }

    fn wait_for(&self, expression: &str) {
        wait::until(expression, SOON, || {
            self.prometheus.query(expression).is_ok_and(|found| !found.is_empty()).then_some(())
        })
        .unwrap();
    }

    /// How many hosts have been asked to act at any time.
    fn asked(&self) -> f64 {
        let asked = "count(count by (host) (last_over_time(ALERTS{playbook!=\"\"}[10m])))";
        self.prometheus.query(asked).unwrap().first().map_or(0.0, |sample| sample.value)
    }
}

#[test]
fn of_twenty_hosts_at_once_no_more_act_than_the_mark_and_all_are_mailed() {
    let fleet = Fleet::start(2, 10);
    (0..HOSTS).for_each(|host| fleet.storm(host));
    fleet.wait_for(&format!(
        "count(ALERTS{{alertname=\"ProcNumChkRed\",playbook=\"\"}}) == {HOSTS}"
    ));
    fleet.wait_for("ALERTS{alertname=\"ProcstormBrake\",alertstate=\"firing\"} == 1");
    let asked = fleet.asked();
    println!("brake: mark 2 hosts and 10 %, 20 hosts at once: {asked} asked to act");
    assert!(asked <= 2.0, "{asked}");
}

#[test]
fn of_hosts_one_after_the_other_as_many_act_as_the_mark_says() {
    for (hosts, percent, wanted) in [(2, 10, 2_u32), (2, 25, 5)] {
        let fleet = Fleet::start(hosts, percent);
        for host in 0..8 {
            fleet.storm(host);
            fleet.wait_for(&format!("ALERTS{{alertname=\"ProcNumChkRed\",host=\"h{host:02}\"}}"));
            // Ended, as a remediator ends it.
            fleet.target.set(&format!("/{host}"), page(5));
        }
        let asked = fleet.asked();
        println!(
            "brake: mark {hosts} hosts and {percent} %, 8 of 20 hosts one after the other: {asked} \
             asked to act"
        );
        assert!((asked - f64::from(wanted)).abs() < 0.5, "{asked}, not {wanted}");
    }
}
