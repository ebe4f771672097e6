//! What the daemon answers.
//!
//! [`ROUTES`] is the table of paths, methods, who may ask, and handlers. What `--web.config.file`
//! requires comes before all of this, and so does [`guard`](procstorm_toolkit::web::guard), which
//! refuses requests that another site's page has sent.
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

use hyper::Method;
use hyper::header::HeaderMap;
use procstorm_toolkit::single_flight::SingleFlight;
use procstorm_toolkit::web::routes::{Access, Route, dispatch};
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::{Request, Response, page, reply};
use procstorm_toolkit::workers::Workers;

use crate::active::InForce;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::reach::Reach;
use crate::sandbox::Sandbox;
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
    /// The file of the policy.
    pub config_file: PathBuf,
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
    /// The file of the policy.
    pub config_file: PathBuf,
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
            config_file,
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
            config_file,
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

    /// Whether the sender of these headers may ask. A password of the web configuration stands for
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

type Page = Route<Arc<Site>>;

/// Clients that may post notifications.
const NOTIFIERS: Access<Arc<Site>> = Access {
    words: "clients with the token; if the policy has none, clients with a verified certificate, \
            or any client while the daemon listens on loopback only",
    refusal: Site::refuse_notifier,
};

/// Clients that may see users and files.
const READERS: Access<Arc<Site>> = Access {
    words: "any client while the daemon listens on loopback only; otherwise those of `/webhook`",
    refusal: |site, request| {
        (site.exposed && !site.may_ask(request.headers())).then(webhook::unauthorized)
    },
};

/// What is answered, where, and to whom: the server works from this table, and the documents'
/// tables are made from it.
pub static ROUTES: [Page; 8] = [
    Page {
        path: "/webhook",
        method: Method::POST,
        access: NOTIFIERS,
        about: "Takes notifications. 200 once they are in the journal, whatever is decided; 400 for \
                a body that is not a notification, 401 without the token, 403 for another host's \
                name or another site's page, 413 for more than 1 MiB, 415 for a body that is not \
                `application/json` or has a `Content-Encoding`, 503 if the journal does not work.",
        handler: |site, request| Box::pin(async move { site.webhook(request).await }),
    },
    Page {
        path: "/",
        method: Method::GET,
        access: READERS,
        about: "The status page: what the daemon may do, to whom, and how often before a limit is \
                reached; what it did last; and which alerts it refused.",
        handler: |site, request| Box::pin(async move { site.overview(query(&request)).await }),
    },
    Page {
        path: "/remediations/ID",
        method: Method::GET,
        access: READERS,
        about: "One remediation: what happened when, its steps, and how to put the mail back.",
        handler: |site, request| {
            Box::pin(async move {
                let id = request.uri().path().trim_start_matches("/remediations/");
                site.remediation(id).await
            })
        },
    },
    Page {
        path: "/api/v1/remediations",
        method: Method::GET,
        access: READERS,
        about: "The remediations as JSON, the newest first, paged by `before` and `limit`.",
        handler: |site, request| Box::pin(async move { site.api(query(&request)).await }),
    },
    Page {
        path: "/style.css",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "The style of the pages.",
        handler: |_site, _request| Box::pin(async { page::stylesheet() }),
    },
    Page {
        path: "/metrics",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "The metrics, for Prometheus.",
        handler: |site, _request| Box::pin(async move { site.metrics_page().await }),
    },
    Page {
        path: "/-/healthy",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "200 while the program runs.",
        handler: |_site, _request| Box::pin(async { reply::healthy() }),
    },
    Page {
        path: "/-/ready",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "200, or 503 and one line with the reason: other users' processes are hidden, the \
                journal cannot be written, no mail file can be saved, a layer of the sandbox is off \
                or incomplete though the kernel has it, or the name service answers differently in \
                the sandbox than before it (the last two not with --no-sandbox).",
        handler: |site, _request| Box::pin(async move { site.ready().await }),
    },
];

/// Answers a request.
pub async fn answer(site: Arc<Site>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    dispatch(&ROUTES, &path, site, request).await
}

fn query(request: &Request) -> &str {
    request.uri().query().unwrap_or_default()
}
