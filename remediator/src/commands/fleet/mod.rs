//! A fleet: one list of hosts, Prometheus' own `file_sd` list, from which everything else is made
//! and against which everything is checked.
//!
//! - [`targets`]: the list: each host's name, role and line.
//! - [`policies`]: the policy of each host, from one directory.
//! - [`generate`]: `fleet`, which writes receivers, routes and the lists for Prometheus' two jobs.
//! - [`check`]: `--check --fleet`, which finds what is missing, doubled or swapped.

use std::path::PathBuf;

use super::agreement::Finding;
use super::agreement::rules::ReadError;
use crate::policy::LoadError;

pub mod check;
pub mod generate;
pub mod policies;
pub mod targets;

/// Why a fleet was not made, or is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file cannot be read, or not be understood.
    #[error(transparent)]
    Read(#[from] ReadError),
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
