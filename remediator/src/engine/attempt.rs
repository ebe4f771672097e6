//! A remediation under way.

use std::sync::Arc;

use procstorm_processes::process::Command;

use crate::active::Force;
use crate::journal::Remediation;
use crate::outcome::Subject;
use crate::policy::Authorised;
use crate::steps::archive::LOCK_STEP;
use crate::steps::kill::Target;
use crate::steps::record;

/// A remediation that may be done if the facts say so, under the policy in force.
pub(super) struct Attempt<'a> {
    pub(super) remediation: &'a Remediation,
    pub(super) force: &'a Arc<Force>,
    pub(super) authorised: &'a Authorised,
}

impl<'a> Attempt<'a> {
    /// Which processes.
    pub(super) fn target(&self) -> Target {
        Target { uid: self.authorised.account().uid, command: *self.authorised.command() }
    }

    /// What it is about.
    pub(super) fn subject(&self, before: Option<u64>) -> Subject<'a> {
        Subject {
            host: &self.force.config.host,
            user: self.authorised.account().name.as_str(),
            command: text(self.authorised.command()),
            playbook: self.authorised.request().name(),
            before,
            dry_run: self.authorised.request().is_dry_run(),
            tells_user: self.remediation.alert.tells_user(),
        }
    }
}

/// A sentence for each step that has ended and whose record cannot be read. Logs each of them. That of
/// a lock is left out: the look for the lock reports it.
pub(super) fn unread_of(remediation: &Remediation) -> Vec<String> {
    let steps = remediation.steps.iter().filter(|row| row.name != LOCK_STEP);
    let unread = steps.filter_map(|row| record::of(row)?.err());
    unread.inspect(|record| record.log(remediation.id)).map(|record| record.to_string()).collect()
}

/// A playbook's command is text, since it stands in a file of text.
fn text(command: &Command) -> &str {
    std::str::from_utf8(command.as_bytes()).unwrap_or_default()
}
