//! `tls_server_config`: certificate, clients' certificates, versions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use serde::Deserialize;

use super::client_cert::{self, Demand};
use super::faults::Faults;
use crate::certificate::Validity;

/// The section as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    curve_preferences: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
}

impl RawTls {
    /// With an empty text as absent, as in the toolkit.
    pub(super) fn without_empty_texts(mut self) -> Self {
        let texts = [
            &mut self.cert,
            &mut self.key,
            &mut self.client_ca,
            &mut self.client_auth_type,
            &mut self.min_version,
            &mut self.max_version,
        ];
        texts.into_iter().for_each(|text| *text = text.take().filter(|text| !text.is_empty()));
        for file in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file] {
            *file = file.take().filter(|file| !file.as_os_str().is_empty());
        }
        self
    }

    /// Whether it asks for nothing: then there is no TLS. Names of clients are something: whoever
    /// lists some does not mean to serve everybody.
    pub(super) fn is_empty(&self) -> bool {
        self.cert.is_none()
            && self.key.is_none()
            && self.client_ca.is_none()
            && self.cert_file.is_none()
            && self.key_file.is_none()
            && self.client_ca_file.is_none()
            && self.client_auth_type.is_none()
            && self.client_allowed_sans.is_none()
    }

    /// Whether clients need a certificate that one of the authorities has signed.
    pub(super) fn verifies_clients(&self) -> bool {
        self.client_auth_type.as_deref() == Some("RequireAndVerifyClientCert")
    }
}

/// Not what is in it: a key may be.
impl fmt::Debug for RawTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTls").finish_non_exhaustive()
    }
}

/// A key of the section, as a fault names it.
fn key(name: &str) -> String {
    format!("tls_server_config.{name}")
}

/// The server's side of TLS, and how long its certificate is valid. What is wrong goes into
/// `faults`, the files that it needs into `files`. A certificate that clients refuse is logged: they
/// may have another clock.
pub(super) fn validate(
    raw: RawTls,
    directory: &Path,
    files: &mut Vec<PathBuf>,
    faults: &mut Faults,
) -> Option<(Arc<ServerConfig>, Validity)> {
    let mut pem = |name, inline, file| Pem::read(name, inline, file, directory, files, faults);
    let chain = pem("cert", raw.cert, raw.cert_file);
    let private = pem("key", raw.key, raw.key_file);
    let client_ca = pem("client_ca", raw.client_ca, raw.client_ca_file);

    for (name, pem) in [("cert_file", &chain), ("key_file", &private)] {
        if matches!(pem, Pem::Absent) {
            faults.add(&key(name), "missing");
        }
    }
    let (chain, validity) = chain.chain(faults).unzip();
    let private = private.private_key(faults);
    let provider = provider(raw.cipher_suites, raw.curve_preferences, faults);
    let versions = versions(raw.min_version.as_deref(), raw.max_version.as_deref(), faults);
    let demand = Demand::validate(raw.client_auth_type.as_deref(), faults)?;
    let sans = client_cert::allowed_names(raw.client_allowed_sans, demand, faults);
    let roots = roots(&client_ca, demand, faults)?;
    let verifier = client_cert::verifier(demand, roots, sans, &provider)
        .map_err(|error| faults.add(&key("client_ca_file"), error))
        .ok()?;

    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| faults.add(&key("cipher_suites"), error))
        .ok()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain?, private?)
        .map_err(|error| faults.add(&key("key_file"), error))
        .ok()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = raw.prefer_server_cipher_suites.unwrap_or(true);
    let validity = validity?;
    if let Some(complaint) = validity.complaint(SystemTime::now()) {
        tracing::warn!(
            problem = complaint,
            "certificate of the server is not valid by the clock of this host: clients refuse it"
        );
    }
    Some((Arc::new(config), validity))
}

/// Text in PEM, written into the configuration or into a file of its own.
enum Pem {
    Absent,
    /// It was told as a fault.
    Unreadable,
    Text {
        key: String,
        bytes: Vec<u8>,
    },
}

impl Pem {
    fn read(
        name: &str,
        inline: Option<String>,
        file: Option<PathBuf>,
        directory: &Path,
        files: &mut Vec<PathBuf>,
        faults: &mut Faults,
    ) -> Self {
        let file_key = key(&format!("{name}_file"));
        match (inline, file) {
            (None, None) => Self::Absent,
            (Some(text), None) => Self::Text { key: key(name), bytes: text.into_bytes() },
            (Some(_), Some(_)) => {
                faults.add(&file_key, format_args!("{name} is set too; set only one of the two"));
                Self::Unreadable
            }
            (None, Some(file)) => {
                let path = directory.join(file);
                let read = std::fs::read(&path);
                let pem = match read {
                    Ok(bytes) => Self::Text { key: file_key, bytes },
                    Err(error) => {
                        faults.add_unreadable(&file_key, &path, &error);
                        Self::Unreadable
                    }
                };
                files.push(path);
                pem
            }
        }
    }

