//! The pages that people look at, as text from values: nothing here reads, decides or acts.
//!
//! - [`view`]: what a page shows; the JSON of `/api/v1/remediations` is the same values.
//! - [`page`]: the HTML. No script, no picture, nothing from elsewhere.
//! - [`STYLESHEET`]: served as `/style.css`, so that the policy below can forbid all else.

pub mod page;
pub mod view;

/// The one stylesheet: for a telephone as for a wide screen, for the dark as for the day.
pub const STYLESHEET: &str = include_str!("style.css");

/// What every page is sent with: nobody may frame it, keep it, or put anything into it.
pub const HEADERS: [(&str, &str); 5] = [
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
