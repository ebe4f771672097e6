//! The examples of service discovery in `rules/README.md`, in a real Prometheus: each target has the
//! right labels `host` and `role`, whatever its address looks like, and the list that is made of what
//! Prometheus has found is one that `fleet` takes. Debian's Prometheus cannot ask Consul: so it gets
//! from a file the labels that upstream's makes of a service in Consul, and the example's rules apply.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use procstorm_remediator::commands::fleet::targets::Targets;
use procstorm_testkit::fault::Fault;
use procstorm_testkit::{programs, wait};
use procstorm_tests::http::Http;
use procstorm_tests::prometheus::Prometheus;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// An inventory that answers with JSON at one path until the test ends. Returns its port.
fn serve(path: &'static str, page: Value) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that breaks off comes again.
            answer(&stream, path, &page).unwrap_or_default();
        }
    });
    port
}

fn answer(mut stream: &TcpStream, path: &str, page: &Value) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut lines = BufReader::new(stream).lines();
    let head = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match head.split(' ').nth(1) {
        Some(asked) if asked == path => ("200 OK", page.to_string()),
        _ => ("404 Not Found", "{}".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The jobs of the section, in its order; each as it is written there, with another name.
fn jobs(section: &str) -> Vec<String> {
    let is_code = |line: &&str| line.is_empty() || line.starts_with("      ");
    let jobs = section.split("\n      - job_name: procstorm\n").skip(1).enumerate();
    jobs.map(|(number, rest)| {
        let lines = rest.lines().take_while(is_code).filter(|line| !line.is_empty());
        let lines: String =
            lines.map(|line| format!("  {}\n", line.get(6..).unwrap_or_default())).collect();
        format!("  - job_name: job-{number}\n{lines}")
    })
    .collect()
}

/// The targets of a job: address, host and role.
fn targets(page: &Value, job: &str) -> BTreeSet<(String, String, String)> {
    let all = page.pointer("/data/activeTargets").and_then(Value::as_array);
    let text = |target: &Value, at: &str| {
        target.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let of_job = |target: &&Value| text(target, "/labels/job") == job;
    let triple = |target: &Value| {
        let instance = text(target, "/labels/instance");
        // Prometheus 2 adds the port that it uses to a target without one.
        let address = instance.strip_suffix(":80").unwrap_or(&instance).to_owned();
        (address, text(target, "/labels/host"), text(target, "/labels/role"))
    };
    all.into_iter().flatten().filter(of_job).map(triple).collect()
}

fn wanted(rows: &[(&str, &str, &str)]) -> BTreeSet<(String, String, String)> {
    rows.iter().map(|&(a, host, role)| (a.to_owned(), host.to_owned(), role.to_owned())).collect()
}

#[test]
fn each_target_has_its_host_and_role_however_it_was_found() -> Result<(), Fault> {
    let document = fs::read_to_string(programs::project().join("rules/README.md")).unwrap();
    let (_, section) = document.split_once("\n### Hosts from service discovery\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let jobs = jobs(section);
    assert_eq!(jobs.len(), 3, "{jobs:#?}");
    let shipped = fs::read_to_string(programs::project().join("rules/prometheus.yml")).unwrap();
    let rule = "{source_labels: [host, __address__], regex: ";
    let lines = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.contains(rule));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(lines(&shipped), lines(section), "the rule is the one that is shipped");

    let port = serve(
        "/procstorm.json",
        json!([
            {"targets": ["moscow:9957", "kiev.example.org", "192.0.2.7:9957"],
             "labels": {"role": "mail"}},
            {"targets": ["[2001:db8::1]:9957", "[::1]:9256", "[2001:db8::2]"],
             "labels": {"role": "nis"}},
            {"targets": ["192.0.2.8:9957"], "labels": {"role": "nis", "host": "brest"}},
        ]),
    );
    let dir = tempfile::tempdir().unwrap();
    let nodes = "- {targets: ['moscow.example.org:9100', 'kiev:9100'], labels: {group: mail}}\n\
                 - {targets: ['[2001:db8::1]:9100', '192.0.2.7', 'lyon.example.org'], labels: {group: nis}}\n\
                 - {targets: ['printer.example.org:9100'], labels: {group: office}}\n";
    fs::write(dir.path().join("nodes.yml"), nodes).unwrap();
    // By discovery/consul/consul.go: the address is that of the service or else of the node, with the
    // service's port.
    let consul = "- targets: ['192.0.2.1:9957']\n  labels: {__meta_consul_node: moscow, \
                  __meta_consul_service_metadata_role: mail}\n\
                  - targets: ['[2001:db8::3]:9957']\n  labels: {__meta_consul_node: nantes, \
                  __meta_consul_service_metadata_role: nis}\n";
    fs::write(dir.path().join("consul.yml"), consul).unwrap();
    let asks = "consul_sd_configs: [{server: 'localhost:8500', services: [procstorm-exporter]}]";
    assert_eq!(jobs.concat().matches(asks).count(), 1, "{jobs:#?}");
    let config = format!("global: {{scrape_interval: 1m}}\nscrape_configs:\n{}", jobs.concat())
        .replace("inventory.example.org", &format!("127.0.0.1:{port}"))
        .replace(asks, "file_sd_configs: [{files: [consul.yml]}]")
        .replace("/etc/prometheus/nodes.yml", &dir.path().join("nodes.yml").display().to_string());
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, &config).unwrap();
    let prometheus = Prometheus::start(&file, dir.path())?;

    let http = Http::new()?;
    let url = format!("{}/api/v1/targets?state=active", prometheus.url());
    for (job, rows) in [
        (
            "job-0",
            &[
                ("moscow:9957", "moscow", "mail"),
                ("kiev.example.org", "kiev.example.org", "mail"),
                ("192.0.2.7:9957", "192.0.2.7", "mail"),
                ("[2001:db8::1]:9957", "2001:db8::1", "nis"),
                ("[::1]:9256", "::1", "nis"),
                ("[2001:db8::2]", "2001:db8::2", "nis"),
                ("192.0.2.8:9957", "brest", "nis"),
            ][..],
        ),
        ("job-1", &[("192.0.2.1:9957", "moscow", "mail"), ("[2001:db8::3]:9957", "nantes", "nis")]),
        (
            "job-2",
            &[
                ("moscow.example.org:9957", "moscow", "mail"),
                ("kiev:9957", "kiev", "mail"),
                ("[2001:db8::1]:9957", "2001:db8::1", "nis"),
                ("192.0.2.7:9957", "192.0.2.7", "nis"),
                ("lyon.example.org:9957", "lyon", "nis"),
            ],
        ),
    ] {
        let mut found = BTreeSet::new();
        let all = wait::until(&format!("the targets of {job}"), LIMIT, || {
            found = targets(&http.json(&url).ok()?, job);
            (found.len() >= rows.len()).then_some(())
        });
        assert_eq!(found, wanted(rows), "{job}: {all:?}");
    }
    the_list_is_taken(section, &prometheus, dir.path());
    Ok(())
}

/// The section's command makes a list of hosts out of what Prometheus has found.
fn the_list_is_taken(section: &str, prometheus: &Prometheus, dir: &Path) {
    let (_, command) = section.split_once("\n    curl ").unwrap();
    let (command, _) = command.split_once("\n\n").unwrap();
    let command = format!("curl {command}")
        .replace("http://localhost:9090", prometheus.url())
        .replace("\"procstorm\"", "\"job-2\"");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &command])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let list = Targets::read(&dir.join("targets.json")).unwrap();
    let faults: Vec<_> = list.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, [""; 0]);
    let hosts: BTreeSet<_> = list
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.address.as_str(), host.role.as_str()))
        .collect();
    let wanted = BTreeSet::from([
        ("moscow", "moscow.example.org", "mail"),
        ("kiev", "kiev", "mail"),
        ("2001:db8::1", "2001:db8::1", "nis"),
        ("192.0.2.7", "192.0.2.7", "nis"),
        ("lyon", "lyon.example.org", "nis"),
    ]);
    assert_eq!(hosts, wanted);
}
