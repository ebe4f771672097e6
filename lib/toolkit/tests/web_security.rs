//! `--web.config.file` over the wire: TLS, client certificates, passwords, and changes to them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::{self, Request, Response, Settings, reply};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, version};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a web configuration, and the certificates that it can name.
struct World {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let world = Self { directory: tempfile::tempdir().unwrap(), authority };
        write(world.path("ca.crt"), world.authority.pem()).unwrap();
        world.issue("server", "localhost");
        world.issue("client", "prometheus.example");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, file: &str, host: &str) {
        self.issue_for(file, CertificateParams::new(vec![host.to_owned()]).unwrap());
    }

    fn issue_for(&self, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.put(&format!("{file}.crt"), &certificate.pem());
        self.put(&format!("{file}.key"), &key.serialize_pem());
    }

    fn configure(&self, text: &str) -> PathBuf {
        self.put("web.yml", text)
    }

    /// A new inode, as configuration management and `sed -i` make it: the time of a change alone may
    /// be that of the change before, so coarse is the kernel's clock.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }

    fn fault(&self, text: &str) -> String {
        Security::open(&self.configure(text)).unwrap_err().to_string()
    }
}

async fn start(config: &Path) -> (SocketAddr, Arc<Security>) {
    let security = Arc::new(Security::open(config).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings { security: Some(security.clone()), ..Settings::default() };
    let handler = |_: Request| async { Response::from(reply::healthy()) };
    tokio::spawn(web::serve(vec![listener], settings, handler, std::future::pending()));
    (address, security)
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, password: Option<&str>) -> String {
    let authorization = password
        .map(|pair| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair)))
        .unwrap_or_default();
    let request =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n");
    let mut answer = Vec::new();
    // A server that refuses a certificate may close while we still write.
    stream.write_all(request.as_bytes()).await.ok();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().ok();
    String::from_utf8(answer).unwrap()
}

async fn plain(address: SocketAddr, password: Option<&str>) -> String {
    ask(TcpStream::connect(address).await.unwrap(), password).await
}

/// Asks over TLS, with the certificate of that name; nothing if the handshake fails.
async fn over_tls(
    world: &World,
    address: SocketAddr,
    certificate: Option<&str>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(world.authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(world.path(&format!("{name}.crt"))).unwrap()],
                PrivateKeyDer::from_pem_file(world.path(&format!("{name}.key"))).unwrap(),
            )
            .unwrap(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => ask(stream, None).await,
        Err(_) => String::new(),
    }
}

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
const SERVER: &str = "  cert_file: server.crt\n  key_file: server.key\n";

#[tokio::test]
async fn clients_show_the_certificates_that_are_demanded() {
    let world = World::new();
    let stranger = World::new();
    for file in ["client.crt", "client.key"] {
        std::fs::copy(stranger.path(file), world.path(&format!("stranger{}", &file[6..]))).unwrap();
    }
    for (auth, none, stranger, client) in [
        ("", true, true, true),
        ("  client_auth_type: RequestClientCert\n", true, true, true),
        ("  client_auth_type: RequireAnyClientCert\n", false, true, true),
        (
            "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n",
            true,
            false,
            true,
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n",
            false,
            false,
            true,
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: [prometheus.example]\n",
            false,
            false,
            true,
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             client_allowed_sans: [other.example, 10.0.0.1]\n",
            false,
            false,
            false,
        ),
    ] {
        let config = world.configure(&format!("tls_server_config:\n{SERVER}{auth}"));
        let (address, _) = start(&config).await;
        for (who, passes) in [(None, none), (Some("stranger"), stranger), (Some("client"), client)]
        {
            for one in BOTH {
                let answer = over_tls(&world, address, who, &[one]).await;
                assert_eq!(answer.starts_with("HTTP/1.1 200"), passes, "{auth}{who:?}: {answer}");
            }
        }
    }
}

const VERIFIED: &str = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";

