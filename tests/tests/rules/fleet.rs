//! What `procstorm-remediator fleet` writes is what Alertmanager's and Prometheus' own programs take,
//! and routes as `routes.tsv` says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use procstorm_remediator::args::{Fleet, FleetForm};
use procstorm_remediator::commands::fleet::generate::write;
use procstorm_testkit::{programs, skip};

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

/// Each row of the table, and forged hosts, by amtool.
fn routes_hold(out: &Path, forged_reach: &str) {
    let config = out.join("alertmanager.yml").display().to_string();
    run("amtool", &["check-config", &config]).unwrap();
    let table = fs::read_to_string(out.join("routes.tsv")).unwrap();
    let rows: Vec<_> = table.lines().filter_map(|line| line.split_once('\t')).collect();
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

#[test]
fn one_receiver_for_all_hosts_is_taken_by_alertmanager_0_31_and_newer() {
    let version = run("amtool", &["--version"]).unwrap();
    let minor = version.split("0.").nth(1).and_then(|rest| rest.split('.').next());
    let minor: u32 = minor.and_then(|minor| minor.parse().ok()).unwrap();
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
