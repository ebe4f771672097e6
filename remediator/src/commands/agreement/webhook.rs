//! A receiver's webhook: does it post to this host's daemon, with what this daemon asks for?
//!
//! - [`Webhook`]: one of a receiver's `webhook_configs`, as far as it matters here.
//! - [`Here`]: this host's daemon, as far as its policy and command line tell.
//! - [`Webhook::judge`]: what is wrong between the two, and what cannot be told.
//!
//! No secret is ever part of what is said.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;

use crate::args::LISTEN;
use crate::policy::duration;
use crate::policy::yaml::{Fault, Node};

/// The page that takes notifications.
const PAGE: &str = "/webhook";

/// The least time that a post may take: the daemon writes it down, durably, before it answers.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The largest credentials or url file that is read.
const FILE_MAX: u64 = 64 << 10;

/// What the daemon's web configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebAsks {
    /// Connections are encrypted.
    pub tls: bool,
    /// Each request needs a password, which then stands for the token.
    pub password: bool,
    /// Each client needs a certificate.
    pub certificate: bool,
}

/// This host's daemon.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// The addresses that it listens on, as `--web.listen-address` has them; none is the default.
    pub listen: Vec<String>,
    /// What `--web.config.file` asks for; `None` where none was given.
    pub web: Option<WebAsks>,
    /// The policy's `token_file`.
    pub token_file: Option<PathBuf>,
    /// The hosts of the policy's `alertmanager`.
    pub alertmanagers: Vec<String>,
    /// Whether it is another machine: its files and its web configuration cannot be read here.
    pub elsewhere: bool,
}

/// What is wrong with a webhook for this host, as sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// It is another daemon's, or nobody's.
    pub(super) elsewhere: Option<String>,
    /// Its url names another host's daemon.
    pub(super) names_other: bool,
    /// Its posts are not taken, or say too little.
    pub(super) wrong: Vec<String>,
    /// Whether they are taken depends on what is not in the files.
    pub(super) unsure: Vec<String>,
    /// What was not compared.
    pub(super) notes: Vec<String>,
}

/// One of a receiver's webhooks.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) line: u64,
    target: Target,
    max_alerts: bool,
    payload: bool,
    timeout: Duration,
    http: Http,
}

#[derive(Clone, Debug)]
enum Target {
    Url(String),
    File(PathBuf),
}

/// What of `http_config` matters here.
#[derive(Clone, Debug, Default)]
struct Http {
    auth: Auth,
    proxy: bool,
    certificate: bool,
}

#[derive(Clone, Debug, Default)]
enum Auth {
    #[default]
    None,
    Bearer(Secret),
    Basic,
    /// A scheme that the daemon does not know, or a token from elsewhere.
    Other(String),
}

#[derive(Clone)]
enum Secret {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Webhook {
    /// `global` is the configuration's own `http_config`, for a webhook that has none. Relative
    /// paths begin at `directory`.
    pub(super) fn read(
        node: &Node,
        global: Option<&Node>,
        directory: &Path,
    ) -> Result<Self, Fault> {
        let target = match (node.text_of("url")?, node.text_of("url_file")?) {
            (Some(url), None | Some("")) if !url.is_empty() => Target::Url(url.trim().to_owned()),
            (None | Some(""), Some(file)) if !file.is_empty() => Target::File(directory.join(file)),
            _ => return Err(Fault::new(node.line, "a webhook needs either url or url_file")),
        };
        let max_alerts = node.text_of("max_alerts")?.is_some_and(|most| most.trim() != "0");
        let timeout = node.text_of("timeout")?.unwrap_or("0s");
        let timeout = go_duration(timeout).ok_or_else(|| {
            Fault::new(node.line, format!("timeout: {timeout:?} is not a duration"))
        })?;
        let http = node.get("http_config").or(global);
        let http = http.map_or(Ok(Http::default()), |http| Http::read(http, directory))?;
        let payload = node.get("payload").is_some();
        Ok(Self { line: node.line, target, max_alerts, payload, timeout, http })
    }

    /// Whether its url is a template, which one receiver for many hosts has.
    pub(super) fn template(&self) -> Option<&str> {
        match &self.target {
            Target::Url(url) if url.contains("{{") => Some(url),
            Target::Url(_) | Target::File(_) => None,
        }
    }

    /// The file with the bearer token that it posts with, if it has one.
    pub(super) fn token_file(&self) -> Option<&Path> {
        match &self.http.auth {
            Auth::Bearer(Secret::File(file)) => Some(file),
            Auth::Bearer(Secret::Text(_)) | Auth::None | Auth::Basic | Auth::Other(_) => None,
        }
    }