    fn certificates(&self, faults: &mut Faults) -> Option<Vec<CertificateDer<'static>>> {
        let Self::Text { key, bytes } = self else { return None };
        match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if certificates.is_empty() => {
                faults.add(key, "there is no certificate in it");
                None
            }
            Ok(certificates) => Some(certificates),
            Err(error) => {
                faults.add(key, error);
                None
            }
        }
    }

    /// The certificate that is served with those that it is sent with, and how long all of them are
    /// valid.
    fn chain(&self, faults: &mut Faults) -> Option<(Vec<CertificateDer<'static>>, Validity)> {
        let Self::Text { key, .. } = self else { return None };
        let chain = self.certificates(faults)?;
        let validity = Validity::of(&chain).map_err(|error| faults.add(key, error)).ok()?;
        Some((chain, validity))
    }

    fn private_key(&self, faults: &mut Faults) -> Option<PrivateKeyDer<'static>> {
        let Self::Text { key, bytes } = self else { return None };
        PrivateKeyDer::from_pem_slice(bytes).map_err(|error| faults.add(key, error)).ok()
    }
}

/// The authorities that sign clients' certificates. Those without a check, and a check without
/// them, are faults: neither does what its author expects.
fn roots(client_ca: &Pem, demand: Demand, faults: &mut Faults) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match client_ca {
        Pem::Absent if demand.is_verified() => {
            faults.add(&key("client_ca_file"), "missing, as client_auth_type verifies");
            None
        }
        Pem::Absent => Some(roots),
        Pem::Unreadable | Pem::Text { .. } if demand == Demand::None => {
            faults.add(&key("client_auth_type"), "missing, as there is a client_ca_file");
            None
        }
        Pem::Unreadable => None,
        Pem::Text { key, .. } => {
            for certificate in client_ca.certificates(faults)? {
                roots.add(certificate).map_err(|error| faults.add(key, error)).ok()?;
            }
            Some(roots)
        }
    }
}

/// The versions between both. As a minimum, what is older than TLS 1.2 asks for no less than it; as
/// a maximum it leaves nothing that this server speaks.
fn versions(
    min: Option<&str>,
    max: Option<&str>,
    faults: &mut Faults,
) -> Vec<&'static SupportedProtocolVersion> {
    let mut number = |name: &str, text: Option<&str>, default| match text {
        None => default,
        Some("TLS10") => 10,
        Some("TLS11") => 11,
        Some("TLS12") => 12,
        Some("TLS13") => 13,
        Some(other) => {
            let problem = format!(
                "unknown TLS version \"{}\"; expected one of TLS10, TLS11, TLS12, TLS13",
                other.escape_debug()
            );
            faults.add(&key(name), problem);
            default
        }
    };
    let (min, max) = (number("min_version", min, 12), number("max_version", max, 13));
    if max < min {
        faults.add(&key("max_version"), "less than min_version");
    } else if max < 12 {
        faults.add(&key("max_version"), "this server speaks TLS12 and TLS13");
    }
    [(12, &version::TLS12), (13, &version::TLS13)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, version)| version)
        .collect()
}

/// What encrypts, with the suites of TLS 1.2 and the curves cut down to those named, in their order.
/// As in Go, an empty list is none at all, and TLS 1.3 keeps all of its own suites. What Go knows
/// and this server does not is left out, and that is logged.
fn provider(
    suites: Option<Vec<String>>,
    curves: Option<Vec<String>>,
    faults: &mut Faults,
) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if let Some(names) = suites.filter(|names| !names.is_empty()) {
        let known: Vec<String> = provider.cipher_suites.iter().map(go_name).collect();
        let known = |name: &str| known.iter().any(|known| known == name);
        told_of("cipher_suites", &names, known, &GO_SUITES, faults);
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || names.contains(&go_name(suite)));
        // Those of TLS 1.3 are in no list of TLS 1.2, and stay first.
        provider.cipher_suites.sort_by_key(|suite| {
            let place = names.iter().position(|name| *name == go_name(suite));
            (suite.tls13().is_none(), place.filter(|_| suite.tls13().is_none()))
        });
    }
    if let Some(names) = curves.filter(|names| !names.is_empty()) {
        told_of("curve_preferences", &names, |name| curve(name).is_some(), &GO_CURVES, faults);
        provider.kx_groups = names.iter().filter_map(|name| curve(name)).collect();
    }
    Arc::new(provider)
}

/// Of the names in a list, those that not even Go knows are faults, and so is a list of which
/// nothing is left; those that Go alone knows are logged.
fn told_of(
    list: &str,
    names: &[String],
    known: impl Fn(&str) -> bool,
    of_go: &[&str],
    faults: &mut Faults,
) {
    let (of_go, unknown): (Vec<_>, Vec<_>) =
        names.iter().filter(|name| !known(name)).partition(|name| of_go.contains(&name.as_str()));
    for name in &unknown {
        faults.add(&key(list), format_args!("\"{}\" is not supported", name.escape_debug()));
    }
    if unknown.is_empty() && of_go.len() == names.len() {
        faults.add(&key(list), format_args!("none of {names:?} is supported"));
    } else if !of_go.is_empty() {
        tracing::warn!(left_out = ?of_go, "{list}: not supported by this server");
    }
}

/// A suite by the name that Go gives it.
fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// Suites that Go's `tls.CipherSuites` has or had, and this server does not: they encrypt by CBC, or
/// have no forward secrecy.
const GO_SUITES: [&str; 9] = [
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
];

/// Curves that the toolkit has, and this server does not.
const GO_CURVES: [&str; 1] = ["CurveP521"];

fn curve(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    match name {
        "X25519" => Some(ring::kx_group::X25519),
        "CurveP256" => Some(ring::kx_group::SECP256R1),
        "CurveP384" => Some(ring::kx_group::SECP384R1),
        _ => None,
    }
}
