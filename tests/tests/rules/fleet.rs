//! What `procstorm-remediator fleet` writes is what Alertmanager's and Prometheus' own programs take,
//! and routes as `routes.tsv` says. With each of its forms, a real Alertmanager sends no alert with a
//! forged label `host` to a remediator.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use procstorm_remediator::args::{Fleet, FleetForm};
use procstorm_remediator::commands::fleet::generate::write;
use procstorm_testkit::fault::Fault;
use procstorm_testkit::{forged, programs, skip, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::smtp::Sink;
use serde_json::{Value, json};

use crate::how_to::{check, copy};

const LIMIT: Duration = Duration::from_secs(120);

const HOSTS: &str = "- labels: {role: mail}
  targets: ['moscow:9957', '[2001:db8::1]:9957', 'kiev.example.org:9957']
";

const POLICY: &str = "playbooks:
  imapd_storm:
    alerts: [ProcNumChkRed]
    command: imapd
    threshold: 90
    steps: [archive_mail_file, kill_user_proc]
";

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(programs::other(program).unwrap()).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn made(dir: &Path, hosts: &str, alertmanager: FleetForm) -> PathBuf {
    let policies = dir.join("policies");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("mail.yml"), POLICY).unwrap();
    fs::write(dir.join("targets.yml"), hosts).unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let order = Fleet {
        targets: dir.join("targets.yml"),
        policies,
        output: dir.join("out"),
        alertmanager,
        base: repository.join("alertmanager/alertmanager.yml"),
        credentials: PathBuf::from("/etc/prometheus/procstorm"),
    };
    write(&order).unwrap();
    let templates = dir.join("out/templates");
    fs::create_dir_all(&templates).unwrap();
    let template = "templates/procstorm.tmpl";
    fs::copy(repository.join("alertmanager").join(template), dir.join("out").join(template))
        .unwrap();
    dir.join("out")
}

/// Each row of the table that reaches a remediator, and forged hosts, by amtool.
fn routes_hold(out: &Path, forged_reach: &str) {
    let config = out.join("alertmanager.yml").display().to_string();
    run("amtool", &["check-config", &config]).unwrap();
    let table = fs::read_to_string(out.join("routes.tsv")).unwrap();
    let rows = table.lines().filter_map(|line| line.split_once('\t'));
    let rows: Vec<_> = rows.filter(|(_, reached)| reached.contains("remediator")).collect();
    assert!(!rows.is_empty(), "{table}");
    for (labels, receivers) in rows {
        let file = format!("--config.file={config}");
        let wanted = format!("--verify.receivers={receivers}");
        let mut args = vec!["config", "routes", "test", &file, &wanted];
        args.extend(labels.split(' '));
        run("amtool", &args).unwrap();
        for forged in ["evil:1/x?", "user@evil", "127.0.0.1", "evil.example.net", ""] {
            let wanted = format!("--verify.receivers={forged_reach}");
            let host = format!("host={forged}");
            let mut args = vec!["config", "routes", "test", &file, &wanted];
            args.extend(labels.split(' ').filter(|label| !label.starts_with("host=")));
            args.push(&host);
            run("amtool", &args).unwrap();
        }
    }
}

#[test]
fn the_files_of_a_fleet_are_taken_and_route_as_their_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let out = made(dir.path(), HOSTS, FleetForm::PerHost);
    routes_hold(&out, "remediator-none,mail");
    let prometheus = "scrape_configs:
  - {job_name: procstorm, file_sd_configs: [{files: [procstorm.json]}]}
  - {job_name: procstorm-remediator, file_sd_configs: [{files: [procstorm-remediator.json]}]}
";
    let file = out.join("prometheus.yml");
    fs::write(&file, prometheus).unwrap();
    let said = run("promtool", &["check", "config", &file.display().to_string()]).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
}

/// As rules/README.md tells it: the two files go beside the templates, and `check.sh` passes there.
#[test]
fn the_files_take_the_place_of_the_shipped_ones_and_pass_check_sh() {
    let dir = tempfile::tempdir().unwrap();
    let out = made(dir.path(), HOSTS, FleetForm::PerHost);
    for part in ["rules", "alertmanager"] {
        copy(&programs::project().join(part), &dir.path().join(part));
    }
    for file in ["alertmanager.yml", "routes.tsv"] {
        fs::copy(out.join(file), dir.path().join("alertmanager").join(file)).unwrap();
    }
    let table = fs::read_to_string(out.join("routes.tsv")).unwrap();
    assert!(table.contains("remediator-moscow,mail\n") && table.contains("\tmail-outcome\n"));
    check(dir.path(), "a fleet");
}