    /// Whether it posts as this host's daemon needs it. `host` is this host's name, `others` are
    /// the names of hosts that other routes are for. `one_alert` says that each post holds one
    /// alert alone.
    pub(super) fn judge(
        &self,
        here: &Here,
        host: &str,
        others: &[&str],
        one_alert: bool,
    ) -> Judgement {
        let mut said = Judgement::default();
        match self.url(host) {
            Ok(url) => {
                self.judge_url(&url, here, host, others, &mut said);
                self.judge_scheme(&url, here, &mut said);
                self.judge_token(&url, here, &mut said);
            }
            Err(unsure) => {
                said.unsure.push(unsure);
                self.judge_auth(here, &mut said);
            }
        }
        if self.max_alerts && !one_alert {
            said.wrong.push(
                "max_alerts drops what is beyond it from a notification: leave it out, or write 0"
                    .to_owned(),
            );
        }
        if self.payload {
            said.wrong.push(
                "payload replaces Alertmanager's notification, and the daemon takes no other: \
                 leave it out"
                    .to_owned(),
            );
        }
        if !self.timeout.is_zero() && self.timeout < TIMEOUT_MIN {
            said.unsure.push(format!(
                "timeout: {} ms may be over before the daemon has written its journal and answered; \
                 leave it out, or write 10s",
                self.timeout.as_millis()
            ));
        }
        if self.http.proxy {
            said.unsure.push("it posts through a proxy, which is not known here".to_owned());
        }
        said
    }

    /// Its url, or why it is not known.
    fn url(&self, host: &str) -> Result<Uri, String> {
        let text = match &self.target {
            Target::Url(url) => filled(url, host).ok_or(
                "its url is a template of more than .CommonLabels.host or .GroupLabels.host",
            )?,
            Target::File(path) => small_file(path)
                .map_err(|error| format!("url_file {} cannot be read: {error}", path.display()))?,
        };
        // Not quoted: there may be a password in it.
        text.trim().parse().map_err(|_uri| "its url cannot be understood".to_owned())
    }

