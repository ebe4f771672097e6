//! A remediation under way.

use std::sync::Arc;

use procstorm_processes::process::Command;

use super::detail::StepDetail;
use crate::active::Force;
use crate::journal::Remediation;
use crate::outcome::Subject;
use crate::policy::{Authorised, Step};
use crate::steps::kill::Target;

/// A remediation that may be done if the facts say so, under the policy in force.
pub(super) struct Attempt<'a> {
    pub(super) remediation: &'a Remediation,
    pub(super) force: &'a Arc<Force>,
    pub(super) authorised: &'a Authorised,
}

impl Attempt<'_> {
    /// Which processes.
    pub(super) fn target(&self) -> Target {
        Target { uid: self.authorised.account().uid, command: *self.authorised.command() }
    }

    /// What it is about.
    pub(super) fn subject(&self, before: Option<u64>) -> Subject<'_> {
        Subject {
            host: &self.force.config.host,
            user: self.authorised.account().name.as_str(),
            command: text(self.authorised.command()),
            playbook: self.authorised.request().name(),
            before,
        }
    }
}

/// A sentence for each step that has ended and whose record cannot be read. Logs each of them.
pub(super) fn unread_of(remediation: &Remediation) -> Vec<String> {
    let unread = remediation.steps.iter().filter_map(|row| StepDetail::of(row)?.err());
    unread.inspect(|record| record.log(remediation.id)).map(|record| record.to_string()).collect()
}

/// A playbook's command is text, since it stands in a file of text.
fn text(command: &Command) -> &str {
    std::str::from_utf8(command.as_bytes()).unwrap_or_default()
}

/// Whether a kill was begun of which no end is on record.
pub(super) fn was_interrupted(remediation: &Remediation) -> bool {
    let kill = Step::KillUserProc.label();
    remediation.steps.iter().any(|step| step.name == kill && step.ended.is_none())
}
