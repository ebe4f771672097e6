//! What people and Prometheus look at.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};
use procstorm_processes::visibility::obstacle;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::web::page::answer;
use procstorm_toolkit::web::{Response, reply};
use serde::Serialize;

use super::Site;
use super::status::view::{
    Mode, Overview, PlaybookView, RUNNING, RemediationPage, RemediationView, StepView,
};
use super::status::{detail, events, links, overview, playbooks, restore};
use crate::active::Force;
use crate::alertmanager::Members;
use crate::commands::describe::LeftAlone;
use crate::journal::records::RemediationRow;
use crate::journal::refusals::Refusals;
use crate::journal::uses::Limited;
use crate::journal::{Fault, StepRow};
use crate::metrics::Use;
use crate::policy::Playbook;
use crate::steps::archive::note::{Fate, FormNote};
use crate::steps::archive::recorded_archives;
use crate::steps::{facts, record};
use crate::verdict::Verdict;

/// How long the page says that a limit was reached.
const LIMITED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// How far back the page shows alerts that were refused.
const REFUSED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// How long the file systems of spool and archive may take to answer. A server that is gone must
/// not take the pages with it.
const SILENT_FOR: Duration = Duration::from_secs(2);

/// How many remediations a page shows.
const PAGE: u32 = 50;

/// The most that one answer of the API holds.
const PAGE_MAX: u32 = 500;

/// One answer of the API.
#[derive(Serialize)]
struct Listing {
    remediations: Vec<RemediationView>,
    /// The value of `before` that asks for the next, older ones; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    older_before: Option<i64>,
}

impl Site {
    /// `GET /`.
    pub(super) async fn overview(&self, query: &str) -> Response {
        let before = parameter(query, "before").unwrap_or(i64::MAX);
        let pending = self.journal.pending().await.unwrap_or_default();
        // A journal that cannot be read leaves the page without a list, and says why above it.
        let listing = self
            .listing(before, PAGE)
            .await
            .unwrap_or_else(|_fault| Listing { remediations: Vec::new(), older_before: None });
        let force = self.force.borrow().clone();
        let sandbox = &self.sandbox;
        let view = Overview {
            host: force.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            modes: self.modes(playbooks::mode(&force.config)).await,
            unsaved: self.loss().await,
            pending: pending.remediations.saturating_sub(pending.watched),
            watched: pending.watched,
            outcomes_pending: pending.outcomes,
            sandbox: sandbox
                .layers()
                .into_iter()
                .filter(|(_, layer)| !layer.is_full())
                .map(|(name, layer)| format!("{name}: {layer}"))
                .collect(),
            playbooks: self.playbooks(&force).await,
            left_alone: LeftAlone(&force.config).to_string().trim_end().replace('\n', " "),
            refusals: self.refusals().await,
            remediations: listing.remediations,
            older_before: listing.older_before,
            links: links::of_host(&force.config.links, &force.config.host),
        };
        answer(overview::overview(&view))
    }

    /// `GET /remediations/ID`.
    pub(super) async fn remediation(&self, id: &str) -> Response {
        let Ok(id) = id.parse() else { return reply::not_found() };
        match self.page_of(id).await {
            Ok(Some(page)) => answer(detail::remediation(&page)),
            Ok(None) => reply::not_found(),
            Err(fault) => unreadable(&fault),
        }
    }

    async fn page_of(&self, id: i64) -> Result<Option<RemediationPage>, Fault> {
        let Some((record, _labels)) = self.journal.record(id).await? else { return Ok(None) };
        let story = self.journal.story(id).await?;
        let force = self.force.borrow().clone();
        let config = &force.config;
        let labels = story.alert.as_ref().map(|alert| alert.labels.clone()).unwrap_or_default();
        let notes = recorded_archives(&record.steps).and_then(Result::ok).unwrap_or_default();
        Ok(Some(RemediationPage {
            host: config.host.clone(),
            meaning: record.verdict.as_deref().and_then(Verdict::from_label).map(Verdict::meaning),
            events: events::of(&record, &story),
            repeats: story.repeats,
            restore: restore::commands(
                &record.user,
                &notes,
                &config.mail.archive,
                &self.config_file,
            ),
            links: links::of_remediation(&config.links, &config.host, &record.user, &labels),
            alert: labels.into_iter().collect(),
            steps: record.steps.iter().map(step).collect(),
            remediation: remediation(&record),
        }))
    }

