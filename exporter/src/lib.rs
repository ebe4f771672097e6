//! Per-user, per-command process counts for Prometheus.
//!
//! What a process is (the remediator judges by this, too; it walks through /proc by itself, in
//! its `kill::sweep`, and what it counts otherwise is said in its README, "What is counted"):
//! - [`process`]: what a process is, and how the kernel shows it.
//! - [`proc_dir`]: a /proc directory and the pids in it.
//! - [`namespaces`]: what /proc says of namespaces, and of the caller.
//! - [`sight`]: whether other users' processes can be seen at all.
//!
//! How many there are:
//! - [`census`]: how many processes each user has of each command, the dead included.
//!
//! From a census to what Prometheus reads:
//! - [`names`], [`name_service`]: which name each uid is shown by.
//! - [`fold`]: keeps the number of series bounded.
//! - [`scan`]: one look at /proc, counted, named, folded.
//! - [`exposition`]: a scan as text.
//!
//! The program:
//! - [`args`]: its command line.
//! - [`single_flight`]: one scan for all who ask at once.
//! - [`server`]: its pages.
//! - [`daemon`]: from start to stop.
//!
//! What both daemons share:
//! - [`web`]: the HTTP server.
//! - [`workers`]: threads that exist from the start, for work that blocks.
//! - [`scarcity`]: what is held back for when descriptors or memory run out.
//! - [`logging`]: the log on stderr.
//! - [`systemd`]: what systemd hands over, and what it is told.

pub mod args;
pub mod census;
pub mod daemon;
pub mod exposition;
pub mod fold;
pub mod logging;
pub mod name_service;
pub mod names;
pub mod namespaces;
pub mod proc_dir;
pub mod process;
pub mod scan;
pub mod scarcity;
pub mod server;
pub mod sight;
pub mod single_flight;
pub mod systemd;
pub mod web;
pub mod workers;
