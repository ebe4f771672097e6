//! One question by HTTP, and a whole answer that is bounded in size.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, Uri};

use super::line::Open;

/// What went wrong on the way.
pub(crate) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off.
    Broken(Broken),
}

impl Open {
    /// Asks, with the login. Returns when the head of the answer is there.
    pub(crate) async fn ask(
        self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Broken> {
        if let Some(login) = self.login {
            request.headers_mut().insert(AUTHORIZATION, login);
        }
        Ok(self.http.request(request).await?)
    }
}

/// The body of an answer, if it is not larger than the limit.
pub(crate) async fn whole(answer: Response<Incoming>, most: usize) -> Result<Bytes, Unread> {
    match Limited::new(answer.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Err(error) => Err(Unread::Broken(error)),
    }
}

/// The address of a path, which begins with a slash, at a server that may have a prefix of its own.
pub(crate) fn address(base: &Uri, path: &str) -> String {
    let prefix = base.path().trim_end_matches('/');
    let authority = base.authority().map(ToString::to_string).unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("http");
    format!("{scheme}://{authority}{prefix}{path}")
}

/// A text as a part of a query (RFC 3986).
pub(crate) fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(letter).collect()
}
