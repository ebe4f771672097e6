//! `certificates`: all certificates of a fleet, from its list of hosts; and the same again, renewed.
//!
//! - [`write()`]: the way of a run: read the list, read what there is, decide, write.
//! - `plan`: what has to be made.
//! - `x509`: keys and certificates.
//! - `store`: the directory that they are in.
//! - `told`: what a person reads about it.

mod plan;
mod store;
mod told;
mod x509;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::plan::{Course, DAY, Held, Pair, Settled, Times, Verdict, judge, settle};
use self::store::{At, Draft, Store};
use self::x509::{Certificate, Key, Name, Purpose, Subject, sign};
use super::agreement::Finding;
use super::agreement::rules::ReadError;
use super::fleet::targets::{Host, Targets, unfit};
use super::fleet::{FleetError, lines};
use crate::args::Certificates;

/// How many faults are shown: of a directory of another fleet, each file is one.
const FAULTS_SHOWN: usize = 20;

/// Below the directory: the hosts' certificates as servers, those as clients, and other servers'.
const HOSTS: &str = "hosts";
const CLIENTS: &str = "clients";
const SERVERS: &str = "servers";

/// What the hosts know Alertmanager by, and Prometheus.
const ALERTMANAGER: &str = "am";
const PROMETHEUS: &str = "prometheus";

/// Why there are no certificates, or not all of them. Nothing was replaced then, unless `Io` says
/// "replace".
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] ReadError),
    /// The list has faults.
    #[error(transparent)]
    Hosts(#[from] FleetError),
    /// Something cannot be done with a file.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another run is at work.
    #[error("another run writes to {}: try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// Files are not as this command leaves them; a line for each.
    #[error("{}", shown(.0))]
    Faults(Vec<String>),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The time of this machine, or the span, is beyond what a certificate can say.
    #[error("this machine's clock, or --days, is beyond the years that a certificate can name")]
    NoTime,
    /// The kernel gives no random numbers.
    #[error("cannot make a certificate: the kernel gives no random numbers")]
    NoChance,
    /// What was made cannot be read.
    #[error("cannot make a certificate: what was made cannot be read")]
    Unreadable,
    /// The authority would end before its certificates.
    #[error("--ca-days {authority} is too short: at least three times --days {leaf} is needed")]
    ShortAuthority {
        /// The days of the authority.
        authority: u32,
        /// The days of a certificate.
        leaf: u32,
    },
}

impl CertificatesError {
    fn refused(path: &Path, what: &str) -> Self {
        Self::Faults(vec![format!("{}: {what}", path.display())])
    }
}

fn shown(faults: &[String]) -> String {
    let more = faults.len().saturating_sub(FAULTS_SHOWN);
    let shown = faults.iter().take(FAULTS_SHOWN).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join("\n");
    if more > 0 {
        text.push_str(&format!("\n... and {more} more"));
    }
    text
}

/// A certificate that there must be.
#[derive(Debug)]
struct Wanted {
    /// Its path without an ending.
    at: At,
    subject: Subject,
}

/// Makes what is missing, renews what is due, and says what was done. `now` is the time.
pub fn write(order: &Certificates, now: Timestamp) -> Result<String, CertificatesError> {
    let times = times(order, now)?;
    let wanted = wanted(order)?;
    let mut store = Store::open(&order.output)?;
    let mut faults = Vec::new();
    let held = held(&mut store, &mut faults)?;
    let known = held.bundle.clone();
    let found = found(&mut store, &wanted, &mut faults)?;
    let settled = match settle(held, times)? {
        Ok(settled) => settled,
        Err(more) => {
            faults.extend(more.into_iter().map(|(name, what)| {
                format!("{}: {what}", store.path_of(&At::top(name)).display())
            }));
            return Err(CertificatesError::Faults(faults));
        }
    };
    let mut drafts = of_authority(&settled, &known);
    let mut run = told::Run::of(&settled);
    let trusted = [known.as_slice(), &settled.bundle].concat();
    for (wanted, pair) in wanted.iter().zip(found) {
        let at = store.path_of(&wanted.at).display().to_string();
        let verdict = match judge(&pair, &wanted.subject, &trusted, times.now) {
            Ok(verdict) => verdict,
            Err(fault) => {
                faults.push(format!("{at}{fault}"));
                continue;
            }
        };
        let Pair { key, certificate } = pair;
        let certificate = match (verdict, certificate) {
            (Verdict::Stays, Some(certificate)) => certificate,
            _ => made(wanted, key, &settled, times, &mut drafts)?,
        };
        run.add(&wanted.at, verdict, &certificate);
    }
    if !faults.is_empty() {
        return Err(CertificatesError::Faults(faults));
    }
    run.strangers = strangers(&mut store, &wanted)?;
    store.write(&drafts)?;
    if settled.next.is_none() {
        store.remove(&At::top("ca.next.key"))?;
    }
    Ok(run.told(order))
}

