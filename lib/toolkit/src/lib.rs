#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! - [`lifecycle`]: start, readiness, reload and stop of a daemon.
//! - [`web`]: the HTTP server, and its web configuration.
//! - [`single_flight`]: one piece of work for all who ask for it at the same time.
//! - [`workers`]: threads that exist from the start, for work that blocks.
//! - [`scarcity`]: descriptors and memory held back for when the system has none left.
//! - [`chain`]: an error and its sources, as one line; [`complaint`]: why a program ended badly.
//! - [`logging`]: the log on stderr, as logfmt or JSON.
//! - [`certificate`]: from when to when a certificate is valid.
//! - [`printable`]: names from outside, made fit for people.
//! - [`systemd`]: readiness, socket activation, and a `systemctl reload` that reports failure.

pub mod certificate;
pub mod chain;
pub mod complaint;
pub mod lifecycle;
pub mod logging;
pub mod printable;
pub mod scarcity;
pub mod single_flight;
pub mod systemd;
pub mod web;
pub mod workers;
