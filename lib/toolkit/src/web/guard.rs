//! Which requests are answered at all.
//!
//! - [`malformed`]: what HTTP/1.1 demands of a request and hyper lets pass: one `Host` that is one,
//!   and a target that is a path. Answered by 400.
//! - [`foreign`]: requests that another site's web page has a browser send. Such a page reaches
//!   what listens on the loopback: as `http://localhost:9958/`, or under a name of its own that it
//!   lets resolve to 127.0.0.1 ("DNS rebinding"), also through `ssh -L`. So on the loopback `Host`
//!   must be a name of this machine ([`OwnNames`]), and requests that say that they come
//!   from another site are refused everywhere. A client that shows a token or a password, or
//!   speaks TLS, is not such a page: [`Knows`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Uri, Version};

/// The names that `Host` may have on the loopback, besides `localhost` and its addresses.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Arc<BTreeSet<String>>);

/// The largest /etc/hosts that is read, in bytes.
const HOSTS_MAX: usize = 1 << 20;

impl OwnNames {
    /// This machine's name, and the names that /etc/hosts gives an address of the loopback, as they
    /// are now.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self::new(name.as_deref(), Path::new("/etc/hosts"))
    }

    fn new(name: Option<&str>, hosts: &Path) -> Self {
        let mut names: BTreeSet<String> = name.map(plain).into_iter().collect();
        let text = std::fs::read(hosts).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(..HOSTS_MAX).unwrap_or(&text)).into_owned();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            if address.is_some_and(|address| address.to_canonical().is_loopback()) {
                names.extend(words.map(plain));
            }
        }
        Self(Arc::new(names))
    }

    /// Whether a request for this host is for this machine's loopback.
    fn contain(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => {
                let host = plain(host);
                host == "localhost" || self.0.contains(&host)
            }
        }
    }
}

/// A name as it is compared: in small letters, without the dot at its end.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Says whether these headers show something that no web page can know, such as a token.
#[derive(Clone)]
pub struct Knows(Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>);

impl Knows {
    /// Asks `knows`.
    pub fn new(knows: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(knows))
    }

    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        (self.0)(headers)
    }
}

impl fmt::Debug for Knows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knows").finish_non_exhaustive()
    }
}

/// What is wrong with a request's form; `None` if nothing is. RFC 9112, 3.2: a request of HTTP/1.1
/// has exactly one `Host`, and one whose value is not a host is malformed.
pub(super) fn malformed(request: &Parts) -> Option<&'static str> {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Some("more than one Host header"),
        (None, None) if request.version >= Version::HTTP_11 => return Some("no Host header"),
        (Some(host), None) if host_of(host.as_bytes()).is_none() => {
            return Some("the Host header is not a host");
        }
        (Some(_) | None, None) => {}
    }
    let is_path = request.uri.path().starts_with('/');
    let is_whole = request.uri.path() == "*" && request.method == Method::OPTIONS;
    let is_absolute = request.uri.authority().is_none_or(|all| host_in(all).is_some());
    let form = is_path || is_whole || request.method == Method::CONNECT;
    (!form || !is_absolute).then_some("the request's target is not a path")
}

/// Why a request is not answered, though its form is good; `None` if it may be: the text for its
/// sender.
pub(super) fn foreign(request: &Parts, loopback: bool, names: &OwnNames) -> Option<String> {
    if is_cross_site(request) {
        return Some("requests that come from another site are refused".to_owned());
    }
    if !loopback {
        return None;
    }
    let header = request.headers.get(HOST).and_then(|host| host_of(host.as_bytes()));
    // A target with a host in it stands before the header (RFC 9112, 3.2.2): so both must be good.
    let target = request.uri.authority().and_then(host_in);
    let stranger = [header, target].into_iter().flatten().find(|host| !names.contain(host))?;
    Some(format!(
        "\"{}\" is not a name of this machine's loopback: ask for localhost or 127.0.0.1, or give \
         the name an address of the loopback in /etc/hosts and restart",
        stranger.escape_debug()
    ))
}

/// Whether a browser says that the request comes from another site. Following a link is allowed
/// from everywhere: the page that has the link cannot read the answer.
fn is_cross_site(request: &Parts) -> bool {
    let text = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
    let reads = [Method::GET, Method::HEAD].contains(&request.method);
    let follows = reads
        && text("sec-fetch-mode") == Some(b"navigate")
        && text("sec-fetch-dest") == Some(b"document");
    let site = text("sec-fetch-site");
    let site_is_other = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let mut origins = request.headers.get_all(ORIGIN).iter();
    let origin_is_other = origins.any(|origin| !is_same_origin(origin.as_bytes(), request));
    (site_is_other && !follows) || origin_is_other
}

