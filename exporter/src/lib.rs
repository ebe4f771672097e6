//! Per-user, per-command process counts for Prometheus.
//!
//! - [`process`]: what a process is, and how the kernel shows it.
//! - [`proc_dir`]: a /proc directory and the pids in it.

pub mod proc_dir;
pub mod process;
