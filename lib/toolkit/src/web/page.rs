//! What the pages of both daemons have in common: the document around a page's body, the style, and
//! the headers.
//!
//! No script, no picture, nothing from elsewhere: the policy in [`HEADERS`] forbids it.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use maud::{DOCTYPE, Markup, html};

use super::{Response, reply};

/// The path of [`stylesheet`].
pub const STYLE: &str = "/style.css";

/// The one stylesheet: for a telephone as for a wide screen, in light and dark.
const STYLESHEET: &str = include_str!("style.css");

/// What every page is sent with: no other page may frame it, no cache may keep it, and nothing that
/// gets into it runs.
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// A whole page with this title and body.
#[must_use]
pub fn document(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href=(STYLE);
            }
            body { main { (body) } }
        }
    }
    .into_string()
}

/// The answer that holds a page.
#[must_use]
pub fn answer(document: String) -> Response {
    with_headers(reply::html(document))
}

/// The answer that holds the style of all pages, for [`STYLE`].
#[must_use]
pub fn stylesheet() -> Response {
    with_headers(reply::content(StatusCode::OK, "text/css; charset=utf-8", STYLESHEET))
}

fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        response.headers_mut().insert(name, value);
    }
    response
}
