//! Alertmanager's API, as far as it is asked here: version 2, which 0.25 speaks and, by what
//! was read of the change logs, each version to 0.35 (`rules/README.md`, Versions).
//!
//! - [`Alertmanager::now`]: what time it is there, by the `Date` of its answers.
//! - [`Alertmanager::post`]: gives it outcomes.
//! - [`Alertmanager::known_events`]: which outcomes it still has.
//! - [`Alertmanager::failures`]: how often it could not deliver a notification.
//! - [`Alertmanager::muted_by`]: what keeps it from sending an alert; [`Muted`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::certificate::Validity;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::ask::{Unread, address, encoded, whole};
use super::line::{Line, LineError};

/// The name of the alerts that say what was done.
pub const OUTCOME: &str = "ProcstormOutcome";

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const ANSWER_MAX: usize = 16 << 20;

/// Why Alertmanager could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It did not answer in time.
    #[error("{0}: no answer within {DEADLINE:?}")]
    Timeout(Uri),
    /// It could not be reached.
    #[error("cannot ask {uri}")]
    Transport {
        /// What was asked.
        uri: Uri,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It says no.
    #[error("{uri}: {status}: {text:?}")]
    Status {
        /// What was asked.
        uri: Uri,
        /// The status of the answer.
        status: StatusCode,
        /// The beginning of its text.
        text: String,
    },
    /// Its answer cannot be understood.
    #[error("cannot understand the answer of {uri}")]
    Answer {
        /// What was asked.
        uri: Uri,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
    /// No address can be made of the configured one.
    #[error("{0}")]
    Address(String),
    /// What the daemon needs to ask it cannot be had.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl ApiError {
    /// Whether asking again cannot help: the request itself is refused.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Status { status, .. }
            if status.is_client_error()
                && *status != StatusCode::TOO_MANY_REQUESTS
                && *status != StatusCode::UNAUTHORIZED
                && *status != StatusCode::FORBIDDEN
                && *status != StatusCode::NOT_FOUND
                && *status != StatusCode::REQUEST_TIMEOUT)
    }
}

/// An alert as it is posted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began, RFC 3339.
    pub starts_at: String,
    /// When it ends, RFC 3339.
    pub ends_at: String,
}

/// A client of one Alertmanager. Clones share what is known of its clock.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    base: Uri,
    line: Line,
    clock: Arc<Mutex<Option<Reading>>>,
}

/// Alertmanager's clock, as an answer told it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// When the answer came.
    at: Instant,
    /// How far this host's clock was ahead of Alertmanager's then.
    skew: SignedDuration,
}

/// How long a reading of Alertmanager's clock holds: this host's may be set at any time.
const READING_HOLDS: Duration = Duration::from_secs(300);

/// `Date` has whole seconds, and an answer travels: less than this is no skew.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(3);

impl Alertmanager {
    /// A client of the Alertmanager at `base`.
    pub(super) fn new(base: Uri, line: Line) -> Self {
        Self { base, line, clock: Arc::default() }
    }

    /// Its address, as the policy has it, for people and as a label.
    #[must_use]
    pub fn name(&self) -> String {
        self.base.to_string().trim_end_matches('/').to_owned()
    }

    /// How long the certificate is valid that is shown to it now.
    pub(super) fn certificate(&self) -> Option<Validity> {
        self.line.certificate()
    }

    /// What time it is at Alertmanager, which is asked for it. Without a `Date` in its answer, what
    /// time it is here.
    pub async fn now(&self) -> Result<Timestamp, ApiError> {
        let uri = self.uri("/api/v2/status")?;
        match self.ask(Method::GET, uri, Bytes::new()).await {
            // A refusal bears a date as well.
            Ok(_) | Err(ApiError::Status { .. }) => Ok(self.here(Timestamp::now())),
            Err(error) => Err(error),
        }
    }

    /// How far this host's clock is ahead of Alertmanager's, if an answer told it lately.
    #[must_use]
    pub fn skew(&self) -> Option<SignedDuration> {
        let reading = *self.lock();
        reading.filter(|reading| reading.at.elapsed() < READING_HOLDS).map(|reading| reading.skew)
    }

    /// A time by this host's clock, by Alertmanager's as far as that is known.
    #[must_use]
    pub fn here(&self, time: Timestamp) -> Timestamp {
        let skew = self.skew().filter(|skew| skew.abs() > TOLERANCE).unwrap_or_default();
        time.checked_sub(skew).unwrap_or(time)
    }

