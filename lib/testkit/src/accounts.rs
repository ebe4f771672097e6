//! Users that exist only for the programs that we start: an /etc/passwd and an /etc/group with root
//! and a few made-up ones, laid over the real ones in a mount namespace of the program's own, and with
//! it an /etc/nsswitch.conf that asks no other source.
//!
//! The machine's own users are not among them. To a remediator each of those is a uid without a
//! name, on whom it does not act: a real user's storm is not ours to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::{Fault, OrFault as _};
use crate::programs;

/// Who exists for a program.
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

    /// Root, and `ours`, each a name and a uid; no others. A name such as `@staff:alice,bob` is a
    /// group with these members, and the number its gid. The files that say so are kept in `dir`.
    /// Needs root when a program is started with it.
    pub fn only(ours: &[(&str, u32)], dir: &Path) -> Result<Self, Fault> {
        let mut passwd = String::from("root:x:0:0:root:/root:/bin/sh\n");
        let mut group = String::from("root:x:0:\n");
        for (name, uid) in ours {
            if let Some((name, members)) = name.strip_prefix('@').and_then(|it| it.split_once(':'))
            {
                group += &format!("{name}:x:{uid}:{members}\n");
                continue;
            }
            passwd += &format!("{name}:x:{uid}:{uid}:procstorm test:/nonexistent:/bin/false\n");
        }
        let nsswitch = "passwd: files\ngroup: files\n";
        for (name, text) in
            [("passwd", passwd.as_str()), ("group", &group), ("nsswitch.conf", nsswitch)]
        {
            let path = dir.join(name);
            fs::write(&path, text).or_fault(format!("cannot write {}", path.display()))?;
        }
        Ok(Self { dir: Some(dir.to_owned()), module: None })
    }

    /// The same, and whom the NSS module at `module` knows under the name `service`. It is loaded
    /// from the start: the sandbox of a daemon would not let it be read later. It is asked for groups
    /// as well, if it knows any.
    pub fn served_by(mut self, service: &str, module: &Path) -> Result<Self, Fault> {
        if let Some(dir) = &self.dir {
            let text = format!("passwd: files {service}\ngroup: files {service}\n");
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
/// nothing to be hidden then. Where there is an nscd, the C library would ask it before any file,
/// and it knows the machine's users.
const MOUNT_AND_RUN: &str = r#"
mount --bind "$0/passwd" /etc/passwd || exit
mount --bind "$0/group" /etc/group || exit
if [ -e /etc/nsswitch.conf ]; then
    mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf || exit
fi
if [ -d /var/run/nscd ]; then
    mount -t tmpfs none /var/run/nscd || exit
fi
exec "$@"
"#;
