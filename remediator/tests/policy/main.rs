//! The policy file, what it decides, and whether rules and routes fit it.
//!
//! - `agreement`: `--check` of policy, rules and routes.
//! - `certificates`: those of a fleet, made and renewed.
//! - `config`: each faulty file is refused for its fault.
//! - `decisions`: each refusal by its own case.
//! - `fleet`: the files for many hosts, and what can be wrong with them.

mod agreement;
mod certificates;
mod config;
mod decisions;
mod fleet;
