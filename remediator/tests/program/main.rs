//! The program as people and systemd run it.
//!
//! - `command_line`: `--check` and `explain`.
//! - `documents`: manual page, unit and README.
//! - `report`: the report out of the journal.
//! - `sandbox`: what each layer of the sandbox stops.
//! - `service_manager`: readiness, reload, sockets, exit status.

mod command_line;
mod documents;
mod report;
mod sandbox;
mod service_manager;
