//! What a person reads after a run: what was done, what is for whom, and how it is used.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::plan::{Course, Settled, Verdict};
use super::store::At;
use super::x509::Certificate;
use super::{ALERTMANAGER, CLIENTS, HOSTS, PROMETHEUS, SERVERS};
use crate::args::Certificates;
use crate::counted::counted;

/// How many names of a list are shown.
const NAMES_SHOWN: usize = 20;

/// What a run has done.
#[derive(Debug)]
pub(super) struct Run {
    course: Course,
    /// When the authority that signs ends.
    authority_ends: i64,
    made: Vec<PathBuf>,
    renewed: Vec<PathBuf>,
    stayed: usize,
    /// When the first certificate is due.
    due: i64,
    /// Certificates of hosts that are not wanted any more.
    pub(super) strangers: Vec<PathBuf>,
}

impl Run {
    pub(super) fn of(settled: &Settled) -> Self {
        Self {
            course: settled.course,
            authority_ends: settled.certificate.span.end,
            made: Vec::new(),
            renewed: Vec::new(),
            stayed: 0,
            due: i64::MAX,
            strangers: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: &At, verdict: Verdict, certificate: &Certificate) {
        match verdict {
            Verdict::New => self.made.push(at.relative()),
            Verdict::Due | Verdict::Renamed => self.renewed.push(at.relative()),
            Verdict::Stays => self.stayed = self.stayed.saturating_add(1),
        }
        self.due = self.due.min(certificate.span.due());
    }

    /// The whole text.
    pub(super) fn told(&self, order: &Certificates) -> String {
        let output = order.output.display();
        let mut text = format!(
            "{output}: {} new, {} renewed, {} unchanged.\n",
            counted(self.made.len(), "certificate is", "certificates are"),
            self.renewed.len(),
            self.stayed
        );
        for (what, names) in [("New", &self.made), ("Renewed", &self.renewed)] {
            if !names.is_empty() {
                writeln!(text, "{what}: {}.", listed(names)).ok();
            }
        }
        text.push_str(&self.authority(&order.output));
        writeln!(
            text,
            "Run this command again by {}: then the first certificate is due.",
            date(self.due)
        )
        .ok();
        if !self.strangers.is_empty() {
            writeln!(
                text,
                "Not in the list any more, neither renewed nor deleted: {}. Delete the .crt and .key of \
                 a host that is gone.",
                listed(&self.strangers)
            )
            .ok();
        }
        text.push_str(&purposes(order));
        text.push_str(&examples(order));
        text
    }

    fn authority(&self, output: &Path) -> String {
        let (at, ends) = (output.join("ca.crt"), date(self.authority_ends));
        let at = at.display();
        match self.course {
            Course::Founded => format!("{at} is a new authority, good until {ends}.\n"),
            Course::Stays => format!("The authority is good until {ends}.\n"),
            Course::Announced => format!(
                "The authority ends on {ends}. {at} now also holds the next one, which signs in one of \
                 the next runs: copy ca.crt to every machine now.\n"
            ),
            Course::Followed => format!(
                "From now on the next authority signs, good until {ends}. {at} holds the previous one \
                 until its end.\n"
            ),
            Course::Hurried => format!(
                "The authority was about to end, so a new one signs at once, good until {ends}: copy \
                 {at} to every machine before you copy a certificate.\n"
            ),
        }
    }
}

fn listed(names: &[PathBuf]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(|name| name.display().to_string());
    let mut text = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => {}
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}

fn date(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("second {seconds}"),
    }
}

/// What each file is for.
fn purposes(order: &Certificates) -> String {
    let mut rows = vec![
        ("ca.key".to_owned(), "the authority's key: it stays here, secret, with a backup"),
        ("ca.crt".to_owned(), "for every machine: the authorities that are trusted"),
        (format!("{HOSTS}/HOST.crt, .key"), "for HOST, as server.crt and server.key: its daemons"),
        ("client.crt, .key".to_owned(), "for the machines of Alertmanager: it posts to the hosts"),
        (format!("{PROMETHEUS}.crt, .key"), "for the machines of Prometheus: it scrapes the hosts"),
    ];
    if !order.server.is_empty() {
        rows.push((format!("{SERVERS}/NAME.crt, .key"), "for the server NAME"));
        rows.push((
            format!("{CLIENTS}/HOST.crt, .key"),
            "for HOST, as client.crt and client.key: it posts outcomes",
        ));
    }
    let mut text = String::from("\n");
    for (files, what) in rows {
        writeln!(text, "{files:26} {what}").ok();
    }
    text
}

/// The settings that use them.
fn examples(order: &Certificates) -> String {
    let mut text = format!(
        "
A host's policy has either a token (token_file), or none, and then each client needs a certificate.
procstorm-remediator fleet --alertmanager 0.31 needs hosts without a token.

With a token: /etc/procstorm/web.yml of the host (--web.config.file), without client_auth_type, since
its receiver shows no certificate:
    tls_server_config:
      cert_file: /etc/procstorm/tls/server.crt
      key_file: /etc/procstorm/tls/server.key
and its receiver in Alertmanager, as fleet writes it:
    http_config:
      authorization: {{type: Bearer, credentials_file: /etc/prometheus/procstorm/HOST.token}}
      tls_config: {{ca_file: /etc/prometheus/procstorm/ca.crt}}
      follow_redirects: false

Without a token: /etc/procstorm/web.yml of the host, with client certificates:
    tls_server_config:
      cert_file: /etc/procstorm/tls/server.crt
      key_file: /etc/procstorm/tls/server.key
      client_ca_file: /etc/procstorm/tls/ca.crt
      client_auth_type: RequireAndVerifyClientCert
      client_allowed_sans: [{ALERTMANAGER}, {PROMETHEUS}]
and its receiver in Alertmanager, as fleet writes it:
    http_config:
      tls_config: {{ca_file: /etc/prometheus/procstorm/ca.crt, cert_file: /etc/prometheus/procstorm/client.crt, key_file: /etc/prometheus/procstorm/client.key}}
      follow_redirects: false

Prometheus' jobs:
    scheme: https
    tls_config: {{ca_file: /etc/prometheus/procstorm/ca.crt, cert_file: /etc/prometheus/procstorm/{PROMETHEUS}.crt, key_file: /etc/prometheus/procstorm/{PROMETHEUS}.key}}
"
    );
    if let Some(server) = order.server.first() {
        writeln!(
            text,
            "
/etc/procstorm/remediator.yml of each host, if {server} is an Alertmanager:
    alertmanager: https://{}:9093
    alertmanager_http:
      ca_file: /etc/procstorm/tls/ca.crt
      cert_file: /etc/procstorm/tls/client.crt
      key_file: /etc/procstorm/tls/client.key",
            if server.contains(':') { format!("[{server}]") } else { server.clone() }
        )
        .ok();
    }
    text
}
