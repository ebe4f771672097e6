//! Reads a request's body within a limit and a deadline.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use tokio::time::timeout;

use super::{Response, reply};

/// Why a body could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the limit, in bytes.
    #[error("the request body is longer than {0} bytes")]
    TooLarge(usize),
    /// It did not come within the deadline.
    #[error("the request body did not arrive within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The connection broke, or the client broke the protocol.
    #[error("the request body ended early")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    /// The answer to send: 413, 408 or 400, with one line that says why. It ends the connection,
    /// as what is left of the body would be in the way of the next request; the answer says so,
    /// and the client does not send one.
    #[must_use]
    pub fn to_response(&self) -> Response {
        let status = match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        };
        let mut response = reply::text(status, format!("{self}\n"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// The whole of `body`, if it has at most `limit` bytes and comes within `deadline`.
pub async fn read(body: Incoming, limit: usize, deadline: Duration) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(BodyError::TooLarge(limit));
    }
    match timeout(deadline, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(error)) => Err(BodyError::Broken(error)),
        Err(_) => Err(BodyError::TooSlow(deadline)),
    }
}
