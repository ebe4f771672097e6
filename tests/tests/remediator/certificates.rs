//! The certificates that `procstorm-remediator certificates` makes, the whole way: with the settings
//! that it prints, Prometheus scrapes a remediator and gives a storm to Alertmanager, which posts it to
//! the remediator, which posts the outcome back, all by https with certificates on both sides. Then
//! they are renewed under the running programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_remediator::args::{Certificates, Fleet, FleetForm};
use procstorm_remediator::commands::{certificates, fleet};
use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::port::free_port;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::daemon::Daemon;
use procstorm_tests::dashboard::Dashboard;
use procstorm_tests::host::{Post, notification};
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::storm::Storm;

const SOON: Duration = Duration::from_secs(120);

/// The only host of the fleet: it has a name that leads to it, which a certificate of an address
/// would not need.
const HOST: &str = "localhost";

struct Fleets {
    dir: tempfile::TempDir,
    order: Certificates,
    port: u16,
}

impl Fleets {
    fn new() -> Result<Self, Fault> {
        let dir = tempfile::tempdir().unwrap();
        let targets = dir.path().join("targets.yml");
        fs::write(&targets, format!("- {{labels: {{role: mail}}, targets: ['{HOST}:9957']}}\n"))
            .unwrap();
        let output = dir.path().join("pki");
        let server = vec!["127.0.0.1".to_owned()];
        let order = Certificates { targets, output, days: 365, ca_days: 3650, server };
        Ok(Self { dir, order, port: free_port()? })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program itself, by a user without a umask. Returns what it prints.
    fn run(&self) -> String {
        let program = programs::ours("procstorm-remediator").unwrap();
        let output = Command::new("sh")
            .args(["-c", "umask 000; exec \"$0\" \"$@\""])
            .arg(program)
            .args(["certificates", "--server=127.0.0.1", "--targets"])
            .arg(&self.order.targets)
            .arg("--output")
            .arg(&self.order.output)
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The example below a line of what was printed, with the files where they are here.
    fn example(&self, told: &str, title: &str) -> String {
        let (_, rest) = told.split_once(title).unwrap();
        let lines = rest.lines().skip(1).take_while(|line| line.starts_with("    "));
        let text: String =
            lines.map(|line| format!("{}\n", line.get(4..).unwrap_or_default())).collect();
        assert!(!text.is_empty(), "no example after {title} in {told}");
        let pki = self.order.output.display();
        text.replace("/etc/procstorm/tls/server.", &format!("{pki}/hosts/{HOST}."))
            .replace("/etc/procstorm/tls/client.", &format!("{pki}/clients/{HOST}."))
            .replace("/etc/procstorm/tls/", &format!("{pki}/"))
            .replace("/etc/prometheus/procstorm/", &format!("{pki}/"))
    }

    fn remediator(&self, told: &str, alertmanager: &Alertmanager) -> Result<Daemon, Fault> {
        for name in ["mail", "arc"] {
            fs::create_dir(self.at(name)).unwrap();
            fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let api = self.example(told, "if 127.0.0.1 is an Alertmanager:");
        let api = api.replace("https://127.0.0.1:9093", alertmanager.url());
        let dir = self.dir.path().display();
        let policy = fs::read_to_string(self.at("policies/mail.yml")).unwrap();
        let own = format!(
            "host: {HOST}\nstate: {dir}/state\nmail: {{spool: {dir}/mail, archive: {dir}/arc, reserve: 0%}}\n\
             accounts: {{allow_nameless: true}}\n{api}"
        );
        fs::write(self.at("remediator.yml"), own + &policy).unwrap();
        fs::write(
            self.at("web.yml"),
            self.example(told, "web.yml of the host, with client certificates:"),
        )
        .unwrap();
        let mut command = Command::new(programs::ours("procstorm-remediator")?);
        command.arg(format!("--config.file={}", self.at("remediator.yml").display()));
        command.arg(format!("--web.config.file={}", self.at("web.yml").display()));
        command.arg(format!("--web.listen-address={HOST}:{}", self.port));
        let mut daemon = Daemon::start("remediator", &command, &self.at("remediator.log"))?;
        daemon.ready(|| TcpStream::connect((HOST, self.port)).is_ok())?;
        Ok(daemon)
    }

    /// An Alertmanager whose receivers are those of `fleet`, and whose API asks for certificates.
    fn alertmanager(&self) -> Result<Alertmanager, Fault> {
        let repository = programs::project();
        let version = Command::new(programs::other("amtool")?).arg("--version").output().unwrap();
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let minor = version.split("version 0.").nth(1).and_then(|rest| rest.split('.').next());
        let is_new = minor.unwrap().parse::<u32>().unwrap() >= 31;
        let order = Fleet {
            targets: self.order.targets.clone(),
            policies: self.at("policies"),
            output: self.at("out"),
            alertmanager: if is_new { FleetForm::Templated } else { FleetForm::PerHost },
            base: repository.join("alertmanager/alertmanager.yml"),
            credentials: self.order.output.clone(),
        };
        fleet::generate::write(&order).unwrap();
        let config = self.at("out/alertmanager.yml");
        let text = fs::read_to_string(&config).unwrap();
        assert_eq!(text.matches(":9958/webhook").count(), 1, "{text}");
        fs::write(&config, text.replace(":9958/", &format!(":{}/", self.port))).unwrap();
        fs::create_dir(self.at("out/templates")).unwrap();
        let template = "templates/procstorm.tmpl";
        fs::copy(repository.join("alertmanager").join(template), self.at("out").join(template))
            .unwrap();
        let pki = self.order.output.display();
        let web = format!(
            "tls_server_config: {{cert_file: '{pki}/servers/127.0.0.1.crt', key_file: \
             '{pki}/servers/127.0.0.1.key', client_ca_file: '{pki}/ca.crt', client_auth_type: \
             RequireAndVerifyClientCert}}\n"
        );
        fs::write(self.at("alertmanager-web.yml"), web).unwrap();
        Alertmanager::start_guarded(&config, self.dir.path(), &self.at("alertmanager-web.yml"))
    }

    /// A Prometheus that scrapes the remediator, and says that there is a storm.
    fn prometheus(
        &self,
        told: &str,
        uid: u32,
        alertmanager: &Alertmanager,
    ) -> Result<Prometheus, Fault> {
        let tls = self.example(told, "Prometheus' jobs:");
        let indented =
            |by: &str| -> String { tls.lines().map(|line| format!("{by}{line}\n")).collect() };
        let address = alertmanager.url().trim_start_matches("https://");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [storm.yml]\nalerting:\n  alertmanagers:\n    - static_configs: \
             [{{targets: ['{address}']}}]\n{}scrape_configs:\n  - job_name: procstorm-remediator\n    \
             static_configs: [{{targets: ['{HOST}:{}']}}]\n{}",
            indented("      "),
            self.port,
            indented("    ")
        );
        fs::write(self.at("prometheus.yml"), config).unwrap();
        let rule = format!(
            "groups: [{{name: storm, rules: [{{alert: ProcNumChkRed, expr: vector(6), labels: {{host: {HOST}, \
             user: '{uid}', command: core-t, playbook: core_storm, level: red, role: mail}}}}]}}]\n"
        );
        fs::write(self.at("storm.yml"), rule).unwrap();
        Prometheus::start(&self.at("prometheus.yml"), self.dir.path())
    }

    /// What the remediator answers to a post by a client with this certificate: the first line of
    /// the answer, or nothing if the connection fails.
    fn posted_with(&self, certificate: Option<&Path>) -> String {
        let body = notification(&[Post::storm(1, "core-t").with("host", "elsewhere")]).to_string();
        let head = format!(
            "POST /webhook HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.client(certificate, head.as_bytes());
        let first = answer.lines().find(|line| line.starts_with("HTTP/1.1"));
        first.unwrap_or_default().to_owned()
    }

    fn client(&self, certificate: Option<&Path>, input: &[u8]) -> String {
        let mut command = Command::new(programs::other("openssl").unwrap());
        command.args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", HOST]);
        command.arg("-connect").arg(format!("{HOST}:{}", self.port));
        command.arg("-CAfile").arg(self.order.output.join("ca.crt"));
        if let Some(certificate) = certificate {
            command.arg("-cert").arg(certificate.with_extension("crt"));
            command.arg("-key").arg(certificate.with_extension("key"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // One that is refused may be gone already.
        child.stdin.take().unwrap().write_all(input).unwrap_or_default();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    }
}

/// What openssl says of the certificate of the server at an address, with the certificate itself.
fn served_at(address: &str) -> String {
    let mut command = Command::new(programs::other("openssl").unwrap());
    command.args(["s_client", "-showcerts", "-connect", address]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn all_programs_of_a_fleet_know_each_other_by_their_certificates() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let fleet = Fleets::new()?;
    fs::create_dir(fleet.at("policies")).unwrap();
    let policy = "playbooks:\n  core_storm: {alerts: [ProcNumChkRed], command: core-t, threshold: 5, \
                  settle: 0s, steps: [kill_user_proc]}\n";
    fs::write(fleet.at("policies/mail.yml"), policy).unwrap();
    // Made so long ago that they are due.
    let then = Timestamp::now() - SignedDuration::from_hours(250 * 24);
    let told = certificates::write(&fleet.order, then).unwrap();

    let alertmanager = fleet.alertmanager()?;
    let remediator = fleet.remediator(&told, &alertmanager)?;
    let storm = Storm::raise(uid, b"core-t", 6)?;
    let prometheus = fleet.prometheus(&told, uid, &alertmanager)?;
    let holds = |query: &str| {
        let whole = || prometheus.query(query).ok().filter(|found| !found.is_empty()).map(drop);
        wait::until(query, SOON, whole)
            .beside(|| format!("{}\n{}", remediator.log(), alertmanager.daemon.log()))
    };
    holds("procstorm_remediations_total{playbook='core_storm', verdict='none_seen'} >= 1")?;
    assert_eq!(storm.living()?, 0);
    holds("procstorm_outcomes_total{result='taken'} >= 1")?;
    holds("procstorm_outcomes_pending == 0")?;

    // How long they are valid, to the second.
    let validity = |of: &str| format!("procstorm_tls_certificate_{of}_timestamp_seconds");
    let (day, then) = (24 * 60 * 60, then.as_second());
    for role in ["server", "client"] {
        for (of, time) in [("not_before", then - day), ("not_after", then + 365 * day)] {
            holds(&format!("{}{{use='{role}'}} == {time}", validity(of)))?;
        }
    }
    let json = fs::read_to_string(programs::project().join("grafana/procstorm.json")).unwrap();
    let empty = Dashboard::read(&json)?.empty(&prometheus)?;
    assert!(!empty.iter().any(|title| title == "Certificates that expire first"), "{empty:?}");
    assert!(!empty.is_empty(), "nothing but the remediator is scraped");

    // Who else may post.
    let pki = &fleet.order.output;
    let stranger = Fleets::new()?;
    let told_stranger = stranger.run();
    assert!(told_stranger.contains("5 certificates are new"), "{told_stranger}");
    let names = ["client", "prometheus"];
    for (certificate, answer) in [
        (None, ""),
        (Some(stranger.order.output.join("client")), ""),
        // Of the right authority, but of a server, or of a client that is not named.
        (Some(pki.join("hosts").join(HOST)), ""),
        (Some(pki.join("clients").join(HOST)), ""),
        (Some(pki.join("client")), "HTTP/1.1 200 OK"),
        // It must be served its metrics, and so it may post as well.
        (Some(pki.join("prometheus")), "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(fleet.posted_with(certificate.as_deref()), answer, "{certificate:?}");
    }
    for name in names {
        for (ending, mode) in [("key", 0o600), ("crt", 0o644)] {
            let file = stranger.order.output.join(name).with_extension(ending);
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
    }

    // All are renewed, and no program is restarted.
    let told = fleet.run();
    assert!(told.contains(" 0 certificates are new, 5 renewed, 0 unchanged."), "{told}");
    let renewed = Timestamp::now().as_second();
    wait::until("the new certificate is served", SOON, || {
        fleet.posted_with(Some(&pki.join("client")));
        remediator.log().contains("web configuration reloaded").then_some(())
    })?;
    holds(&format!("timestamp(up{{job='procstorm-remediator'}} == 1) > {renewed}"))?;
    let end = renewed + 365 * day;
    holds(&format!("abs({}{{use='server'}} - {end}) < 3600", validity("not_after")))?;

    wait::until("Alertmanager's API serves the new one, too", SOON, || {
        let own = fs::read_to_string(pki.join("servers/127.0.0.1.crt")).ok()?;
        let address = alertmanager.url().trim_start_matches("https://");
        served_at(address).contains(own.trim()).then_some(())
    })?;

    // If Prometheus need not be served, it is refused.
    let web = fs::read_to_string(fleet.at("web.yml")).unwrap();
    assert!(web.contains("[am, prometheus]"), "{web}");
    fs::write(fleet.at("web.yml"), web.replace("[am, prometheus]", "[am]")).unwrap();
    wait::until("Prometheus is refused", SOON, || {
        fleet.posted_with(Some(&pki.join("prometheus"))).is_empty().then_some(())
    })?;
    assert_eq!(fleet.posted_with(Some(&pki.join("client"))), "HTTP/1.1 200 OK");
    Ok(())
}
