//! `POST /webhook`: who speaks, what is said, is it allowed; then it is written down and answered.
//!
//! Alertmanager tries again after a 5xx, and at its next interval after a 4xx: what can never be
//! done is therefore taken with a 2xx, and on record as refused.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::web::body::{self, BodyError};
use procstorm_toolkit::web::{Peer, Request, Response, Standing, reply};

use super::Site;
use crate::alertmanager::Notification;
use crate::journal::{Judged, Receipt};
use crate::metrics::{AlertDecision, WebhookResult};
use crate::policy::admit;
use crate::printable::line;

/// The largest body. An alert takes some 2 KiB, so this is a group of five hundred. Only who may
/// ask gets as far as a body, on one of at most [`CONNECTIONS_MAX`](super::CONNECTIONS_MAX)
/// connections: that is the bound of what they take of the memory.
const BODY_MAX: usize = 1 << 20;

/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How often requests without the token are logged.
const TOLD_EVERY: Duration = Duration::from_secs(60);

impl Site {
    /// The refusal of a notification from a client that may not post one.
    pub(super) fn refuse_notifier(self: &Arc<Self>, request: &Request) -> Option<Response> {
        if self.may_ask(request.headers()) {
            return None;
        }
        self.metrics.notification(WebhookResult::Unauthorized);
        self.tell_unauthorized(request.extensions().get::<Peer>());
        Some(unauthorized())
    }

    /// Takes a notification.
    pub(super) async fn webhook(self: &Arc<Self>, request: Request) -> Response {
        // From here on, no crowd of strangers takes its connection from it.
        if let Some(standing) = request.extensions().get::<Standing>() {
            standing.vouch();
        }
        if let Some(fault) = unsupported(request.headers()) {
            self.metrics.notification(WebhookResult::BadRequest);
            return reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, fault);
        }
        let body = match body::read(request.into_body(), BODY_MAX, BODY_DEADLINE).await {
            Ok(body) => body,
            Err(error) => {
                let result = match error {
                    BodyError::TooLarge(_) => WebhookResult::TooLarge,
                    BodyError::TooSlow(_) => WebhookResult::TooSlow,
                    BodyError::Broken(_) => WebhookResult::BadRequest,
                };
                self.metrics.notification(result);
                return error.to_response();
            }
        };
        match Notification::parse(&body) {
            Ok(notification) => Arc::clone(self).take(notification).await,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "rejected webhook request: the body is not an Alertmanager notification");
                self.metrics.notification(WebhookResult::BadRequest);
                reply::text(
                    StatusCode::BAD_REQUEST,
                    format!("{}\n", line(&Chain(&error).to_string())),
                )
            }
        }
    }

    /// A wrong token is most likely Alertmanager's own, and then nothing is done about any storm:
    /// somebody must hear of it. Seldom, since everybody who can connect can have it said.
    fn tell_unauthorized(&self, peer: Option<&Peer>) {
        let mut told = self.told_unauthorized.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            let peer = peer.map(|Peer(address)| tracing::field::display(address));
            tracing::warn!(peer, "a post with a wrong token, or without one, was refused");
        }
    }

    /// Takes a notification on a task of its own. The server drops this future when the poster
    /// hangs up or time is over: what is on record by then must be begun all the same.
    async fn take(self: Arc<Self>, notification: Notification) -> Response {
        match tokio::spawn(async move { self.record(notification).await }).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, "the task that records a notification failed");
                unavailable("internal error")
            }
        }
    }

    /// Judges each alert, records it, and begins what was accepted.
    async fn record(&self, notification: Notification) -> Response {
        if notification.truncated > 0 {
            let count = notification.truncated;
            tracing::error!(count, "Alertmanager left alerts out: set max_alerts to 0");
            self.metrics.truncated(count);
        }
        let judged = {
            let force = self.force.borrow().clone();
            let judge = |alert| Judged { admission: admit(&force.config, &alert), alert };
            notification.alerts.into_iter().map(judge).collect::<Vec<_>>()
        };
        let receipts = match self.journal.accept(judged.clone(), Timestamp::now()).await {
            Ok(receipts) => receipts,
            Err(fault) => {
                tracing::error!(fault = %Chain(&fault), "cannot write to the journal; answering 503 so that Alertmanager retries");
                self.metrics.notification(WebhookResult::Unavailable);
                return unavailable("the journal does not work");
            }
        };
        for (judged, receipt) in judged.iter().zip(&receipts) {
            self.begin(judged, *receipt);
        }
        let refused = receipts.iter().all(|receipt| *receipt == Receipt::Refused);
        let result = if refused { WebhookResult::Refused } else { WebhookResult::Accepted };
        self.metrics.notification(result);
        reply::text(StatusCode::OK, summary(&receipts))
    }

    fn begin(&self, judged: &Judged, receipt: Receipt) {
        let alert = &judged.alert;
        let (name, user, command) =
            (alert.label("alertname"), alert.label("user"), alert.label("command"));
        match (receipt, &judged.admission) {
            (Receipt::Accepted(id), _) => {
                tracing::info!(alert = name, user, command, remediation = id, "accepted");
                self.metrics.alert(AlertDecision::Accepted);
                self.engine.submit(id);
            }
            (Receipt::Coalesced(id), _) => {
                tracing::info!(alert = name, user, command, remediation = id, "coalesced");
                self.metrics.alert(AlertDecision::Coalesced);
                // Somebody pursues it already, or it would wait for the next look at the journal.
                self.engine.submit(id);
            }
            (Receipt::Refused, Err(refusal)) => {
                let (verdict, reason) = (refusal.verdict(), refusal.to_string());
                let refusal = verdict.label();
                tracing::info!(alert = name, user, command, refusal, reason, "refused");
                self.metrics.alert(AlertDecision::Refused(verdict));
            }
            (Receipt::Refused, Ok(_)) => {}
        }
    }
}

fn summary(receipts: &[Receipt]) -> String {
    let count = |wanted: fn(&Receipt) -> bool| receipts.iter().filter(|r| wanted(r)).count();
    let accepted = count(|receipt| matches!(receipt, Receipt::Accepted(_)));
    let coalesced = count(|receipt| matches!(receipt, Receipt::Coalesced(_)));
    let refused = count(|receipt| matches!(receipt, Receipt::Refused));
    format!("{accepted} accepted, {coalesced} coalesced, {refused} refused\n")
}

/// What of a body's form is not taken; `None` if all is. Nothing is ever inflated: Alertmanager does
/// not compress, and a bomb needs somebody who unpacks. A web page can have a browser post texts and
/// forms to anybody, but JSON only to those who allow it.
fn unsupported(headers: &HeaderMap) -> Option<&'static str> {
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Some("compressed bodies are not supported\n");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = |value: &HeaderValue| {
        let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    };
    match (types.next(), types.next()) {
        (Some(kind), None) if is_json(kind) => None,
        _ => Some("the Content-Type must be application/json\n"),
    }
}

/// 401, without a word on what was wrong.
pub(super) fn unauthorized() -> Response {
    let mut response = reply::text(StatusCode::UNAUTHORIZED, "unauthorized\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn unavailable(why: &str) -> Response {
    reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}