    fn judge_url(&self, url: &Uri, here: &Here, host: &str, others: &[&str], said: &mut Judgement) {
        let https = url.scheme_str() == Some("https");
        let (name, port) = (url.host().unwrap_or_default(), url.port_u16());
        let port = port.unwrap_or(if https { 443 } else { 80 });
        let shown = format!("{name}:{port}{}", url.path());
        if url.path() != PAGE {
            said.elsewhere = Some(format!("{shown} is not the daemon's page {PAGE}"));
            return;
        }
        let listen = listened(here);
        if !listen.iter().any(|(_, listened)| *listened == port) {
            let ports: Vec<_> = listen.iter().map(|(_, port)| port.to_string()).collect();
            said.elsewhere = Some(format!(
                "{shown} is not a port of this host's daemon, which listens on {}; if it listens \
                 elsewhere, give --check its --web.listen-address",
                ports.join(", ")
            ));
            return;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name = name.to_ascii_lowercase();
        let address: Option<IpAddr> = name.parse().ok();
        let local = is_local(&name, address);
        let open: Vec<&IpAddr> =
            listen.iter().filter(|(_, on)| *on == port).map(|(address, _)| address).collect();
        if local {
            let away = here.alertmanagers.iter().find(|one| !is_host(one, host));
            let near = here.alertmanagers.iter().any(|one| is_host(one, host));
            if let (Some(away), false) = (away, near) {
                said.elsewhere = Some(format!(
                    "{shown} is Alertmanager's own machine, and the policy's alertmanager is \
                     {away}: write {host} instead"
                ));
            } else if !open.iter().any(|on| takes_local(on, address)) {
                said.elsewhere = Some(format!("this host's daemon does not listen on {shown}"));
            }
            return;
        }
        if is_host(&name, host) {
            // It is this one.
        } else if let Some(other) = others.iter().find(|other| is_host(&name, other)) {
            said.elsewhere = Some(format!("{shown} is host {other:?}, and this is {host:?}"));
            said.names_other = true;
            return;
        } else if address.is_none() && !name.contains('.') {
            said.elsewhere = Some(format!(
                "{shown} is another host than {host:?}: write its name in the url, or the policy's \
                 host as the url has it"
            ));
            said.names_other = true;
            return;
        } else {
            said.unsure.push(format!(
                "whether {name} is this host, {host:?}, is not in the files: a url with the host's \
                 name would say it"
            ));
        }
        let reached = |on: &&IpAddr| {
            on.is_unspecified()
                || !on.is_loopback() && address.is_none_or(|address| address == **on)
        };
        if open.into_iter().any(|on| reached(&on)) {
            return;
        }
        if here.listen.is_empty() || is_default(here) {
            said.unsure.push(format!(
                "{shown} is not on loopback, where the daemon listens by default: pass the daemon's \
                 own --web.listen-address to --check, if it has one"
            ));
        } else {
            said.elsewhere = Some(format!("this host's daemon does not listen on {shown}"));
        }
    }

    fn judge_scheme(&self, url: &Uri, here: &Here, said: &mut Judgement) {
        let https = url.scheme_str() == Some("https");
        match here.web {
            Some(web) if web.tls && !https => said.wrong.push(
                "its url says http, and the daemon's web configuration has tls_server_config: \
                 write https"
                    .to_owned(),
            ),
            Some(web) if !web.tls && https => said.wrong.push(
                "its url says https, and the daemon's web configuration has no tls_server_config: \
                 write http"
                    .to_owned(),
            ),
            Some(web) if web.certificate && !self.http.certificate => said.wrong.push(
                "the daemon asks for a client certificate: write cert_file and key_file in its \
                 tls_config"
                    .to_owned(),
            ),
            None if https && !here.elsewhere => said.unsure.push(
                "its url says https: give --check the daemon's own --web.config.file".to_owned(),
            ),
            Some(_) | None => {}
        }
        if self.template().is_some() {
            if !https {
                said.wrong.push(
                    "a url that is a template must be https with client certificates: any host \
                     could be asked to take the posts"
                        .to_owned(),
                );
            }
            if !matches!(self.http.auth, Auth::None) {
                said.wrong.push(
                    "credentials would go to whatever host the label names: with a url that is a \
                     template, use client certificates in place of a token or password"
                        .to_owned(),
                );
            }
            said.notes.push("a url that is a template needs Alertmanager 0.31 or newer".to_owned());
        }
    }

    fn judge_token(&self, url: &Uri, here: &Here, said: &mut Judgement) {
        let has_login = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let asks_password = here.web.is_some_and(|web| web.password);
        // Go makes basic authentication of it, before anything that http_config says.
        if has_login && here.token_file.is_some() && !asks_password {
            let what = "its url holds a login, which is sent in place of the token: take it out";
            said.wrong.push(what.to_owned());
        } else if !has_login {
            self.judge_auth(here, said);
        }
    }

    fn judge_auth(&self, here: &Here, said: &mut Judgement) {
        if let Some(web) = here.web
            && web.password
        {
            match &self.http.auth {
                Auth::Basic => said.notes.push("the password is not compared".to_owned()),
                Auth::None | Auth::Bearer(_) | Auth::Other(_) => said.wrong.push(
                    "the daemon's web configuration has basic_auth_users: write basic_auth in \
                     http_config, in place of authorization"
                        .to_owned(),
                ),
            }
            return;
        }
        let Some(token_file) = &here.token_file else { return };
        match &self.http.auth {
            // A file of the same path is this machine's own.
            Auth::Bearer(_) if here.elsewhere => {}
            Auth::Bearer(secret) => compare(secret, token_file, said),
            Auth::None if self.template().is_some() => said.wrong.push(format!(
                "it posts without a token, and the policy's token_file is {}: with a url that is a \
                 template the daemon must ask for client certificates alone",
                token_file.display()
            )),
            Auth::None => said.wrong.push(format!(
                "it posts without a token, and the daemon asks for that in {}: write \
                 http_config: {{authorization: {{type: Bearer, credentials_file: FILE}}}}",
                token_file.display()
            )),
            Auth::Basic if here.elsewhere => {}
            Auth::Basic if here.web.is_none() => said.unsure.push(
                "it posts a password: give --check the daemon's own --web.config.file".to_owned(),
            ),
            Auth::Basic => said.wrong.push(
                "it posts a password, and the daemon's web configuration has no basic_auth_users"
                    .to_owned(),
            ),
            Auth::Other(kind) => said.wrong.push(format!(
                "it posts with {kind}, and the daemon asks for the token in {} as type Bearer",
                token_file.display()
            )),
        }
    }
}

/// Compares a token with the daemon's, if both can be read.
fn compare(secret: &Secret, token_file: &Path, said: &mut Judgement) {
    let ours = small_file(token_file);
    let theirs = match secret {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(path) => small_file(path),
    };
    match (ours, theirs, secret) {
        (Ok(ours), Ok(theirs), _) if ours.trim() == theirs.trim() => {}
        (Ok(_), Ok(_), Secret::File(path)) => said.wrong.push(format!(
            "the token in {} is not the one in {}, which this host's daemon asks for",
            path.display(),
            token_file.display()
        )),
        (Ok(_), Ok(_), Secret::Text(_)) => said.wrong.push(format!(
            "its credentials are not the token in {}, which this host's daemon asks for",
            token_file.display()
        )),
        (Err(error), _, _) => said.notes.push(format!(
            "the tokens are not compared: {} cannot be read here: {error}",
            token_file.display()
        )),
        (_, Err(error), Secret::File(path)) => said.notes.push(format!(
            "the tokens are not compared: {} cannot be read here: {error}",
            path.display()
        )),
        (_, Err(error), Secret::Text(_)) => {
            said.notes.push(format!("the tokens are not compared: {error}"));
        }
    }
}

impl Http {
    fn read(node: &Node, directory: &Path) -> Result<Self, Fault> {
        let given = |key: &str| node.text_of(key).map(|text| text.filter(|text| !text.is_empty()));
        let secret = |text: Option<&str>, file: Option<&str>| {
            let file = file.filter(|file| !file.is_empty()).map(|file| directory.join(file));
            let text = text.map(ToOwned::to_owned).map(Secret::Text);
            file.map(Secret::File).or(text)
        };
        let auth = if let Some(auth) = node.get("authorization") {
            let kind = auth.text_of("type")?.map_or("Bearer", str::trim);
            let secret = secret(auth.text_of("credentials")?, auth.text_of("credentials_file")?);
            match secret {
                Some(secret) if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => {
                    Auth::Bearer(secret)
                }
                Some(_) => Auth::Other(format!("authorization of type {kind:?}")),
                None => Auth::Other("authorization that has no credentials".to_owned()),
            }
        } else if let Some(secret) = secret(given("bearer_token")?, given("bearer_token_file")?) {
            Auth::Bearer(secret)
        } else if node.get("basic_auth").is_some() {
            Auth::Basic
        } else if node.get("oauth2").is_some() {
            Auth::Other("oauth2".to_owned())
        } else {
            Auth::None
        };
        let from_environment = node.get("proxy_from_environment").map(Node::truth).transpose()?;
        let proxy = given("proxy_url")?.is_some() || from_environment == Some(true);
        let certificate = node.get("tls_config").is_some_and(|tls| {
            ["cert", "cert_file", "cert_ref"].iter().any(|key| tls.get(key).is_some())
        });
        Ok(Self { auth, proxy, certificate })
    }
}

/// A template's url with this host's name in it; `None` where another label or function is in it.
fn filled(url: &str, host: &str) -> Option<String> {
    let mut parts = url.split("{{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, after) = part.split_once("}}")?;
        let inside = inside.trim_matches('-').trim();
        if !matches!(inside, ".CommonLabels.host" | ".GroupLabels.host") {
            return None;
        }
        text.push_str(host);
        text.push_str(after);
    }
    Some(text)
}

