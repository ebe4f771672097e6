//! Rules, routes, `--check` and the dashboard, compared with the programs that they are made for.
//!
//! - `agreement`: `--check` says what Alertmanager does.
//! - `dashboard`: every query of the dashboard.
//! - `how_to`: the documents of the rules.
//! - `oracle`: the rules do what the original's scripts did.

mod agreement;
mod dashboard;
mod how_to;
mod oracle;
