//! The exporter, the remediator, Prometheus and Alertmanager together, as they are shipped.
//!
//! - `census`: what the exporter shows is what `ps` shows.
//! - `cluster`: a pair of Alertmanagers before a remediator.
//! - `dashboard`: the dashboard in a real storm.
//! - `dashboard_picture`: the picture of the dashboard, `make dashboard-picture`.
//! - `demo`: a demo that stays up raises storms.
//! - `diagnostic_log`: the original's diagnostic log, from Prometheus.
//! - `mail`: who gets which mail, and how often.
//! - `names`: hostile names, from /proc to the mail.
//! - `parts`: the parts that the stack is made of.
//! - `storm`: the whole way of a storm: read this first.
//! - `strangers`: a storm of a user of the machine is left alone.
//! - `suggest`: thresholds out of a simulated week.
//! - `week`: a simulated week in dry run, and then armed; `make field` runs it.
//! - `world`: a made-up /proc is shown as it is.

mod census;
mod cluster;
mod dashboard;
mod dashboard_picture;
mod demo;
mod diagnostic_log;
mod mail;
mod names;
mod parts;
mod storm;
mod strangers;
mod suggest;
mod week;
mod world;
