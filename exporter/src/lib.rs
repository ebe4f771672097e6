//! Per-user, per-command process counts for Prometheus.
//!
//! What a process is, and how many there are (the remediator counts with this, too):
//! - [`process`]: what a process is, and how the kernel shows it.
//! - [`proc_dir`]: a /proc directory and the pids in it.
//! - [`census`]: how many processes each user has of each command.
//!
//! What both daemons share:
//! - [`web`]: the HTTP server.
//! - [`logging`]: the log on stderr.

pub mod census;
pub mod logging;
pub mod proc_dir;
pub mod process;
pub mod web;
