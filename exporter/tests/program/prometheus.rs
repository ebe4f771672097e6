//! A real Prometheus scrapes the exporter over mutual TLS, with a password.

use std::fs::{create_dir, write};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use procstorm_testkit::port::free_port;
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::wait::until_so;
use procstorm_testkit::{programs, skip};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::world::Program;

/// Prometheus, killed when dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// An authority, and a certificate of it for the server and one for Prometheus.
fn certificates(directory: &Path) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write(directory.join("ca.crt"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
        let certificate = params.signed_by(&key, &authority).unwrap();
        write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// What Prometheus answers to a query.
fn query(address: &str, query: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let head = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_real_prometheus_scrapes_over_mutual_tls_with_a_password() {
    let Ok(prometheus) = programs::other("prometheus") else { skip!("needs prometheus") };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    certificates(directory.path());
    let hash = bcrypt::hash("secret", 6).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n\
         basic_auth_users:\n  prometheus: {hash}\n"
    );
    write(path("web.yml"), web).unwrap();
    let proc = Fixture::new();
    let flag = format!("--web.config.file={}", path("web.yml").display());
    let exporter = Program::start(proc.path(), &[&flag]);

    let target = exporter.address();
    let jobs = ["good", "nobody", "stranger"].map(|job| {
        let auth = match job {
            "nobody" => "",
            _ => "    basic_auth: {username: prometheus, password: secret}\n",
        };
        let certificate = match job {
            "stranger" => String::new(),
            _ => "      cert_file: client.crt\n      key_file: client.key\n".to_owned(),
        };
        format!(
            "  - job_name: {job}\n    scheme: https\n    static_configs: [{{targets: ['{target}']}}]\n\
             {auth}    tls_config:\n      ca_file: ca.crt\n{certificate}"
        )
    });
    let config = format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n{}",
        jobs.concat()
    );
    write(path("prometheus.yml"), config).unwrap();
    create_dir(path("data")).unwrap();
    let port = free_port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let child = Command::new(prometheus)
        .arg(format!("--config.file={}", path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", path("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let up = |job, value| {
        until_so(job, || {
            query(&listen, &format!("up%7Bjob=%22{job}%22%7D"))
                .is_some_and(|answer| answer.contains(&format!(",\"{value}\"]")))
        });
    };
    up("good", 1);
    up("nobody", 0);
    up("stranger", 0);
    // One scrape may fail on a busy machine, and leaves no count until the next.
    until_so("the count", || {
        query(&listen, "sum(procstorm_processes%7Bjob=%22good%22%7D)")
            .is_some_and(|counted| counted.contains(",\"1\"]"))
    });
    until_so("the end of the certificate", || {
        let metric = "procstorm_tls_certificate_not_after_timestamp_seconds";
        query(&listen, &format!("{metric}%7Bjob=%22good%22,use=%22server%22%7D"))
            .is_some_and(|end| end.contains(",\"7258118400\"]"))
    });
}