/// The minor version of the Alertmanager here.
fn minor() -> u32 {
    let version = run("amtool", &["--version"]).unwrap();
    let minor = version.split("0.").nth(1).and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).unwrap()
}

#[test]
fn one_receiver_for_all_hosts_is_taken_by_alertmanager_0_31_and_newer() {
    let minor = minor();
    let dir = tempfile::tempdir().unwrap();
    let hosts = HOSTS.replace("'[2001:db8::1]:9957', ", "");
    let out = made(dir.path(), &hosts, FleetForm::Templated);
    if minor < 31 {
        let config = out.join("alertmanager.yml").display().to_string();
        run("amtool", &["check-config", &config]).unwrap_err();
        skip!("amtool here is 0.{minor}, and the routes need 0.31");
    }
    routes_hold(&out, "mail");
}

fn alert(host: &str) -> Value {
    json!({
        "labels": {
            "alertname": "ProcNumChkRed", "host": host, "role": "mail", "user": "alice",
            "command": "imapd", "level": "red", "severity": "critical", "playbook": "imapd_storm",
        },
        "annotations": {"inline": "  97 alice imapd", "count": "97", "threshold": "90"},
    })
}

/// The receivers of each alert, by its label `host`, as Alertmanager says.
fn receivers(alertmanager: &Alertmanager) -> Result<BTreeMap<String, BTreeSet<String>>, Fault> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let of = |alert: &Value| {
        let receivers = alert.get("receivers").and_then(Value::as_array).cloned();
        let names = receivers.unwrap_or_default();
        let names = names.iter().map(|receiver| text(receiver.get("name"))).collect();
        (text(alert.pointer("/labels/host")), names)
    };
    Ok(alertmanager.alerts()?.iter().map(of).collect())
}

fn forged_hosts_reach_nobody(form: FleetForm) -> Result<(), Fault> {
    let dir = tempfile::tempdir().unwrap();
    let out = made(dir.path(), "- {labels: {role: mail}, targets: ['moscow:9957']}\n", form);
    let mails = Sink::start(None)?;
    let config = out.join("alertmanager.yml");
    let text = fs::read_to_string(&config).unwrap();
    // Nobody is called moscow here, or can read the hosts' tokens: a request to a host that is in the
    // list fails, and is counted.
    let text = text
        .replace("localhost:25", &mails.address().to_string())
        .replace("/etc/prometheus/procstorm/", &format!("{}/", dir.path().display()));
    fs::write(&config, text).unwrap();
    credentials(dir.path());
    let alertmanager = Alertmanager::start(&config, dir.path())?;
    let requests = || {
        let labels = [("integration", "webhook")];
        alertmanager.metric("alertmanager_notification_requests_total", &labels)
    };

    let alerts: Vec<Value> = forged::HOSTS.iter().map(|host| alert(host)).collect();
    alertmanager.post_alerts(&alerts)?;
    wait::until("a mail of each", LIMIT, || {
        (mails.mails().len() >= forged::HOSTS.len()).then_some(())
    })?;
    let reached = receivers(&alertmanager)?;
    assert_eq!(reached.len(), forged::HOSTS.len(), "{reached:?}");
    for (host, names) in &reached {
        let wrong = |name: &&String| *name != "mail" && *name != "remediator-none";
        assert_eq!(names.iter().find(wrong), None, "{form:?} {host:?}: {names:?}");
    }
    assert_eq!(requests()?, 0.0, "{form:?}: {reached:?}");

    alertmanager.post_alerts(&[alert("moscow")])?;
    wait::until("a request to the host that is in the list", LIMIT, || {
        requests().is_ok_and(|count| count > 0.0).then_some(())
    })
}

/// What the receivers name: an authority, a client certificate and a token.
fn credentials(dir: &Path) {
    let own = rcgen::generate_simple_self_signed(["am".to_owned()]).unwrap();
    for (name, text) in [
        ("ca.crt", own.cert.pem()),
        ("client.crt", own.cert.pem()),
        ("client.key", own.signing_key.serialize_pem()),
        ("moscow.token", "a token of moscow\n".to_owned()),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_forged_host_reaches_no_remediator_with_a_receiver_for_each_host() -> Result<(), Fault> {
    forged_hosts_reach_nobody(FleetForm::PerHost)
}

#[test]
fn a_forged_host_reaches_no_remediator_with_one_receiver_for_all_hosts() -> Result<(), Fault> {
    let minor = minor();
    if minor < 31 {
        skip!("amtool here is 0.{minor}, and the routes need 0.31");
    }
    forged_hosts_reach_nobody(FleetForm::Templated)
}
