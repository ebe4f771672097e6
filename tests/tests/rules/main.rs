//! Rules, routes, `--check` and the dashboard, compared with the programs that they are made for.
//!
//! - `agreement`: `--check` says what Alertmanager does.
//! - `brake`: how many hosts act before the brake across hosts holds.
//! - `dashboard`: every query of the dashboard.
//! - `discovery`: the documents' examples of service discovery.
//! - `fleet`: what `procstorm-remediator fleet` writes is taken and routes as it says.
//! - `how_to`: the documents of the rules.
//! - `oracle`: the rules do what the original's scripts did.

mod agreement;
mod brake;
mod dashboard;
mod discovery;
mod fleet;
mod how_to;
mod oracle;
