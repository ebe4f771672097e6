//! `restore`: what a user's mailbox lacks of an archive, and its way back.

use std::path::Path;

use nix::unistd::User;

use crate::account::{NameFault, UserName};
use crate::policy::{Config, LoadError};
use crate::steps::archive::{Archiver, OpenError, RestoreError, Restored, Settings};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy has faults.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The user's name cannot be that of a mail file.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// The name service knows no such user.
    #[error("user {0} does not exist")]
    NoUser(UserName),
    /// The name service does not answer.
    #[error("cannot look up user {0}")]
    NameService(UserName, #[source] nix::Error),
    /// Spool or archive cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// See there.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Compares the archive called `archive` (without it: the newest) of the user called `name` with
/// the mailbox, appends what the mailbox lacks if `apply`, and says so. `policy` names spool and
/// archive; `machine` is the host's name where it gives none.
pub fn report(
    policy: &Path,
    machine: &str,
    name: &str,
    archive: Option<&str>,
    apply: bool,
) -> Result<String, Error> {
    let config = Config::read(policy, machine)?;
    let name = UserName::new(name)?;
    let user = User::from_name(name.as_str())
        .map_err(|error| Error::NameService(name.clone(), error))?
        .ok_or_else(|| Error::NoUser(name.clone()))?;
    // Without threads: a signal that restoring holds back would reach one of them.
    let archiver = Archiver::open(Settings::from(&config.mail))?;
    Ok(text(&archiver.restore(&name, user.uid.as_raw(), archive, apply)?))
}

fn text(restored: &Restored) -> String {
    let Restored { archive, mailbox, archived, present, missing, appended } = restored;
    let (archive, mailbox) = (archive.display(), mailbox.display());
    let messages = |count: u64| format!("{count} message{}", if count == 1 { "" } else { "s" });
    let found = format!(
        "{archive} has {}, {mailbox} has {}; the mailbox lacks {}.\n",
        messages(*archived),
        messages(*present),
        messages(*missing),
    );
    let done = match (missing, appended) {
        (0, _) => "Nothing to restore.\n".to_owned(),
        (_, 0) => {
            "Run the command again with --apply to append them; nothing in the mailbox is removed \
             or overwritten.\n"
                .to_owned()
        }
        (_, bytes) => {
            format!("Appended them ({bytes} bytes); the rest of the mailbox is unchanged.\n")
        }
    };
    found + &done
}
