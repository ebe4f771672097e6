//! A fleet: one list of hosts, Prometheus' own `file_sd` list, from which everything else is made
//! and against which everything is checked.
//!
//! - [`targets`]: the list: each host's name, role and line.
//! - [`policies`]: the policy of each host, from one directory.
//! - `base`: the Alertmanager configuration that is started from.
//! - [`generate`]: `fleet`, which writes receivers, routes and the lists for Prometheus' two jobs.
//! - `remediators`: which hosts act, and where their outcomes go.
//! - [`check`]: `--check --fleet`, which finds what is missing, doubled or swapped.

use std::path::PathBuf;

use super::agreement::Finding;
use super::agreement::rules::ReadError;
use crate::policy::LoadError;

mod base;
pub mod check;
pub mod generate;
pub mod policies;
mod remediators;
pub mod targets;

/// Why a fleet was not made, or is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file cannot be read, or not be understood.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The Alertmanager configuration to start from cannot be read.
    #[error("cannot read {}{}", .0.display(), remedy(.1))]
    Base(PathBuf, #[source] std::io::Error),
    /// A policy has faults.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// A file cannot be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// All can be read, and something is wrong: a line for each.
    #[error("{}", lines(.0))]
    Faults(Vec<Finding>),
}

pub(in crate::commands) fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What to do if there is nothing to start from.
fn remedy(error: &std::io::Error) -> &'static str {
    if error.kind() != std::io::ErrorKind::NotFound {
        return "";
    }
    " (name Alertmanager's configuration, which the receivers and routes are written into, with --base)"
}
