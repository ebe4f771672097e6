//! What a Prometheus exporter needs beside its metrics.
//!
//! - [`web`]: an HTTP server that hostile clients cannot exhaust, with the exporter-toolkit's web
//!   configuration file (TLS, client certificates, passwords, rate limit).
//! - [`single_flight`]: one piece of work for all who ask for it at the same time.
//! - [`workers`]: threads that exist from the start, for work that blocks.
//! - [`scarcity`]: descriptors and memory held back for when the system has none left.
//! - [`logging`]: the log on stderr, as logfmt or JSON.
//! - [`lifecycle`]: start, readiness, reload and stop of a daemon.
//! - [`chain`]: an error and its sources, as one line.
//! - [`systemd`]: readiness, socket activation, and a `systemctl reload` that reports failure.

pub mod chain;
pub mod lifecycle;
pub mod logging;
pub mod scarcity;
pub mod single_flight;
pub mod systemd;
pub mod web;
pub mod workers;
