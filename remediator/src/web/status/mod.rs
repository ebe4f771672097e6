//! The pages that people look at, as text from values: nothing here reads, decides or acts.
//!
//! - [`view`]: what a page shows; the JSON of `/api/v1/remediations` has the same values.
//! - [`overview`]: the status page. [`detail`]: one remediation.
//! - [`events`]: a remediation's course as a time line; [`restore`]: how its mail comes back.
//! - [`playbooks`]: what the policy lets the daemon do, for the status page.
//! - [`links`]: addresses of dashboard, runbook and silences.
//! - [`wording`]: times, durations and results as a person says them.
//!
//! The document around them, their style and headers are
//! [`procstorm_toolkit::web::page`]'s.

pub mod detail;
pub mod events;
pub mod links;
pub mod overview;
pub mod playbooks;
pub mod restore;
pub mod view;
pub mod wording;
