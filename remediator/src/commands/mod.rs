//! What a person asks at the command line.
//!
//! - [`check`]: `--check`, what the policy means; with [`agreement`], whether policy, rules and
//!   Alertmanager's routes fit together.
//! - [`certificates`]: a fleet's certificates, made and renewed from its list of hosts.
//! - `describe`: the policy in plain sentences, for `--check`.
//! - [`explain`]: what the policy would do with a payload.
//! - [`fleet`]: one list of hosts, from which Alertmanager's and Prometheus' files are made and
//!   against which they are checked.
//! - [`report`]: who was hit, or would have been.
//! - [`restore`]: brings archived mail back into a mailbox.
//! - [`suggest`]: thresholds, out of Prometheus' history.
//! - [`columns`]: tables for a terminal.

pub mod agreement;
pub mod certificates;
pub mod check;
pub mod columns;
pub(crate) mod describe;
pub mod explain;
pub mod fleet;
pub mod report;
pub mod restore;
pub mod suggest;

use std::error::Error;

use jiff::Timestamp;

use crate::args::{Args, Task};
use crate::startup::machine;

/// The answer to what a person asks at the command line; `None` if the command line asks for
/// something else.
#[must_use]
pub fn answer(args: &Args) -> Option<Result<String, Box<dyn Error>>> {
    (args.check || args.task.is_some()).then(|| tell(args))
}

fn tell(args: &Args) -> Result<String, Box<dyn Error>> {
    let (policy, machine) = (args.config_file.as_path(), &machine()?);
    match &args.task {
        None => {
            if let Some(answer) = fleet::check::asked(args) {
                return Ok(answer?);
            }
            let others = args.rules.as_deref().zip(args.alertmanager.as_deref());
            let others = others.map(|(rules, alertmanager)| check::Others { rules, alertmanager });
            let (listen, web_config) = (&args.listen, args.web_config.as_deref());
            Ok(check::report(&check::Question { policy, machine, listen, web_config, others })?)
        }
        Some(Task::Certificates(order)) => Ok(certificates::write(order, Timestamp::now())?),
        Some(Task::Explain { payload }) => Ok(explain::report(args, machine, payload)?),
        Some(Task::Fleet(order)) => Ok(fleet::generate::write(order)?),
        Some(Task::Report { since, json }) => {
            let (since, json, width) = (*since, *json, columns::width_of_terminal());
            Ok(report::report(&report::Question { policy, machine, since, json, width })?)
        }
        Some(Task::Suggest(asked)) => Ok(suggest::report(&asked.question())?),
        Some(Task::Restore { user, archive, apply }) => {
            Ok(restore::report(policy, machine, user, archive.as_deref(), *apply)?)
        }
    }
}
