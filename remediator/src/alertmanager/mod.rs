//! What Alertmanager says, and what it is asked.
//!
//! - [`notification`]: what it posts to the webhook.
//! - [`client`]: its API, which takes outcomes and knows of silences.
//! - [`members`]: all members of a cluster.
//! - `ask`: one question and its answer; `line`: certificates and passwords; `resolver`: host names,
//!   looked up without a new thread.

pub(crate) mod ask;
pub mod client;
pub(crate) mod line;
pub mod members;
pub mod notification;
mod resolver;

pub use client::{Alertmanager, ApiError, Muted, OUTCOME, Posted};
pub use line::LineError;
pub use members::Members;
pub use notification::{Alert, BadPayload, Notification, Status};