fn small_file(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_MAX {
        return Err(std::io::Error::other("it is too large"));
    }
    std::fs::read_to_string(path)
}

/// Addresses and ports that the daemon listens on.
fn listened(here: &Here) -> Vec<(IpAddr, u16)> {
    let default = [LISTEN.to_owned()];
    let listen = if here.listen.is_empty() { &default[..] } else { &here.listen };
    let parsed = listen.iter().filter_map(|listen| {
        let (address, port) = listen.rsplit_once(':')?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let address = match address {
            "" => IpAddr::from([0_u16; 8]),
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            // A name stands for an address that is not known here: taken to be reachable.
            address => address.parse().unwrap_or(IpAddr::from([0_u16; 8])),
        };
        Some((address, port.parse().ok()?))
    });
    parsed.collect()
}

fn is_default(here: &Here) -> bool {
    here.listen.iter().all(|listen| listen == LISTEN)
}

fn is_local(name: &str, address: Option<IpAddr>) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_some_and(|address| address.is_loopback() || address.is_unspecified())
}

/// Whether who connects to `address` on the daemon's own machine, or to a name of it, reaches a
/// socket that is bound to `on`.
fn takes_local(on: &IpAddr, address: Option<IpAddr>) -> bool {
    match (on, address) {
        (IpAddr::V6(on), _) if on.is_unspecified() => true,
        (IpAddr::V4(on), Some(IpAddr::V4(_))) if on.is_unspecified() => true,
        (on, None) => on.is_loopback() || on.is_unspecified(),
        // To connect to 0.0.0.0 is to connect to 127.0.0.1.
        (on, Some(address)) if address.is_unspecified() => on.is_loopback(),
        (on, Some(address)) => *on == address,
    }
}

/// Whether two names are of one host: the same, or one with its domain.
fn is_host(name: &str, host: &str) -> bool {
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    let within = |long: &str, short: &str| {
        let is_address = short.parse::<IpAddr>().is_ok();
        !is_address && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'))
    };
    let local = is_local(&name, name.parse().ok());
    local || name == host || within(&name, &host) || within(&host, &name)
}

/// Go's `time.ParseDuration`, or Prometheus' spans.
fn go_duration(text: &str) -> Option<Duration> {
    duration::parse(text).or_else(|| {
        // 1.5s, 100us.
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = text.split_at(unit);
        let second = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * second).ok()
    })
}
