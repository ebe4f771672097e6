//! What the daemon answers.
//!
//! | path | method | who may | answer |
//! |---|---|---|---|
//! | `/webhook` | POST | the token | 200 once it is on record, whatever is decided; 400, 401, 413, 415, 503 |
//! | `/` | GET | see below | the status page |
//! | `/remediations/ID` | GET | see below | one remediation with its steps |
//! | `/api/v1/remediations` | GET | see below | the same as JSON, paged by `before` and `limit` |
//! | `/style.css` | GET | anybody | the pages' style |
//! | `/metrics` | GET | anybody | for Prometheus |
//! | `/-/healthy` | GET | anybody | 200 while it runs |
//! | `/-/ready` | GET | anybody | 200, or 503 and what stands in the way |
//!
//! The pages name users and files: where somebody beyond this machine could ask for them, they
//! need the token as well. What `--web.config.file` asks for comes before all of this, and so does
//! [`guard`](procstorm_toolkit::web::guard), which refuses what another's web page has sent.
//!
//! - [`token`]: who knows it may ask.
//! - `webhook`: takes notifications.
//! - `handlers`: answers what people and Prometheus look at.
//! - [`status`]: the pages as HTML.

mod handlers;
pub mod status;
pub mod token;
mod webhook;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use procstorm_toolkit::single_flight::SingleFlight;
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::{Request, Response, reply};
use procstorm_toolkit::workers::Workers;

use crate::active::InForce;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::sandbox::Sandbox;
use status::STYLESHEET;
use token::Token;

/// How many connections are held at once.
pub const CONNECTIONS_MAX: usize = 256;

/// What it answers with.
#[derive(Debug)]
pub struct Site {
    /// The record.
    pub journal: Journal,
    /// Does what was accepted.
    pub engine: Engine,
    /// The policy.
    pub force: InForce,
    /// Counters.
    pub metrics: Metrics,
    /// Who knows it may ask; without one, everybody who can connect may.
    pub token: RwLock<Option<Token>>,
    /// Whether somebody beyond this machine can ask.
    pub exposed: bool,
    /// What the server asks of those who speak to it.
    pub security: Option<Arc<Security>>,
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// How the sandbox is.
    pub sandbox: Sandbox,
    /// What the name service answers in it.
    pub reach: Reach,
    /// When a post without the token was last told to the log.
    told_unauthorized: Mutex<Option<Instant>>,
    /// The look at /proc that is under way.
    seeing: SingleFlight<Option<String>>,
}

/// What a [`Site`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The record.
    pub journal: Journal,
    /// Does what was accepted.
    pub engine: Engine,
    /// The policy.
    pub force: InForce,
    /// Counters.
    pub metrics: Metrics,
    /// Who knows it may ask; without one, everybody who can connect may.
    pub token: Option<Token>,
    /// Whether somebody beyond this machine can ask.
    pub exposed: bool,
    /// What the server asks of those who speak to it.
    pub security: Option<Arc<Security>>,
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// How the sandbox is.
    pub sandbox: Sandbox,
    /// What the name service answers in it.
    pub reach: Reach,
}

impl Site {
    /// A site of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            journal,
            engine,
            force,
            metrics,
            token,
            exposed,
            security,
            procfs,
            sandbox,
            reach,
        } = parts;
        Self {
            journal,
            engine,
            force,
            metrics,
            token: RwLock::new(token),
            exposed,
            security,
            procfs,
            sandbox,
            reach,
            told_unauthorized: Mutex::default(),
            seeing: SingleFlight::on(Workers::start("look-proc", 1)),
        }
    }

    /// Takes another token from now on.
    pub fn replace_token(&self, token: Option<Token>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Whether these headers hold the token.
    pub fn shows_token(&self, headers: &HeaderMap) -> bool {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.as_ref().is_some_and(|token| token.is_in(headers))
    }

    /// Whether whoever sent these headers may ask. A password of the web configuration stands for
    /// the token, since both would be in the same header. Nobody is let in from elsewhere without
    /// one of them or a certificate, even if the web configuration has changed since the start.
    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let guard = |asks: fn(&Security) -> bool| self.security.as_deref().is_some_and(asks);
        if guard(Security::asks_for_password) {
            return true;
        }
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) => token.is_in(headers),
            None => !self.exposed || guard(Security::verifies_clients),
        }
    }
}

/// Answers a request.
pub async fn answer(site: Arc<Site>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let allowed = match path.as_str() {
        "/webhook" => Method::POST,
        "/" | "/style.css" | "/metrics" | "/-/healthy" | "/-/ready" | "/api/v1/remediations" => {
            Method::GET
        }
        path if path.starts_with("/remediations/") => Method::GET,
        _ => return reply::not_found(),
    };
    if let Some(refusal) = reply::unless_allowed(request.method(), &[allowed]) {
        return refusal;
    }
    match path.as_str() {
        "/webhook" => site.webhook(request).await,
        "/metrics" => site.metrics_page().await,
        "/-/healthy" => reply::healthy(),
        "/-/ready" => site.ready().await,
        "/style.css" => {
            let style = reply::content(StatusCode::OK, "text/css; charset=utf-8", STYLESHEET);
            handlers::with_headers(style)
        }
        _ if site.exposed && !site.may_ask(request.headers()) => webhook::unauthorized(),
        path => page(&site, path, request.uri().query().unwrap_or_default()).await,
    }
}

async fn page(site: &Site, path: &str, query: &str) -> Response {
    match path {
        "/" => site.overview(query).await,
        "/api/v1/remediations" => site.api(query).await,
        path => site.remediation(path.trim_start_matches("/remediations/")).await,
    }
}
