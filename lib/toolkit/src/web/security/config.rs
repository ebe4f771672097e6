//! The web configuration file: raw first, validated second, every fault told at once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde::Deserialize;

use super::basic_auth::Users;
use super::faults::Faults;
use super::rate_limit::{Rate, RawRate};
use super::tls::{self, RawTls};
use crate::certificate::Validity;
use crate::scarcity::is_shortage;

/// A valid configuration.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// How connections are encrypted; `None` is plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// How long the server's certificate is valid, if there is one.
    pub(super) certificate: Option<Validity>,
    /// Whether each client must have a verified certificate.
    pub(super) verifies_clients: bool,
    /// The users who may send requests; if it is empty, everybody may.
    pub(super) users: Users,
    /// How many requests are answered; `None` is all of them.
    pub(super) rate: Option<Rate>,
    /// What each answer carries.
    pub(super) headers: HeaderMap,
    /// The file itself and those that it names.
    pub(super) files: Vec<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says what cannot be, or what is not understood.
    #[error("{}: {faults}", .path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        faults: Faults,
    },
}

impl ConfigError {
    /// Whether the system was short of descriptors or memory: then nothing is known of the file.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => is_shortage(source),
            Self::Faulty { faults, .. } => faults.pass(),
        }
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    tls_server_config: Option<RawTls>,
    http_server_config: Option<RawHttp>,
    basic_auth_users: Option<BTreeMap<String, Option<String>>>,
    rate_limit: Option<RawRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    /// Known, so that a file that sets it is valid: to us, clients speak HTTP/1.1 either way.
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

impl WebConfig {
    /// Reads and validates the file and those that it names, whose relative paths begin at its own
    /// directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut config = Self::parse(&text, directory)
            .map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })?;
        config.files.insert(0, path.to_owned());
        Ok(config)
    }

    /// How connections are encrypted; `None` is plain HTTP.
    pub(in crate::web) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    /// Whether every request comes with a password.
    pub(in crate::web) fn asks_for_password(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether every request comes with a password, or every client has shown a certificate that
    /// was verified.
    pub(super) fn asks_who_speaks(&self) -> bool {
        self.asks_for_password() || self.verifies_clients
    }

    /// Puts the configured headers among those of an answer.
    pub(in crate::web) fn add_headers(&self, answer: &mut HeaderMap) {
        answer.extend(self.headers.clone());
    }

    /// Validates what a configuration file says. Reads the files that it names, whose relative
    /// paths begin at `directory`. Fails with every fault at once.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, Faults> {
        let raw = parse_yaml(text)?;
        let mut faults = Faults::default();
        let mut files = Vec::new();
        let tls = raw.tls_server_config.map(RawTls::without_empty_texts);
        let tls = tls.filter(|tls| !tls.is_empty());
        let verifies_clients = tls.as_ref().is_some_and(RawTls::verifies_clients);
        let tls = tls.and_then(|tls| tls::validate(tls, directory, &mut files, &mut faults));
        let (tls, certificate) = tls.unzip();
        let users = present(raw.basic_auth_users.unwrap_or_default());
        let users = Users::validate(users, &mut faults);
        let rate = Rate::validate(raw.rate_limit.unwrap_or_default(), &mut faults);
        let http = raw.http_server_config.unwrap_or_default();
        let headers = validate_headers(present(http.headers.unwrap_or_default()), &mut faults);
        if faults == Faults::default() {
            Ok(Self { tls, certificate, verifies_clients, users, rate, headers, files })
        } else {
            Err(faults)
        }
    }
}

/// A map with nothing as an empty text, which is how the toolkit reads it.
fn present(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

fn parse_yaml(text: &str) -> Result<Raw, Faults> {
    // A document without anything in it; its end or its beginning may be marked.
    let is_nothing = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        matches!(line, "" | "---" | "..." | "null" | "~" | "--- null" | "--- ~" | "{}" | "--- {}")
    };
    if text.trim_start_matches('\u{feff}').lines().all(is_nothing) {
        return Ok(Raw::default());
    }
    // Without its quotation of the file, which may hold a secret.
    serde_saphyr::from_str(text).map_err(|error| Faults::of_file(error.without_snippet()))
}

/// The headers that the toolkit allows, and the values that they may have, if not any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["", "nosniff"]),
    ("X-Frame-Options", &["", "deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

fn validate_headers(raw: BTreeMap<String, String>, faults: &mut Faults) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in raw {
        let key = format!("http_server_config.headers.{name}");
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            faults.add(&key, "this header cannot be set");
            continue;
        };
        if !values.is_empty() && !values.contains(&value.to_lowercase().as_str()) {
            faults.add(&key, format_args!("\"{}\" is not a valid value", value.escape_debug()));
        } else if !value.is_empty() {
            match (HeaderName::try_from(&name), HeaderValue::try_from(&value)) {
                (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
                _ => faults.add(&key, "not a value that a header can have"),
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        WebConfig::parse(text, Path::new("/nowhere")).expect_err("faulty").to_string()
    }

    #[test]
    fn an_empty_file_is_plain_http_for_everybody() {
        for text in ["", "# nothing\n", "tls_server_config: {}\n", "basic_auth_users: {}\n"] {
            let config = WebConfig::parse(text, Path::new("/nowhere")).expect("valid");
            assert!(config.tls.is_none() && config.headers.is_empty(), "{text}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_key() {
        let faults = faults(
            "tls_server_config: {cert_file: no.crt, client_auth_type: Perhaps, min_version: SSL30}\n\
             http_server_config: {headers: {Server: x, X-Frame-Options: maybe}}\n\
             basic_auth_users: {alice: plain}\n",
        );
        for key in [
            "tls_server_config.cert_file: ",
            "tls_server_config.key_file: ",
            "tls_server_config.client_auth_type: ",
            "tls_server_config.min_version: ",
            "http_server_config.headers.Server: ",
            "http_server_config.headers.X-Frame-Options: ",
            "basic_auth_users.alice: ",
        ] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }

    #[test]
    fn faults_are_one_line() {
        let faults = faults("basic_auth_users: {\"a\\tb\\nc\": plain}\n");
        assert!(faults.contains("a b c") && !faults.contains(char::is_control), "{faults:?}");
    }

    #[test]
    fn an_unknown_key_is_named_and_no_secret_is_quoted() {
        let faults = faults("basic_auth_users: {alice: secret}\nbasic_auth_user: {}\n");
        assert!(faults.contains("basic_auth_user"), "{faults}");
        assert!(!faults.contains("secret"), "{faults}");
    }
}
