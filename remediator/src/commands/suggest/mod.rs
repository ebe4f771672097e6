//! `suggest`: out of Prometheus' history, what each threshold would have meant, and rows for the table.
//!
//! - [`report`]: the command.
//! - `prometheus`: asks Prometheus; `classes`: to which class a command belongs.
//! - `count`: users and alerts of each candidate (pure); `tell`: the text (pure).

mod classes;
mod count;
mod prometheus;
mod tell;

use std::time::Duration;

use hyper::Uri;
use jiff::{SignedDuration, Timestamp};

use crate::policy::Access;
use crate::policy::duration::parse;
use classes::Classes;
use count::{Tally, TooMany};
use prometheus::Prometheus;
pub use prometheus::PrometheusError;

/// The longest history that is read at once.
const SINCE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// The most points of a series in one answer: Prometheus itself gives at most 11,000.
const POINTS: u32 = 1440;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where Prometheus is.
    pub prometheus: Uri,
    /// How the program proves who it is.
    pub access: Access,
    /// How far to look back.
    pub since: Duration,
    /// How exactly.
    pub step: Duration,
    /// The least threshold that is looked at.
    pub least: u64,
    /// How many users the red row may hit.
    pub hits: u64,
    /// How many characters a line may have; no limit if there is none.
    pub width: Option<usize>,
}

/// Why nothing is suggested.
#[derive(Debug, thiserror::Error)]
pub enum SuggestError {
    /// The question asks for too much, or its parts do not go together.
    #[error("{0}")]
    Question(String),
    /// Prometheus was asked, and there is no answer that can be used.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    /// No program that asks can be started.
    #[error("cannot start the client")]
    Runtime(#[from] std::io::Error),
}

/// The address of Prometheus, for `--prometheus`.
pub fn address(text: &str) -> Result<Uri, String> {
    // Before anything is quoted.
    if text.contains('@') {
        return Err(
            "must not hold a password, which others could see in the list of processes; use \
                    --username and --password-file"
                .to_owned(),
        );
    }
    let uri: Uri = text.parse().map_err(|_uri| "is not a URL".to_owned())?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_known || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(
            "must be http://HOST[:PORT][/PREFIX] or https://HOST[:PORT][/PREFIX]".to_owned()
        );
    }
    Ok(uri)
}

/// A span of time for `--step`.
pub fn step(text: &str) -> Result<Duration, String> {
    match parse(text) {
        Some(span) if span >= Duration::from_secs(5) => Ok(span),
        _ => Err("must be a span of time of at least 5s, such as 1m".to_owned()),
    }
}

/// The suggestion, as it is to be printed.
pub fn report(question: &Question) -> Result<String, SuggestError> {
    let fault = |text: &str| Err(SuggestError::Question(text.to_owned()));
    let Access { ca_file, username, password_file, credentials_file, .. } = &question.access;
    if question.since > SINCE_MAX {
        return fault("--since: at most 90d are read at once");
    }
    if question.prometheus.scheme_str() == Some("https") && ca_file.is_none() {
        return fault(
            "--ca-file: needed for https://; for public authorities name the system's bundle, such \
             as /etc/ssl/certs/ca-certificates.crt",
        );
    }
    if username.is_some() != password_file.is_some() {
        return fault("--username and --password-file: each needs the other");
    }
    if username.is_some() && credentials_file.is_some() {
        return fault("--credentials-file: not together with --username");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(ask(question));
    // A name service that hangs must not hold up the end.
    runtime.shutdown_background();
    said
}

async fn ask(question: &Question) -> Result<String, SuggestError> {
    let prometheus = Prometheus::new(question.prometheus.clone(), &question.access);
    let rules = prometheus.rules().await?;
    let classes = Classes::of_rules(&rules);
    let table = prometheus.thresholds().await?;
    let exemptions = prometheus.exemptions().await?;
    let mark = prometheus.mark().await?;
    let is_raised = mark > question.least;
    let question = &Question { least: question.least.max(mark), ..question.clone() };
    let (until, step) = (Timestamp::now(), question.step);
    let thresholds = table.iter().filter_map(|row| whole(row.threshold));
    let mut tally = Tally::new(classes, exemptions, step, thresholds);
    let mut points = POINTS;
    let mut begin = earlier(until, question.since);
    let since = begin;
    while begin < until {
        let end = later(begin, step.saturating_mul(points)).min(until);
        let history = match prometheus.history(begin, end, step, question.least).await {
            // A smaller piece may do.
            Err(PrometheusError::TooLarge(_)) if points > 1 => {
                points /= 2;
                continue;
            }
            history => history?,
        };
        for series in history {
            tally.add(series).map_err(|TooMany| too_many(question))?;
        }
        // One step further: both ends of a span are in its answer.
        begin = later(end, step);
    }
    Ok(tell::tell(question, is_raised, (since, until), &tally, &table))
}

fn too_many(question: &Question) -> SuggestError {
    SuggestError::Question(format!(
        "--least: too many groups have at least {} processes to fit into the memory limit; \
         set a higher --least",
        question.least
    ))
}

/// A threshold of the table as a count.
fn whole(threshold: f64) -> Option<u64> {
    format!("{threshold:.0}").parse().ok()
}

fn earlier(time: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}

fn later(time: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}
