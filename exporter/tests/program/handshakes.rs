//! TLS handshakes that fail: the log says why, and how often is bounded.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use procstorm_testkit::procfs::Fixture;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::world::Program;

/// A certificate signed by its own key, and that key.
fn self_signed(name: &str, is_ca: bool) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    (params.self_signed(&key).unwrap(), key)
}

/// What the server answers to a client that shows this certificate.
fn ask(program: &Program, server: &rcgen::Certificate, client: &rcgen::Certificate, key: &KeyPair) {
    let mut roots = RootCertStore::empty();
    roots.add(server.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], key)
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(program.address()).unwrap());
    // The server may have closed it before all of this was sent.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_client_that_is_refused_is_told_of_with_the_reason_and_not_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let write =
        |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let (server, server_key) = self_signed("localhost", false);
    let (authority, authority_key) = self_signed("prometheus.example", true);
    let (stranger, stranger_key) = self_signed("stranger.example", false);
    write("server.crt", server.pem());
    write("server.key", server_key.serialize_pem());
    write("ca.crt", authority.pem());
    let config = "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: \
                  ca.crt, client_auth_type: RequireAndVerifyClientCert}\n";
    write("web.yml", config.to_owned());
    let flag = format!("--web.config.file={}", directory.path().join("web.yml").display());
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &[&flag]);

    for _ in 0..20 {
        ask(&program, &server, &authority, &authority_key);
    }
    let line = program.logged("TLS handshake failed");
    assert!(line.contains("level=warn") && line.contains("peer=127.0.0.1:"), "{line}");
    assert!(line.contains("that of an authority (CA:TRUE)"), "{line}");
    // Another reason is told at once, and the first one not again.
    ask(&program, &server, &stranger, &stranger_key);
    let line = program.logged("TLS handshake failed");
    // It has the authority's name, and not its key.
    assert!(line.contains("BadSignature"), "{line}");
    let mut plain = TcpStream::connect(program.address()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let line = program.logged("TLS handshake failed");
    assert!(line.contains("corrupt message"), "{line}");
}

#[test]
fn a_faulty_web_configuration_at_sighup_is_no_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let user =
        |name: &str| format!("basic_auth_users: {{{name}: {}}}\n", bcrypt::hash("x", 4).unwrap());
    std::fs::write(&file, user("alice")).unwrap();
    let proc = Fixture::new();
    let flag = format!("--web.config.file={}", file.display());
    let program = Program::start(proc.path(), &[&flag]);
    // Once it answers, a signal does not end it.
    assert_eq!(program.get_with("/metrics", "").0, 401);
    std::fs::write(&file, "basic_auth_users: [\n").unwrap();
    program.signal(rustix::process::Signal::HUP);
    let line = program.logged("reload");
    assert!(line.contains("failed; still using the previous configuration"), "{line}");
    // alice:x
    let (status, _, body) = program.get_with("/metrics", "Authorization: Basic YWxpY2U6eA==\r\n");
    let body = String::from_utf8(body).unwrap();
    assert!(status == 200 && body.contains("_web_config_last_reload_successful 0\n"), "{body}");
    assert_eq!(program.get_with("/metrics", "").0, 401);
}

#[test]
fn it_says_how_long_its_certificate_is_valid_and_warns_of_one_that_clients_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let write =
        |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2199, 1, 1);
    params.not_after = rcgen::date_time_ymd(2200, 1, 1);
    write("server.crt", params.self_signed(&key).unwrap().pem());
    write("server.key", key.serialize_pem());
    write(
        "web.yml",
        "tls_server_config: {cert_file: server.crt, key_file: server.key}\n".to_owned(),
    );
    let flag = format!("--web.config.file={}", directory.path().join("web.yml").display());
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &[&flag]);
    let log = program.first_lines();
    let line = log.lines().find(|line| line.contains("clients refuse it"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("level=warn") && line.contains("not valid before Jan  1 "), "{line}");
}