    fn read_clock(&self, headers: &HeaderMap, asked: Timestamp) {
        let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else { return };
        let Ok(date) = rfc2822::DateTimeParser::new().parse_timestamp(date) else { return };
        // It was cut to whole seconds, somewhere between question and answer.
        let travel = Timestamp::now().duration_since(asked) / 2;
        let half = SignedDuration::from_millis(500);
        let (Ok(mine), Ok(theirs)) = (asked.checked_add(travel), date.checked_add(half)) else {
            return;
        };
        *self.lock() = Some(Reading { at: Instant::now(), skew: mine.duration_since(theirs) });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Reading>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts alerts. When this returns, it has taken them, into its memory.
    pub async fn post(&self, alerts: &[Posted]) -> Result<(), ApiError> {
        let uri = self.uri("/api/v2/alerts")?;
        let body = serde_json::to_vec(alerts)
            .map_err(|source| ApiError::Answer { uri: uri.clone(), source })?;
        self.ask(Method::POST, uri, Bytes::from(body)).await?;
        Ok(())
    }

    /// The `event` labels of the outcomes that it has and that have not ended.
    pub async fn known_events(&self) -> Result<BTreeSet<String>, ApiError> {
        #[derive(Deserialize)]
        struct Known {
            labels: BTreeMap<String, String>,
        }
        // The filter is alertname="ProcstormOutcome".
        let filter = format!("/api/v2/alerts?filter=alertname%3D%22{OUTCOME}%22");
        let known: Vec<Known> = self.get(&filter).await?;
        Ok(known.into_iter().filter_map(|mut known| known.labels.remove("event")).collect())
    }

    /// What keeps Alertmanager from sending the alert of these labels, if anything does: as it says
    /// itself of the alert. Where it does not hold the alert any more, its silences are compared
    /// here; one that cannot be read covers nothing, and does not keep the others from being read.
    pub async fn muted_by(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<Muted>, ApiError> {
        match self
            .get::<Vec<Value>>(&alerts_like(labels))
            .await
            .map(|told| status_of(&told, labels))
        {
            Ok(Some(status)) => return Ok(status.muted_by()),
            Ok(None) => tracing::warn!(
                "Alertmanager does not hold the alert any more; comparing its silences here"
            ),
            Err(ApiError::Status { status, .. }) => tracing::warn!(
                %status,
                "Alertmanager does not say whether the alert is silenced; comparing its silences here"
            ),
            Err(error) => return Err(error),
        }
        let told: Vec<Value> = self.get("/api/v2/silences").await?;
        Ok(covering(&told, labels).map(Muted::Silence))
    }

    /// How many attempts to deliver a notification have failed there, by webhook excepted: those of
    /// hosts that are down fail all the time. `None` if it does not say so.
    pub async fn failures(&self) -> Result<Option<f64>, ApiError> {
        let page = self.ask(Method::GET, self.uri("/metrics")?, Bytes::new()).await?;
        Ok(failures(&String::from_utf8_lossy(&page)))
    }

    fn uri(&self, path: &str) -> Result<Uri, ApiError> {
        address(&self.base, path)
            .parse()
            .map_err(|error| ApiError::Address(format!("{}{path}: {error}", self.base)))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let uri = self.uri(path)?;
        let answer = self.ask(Method::GET, uri.clone(), Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Answer { uri, source })
    }

    async fn ask(&self, method: Method, uri: Uri, body: Bytes) -> Result<Bytes, ApiError> {
        let transport = |source| ApiError::Transport { uri: uri.clone(), source };
        let line = self.line.open().await?;
        let request = Request::builder()
            .method(method)
            .uri(uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(body))
            .map_err(|error| transport(Box::new(error)))?;
        let asked = Timestamp::now();
        let answer = async {
            let response = line.ask(request).await.map_err(transport)?;
            self.read_clock(response.headers(), asked);
            let status = response.status();
            let body = whole(response, ANSWER_MAX).await.map_err(|unread| match unread {
                Unread::TooLarge => {
                    transport(format!("the answer is over {ANSWER_MAX} bytes").into())
                }
                Unread::Broken(error) => transport(error),
            })?;
            Ok::<_, ApiError>((status, body))
        };
        let (status, body) = timeout(DEADLINE, answer)
            .await
            .map_err(|_elapsed| ApiError::Timeout(uri.clone()))??;
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body).chars().take(200).collect();
        Err(ApiError::Status { uri, status, text })
    }
}

/// The sum of the failed requests on a metrics page, those by webhook left out. `None` if there are
/// no such series: an Alertmanager shows all of them from its start.
fn failures(page: &str) -> Option<f64> {
    let series = "alertmanager_notification_requests_failed_total{";
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(series)).peekable();
    lines.peek()?;
    let values = lines.filter(|line| !line.contains("integration=\"webhook\""));
    values.map(|line| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok())).sum()
}

