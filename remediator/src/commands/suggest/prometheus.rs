//! Asks Prometheus: what its history holds, and which rules it has loaded.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode, Uri};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use procstorm_processes::folded::SMALL;

use crate::alertmanager::LineError;
use crate::alertmanager::ask::{Unread, address, encoded, whole};
use crate::alertmanager::line::Line;
use crate::policy::Access;
use crate::policy::duration::spoken;
use crate::printable::line;

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const ANSWER_MAX: usize = 64 << 20;

/// Why Prometheus does not help.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// It did not answer in time.
    #[error("{0}: no answer within {DEADLINE:?}; a longer --step asks for less")]
    Timeout(String),
    /// It could not be reached.
    #[error("cannot ask {uri}")]
    Transport {
        /// What was asked.
        uri: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its answer is larger than what is read.
    #[error(
        "{0}: the answer is over {ANSWER_MAX} bytes; a longer --step or a higher --least asks for less"
    )]
    TooLarge(String),
    /// It says no.
    #[error("{uri}: {status}: {text}")]
    Status {
        /// What was asked.
        uri: String,
        /// The status of the answer.
        status: StatusCode,
        /// What it says.
        text: String,
    },
    /// Its answer cannot be understood.
    #[error("cannot understand the answer of {uri}; is Prometheus there?")]
    Answer {
        /// What was asked.
        uri: String,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
    /// A file for certificates or logins cannot be used.
    #[error(transparent)]
    Line(#[from] LineError),
}

/// A series of the history: a user's processes of one command on one host.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Series {
    /// Its labels.
    pub(super) metric: BTreeMap<String, String>,
    /// Its counts, in order of time.
    pub(super) values: Vec<Point>,
}

/// A count at a time. Small, since there are many.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "(f64, String)")]
pub(super) struct Point {
    /// Seconds since 1970.
    pub(super) time: i64,
    /// How many processes; `None` if the value is not a count.
    pub(super) count: Option<u64>,
}

impl From<(f64, String)> for Point {
    fn from((time, value): (f64, String)) -> Self {
        let count = value.split('.').next().and_then(|whole| whole.parse().ok());
        Self { time: format!("{time:.0}").parse().unwrap_or_default(), count }
    }
}

/// A row of the table of thresholds that Prometheus has loaded.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) level: String,
    pub(super) role: String,
    pub(super) class: String,
    pub(super) playbook: String,
    pub(super) threshold: f64,
}

/// A row of the table of exemptions that Prometheus has loaded; an empty label stands for all.
#[derive(Clone, Debug)]
pub(super) struct Exemption {
    pub(super) role: String,
    pub(super) user: String,
    pub(super) command: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Found<T> {
    result: Vec<T>,
}

#[derive(Deserialize)]
struct Instant {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    name: String,
    query: String,
}

/// A client of one Prometheus.
#[derive(Debug)]
pub(super) struct Prometheus {
    base: Uri,
    line: Line,
}

impl Prometheus {
    pub(super) fn new(base: Uri, access: &Access) -> Self {
        Self { base, line: Line::new(access, 1) }
    }

    /// The expressions of the rules by their names. None where it does not know that question.
    pub(super) async fn rules(&self) -> Result<BTreeMap<String, String>, PrometheusError> {
        let groups: Groups = match self.get("/api/v1/rules?type=record").await {
            Err(PrometheusError::Status { status: StatusCode::NOT_FOUND, .. }) => {
                return Ok(BTreeMap::new());
            }
            answer => answer?,
        };
        let rules = groups.groups.into_iter().flat_map(|group| group.rules);
        Ok(rules.map(|rule| (rule.name, rule.query)).collect())
    }

    /// The table of thresholds as it is now; empty if there is none.
    pub(super) async fn thresholds(&self) -> Result<Vec<Row>, PrometheusError> {
        let query = encoded("role_class:procstorm_processes:threshold");
        let found: Found<Instant> = self.get(&format!("/api/v1/query?query={query}")).await?;
        let row = |Instant { mut metric, value }: Instant| {
            let mut label = |name: &str| metric.remove(name).unwrap_or_default();
            Row {
                level: label("level"),
                role: label("role"),
                class: label("class"),
                playbook: label("playbook"),
                threshold: value.1.parse().unwrap_or(f64::NAN),
            }
        };
        Ok(found.result.into_iter().map(row).collect())
    }

    /// The table of exemptions as it is now; empty if there is none.
    pub(super) async fn exemptions(&self) -> Result<Vec<Exemption>, PrometheusError> {
        let query = encoded("procstorm_processes:exemption");
        let found: Found<Instant> = self.get(&format!("/api/v1/query?query={query}")).await?;
        let row = |Instant { mut metric, .. }: Instant| {
            let mut label = |name: &str| metric.remove(name).unwrap_or_default();
            Exemption { role: label("role"), user: label("user"), command: label("command") }
        };
        Ok(found.result.into_iter().map(row).collect())
    }

    /// The processes of the smallest group that an exporter shows: the largest number of all exporters
    /// in the last hour. 1 if none has it.
    pub(super) async fn mark(&self) -> Result<u64, PrometheusError> {
        let query = encoded("max(max_over_time(procstorm_scan_min_processes[1h]))");
        let found: Found<Instant> = self.get(&format!("/api/v1/query?query={query}")).await?;
        let marks = found.result.into_iter().filter_map(|one| one.value.1.parse().ok());
        Ok(marks.max().unwrap_or(1))
    }

    /// The largest count in each step, of those groups that reach `least` in it.
    pub(super) async fn history(
        &self,
        begin: Timestamp,
        end: Timestamp,
        step: Duration,
        least: u64,
    ) -> Result<Vec<Series>, PrometheusError> {
        let query = encoded(&format!(
            "max by (role, host, user, command) \
             (max_over_time(procstorm_processes{{command!=\"{SMALL}\"}}[{}])) >= {least}",
            spoken(step)
        ));
        let (begin, end, step) = (begin.as_second(), end.as_second(), step.as_secs());
        let found: Found<Series> = self
            .get(&format!(
                "/api/v1/query_range?query={query}&start={begin}&end={end}&step={step}&timeout=50s"
            ))
            .await?;
        Ok(found.result)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, PrometheusError> {
        let uri = address(&self.base, path);
        // What people read is the address without the question.
        let told = uri.split('?').next().unwrap_or_default().to_owned();
        let (status, body) = timeout(DEADLINE, self.ask(&uri, &told))
            .await
            .map_err(|_elapsed| PrometheusError::Timeout(told.clone()))??;
        if !status.is_success() {
            let text = line(&String::from_utf8_lossy(&body));
            return Err(PrometheusError::Status { uri: told, status, text });
        }
        let answer: Answer<T> = serde_json::from_slice(&body)
            .map_err(|source| PrometheusError::Answer { uri: told, source })?;
        Ok(answer.data)
    }

    async fn ask(&self, uri: &str, told: &str) -> Result<(StatusCode, Bytes), PrometheusError> {
        let transport = |source| PrometheusError::Transport { uri: told.to_owned(), source };
        let open = self.line.open().await?;
        let request = Request::get(uri)
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::new()))
            .map_err(|error| transport(Box::new(error)))?;
        let response = open.ask(request).await.map_err(transport)?;
        let status = response.status();
        let body = whole(response, ANSWER_MAX).await.map_err(|unread| match unread {
            Unread::TooLarge => PrometheusError::TooLarge(told.to_owned()),
            Unread::Broken(error) => transport(error),
        })?;
        Ok((status, body))
    }
}
