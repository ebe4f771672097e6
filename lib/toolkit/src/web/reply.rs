//! The answers that every server gives.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};

use super::Response;

/// An answer of one content type.
#[must_use]
pub fn content(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    content(status, "text/plain; charset=utf-8", body)
}

/// Plain text, after which the connection is closed.
#[must_use]
pub(super) fn closing(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = text(status, body);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A page.
#[must_use]
pub fn html(body: impl Into<Bytes>) -> Response {
    content(StatusCode::OK, "text/html; charset=utf-8", body)
}

/// 404: there is nothing of that path.
#[must_use]
pub fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "not found\n")
}

/// `None` if `method` is among `allowed`; else 405, with the allowed ones in its `Allow` header.
/// Where GET is allowed, HEAD is.
#[must_use]
pub fn unless_allowed(method: &Method, allowed: &[Method]) -> Option<Response> {
    let head = [Method::HEAD];
    let implied = if allowed.contains(&Method::GET) { head.as_slice() } else { &[] };
    let mut all = allowed.iter().chain(implied);
    if all.clone().any(|allowed| allowed == method) {
        return None;
    }
    let mut list = all.next().map(Method::to_string).unwrap_or_default();
    for method in all {
        list.push_str(", ");
        list.push_str(method.as_str());
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed: {list}\n"));
    if let Ok(list) = HeaderValue::try_from(list) {
        response.headers_mut().insert(ALLOW, list);
    }
    Some(response)
}

/// `/-/healthy`: the program runs.
#[must_use]
pub fn healthy() -> Response {
    text(StatusCode::OK, "healthy\n")
}

/// `/-/ready`: 200, or 503 and what stands in the way, in one line.
#[must_use]
pub fn ready(obstacle: Option<&str>) -> Response {
    match obstacle {
        None => text(StatusCode::OK, "ready\n"),
        Some(obstacle) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {obstacle}\n")),
    }
}

/// 503: the handler did not finish in time.
pub(super) fn too_slow() -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, "request timed out\n")
}

/// 503: the program has no memory for a further request.
pub(super) fn short_of_memory() -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, "no memory can be had at the moment\n")
}
