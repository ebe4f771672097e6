//! Users who exist for the programs that we start, and for nobody else: a copy of /etc/passwd
//! with a few lines more, laid over the real one in a mount namespace of the program's own, and
//! with it an /etc/nsswitch.conf that asks no other source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::{Fault, OrFault as _};
use crate::programs;

/// The machine's users and some of ours.
#[derive(Debug)]
pub struct Accounts {
    /// The directory with `passwd` and `nsswitch.conf`, where they are not the machine's own.
    dir: Option<PathBuf>,
    /// A further name service, an NSS module.
    module: Option<PathBuf>,
}

impl Accounts {
    /// The machine's own users, and no other: for who is not root.
    #[must_use]
    pub fn of_the_machine() -> Self {
        Self { dir: None, module: None }
    }

    /// The machine's users and `more`, each a name and a uid. The files that say so are kept in
    /// `dir`. Needs root when a program is started with it.
    pub fn with(more: &[(&str, u32)], dir: &Path) -> Result<Self, Fault> {
        // Ours come first, since the first line of a name or a uid is the one that counts.
        let mut passwd = String::new();
        for (name, uid) in more {
            passwd += &format!("{name}:x:{uid}:{uid}:procstorm test:/nonexistent:/bin/false\n");
        }
        passwd += &fs::read_to_string("/etc/passwd").or_fault("cannot read /etc/passwd")?;
        for (name, text) in [("passwd", passwd.as_str()), ("nsswitch.conf", "passwd: files\n")] {
            let path = dir.join(name);
            fs::write(&path, text).or_fault(format!("cannot write {}", path.display()))?;
        }
        Ok(Self { dir: Some(dir.to_owned()), module: None })
    }

    /// The same, and whom the NSS module at `module` knows under the name `service`. It is loaded
    /// from the start: the sandbox of a daemon would not let it be read later.
    pub fn served_by(mut self, service: &str, module: &Path) -> Result<Self, Fault> {
        if let Some(dir) = &self.dir {
            let text = format!("passwd: files {service}\n");
            fs::write(dir.join("nsswitch.conf"), text).or_fault("cannot write nsswitch.conf")?;
        }
        self.module = Some(module.to_owned());
        Ok(self)
    }

    /// A command that runs `program` among these users.
    pub fn command(&self, program: &Path) -> Result<Command, Fault> {
        let Some(dir) = &self.dir else { return Ok(Command::new(program)) };
        let mut command = Command::new(programs::other("unshare")?);
        command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT_AND_RUN]);
        command.arg(dir).arg(program);
        if let Some(module) = &self.module {
            command.env("LD_PRELOAD", module);
        }
        Ok(command)
    }
}

/// `$0` is the directory, the rest is the program. A machine may have no nsswitch.conf: there is
/// nothing to be hidden then.
const MOUNT_AND_RUN: &str = r#"
mount --bind "$0/passwd" /etc/passwd || exit
if [ -e /etc/nsswitch.conf ]; then
    mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf || exit
fi
exec "$@"
"#;