/// What keeps Alertmanager from sending an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Muted {
    /// A silence, by its id.
    Silence(String),
    /// Another alert, by an inhibition rule: its fingerprint.
    Inhibition(String),
}

/// An alert as Alertmanager holds it.
#[derive(Debug, Deserialize)]
struct Held {
    labels: BTreeMap<String, String>,
    status: HeldStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeldStatus {
    silenced_by: Option<Vec<String>>,
    inhibited_by: Option<Vec<String>>,
}

impl HeldStatus {
    fn muted_by(self) -> Option<Muted> {
        let first = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().next();
        let silence = first(self.silenced_by).map(Muted::Silence);
        silence.or_else(|| first(self.inhibited_by).map(Muted::Inhibition))
    }
}

/// What is said of the alert of exactly these labels, if it is among those told.
fn status_of(told: &[Value], labels: &BTreeMap<String, String>) -> Option<HeldStatus> {
    let mut held = told.iter().filter_map(|told| Held::deserialize(told).ok());
    held.find(|held| held.labels == *labels).map(|held| held.status)
}

/// The labels that tell one storm from another: what is asked for, so that the answer is short.
const TELLING: [&str; 4] = ["alertname", "host", "user", "command"];

/// The question for the alerts that have these labels in common.
fn alerts_like(labels: &BTreeMap<String, String>) -> String {
    let known = TELLING.iter().filter_map(|name| Some((name, labels.get(*name)?)));
    let filters = known.map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("filter={}", encoded(&format!("{name}=\"{value}\"")))
    });
    format!("/api/v2/alerts?{}", filters.collect::<Vec<_>>().join("&"))
}

/// The id of the first of these silences that covers an alert of these labels.
fn covering(told: &[Value], labels: &BTreeMap<String, String>) -> Option<String> {
    let mut silences = told.iter().filter_map(Silence::read);
    silences.find(|silence| silence.covers(labels)).map(|silence| silence.id)
}

#[derive(Debug, Deserialize)]
struct Silence {
    id: String,
    status: SilenceStatus,
    /// Of a silence without matchers it is `null` before Alertmanager 0.33.1, and then `[]`.
    matchers: Option<Vec<Matcher>>,
}

