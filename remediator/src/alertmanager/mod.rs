//! What Alertmanager says, and what it is asked.
//!
//! - [`notification`]: what it posts to the webhook.
//! - [`client`]: its API, which takes outcomes and knows of silences.
//! - `resolver`: host names, looked up without a new thread.

pub mod client;
pub mod notification;
mod resolver;

pub use client::{Alertmanager, ApiError, Muted, OUTCOME, Posted};
pub use notification::{Alert, BadPayload, Notification, Status};
