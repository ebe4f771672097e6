//! Addresses of dashboard, runbook and silences, as the policy gives them. Without an address there
//! is no link, so that none is broken.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::view::Link;
use crate::policy::Links;

/// The section of the runbook about outcomes.
const SECTION: &str = "procstormoutcome";

/// Links of the status page: to what is about this host.
#[must_use]
pub fn of_host(links: &Links, host: &str) -> Vec<Link> {
    let dashboard = links.dashboard.as_ref().map(|url| query(url, &[("var-host", host)]));
    let silences = links.alertmanager.as_ref().map(|url| format!("{url}/#/silences"));
    listed([("Dashboard", dashboard), ("Runbook", runbook(links)), ("Silences", silences)])
}

/// Links of a remediation's page: to what is about this user, and to a new silence of the alert with
/// these labels.
#[must_use]
pub fn of_remediation(
    links: &Links,
    host: &str,
    user: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<Link> {
    let dashboard =
        links.dashboard.as_ref().map(|url| query(url, &[("var-host", host), ("var-user", user)]));
    let silence = links.alertmanager.as_ref().filter(|_| !labels.is_empty()).map(|url| {
        let filter = encoded(&matchers(labels));
        format!("{url}/#/silences/new?filter={filter}")
    });
    listed([
        ("Dashboard of this user", dashboard),
        ("Runbook", runbook(links)),
        ("Silence this alert", silence),
    ])
}

fn runbook(links: &Links) -> Option<String> {
    links.runbook.as_ref().map(|url| format!("{url}#{SECTION}"))
}

fn listed(all: [(&'static str, Option<String>); 3]) -> Vec<Link> {
    all.into_iter().filter_map(|(name, url)| Some(Link { name, url: url? })).collect()
}

fn query(url: &str, variables: &[(&str, &str)]) -> String {
    let mut address = url.to_owned();
    for (name, value) in variables {
        let sign = if address.contains('?') { '&' } else { '?' };
        address.push(sign);
        address.push_str(&format!("{name}={}", encoded(value)));
    }
    address
}

/// The matchers that cover an alert, as Alertmanager's page reads them: those labels that say what it
/// is about, not those that change with the count.
fn matchers(labels: &BTreeMap<String, String>) -> String {
    let telling = ["alertname", "host", "user", "command"];
    let matchers: Vec<_> = telling
        .iter()
        .filter_map(|name| {
            let value = labels.get(*name)?;
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            Some(format!("{name}=\"{escaped}\""))
        })
        .collect();
    format!("{{{}}}", matchers.join(","))
}

/// Percent-encoded, all but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // A string takes all that is written to it.
            other => write!(out, "%{other:02X}").unwrap_or_default(),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            dashboard: Some("https://grafana.example.org/d/procstorm?orgId=1".to_owned()),
            runbook: Some("https://example.org/RUNBOOK.md".to_owned()),
            alertmanager: Some("https://am.example.org".to_owned()),
        }
    }

    #[test]
    fn without_an_address_there_is_no_link() {
        let none = Links { dashboard: None, runbook: None, alertmanager: None };
        assert_eq!(of_host(&none, "moscow"), []);
        assert_eq!(of_remediation(&none, "moscow", "alice", &BTreeMap::new()), []);
        let all = of_host(&links(), "moscow");
        let urls: Vec<_> = all.iter().map(|link| link.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "https://grafana.example.org/d/procstorm?orgId=1&var-host=moscow",
                "https://example.org/RUNBOOK.md#procstormoutcome",
                "https://am.example.org/#/silences",
            ]
        );
    }

    #[test]
    fn a_hostile_label_stays_a_value_of_its_matcher() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = [label("user", "a\",host=\"b"), label("alertname", "Storm"), label("x", "y")];
        let all = of_remediation(&links(), "moscow", "a&var-host=b", &labels.into());
        assert!(all[0].url.ends_with("?orgId=1&var-host=moscow&var-user=a%26var-host%3Db"));
        // {alertname="Storm",user="a\",host=\"b"}
        assert_eq!(
            all[2].url,
            "https://am.example.org/#/silences/new?filter=%7Balertname%3D%22Storm%22%2C\
             user%3D%22a%5C%22%2Chost%3D%5C%22b%22%7D"
        );
    }
}