fn times(order: &Certificates, now: Timestamp) -> Result<Times, CertificatesError> {
    let (leaf, authority) = (order.days, order.ca_days);
    if authority < leaf.saturating_mul(3) {
        return Err(CertificatesError::ShortAuthority { authority, leaf });
    }
    let seconds = |days: u32| i64::from(days).saturating_mul(DAY);
    Ok(Times { now: now.as_second(), leaf: seconds(leaf), authority: seconds(authority) })
}

/// Which certificates there must be.
fn wanted(order: &Certificates) -> Result<Vec<Wanted>, CertificatesError> {
    let targets = Targets::read(&order.targets)?;
    let mut faults = targets.faults.clone();
    let mut wanted = vec![
        client(At::top("client"), "Alertmanager", Name::Dns(ALERTMANAGER.to_owned())),
        client(At::top(PROMETHEUS), "Prometheus", Name::Dns(PROMETHEUS.to_owned())),
    ];
    for host in &targets.hosts {
        match server(HOSTS, &host.name, &[&host.name, &host.address]) {
            Ok(server) => wanted.push(server),
            Err(what) => faults.push(Finding { place: host.place.clone(), what }),
        }
        if !order.server.is_empty() {
            wanted.push(of_host(host));
        }
    }
    let mut refused = Vec::new();
    for name in &order.server {
        let seen = order.server.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
        match unfit(name).map_or_else(|| server(SERVERS, name, &[name]), Err) {
            Ok(_) if seen > 1 => refused.push(format!("--server {name:?}: is there {seen} times")),
            Ok(server) => wanted.push(server),
            Err(what) => refused.push(format!("--server {what}")),
        }
    }
    if !faults.is_empty() {
        refused.insert(0, lines(&faults));
    }
    if !refused.is_empty() {
        return Err(CertificatesError::Faults(refused));
    }
    Ok(wanted)
}

fn client(at: At, common_name: &str, name: Name) -> Wanted {
    let names = BTreeSet::from([name]);
    let common_name = common_name.to_owned();
    Wanted { at, subject: Subject { common_name, names, purpose: Purpose::Client } }
}

/// A host as a client of other servers. Its name is not that of a host: a host that is called `am`
/// must not pass as Alertmanager.
fn of_host(host: &Host) -> Wanted {
    let at = At { directory: CLIENTS, name: host.name.clone() };
    let name = format!("procstorm:{}", host.name);
    // Where there is no host's name, some look at the common name.
    client(at, &name, Name::Uri(name.clone()))
}

/// A server by these names, or why one of them cannot stand in a certificate.
fn server(directory: &'static str, file: &str, names: &[&str]) -> Result<Wanted, String> {
    let names: BTreeSet<Name> = names.iter().copied().map(name).collect::<Result<_, _>>()?;
    let subject = Subject { common_name: file.to_owned(), names, purpose: Purpose::Server };
    Ok(Wanted { at: At { directory, name: file.to_owned() }, subject })
}

/// A name as a certificate has it.
fn name(text: &str) -> Result<Name, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Name::Address(address));
    }
    // A dot at the end says that the name is complete, and is no part of it.
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| (1..=63).contains(&label.len()) && !label.contains(':');
    match name.split('.').all(fits) {
        true => Ok(Name::Dns(name.to_owned())),
        false => Err(format!(
            "{text:?} cannot stand in a certificate: it is neither an address nor a name whose parts \
             have 1 to 63 characters"
        )),
    }
}

/// What there is of the authority. What is damaged is added to `faults`.
fn held(store: &mut Store, faults: &mut Vec<String>) -> Result<Held, CertificatesError> {
    let mut key = |name| key_at(store, &At::top(name), faults);
    let (key, next) = (key("ca.key")?, key("ca.next.key")?);
    let bundle = certificates_at(store, &At::top("ca.crt"), faults)?;
    if !faults.is_empty() {
        return Err(CertificatesError::Faults(std::mem::take(faults)));
    }
    Ok(Held { key, next, bundle })
}