/// Whether the client with that certificate gets in where these names are allowed.
async fn admits(world: &World, certificate: &str, allowed: &str) -> bool {
    let text = format!("tls_server_config:\n{SERVER}{VERIFIED}  client_allowed_sans: {allowed}\n");
    let (address, _) = start(&world.configure(&text)).await;
    over_tls(world, address, Some(certificate), &BOTH).await.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn names_of_clients_are_compared_as_texts() {
    let world = World::new();
    let mut params = CertificateParams::new(vec![]).unwrap();
    let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
    params.subject_alt_names = vec![
        SanType::DnsName(ia5("*.example.org")),
        SanType::DnsName(ia5("Nantes.example.net")),
        SanType::Rfc822Name(ia5("scraper@example.org")),
        SanType::URI(ia5("spiffe://example.org/prometheus")),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8:0:0::7".parse().unwrap()),
    ];
    params.distinguished_name.push(DnType::CommonName, "prometheus.example.org");
    world.issue_for("many", params);
    for name in [
        "*.example.org",
        "Nantes.example.net",
        "scraper@example.org",
        "spiffe://example.org/prometheus",
        "192.0.2.7",
        "2001:db8::7",
    ] {
        assert!(admits(&world, "many", &format!("[other, \"{name}\"]")).await, "{name}");
    }
    for name in [
        "prometheus.example.org",
        "example.org",
        "nantes.example.net",
        "Nantes.example.net.",
        "example.net",
        "org",
        "@example.org",
        "spiffe://example.org",
        "spiffe://example.org/prometheus/",
        "192.0.2.0/24",
        "2001:db8:0:0::7",
        "",
    ] {
        assert!(!admits(&world, "many", &format!("[\"{name}\"]")).await, "{name}");
    }
    assert!(!admits(&world, "many", "[]").await, "an empty list is nobody");
    assert!(admits(&world, "many", "").await, "no list is whomever the authority has signed");
    world.issue_for("nameless", CertificateParams::new(vec![]).unwrap());
    assert!(!admits(&world, "nameless", "[\"\"]").await);
    assert!(!admits(&world, "nameless", "[]").await);
}

#[test]
fn names_of_clients_need_a_certificate_of_each() {
    let world = World::new();
    let ca = "  client_ca_file: ca.crt\n";
    for (auth, authorities) in
        [("", ""), ("NoClientCert", ""), ("RequestClientCert", ""), ("VerifyClientCertIfGiven", ca)]
    {
        for allowed in ["[prometheus.example]", "[]"] {
            let text = format!(
                "tls_server_config:\n{SERVER}  client_auth_type: \"{auth}\"\n{authorities}  \
                 client_allowed_sans: {allowed}\n"
            );
            let fault = world.fault(&text);
            assert!(fault.contains("client_allowed_sans: needs client_auth_type"), "{text}{fault}");
        }
    }
    // Without a certificate there is no TLS, and so nobody whose names could be looked at.
    let fault = world.fault("tls_server_config: {client_allowed_sans: [prometheus.example]}\n");
    assert!(fault.contains("cert_file: missing"), "{fault}");
}

#[tokio::test]
async fn what_the_toolkit_takes_is_taken() {
    let world = World::new();
    let inline = |name: &str| {
        let text = std::fs::read_to_string(world.path(name)).unwrap();
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let (cert, key, ca) = (inline("server.crt"), inline("server.key"), inline("ca.crt"));
    let inline = format!(
        "tls_server_config:\n  cert: |\n{cert}  key: |\n{key}  client_ca: |\n{ca}  cert_file: \"\"\n  \
         key_file: \"\"\n  client_ca_file: \"\"\n  client_auth_type: VerifyClientCertIfGiven\n"
    );
    let empty = format!(
        "---\ntls_server_config:\n{SERVER}  cert: \"\"\n  key: \"\"\n  client_ca: \"\"\n  \
         client_auth_type: \"\"\n  client_ca_file: \"\"\n  cipher_suites: []\n  \
         curve_preferences: []\n  min_version: \"\"\n  max_version:\n  client_allowed_sans:\n\
         http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: \"\"\n    \
         Content-Security-Policy:\nbasic_auth_users: {{}}\nrate_limit: {{}}\n"
    );
    for text in [
        inline.as_str(),
        &empty,
        &format!("tls_server_config:\n{SERVER}  min_version: TLS10\n  max_version: TLS13\n"),
        &format!("tls_server_config:\n{SERVER}  min_version: TLS11\n"),
        &format!("tls_server_config:\n{SERVER}  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"),
        &format!(
            "tls_server_config:\n{SERVER}  prefer_server_cipher_suites: false\n  cipher_suites:\n  \
             - TLS_AES_256_GCM_SHA384\n  - TLS_CHACHA20_POLY1305_SHA256\n  - \
             TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n  - \
             TLS_RSA_WITH_AES_128_GCM_SHA256\n"
        ),
        &format!(
            "tls_server_config:\n{SERVER}  curve_preferences: [CurveP521, CurveP384, CurveP256]\n"
        ),
    ] {
        let (address, _) = start(&world.configure(text)).await;
        let answer = over_tls(&world, address, None, &BOTH).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{text}: {answer}");
    }
    for text in ["---\n", "--- \n...\n", "# nothing\n---\n# nothing\n", "", "{}\n"] {
        let (address, _) = start(&world.configure(text)).await;
        assert!(plain(address, None).await.starts_with("HTTP/1.1 200"), "{text}");
    }
}

#[tokio::test]
async fn only_the_suites_of_a_list_are_spoken() {
    let world = World::new();
    let text = format!("tls_server_config:\n{SERVER}  cipher_suites: [TLS_AES_128_GCM_SHA256]\n");
    let (address, _) = start(&world.configure(&text)).await;
    assert_eq!(over_tls(&world, address, None, &[&version::TLS12]).await, "", "it has none of 1.2");
    let list = "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]";
    let text = format!("tls_server_config:\n{SERVER}  cipher_suites: {list}\n");
    let (address, _) = start(&world.configure(&text)).await;
    assert_eq!(over_tls(&world, address, None, &[&version::TLS12]).await, "", "our key is not RSA");
    assert!(over_tls(&world, address, None, &[&version::TLS13]).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_beyond_the_rate_are_told_to_come_again() {
    let world = World::new();
    let text = "rate_limit: {interval: 1h, burst: 3}\n";
    let (address, _) = start(&world.configure(text)).await;
    for wanted in ["200", "200", "200", "429", "429"] {
        let answer = plain(address, None).await;
        assert_eq!(answer.get(9..12), Some(wanted), "{answer}");
    }
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(post.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "Alertmanager would not repeat it: {answer}");
    // Unlimited, in all the ways that say so.
    for text in ["rate_limit: {interval: 0, burst: 1}\n", "rate_limit: {interval: 0s}\n", "{}\n"] {
        world.configure(text);
        for _ in 0..5 {
            assert!(plain(address, None).await.starts_with("HTTP/1.1 200"), "{text}");
        }
    }
}

#[tokio::test]
async fn the_least_version_holds_and_plain_http_gets_nothing() {
    let world = World::new();
    let config = world.configure(&format!("tls_server_config:\n{SERVER}  min_version: TLS13\n"));
    let (address, _) = start(&config).await;
    assert_eq!(over_tls(&world, address, None, &[&version::TLS12]).await, "");
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
    assert!(!plain(address, None).await.contains("healthy"));
}

#[tokio::test]
async fn a_changed_file_counts_without_a_restart_and_a_faulty_one_changes_nothing() {
    let world = World::new();
    let user = |password| {
        let hash = bcrypt::hash(password, 4).unwrap();
        format!(
            "basic_auth_users:\n  prometheus: {hash}\nhttp_server_config:\n  headers:\n    \
             X-Frame-Options: deny\n"
        )
    };
    let (address, security) = start(&world.configure(&user("old"))).await;
    let refused = plain(address, None).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("www-authenticate: Basic\r\n"));
    assert!(refused.contains("x-frame-options: deny\r\n"), "{refused}");
    assert!(plain(address, Some("prometheus:old")).await.starts_with("HTTP/1.1 200"));

    world.configure("basic_auth_users: {prometheus: plain text}\n");
    assert!(plain(address, Some("prometheus:old")).await.starts_with("HTTP/1.1 200"));
    assert!(!security.is_valid());

    world.configure(&user("new"));
    assert!(plain(address, Some("prometheus:old")).await.starts_with("HTTP/1.1 401"));
    assert!(plain(address, Some("prometheus:new")).await.starts_with("HTTP/1.1 200"));
    assert!(security.is_valid());

    world.configure(&format!("tls_server_config:\n{SERVER}"));
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let world = World::new();
    let (address, _) = start(&world.configure(&format!("tls_server_config:\n{SERVER}"))).await;
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
    world.issue("server", "elsewhere.example");
    assert_eq!(over_tls(&world, address, None, &BOTH).await, "", "not localhost's any more");
    world.issue("server", "localhost");
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_validity_is_that_of_the_certificate_which_is_served() {
    let world = World::new();
    let issue = |year| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        world.issue_for("server", params);
    };
    issue(2200);
    let (address, security) =
        start(&world.configure(&format!("tls_server_config:\n{SERVER}"))).await;
    let first = security.certificate().unwrap();
    assert_eq!((first.not_before, first.not_after), (1_577_836_800, 7_258_118_400));
    issue(2199);
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
    assert_eq!(security.certificate().unwrap().not_after, 7_226_582_400);
    // What is on the disk now is not served.
    world.put("server.crt", "renewed, but torn");
    assert!(over_tls(&world, address, None, &BOTH).await.starts_with("HTTP/1.1 200"));
    assert!(!security.is_valid());
    assert_eq!(security.certificate().unwrap().not_after, 7_226_582_400);
    // One that clients refuse is served, as their clocks may differ from this host's.
    issue(2021);
    assert_eq!(over_tls(&world, address, None, &BOTH).await, "");
    assert_eq!(security.certificate().unwrap().not_after, 1_609_459_200);
    let (_, plain) = start(&world.configure("{}\n")).await;
    assert_eq!(plain.certificate(), None);
}

#[test]
fn faults_name_file_and_key() {
    let world = World::new();
    write(world.path("empty"), "").unwrap();
    let torn = BASE64_STANDARD.encode(b"no certificate");
    let torn = format!("-----BEGIN CERTIFICATE-----\n{torn}\n-----END CERTIFICATE-----\n");
    write(world.path("torn"), &torn).unwrap();
    let server = std::fs::read_to_string(world.path("server.crt")).unwrap();
    write(world.path("half"), server + &torn).unwrap();
    for (text, key) in [
        (
            "tls_server_config: {cert_file: torn, key_file: server.key}",
            "tls_server_config.cert_file: certificate 1 of 1 in it cannot be read: ",
        ),
        (
            "tls_server_config: {cert_file: half, key_file: server.key}",
            "tls_server_config.cert_file: certificate 2 of 2 in it cannot be read: ",
        ),
        ("tls_server_config: {cert_file: server.crt}", "tls_server_config.key_file: missing"),
        (
            "tls_server_config: {cert_file: empty, key_file: server.key}",
            "tls_server_config.cert_file: there is no certificate",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: empty}",
            "tls_server_config.key_file: ",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: client.key}",
            "tls_server_config.key_file: ",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt}",
            "tls_server_config.client_auth_type: missing",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, \
             client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config.client_ca_file: missing",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS13, \
             max_version: TLS12}",
            "tls_server_config.max_version: less than min_version",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, \
             cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            "tls_server_config.cipher_suites: ",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, \
             curve_preferences: [CurveP521]}",
            "tls_server_config.curve_preferences: ",
        ),
        (
            "basic_auth_users: {a: $2y$31$abcdefghijklmnopqrstuu5Z3Uv1e7wKk8kD1j0cQGZ1yVXy7mOyK}",
            "cost 31",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, \
             cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}",
            "tls_server_config.cipher_suites: none of",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, \
             cipher_suites: [TLS13_AES_128_GCM_SHA256]}",
            "tls_server_config.cipher_suites: \"TLS13_AES_128_GCM_SHA256\" is not supported",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, max_version: TLS11}",
            "tls_server_config.max_version: less than min_version",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS10, \
             max_version: TLS11}",
            "tls_server_config.max_version: this server speaks TLS12 and TLS13",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS14}",
            "tls_server_config.min_version: unknown TLS version \"TLS14\"",
        ),
        ("rate_limit: {interval: 1s}", "rate_limit.burst: must be at least 1"),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: must be at least 1"),
        ("rate_limit: {interval: soon, burst: 1}", "rate_limit.interval: not a duration"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval: not a duration"),
        ("rate_limit: {every: 1s}", "every"),
        ("tls_server_config: {cert_fil: x}", "cert_fil"),
        ("- a list", "web.yml: "),
        ("a: {", "web.yml: "),
    ] {
        let fault = world.fault(text);
        assert!(fault.contains("web.yml") && fault.contains(key), "{text}: {fault}");
        assert!(!fault.contains('\n'), "{fault}");
    }
    let missing = Security::open(&world.path("missing.yml")).unwrap_err().to_string();
    assert!(missing.contains("missing.yml"), "{missing}");
}
