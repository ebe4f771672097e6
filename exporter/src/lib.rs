//! Per-user, per-command process counts for Prometheus.
//!
//! What a process is, `procstorm_processes` defines; the HTTP server and what else any exporter needs
//! is `procstorm_toolkit`.
//!
//! - [`census`]: how many processes each user has of each command, the dead included.
//! - [`bpf`]: the same, counted in the kernel.
//! - [`source`]: which of the two counts.
//! - [`slices`]: how near each user is to the limit of tasks.
//! - [`names`]: which name each uid is shown by.
//! - [`fold`]: keeps the number of series bounded.
//! - [`scan`]: one look at all processes, counted, named, folded.
//! - [`exposition`]: a scan as text.
//!
//! The program:
//! - [`args`]: its command line.
//! - [`server`]: its pages; [`landing`]: the one for people.
//! - [`daemon`]: from start to stop.

pub mod args;
pub mod bpf;
pub mod census;
pub mod daemon;
pub mod exposition;
pub mod fold;
pub mod landing;
pub mod names;
pub mod scan;
pub mod server;
pub mod slices;
pub mod source;
