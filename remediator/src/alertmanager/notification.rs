//! The body that Alertmanager posts to a webhook: version 4, as 0.25 sends it and, by what was read
//! of the change logs, each version to 0.35 (`rules/README.md`, Versions).
//!
//! - [`Notification::parse`]: bytes to alerts, or the one line that says what is wrong.
//! - [`Alert`]: one alert with a status of its own; the group's status says nothing about it.
//!
//! What is not needed is not read, so newer fields do no harm. Labels are hostile: a process may
//! name itself at will, and its name ends up in one.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::printable::line;

/// The most alerts that one notification may hold.
const ALERTS_MAX: usize = 1000;

/// The most labels that one alert may have.
const LABELS_MAX: usize = 128;

/// The longest text of any label or annotation; what a rule writes is far shorter.
const TEXT_MAX: usize = 16 * 1024;

/// What Alertmanager says in one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The alerts of the group, in the order of the post.
    pub alerts: Vec<Alert>,
    /// How many alerts Alertmanager left out because of `max_alerts`; 0 if all is well.
    pub truncated: u64,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Whether it fires, by its own word.
    pub status: Status,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Since when it fires: with the fingerprint, the name of the episode.
    pub starts_at: Timestamp,
    /// Alertmanager's hash of the labels.
    pub fingerprint: String,
}

impl Alert {
    /// The label's value; an absent label is an empty one, as everywhere in Prometheus.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether the row of the rules asks that the user hears of it.
    #[must_use]
    pub fn tells_user(&self) -> bool {
        self.label("tell") == "user"
    }
}

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Firing,
    /// It does no more, or the series behind it could not be read: that it is over is not said.
    Resolved,
}

/// Why a body is not a notification.
#[derive(Debug, thiserror::Error)]
pub enum BadPayload {
    /// It is not JSON, or not of that shape.
    ///
    /// What the parser says, on one line of bounded length: it quotes what it met.
    #[error("not an Alertmanager notification: {0}")]
    Shape(String),
    /// It is of another version.
    #[error("version {0:?} of the notification is not known, only \"4\"")]
    Version(String),
    /// It holds no alert.
    #[error("the notification holds no alert")]
    Empty,
    /// It holds more alerts than we take.
    #[error("the notification holds {0} alerts, more than {ALERTS_MAX}")]
    TooMany(usize),
    /// A time cannot be read.
    #[error("startsAt {text:?} is not an RFC 3339 time")]
    Time {
        /// What stood there.
        text: String,
        /// What is wrong with it.
        source: jiff::Error,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawNotification {
    version: String,
    alerts: Vec<RawAlert>,
    #[serde(default)]
    truncated_alerts: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAlert {
    status: Status,
    #[serde(deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
    starts_at: String,
    #[serde(default)]
    fingerprint: String,
}

impl Notification {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, BadPayload> {
        let raw: RawNotification = serde_json::from_slice(body)
            .map_err(|error| BadPayload::Shape(line(&error.to_string())))?;
        if raw.version != "4" {
            return Err(BadPayload::Version(shortened(&raw.version)));
        }
        match raw.alerts.len() {
            0 => return Err(BadPayload::Empty),
            1..=ALERTS_MAX => {}
            count => return Err(BadPayload::TooMany(count)),
        }
        let alerts = raw.alerts.into_iter().map(Alert::try_from).collect::<Result<_, _>>()?;
        Ok(Self { alerts, truncated: raw.truncated_alerts })
    }
}

impl TryFrom<RawAlert> for Alert {
    type Error = BadPayload;

    fn try_from(raw: RawAlert) -> Result<Self, BadPayload> {
        let starts_at = raw
            .starts_at
            .parse()
            .map_err(|source| BadPayload::Time { text: shortened(&raw.starts_at), source })?;
        let fingerprint = shortened(&raw.fingerprint);
        Ok(Self { status: raw.status, labels: raw.labels, starts_at, fingerprint })
    }
}

/// Labels: a name once, within bounds. serde's own map would let the last of two values win, and
/// who reads the first would see another alert than we do.
fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Labels;

    impl<'de> Visitor<'de> for Labels {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of label names to texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut labels = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if labels.len() == LABELS_MAX {
                    return Err(A::Error::custom(format!("more than {LABELS_MAX} labels")));
                }
                if name.len() > TEXT_MAX || value.len() > TEXT_MAX {
                    return Err(A::Error::custom(format!("a label of more than {TEXT_MAX} bytes")));
                }
                let shown = shortened(&name);
                if labels.insert(name, value).is_some() {
                    return Err(A::Error::custom(format!("label {shown:?} twice")));
                }
            }
            Ok(labels)
        }
    }

    deserializer.deserialize_map(Labels)
}

/// The beginning of a text from outside, for a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(alert: &str) -> String {
        format!(
            r#"{{"version":"4","alerts":[{alert}],"groupKey":"{{}}:{{}}","truncatedAlerts":2}}"#
        )
    }

    fn fault(body: &str) -> String {
        let fault = Notification::parse(body.as_bytes()).expect_err("refused").to_string();
        assert!(!fault.contains('\n'), "one line: {fault:?}");
        fault
    }

    const ALERT: &str = r#"{"status":"firing","labels":{"user":"al\nice"},
        "startsAt":"2026-11-23T13:51:45.789Z","endsAt":"0001-01-01T00:00:00Z","brandNew":[{}]}"#;

    #[test]
    fn an_alert_is_read_and_what_is_new_is_ignored() {
        let notification = Notification::parse(body(ALERT).as_bytes()).expect("a notification");
        assert_eq!(notification.truncated, 2);
        let alert = notification.alerts.first().expect("an alert");
        assert_eq!(
            (alert.status, alert.label("user"), alert.label("host")),
            (Status::Firing, "al\nice", "")
        );
        assert_eq!(alert.starts_at.to_string(), "2026-11-23T13:51:45.789Z");
    }

    #[test]
    fn what_is_no_notification_is_refused_in_one_line() {
        for text in
            ["", "null", "[]", "{}", "{\"version\":\"4\"}", "\u{0}", "{\"alerts\":[]}", "[[[[[["]
        {
            fault(text);
        }
        assert!(fault(&body(ALERT).replace("\"4\"", "\"5\"")).contains("\"5\""));
        assert!(fault(&body("")).contains("no alert"));
        assert!(fault(&body(ALERT).replace("2026-11-23T", "yesterday")).contains("yesterday"));
        assert!(fault(&body(ALERT).replace("firing", "melting")).contains("melting"));
        let twice = body(ALERT).replace(r#"{"user":"al\nice"}"#, r#"{"user":"a","user":"b"}"#);
        assert!(fault(&twice).contains("twice"));
        assert!(
            Notification::parse(b"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"a\":\"\xff\"}}]}")
                .is_err()
        );
    }

    #[test]
    fn bounds_hold() {
        let many = vec![ALERT; ALERTS_MAX + 1].join(",");
        assert!(fault(&body(&many)).contains("1001"));
        let labels: Vec<_> = (0..=LABELS_MAX).map(|n| format!("\"l{n}\":\"x\"")).collect();
        let crowded = body(ALERT).replace(r#""user":"al\nice""#, &labels.join(","));
        assert!(fault(&crowded).contains("128 labels"));
        let long = body(ALERT).replace("al\\nice", &"x".repeat(TEXT_MAX + 1));
        assert!(fault(&long).contains("bytes"));
        let deep = body(&format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)));
        fault(&deep);
    }
}