    /// `GET /api/v1/remediations?before=ID&limit=N`, the newest first.
    pub(super) async fn api(&self, query: &str) -> Response {
        let before = parameter(query, "before").unwrap_or(i64::MAX);
        let limit = parameter(query, "limit").unwrap_or(PAGE).clamp(1, PAGE_MAX);
        match self.listing(before, limit).await {
            Ok(listing) => match serde_json::to_vec(&listing) {
                Ok(json) => reply::content(StatusCode::OK, "application/json", json),
                Err(error) => failed(&error.to_string()),
            },
            Err(fault) => unreadable(&fault),
        }
    }

    /// `GET /metrics`.
    pub(super) async fn metrics_page(&self) -> Response {
        // Is it well again? Only a write can tell.
        if self.journal.obstacle().is_some() && self.journal.probe().await.is_ok() {
            tracing::debug!("the journal was tried, and works");
        }
        let pending = self.journal.pending().await.ok();
        let works = self.journal.obstacle().is_none();
        self.metrics.state(pending, works, self.blindness().await.is_some());
        self.metrics.archive_works(self.loss().await.is_none());
        self.metrics.lost_threads(self.force.borrow().mailroom.lost_threads());
        if let Some(security) = &self.security {
            self.metrics.web_config(security.is_valid());
            self.metrics.certificate(Use::Server, security.certificate());
        }
        let client = self.force.borrow().alertmanager.as_ref().and_then(Members::certificate);
        self.metrics.certificate(Use::Client, client);
        match self.metrics.render() {
            Ok(text) => {
                reply::content(StatusCode::OK, crate::metrics::CONTENT_TYPE, Bytes::from(text))
            }
            Err(error) => failed(&error.to_string()),
        }
    }

    /// `GET /-/ready`: whether it can see, write down and save, in a sandbox that is whole.
    pub(super) async fn ready(&self) -> Response {
        let all = self.obstacles().await.join("; ");
        reply::ready((!all.is_empty()).then_some(all.as_str()))
    }

    /// What keeps it from seeing, writing down or saving, or from doing so in its sandbox, a sentence
    /// each.
    pub async fn obstacles(&self) -> Vec<String> {
        let mut obstacles: Vec<String> = self.blindness().await.into_iter().collect();
        if self.journal.probe().await.is_err() {
            let unknown = || "the journal does not work".to_owned();
            obstacles.push(self.journal.obstacle().unwrap_or_else(unknown));
        }
        obstacles.extend(self.loss().await);
        obstacles.extend(self.sandbox.faults());
        obstacles.extend(self.reach.fault());
        obstacles
    }

    async fn listing(&self, before: i64, limit: u32) -> Result<Listing, Fault> {
        // One more than is shown tells whether there are older ones.
        let mut records = self.journal.page(before, limit.saturating_add(1)).await?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = records.len() > shown;
        records.truncate(shown);
        let older_before = records.last().filter(|_| more).map(|record| record.id);
        Ok(Listing { remediations: records.iter().map(remediation).collect(), older_before })
    }

    /// What the playbooks may do, and how often before a limit is reached, if the journal says so.
    async fn playbooks(&self, force: &Force) -> Vec<PlaybookView> {
        let books = force.config.playbooks.iter();
        let ask = |(name, book): (&String, &Playbook)| Limited {
            playbook: name.clone(),
            limits: book.limits,
            dry_run: force.config.is_dry_run(name),
        };
        let asked = books.map(ask).collect();
        let uses = self.journal.uses(asked, Timestamp::now()).await.ok();
        playbooks::of(&force.config, uses.as_deref())
    }