/// Whether an `Origin` is the host that the request is for, port included.
fn is_same_origin(origin: &[u8], request: &Parts) -> bool {
    let origin = std::str::from_utf8(origin).ok().and_then(|text| text.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority).map(Authority::as_str);
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// The host in a `Host` header, without its port; `None` if it is none.
fn host_of(value: &[u8]) -> Option<String> {
    host_in(&Authority::try_from(value).ok()?)
}

fn host_in(authority: &Authority) -> Option<String> {
    let (text, host) = (authority.as_str(), authority.host());
    // No user before it, and nothing but a number after it.
    let port = text.strip_prefix(host)?;
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    // More is allowed in a URI, a comma for one, but in no name of a host.
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._~-:[]".contains(c);
    (is_port && !host.is_empty() && host.chars().all(is_name)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parts(head: &str) -> Parts {
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let mut request = Request::builder().method(method).uri(target);
        for header in headers.lines() {
            let (name, value) = header.split_once(": ").expect("a name and a value");
            request = request.header(name, value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_request_has_one_host_that_is_one() {
        for good in ["Host: h", "Host: h:9957", "Host: [::1]:80", "Host: 127.0.0.1", "Host: h:"] {
            assert_eq!(malformed(&parts(&format!("GET /\n{good}"))), None, "{good}");
        }
        for bad in [
            "X: no host",
            "Host: ",
            "Host: a\nHost: a",
            "Host: a\nHost: b",
            "Host: a b",
            "Host: user@h",
            "Host: h:port",
            "Host: h:65536",
            "Host: h/path",
            "Host: a,b",
            "Host: [::1",
        ] {
            assert!(malformed(&parts(&format!("GET /\n{bad}"))).is_some(), "{bad}");
        }
        assert!(malformed(&parts("GET *\nHost: h")).is_some());
        assert!(malformed(&parts("OPTIONS *\nHost: h")).is_none());
        assert!(malformed(&parts("GET http://h/\nHost: h")).is_none());
        assert!(malformed(&parts("GET http://user@h/\nHost: h")).is_some());
        let mut old = parts("GET /");
        old.version = Version::HTTP_10;
        assert!(malformed(&old).is_none(), "HTTP/1.0 has no Host");
    }

    #[test]
    fn on_the_loopback_the_host_is_this_machine() {
        let directory = tempfile::tempdir().expect("a directory");
        let hosts = directory.path().join("hosts");
        let text = "127.0.0.1 localhost\n127.0.1.1\tmoscow.example.org moscow # ours\n\
                    ::1 ip6-localhost\n192.0.2.1 nantes\nnonsense\n";
        std::fs::write(&hosts, text).expect("written");
        let names = OwnNames::new(Some("Moscow-1"), &hosts);
        let refused = |host: &str, loopback| {
            foreign(&parts(&format!("GET /\nHost: {host}")), loopback, &names).is_some()
        };
        for own in [
            "localhost",
            "LocalHost:9958",
            "localhost.",
            "127.0.0.1:1",
            "127.9.8.7",
            "[::1]:9958",
            "[::ffff:127.0.0.1]",
            "moscow",
            "Moscow.example.org:80",
            "moscow-1",
            "ip6-localhost",
        ] {
            assert!(!refused(own, true), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "h",
            "nantes",
            "0.0.0.0",
            "192.0.2.1",
            "[::]",
            "[2001:db8::1]",
            "2130706433",
            "127.1",
        ] {
            assert!(refused(other, true), "{other}");
            assert!(!refused(other, false), "{other}, not on the loopback");
        }
        let target = parts("GET http://evil.example/\nHost: localhost");
        assert!(foreign(&target, true, &names).is_some());
        assert!(
            foreign(&parts("GET http://localhost/\nHost: evil.example"), true, &names).is_some()
        );
        assert!(foreign(&parts("GET /"), true, &names).is_none(), "HTTP/1.0: no browser");
    }

    #[test]
    fn another_sites_requests_are_refused_and_its_links_are_not() {
        let names = OwnNames::default();
        let host = "Host: localhost:8080";
        for good in [
            format!("POST /webhook\n{host}"),
            format!("POST /webhook\n{host}\nOrigin: http://localhost:8080"),
            format!("GET /\n{host}\nSec-Fetch-Site: none\nSec-Fetch-Mode: navigate"),
            format!("GET /style.css\n{host}\nSec-Fetch-Site: same-origin"),
            format!(
                "GET /\n{host}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n\
                 Sec-Fetch-Dest: document"
            ),
        ] {
            assert_eq!(foreign(&parts(&good), true, &names), None, "{good}");
        }
        for bad in [
            format!("POST /webhook\n{host}\nOrigin: http://evil.example"),
            format!("POST /webhook\n{host}\nOrigin: null"),
            format!("POST /webhook\n{host}\nOrigin: http://localhost:3000"),
            format!("POST /webhook\n{host}\nSec-Fetch-Site: cross-site"),
            format!("POST /webhook\n{host}\nSec-Fetch-Site: same-site"),
            format!(
                "POST /webhook\n{host}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n\
                 Sec-Fetch-Dest: document"
            ),
            format!("GET /\n{host}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors"),
            format!(
                "GET /\n{host}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n\
                 Sec-Fetch-Dest: iframe"
            ),
            format!("GET /\n{host}\nOrigin: http://evil.example"),
        ] {
            assert!(foreign(&parts(&bad), true, &names).is_some(), "{bad}");
            assert!(foreign(&parts(&bad), false, &names).is_some(), "{bad}");
        }
    }
}
