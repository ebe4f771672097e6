//! Users who exist for the programs that we start, and for nobody else: a copy of /etc/passwd
//! with a few lines more, laid over the real one in a mount namespace of the program's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::{Fault, OrFault as _};
use crate::programs;

/// The machine's users and some of ours.
#[derive(Debug)]
pub struct Accounts {
    passwd: Option<PathBuf>,
}

impl Accounts {
    /// The machine's own users, and no other: for who is not root.
    #[must_use]
    pub fn of_the_machine() -> Self {
        Self { passwd: None }
    }

    /// The machine's users and `more`, each a name and a uid. The file that says so is kept in
    /// `dir`. Needs root when a program is started with it.
    pub fn with(more: &[(&str, u32)], dir: &Path) -> Result<Self, Fault> {
        let mut text = fs::read_to_string("/etc/passwd").or_fault("cannot read /etc/passwd")?;
        for (name, uid) in more {
            text +=
                &format!("{name}:x:{uid}:{uid}:procstorm test:/nonexistent:/usr/sbin/nologin\n");
        }
        let passwd = dir.join("passwd");
        fs::write(&passwd, text).or_fault(format!("cannot write {}", passwd.display()))?;
        Ok(Self { passwd: Some(passwd) })
    }

    /// A command that runs `program` among these users.
    pub fn command(&self, program: &Path) -> Result<Command, Fault> {
        let Some(passwd) = &self.passwd else { return Ok(Command::new(program)) };
        let mut command = Command::new(programs::other("unshare")?);
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(r#"mount --bind "$0" /etc/passwd && exec "$@""#);
        command.arg(passwd).arg(program);
        Ok(command)
    }
}
