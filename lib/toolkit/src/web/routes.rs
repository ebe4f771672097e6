//! What a server answers, as one table: path, method, who may ask, and which handler answers.
//!
//! - [`Route`]: a row of the table.
//! - [`Access`]: who may ask.
//! - [`dispatch`]: answers a request by the table.
//!
//! The table is the one definition: a server works from it, and documents can be made from it.
//!
//! ```
//! use hyper::{Method, StatusCode};
//! use procstorm_toolkit::web::reply;
//! use procstorm_toolkit::web::routes::{Access, Route};
//!
//! struct Greeter(&'static str);
//!
//! static ROUTES: [Route<&'static Greeter>; 1] = [Route {
//!     path: "/hello",
//!     method: Method::GET,
//!     access: Access::ANY_CLIENT,
//!     about: "A greeting.",
//!     handler: |greeter, _request| {
//!         Box::pin(async move { reply::text(StatusCode::OK, greeter.0) })
//!     },
//! }];
//! assert!(ROUTES[0].is_for("/hello") && !ROUTES[0].is_for("/"));
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::slice;

use hyper::Method;

use super::{Request, Response, reply};

/// An answer on its way.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What is answered at a path; `S` is the server's state.
#[derive(Debug)]
pub struct Route<S> {
    /// The path. A last segment in capitals stands for whatever stands there: `/items/ID`.
    pub path: &'static str,
    /// The method. Where it is GET, HEAD is allowed too.
    pub method: Method,
    /// Who may ask.
    pub access: Access<S>,
    /// What the answer is, in sentences for a document.
    pub about: &'static str,
    /// Answers.
    pub handler: fn(S, Request) -> Answer,
}

impl<S> Route<S> {
    /// Whether it answers requests for `path`.
    #[must_use]
    pub fn is_for(&self, path: &str) -> bool {
        let (before, last) = self.path.rsplit_once('/').unwrap_or(("", self.path));
        let stands_for_any =
            !last.is_empty() && last.bytes().all(|letter| letter.is_ascii_uppercase());
        match stands_for_any {
            true => path.strip_prefix(before).is_some_and(|rest| rest.starts_with('/')),
            false => path == self.path,
        }
    }
}

/// Who may ask: in words for a document, and as the check that refuses all others.
pub struct Access<S> {
    /// Who, as the subject of a sentence: `clients with the token`.
    pub words: &'static str,
    /// The refusal, if this client may not ask.
    pub refusal: fn(&S, &Request) -> Option<Response>,
}

impl<S> Access<S> {
    /// Everybody who can connect.
    pub const ANY_CLIENT: Self = Self { words: "any client", refusal: |_, _| None };
}

impl<S> fmt::Debug for Access<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("words", &self.words).finish_non_exhaustive()
    }
}

/// Answers a request for `path` by the first route for it: 404 without one, 405 for another method,
/// the refusal of its [`Access`], or what its handler answers.
pub async fn dispatch<S>(routes: &[Route<S>], path: &str, state: S, request: Request) -> Response {
    let Some(route) = routes.iter().find(|route| route.is_for(path)) else {
        return reply::not_found();
    };
    if let Some(refusal) = reply::unless_allowed(request.method(), slice::from_ref(&route.method)) {
        return refusal;
    }
    match (route.access.refusal)(&state, &request) {
        Some(refusal) => refusal,
        None => (route.handler)(state, request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &'static str) -> Route<()> {
        Route {
            path,
            method: Method::GET,
            access: Access::ANY_CLIENT,
            about: "",
            handler: |(), _request| Box::pin(async { reply::not_found() }),
        }
    }

    #[test]
    fn a_last_segment_in_capitals_stands_for_any() {
        let item = route("/items/ID");
        for (path, is_for) in
            [("/items/7", true), ("/items/", true), ("/items", false), ("/itemsx/7", false)]
        {
            assert_eq!(item.is_for(path), is_for, "{path}");
        }
        let root = route("/");
        assert!(root.is_for("/") && !root.is_for("") && !root.is_for("/x"));
        let healthy = route("/-/healthy");
        assert!(healthy.is_for("/-/healthy") && !healthy.is_for("/-/healthy/"));
    }
}