    /// What was refused; nothing where the journal cannot be read, which stands above it.
    async fn refusals(&self) -> Refusals {
        let since = Timestamp::now().checked_sub(REFUSED_FOR).unwrap_or(Timestamp::MIN);
        self.journal.refusals(since).await.unwrap_or_default()
    }

    async fn modes(&self, mode: Mode) -> Vec<Mode> {
        let mut modes = vec![mode];
        if self.blindness().await.is_some() {
            modes.push(Mode::Blind);
        }
        if self.journal.obstacle().is_some() {
            modes.push(Mode::Unrecorded);
        }
        if self.loss().await.is_some() {
            modes.push(Mode::Unsaved);
        }
        let since = Timestamp::now().checked_sub(LIMITED_FOR).unwrap_or(Timestamp::MIN);
        if self.journal.limit_was_reached(since).await.unwrap_or_default() {
            modes.push(Mode::Limited);
        }
        modes
    }

    /// What keeps it from saving mail files.
    async fn loss(&self) -> Option<String> {
        let mailroom = self.force.borrow().mailroom.clone();
        mailroom.obstacle(SILENT_FOR).await
    }

    async fn blindness(&self) -> Option<String> {
        let procfs = self.procfs.clone();
        let look = self.seeing.run(move || obstacle(&procfs));
        match tokio::time::timeout(SILENT_FOR, look).await {
            Ok(Some(obstacle)) => obstacle,
            Ok(None) => Some("/proc could not be looked at".to_owned()),
            Err(_) => Some(format!("/proc does not answer within {SILENT_FOR:?}")),
        }
    }
}

fn remediation(record: &RemediationRow) -> RemediationView {
    let (saved, not_saved) = archives(&record.steps);
    RemediationView {
        id: record.id,
        started: record.began.to_string(),
        user: record.user.clone(),
        command: record.command.clone(),
        playbook: record.playbook.clone(),
        dry_run: record.dry_run,
        before: record.before,
        after: record.after,
        verdict: record.verdict.clone().unwrap_or_else(|| RUNNING.to_owned()),
        summary: record.summary.clone(),
        archives: saved,
        archive_failures: not_saved,
        milliseconds: record.milliseconds,
    }
}

/// Where mail files were saved, and why others were not. A record that cannot be read says neither;
/// the remediation's own page shows it.
fn archives(steps: &[StepRow]) -> (Vec<String>, Vec<String>) {
    let (mut saved, mut not_saved) = (Vec::new(), Vec::new());
    let notes = recorded_archives(steps).and_then(Result::ok).unwrap_or_default();
    for FormNote { fate, .. } in notes {
        match fate {
            Fate::Archived(archived) => saved.push(archived.path.display().to_string()),
            Fate::Planned(_) | Fate::Absent { .. } => {}
            Fate::Failed { text, .. } => not_saved.push(text),
        }
    }
    (saved, not_saved)
}

fn step(row: &StepRow) -> StepView {
    let (facts, pids) = match record::of(row) {
        None => (Vec::new(), Vec::new()),
        Some(Ok(record)) => (record.facts(), record.pids()),
        Some(Err(record)) => {
            (facts::unreadable(&record, row.detail.as_deref().unwrap_or_default()), Vec::new())
        }
    };
    let took = row.ended.map(|ended| ended.duration_since(row.began).as_millis());
    StepView {
        title: record::title(&row.name),
        name: row.name.clone(),
        started: row.began.to_string(),
        outcome: row.outcome.clone().unwrap_or_else(|| RUNNING.to_owned()),
        good: row.good.unwrap_or(true),
        milliseconds: took.and_then(|ms| u64::try_from(ms).ok()),
        facts,
        pids,
    }
}

/// The number that a query asks for.
fn parameter<T: std::str::FromStr>(query: &str, name: &str) -> Option<T> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn unreadable(fault: &Fault) -> Response {
    tracing::warn!(fault = %Chain(fault), "the journal cannot be read");
    reply::text(StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be read\n")
}

fn failed(why: &str) -> Response {
    tracing::error!(why, "a page cannot be made");
    reply::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
}