#[derive(Debug, Deserialize)]
struct SilenceStatus {
    state: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Matcher {
    name: String,
    value: String,
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

impl Silence {
    /// One of the list. Left out if it cannot be understood: whom it covers is not known then,
    /// and a storm is not left alone for that.
    fn read(told: &Value) -> Option<Self> {
        match Self::deserialize(told) {
            Ok(silence) => Some(silence),
            Err(error) => {
                let id = told.get("id").and_then(Value::as_str).unwrap_or("unknown");
                tracing::warn!(id, %error, "a silence cannot be read: taken to cover nothing");
                None
            }
        }
    }

    /// Without matchers it covers nothing: that all of none match would silence every alert.
    fn covers(&self, labels: &BTreeMap<String, String>) -> bool {
        let matchers = self.matchers.as_deref().unwrap_or_default();
        self.status.state == "active"
            && !matchers.is_empty()
            && matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

impl Matcher {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map(String::as_str).unwrap_or_default();
        if !self.is_regex {
            return (value == self.value) == self.is_equal;
        }
        // Anchored; `.` matches no newline, though it does in Prometheus from 3.0 on.
        match Regex::new(&format!("^(?:{})$", self.value)) {
            Ok(regex) => regex.is_match(value) == self.is_equal,
            Err(error) => {
                tracing::warn!(matcher = self.value, %error, "a silence cannot be understood");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Alertmanager 0.25 tells of one.
    fn silence(state: &str, matchers: &str) -> Value {
        serde_json::from_str(&format!(
            r#"{{"id":"9ac77cde-9207-4b33-b131-1e264b7a3fac","status":{{"state":"{state}"}},
            "updatedAt":"2026-11-24T10:00:41.651Z","comment":"let it be","createdBy":"a person",
            "endsAt":"2026-11-24T11:00:41.649Z","matchers":{matchers},
            "startsAt":"2026-11-24T10:00:41.651Z"}}"#
        ))
        .expect("JSON")
    }

    fn matcher(name: &str, value: &str, regex: bool, equal: bool) -> String {
        format!(r#"{{"isEqual":{equal},"isRegex":{regex},"name":"{name}","value":"{value}"}}"#)
    }

    fn labels() -> BTreeMap<String, String> {
        let labels = [("user", "alice"), ("host", "moscow")];
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn covers(state: &str, matchers: &str) -> bool {
        covering(&[silence(state, matchers)], &labels()).is_some()
    }

    #[test]
    fn silences_cover_as_alertmanager_means_them() {
        for (expected, state, matcher) in [
            (true, "active", matcher("user", "alice", false, true)),
            (false, "expired", matcher("user", "alice", false, true)),
            (false, "pending", matcher("user", "alice", false, true)),
            (false, "active", matcher("user", "ali", false, true)),
            (false, "active", matcher("user", "ali", true, true)),
            (true, "active", matcher("user", "ali.*", true, true)),
            (false, "active", matcher("user", "a(", true, true)),
            (false, "active", matcher("user", "alice", false, false)),
            (true, "active", matcher("user", "bob|carol", true, false)),
            (true, "active", matcher("absent", "", false, true)),
        ] {
            assert_eq!(covers(state, &format!("[{matcher}]")), expected, "{state} {matcher}");
        }
        let both = [matcher("user", "alice", false, true), matcher("host", "nantes", false, true)];
        assert!(!covers("active", &format!("[{}]", both.join(","))));
        let old = r#"[{"name":"user","value":"alice","isRegex":false}]"#;
        assert!(covers("active", old));
    }

    #[test]
    fn alertmanagers_own_word_of_the_alert_counts() {
        let held = |labels: Value, silenced: Value, inhibited: Value| {
            serde_json::json!({"labels": labels, "fingerprint": "f0", "status":
                {"state": "suppressed", "silencedBy": silenced, "inhibitedBy": inhibited}})
        };
        let ours = serde_json::json!({"user": "alice", "host": "moscow"});
        let more = serde_json::json!({"user": "alice", "host": "moscow", "role": "mail"});
        let (none, some) = (serde_json::json!([]), serde_json::json!(["7-a", "7-b"]));
        let muted = |told: &[Value]| status_of(told, &labels()).map(HeldStatus::muted_by);
        assert_eq!(muted(&[]), None);
        assert_eq!(muted(&[held(more, some.clone(), none.clone()), Value::Null]), None);
        for (silenced, inhibited, expected) in [
            (none.clone(), none.clone(), None),
            (Value::Null, Value::Null, None),
            (some.clone(), some.clone(), Some(Muted::Silence("7-a".to_owned()))),
            (none, some, Some(Muted::Inhibition("7-a".to_owned()))),
        ] {
            assert_eq!(muted(&[held(ours.clone(), silenced, inhibited)]), Some(expected));
        }
    }

    #[test]
    fn failures_are_those_of_mail_and_the_like() {
        let name = "alertmanager_notification_requests_failed_total";
        let page = format!(
            "# TYPE {name} counter\n{name}{{integration=\"email\"}} 3\n\
             {name}{{integration=\"slack\"}} 2\n{name}{{integration=\"webhook\"}} 400\nup 1\n"
        );
        assert_eq!(failures(&page), Some(5.0));
        assert_eq!(failures("up 1\n"), None);
        assert_eq!(failures(&format!("{name}{{integration=\"email\"}} three\n")), None);
    }

    #[test]
    fn a_hostile_label_is_a_value_in_the_question_and_nothing_more() {
        let mut labels = labels();
        labels.insert("user".to_owned(), "a\"&filter=b\\\n".to_owned());
        assert_eq!(
            alerts_like(&labels),
            "/api/v2/alerts?filter=host%3D%22moscow%22\
             &filter=user%3D%22a%5C%22%26filter%3Db%5C%5C%5Cn%22"
        );
    }

    #[test]
    fn a_silence_that_says_nothing_covers_nothing_and_hides_no_other() {
        let mut bare = silence("active", "null");
        bare.as_object_mut().expect("an object").remove("matchers");
        let mut told = vec![
            silence("active", "null"),
            silence("active", "[]"),
            bare,
            silence("active", r#""user=alice""#),
            silence("active", r#"[{"name":"user","value":"alice"}]"#),
            silence("active", "[null]"),
            serde_json::json!({"status": {"state": "active"}, "matchers": []}),
            serde_json::json!("a silence"),
        ];
        assert_eq!(covering(&told, &labels()), None);
        let mut valid = silence("active", &format!("[{}]", matcher("user", "alice", false, true)));
        valid["id"] = "b7a1".into();
        told.push(valid);
        assert_eq!(covering(&told, &labels()).as_deref(), Some("b7a1"));
    }
}