/// The pairs of those that are wanted, in their order.
fn found(
    store: &mut Store,
    wanted: &[Wanted],
    faults: &mut Vec<String>,
) -> Result<Vec<Pair>, CertificatesError> {
    let mut pairs = Vec::with_capacity(wanted.len());
    for Wanted { at, .. } in wanted {
        let key = key_at(store, &at.with("key"), faults)?;
        let mut all = certificates_at(store, &at.with("crt"), faults)?;
        if all.len() > 1 {
            let path = store.path_of(&at.with("crt"));
            faults.push(format!("{}: has more than one certificate in it", path.display()));
        }
        pairs.push(Pair { key, certificate: all.pop() });
    }
    if !faults.is_empty() {
        return Err(CertificatesError::Faults(std::mem::take(faults)));
    }
    Ok(pairs)
}

/// What a file holds. What is not as it must be is a fault, and the next file is looked at.
fn bytes_at(
    store: &mut Store,
    at: &At,
    is_secret: bool,
    faults: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, CertificatesError> {
    match store.read(at, is_secret) {
        Err(CertificatesError::Faults(more)) => {
            faults.extend(more);
            Ok(None)
        }
        other => other,
    }
}

fn key_at(
    store: &mut Store,
    at: &At,
    faults: &mut Vec<String>,
) -> Result<Option<Key>, CertificatesError> {
    let Some(bytes) = bytes_at(store, at, true, faults)? else { return Ok(None) };
    let key = Key::read(&bytes);
    let fault = |what| faults.push(format!("{}: {what}", store.path_of(at).display()));
    Ok(key.map_err(fault).ok())
}

fn certificates_at(
    store: &mut Store,
    at: &At,
    faults: &mut Vec<String>,
) -> Result<Vec<Certificate>, CertificatesError> {
    let Some(bytes) = bytes_at(store, at, false, faults)? else { return Ok(Vec::new()) };
    let all = Certificate::read_all(&bytes);
    let fault = |what| faults.push(format!("{}: {what}", store.path_of(at).display()));
    Ok(all.map_err(fault).unwrap_or_default())
}

/// The authority's files, as far as they change, in an order in which a run may be killed after each.
fn of_authority(settled: &Settled, known: &[Certificate]) -> Vec<Draft> {
    let secret =
        |name: &str, key: &Key| Draft { at: At::top(name), text: key.pem(), is_secret: true };
    let mut drafts = Vec::new();
    match (settled.course, &settled.next) {
        (Course::Founded, _) => drafts.push(secret("ca.key", &settled.key)),
        (Course::Announced, Some(next)) => drafts.push(secret("ca.next.key", next)),
        (Course::Announced | Course::Stays | Course::Followed | Course::Hurried, _) => {}
    }
    if settled.bundle != known {
        let text = settled.bundle.iter().map(Certificate::pem).collect();
        drafts.push(Draft { at: At::top("ca.crt"), text, is_secret: false });
    }
    // Its certificate is in ca.crt by then.
    if matches!(settled.course, Course::Followed | Course::Hurried) {
        drafts.push(secret("ca.key", &settled.key));
    }
    drafts
}

/// Makes a certificate. A key that is there already stays: then one file alone is replaced, and no
/// reader meets a certificate and the key of another.
fn made(
    wanted: &Wanted,
    key: Option<Key>,
    settled: &Settled,
    times: Times,
    drafts: &mut Vec<Draft>,
) -> Result<Certificate, CertificatesError> {
    let key = match key {
        Some(key) => key,
        None => {
            let key = Key::generate()?;
            let at = wanted.at.with("key");
            drafts.push(Draft { at, text: key.pem(), is_secret: true });
            key
        }
    };
    let span = times.leaf_of(&settled.certificate);
    let certificate = sign(&settled.key, &key, &wanted.subject, span)?;
    let at = wanted.at.with("crt");
    drafts.push(Draft { at, text: certificate.pem(), is_secret: false });
    Ok(certificate)
}

/// Certificates of hosts that are no longer wanted.
fn strangers(store: &mut Store, wanted: &[Wanted]) -> Result<Vec<PathBuf>, CertificatesError> {
    let wanted: BTreeSet<&At> = wanted.iter().map(|wanted| &wanted.at).collect();
    let mut strangers = BTreeSet::new();
    for directory in [HOSTS, CLIENTS, SERVERS] {
        for name in store.names(directory)? {
            let stem = name.strip_suffix(".crt").or_else(|| name.strip_suffix(".key"));
            let at = stem.map(|stem| At { directory, name: stem.to_owned() });
            strangers.extend(at.filter(|at| !wanted.contains(at)));
        }
    }
    Ok(strangers.iter().map(|at| store.path_of(at)).collect())
}
