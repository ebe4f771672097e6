//! The parts that the stack is made of do what they are for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use procstorm_processes::proc_dir::ProcDir;
use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::Fault;
use procstorm_testkit::port::free_port;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::http::Http;
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::smtp::Sink;
use procstorm_tests::storm::Storm;

const UID: u32 = 45000;

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_storm_is_there_at_once_and_gone_with_its_guard() {
    needs_root!();
    let storm = Storm::raise(UID, b"im apd) S 1 (\n", 20).unwrap();
    assert_eq!(storm.living().unwrap(), 20);
    let pids = storm.pids().to_vec();
    drop(storm);
    let proc = ProcDir::open(Path::new("/proc")).unwrap();
    // Not even a zombie is left.
    assert!(pids.iter().all(|&pid| proc.owner(pid) != Some(UID)));
}

#[test]
fn a_user_exists_for_our_program_alone() {
    needs_root!();
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::only(&[("alice-of-procstorm", UID)], dir.path()).unwrap();
    let mut command = accounts.command(Path::new("/usr/bin/id")).unwrap();
    let output = command.args(["-u", "alice-of-procstorm"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), UID.to_string());
    assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains("alice-of-procstorm"));
}

#[test]
fn our_program_knows_none_of_the_machines_users_but_root() {
    needs_root!();
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::only(&[("alice-of-procstorm", UID)], dir.path()).unwrap();
    let mut command = accounts.command(Path::new("/usr/bin/getent")).unwrap();
    let output = command.arg("passwd").output().unwrap();
    let known = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = known.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["root", "alice-of-procstorm"]);
}

#[test]
fn a_mail_is_kept_and_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start(Some(dir.path().to_owned())).unwrap();
    let mut stream = TcpStream::connect(sink.address()).unwrap();
    stream
        .write_all(
            b"EHLO here\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n\
              Subject: =?utf-8?q?caf=C3=A9?=\r\nContent-Type: text/plain; charset=utf-8\r\n\
              Content-Transfer-Encoding: quoted-printable\r\n\r\n1=3D1\r\n..dot\r\n.\r\nQUIT\r\n",
        )
        .unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.ends_with("221 Goodbye\r\n"), "{answers}");
    let mail = wait::until("a mail", Duration::from_secs(60), || sink.find(|_| true)).unwrap();
    assert_eq!(mail.from, "a@example.org");
    assert_eq!(mail.to, ["b@example.org"]);
    assert_eq!(mail.subject(), "café");
    assert_eq!(mail.text().trim_end(), "1=1\r\n.dot");
    assert_eq!(std::fs::read(dir.path().join("1.eml")).unwrap(), mail.raw);
}

#[test]
fn prometheus_and_alertmanager_start_and_show_their_pages() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").unwrap();
    let alertmanager = Alertmanager::start(&config, dir.path()).unwrap();
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, "global: {scrape_interval: 1s}\n").unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    let http = Http::new().unwrap();
    let pages = ["classic/alerts", "classic/static/jquery/jquery.min.js"];
    for page in pages.map(|page| format!("{}/{page}", prometheus.url())) {
        let answer = http.get(&page).unwrap();
        assert_eq!(answer.status, 200, "{page}: {}", answer.body);
    }
    assert_eq!(alertmanager.alerts().unwrap().len(), 0);
    assert_eq!(prometheus.alerts().unwrap().len(), 0);
    let one = prometheus.query("vector(1)").unwrap();
    assert_eq!(one.first().unwrap().value.to_string(), "1");
}

/// What the shipped rule asks of Alertmanager's own counters is what an Alertmanager counts.
#[test]
fn a_mail_and_a_request_that_alertmanager_cannot_deliver_make_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    let closed = free_port().unwrap();
    let config = dir.path().join("alertmanager.yml");
    let text = format!(
        "global: {{smtp_smarthost: '127.0.0.1:{closed}', smtp_from: a@example.org, \
                  smtp_require_tls: false}}
route: {{receiver: both, group_wait: 0s, group_interval: 1s}}
receivers:
  - name: both
    email_configs: [{{to: b@example.org}}]
    webhook_configs: [{{url: 'http://127.0.0.1:{closed}/'}}]
"
    );
    std::fs::write(&config, text).unwrap();
    let alertmanager = Alertmanager::start(&config, dir.path()).unwrap();
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{}']
scrape_configs:
  - job_name: alertmanager
    static_configs: [{{targets: ['{}']}}]
",
        rules.display(),
        alertmanager.url().trim_start_matches("http://")
    );
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, text).unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    let failed = "alertmanager_notifications_failed_total";
    let count = format!("count({failed}{{integration=~\"email|webhook\"}} == 0) >= 2");
    wait::until("both counters, at zero", SOON, || {
        prometheus.query(&count).is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    assert!(firing(&prometheus).unwrap().is_empty());
    alertmanager.post_alerts(&[serde_json::json!({"labels": {"alertname": "Any"}})]).unwrap();
    wait::until("an alert for each of the two", SOON, || {
        (firing(&prometheus).unwrap() == ["email", "webhook"]).then_some(())
    })
    .unwrap();
}

/// What cannot be delivered, by the alert that says so.
fn firing(prometheus: &Prometheus) -> Result<Vec<String>, Fault> {
    let name = "ProcstormNotificationsFailing";
    let query = format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}");
    let found = prometheus.query(&query)?;
    let mut found: Vec<_> =
        found.iter().map(|sample| sample.label("integration").to_owned()).collect();
    found.sort();
    Ok(found)
}
