//! A real mail server, Debian's Dovecot, with mailboxes in a spool of the test's.
//!
//! - [`Dovecot`]: the server. It runs from what `tests/tools.sh` has unpacked, with mounts of its
//!   own, and in the caller's pid namespace: a remediator sees its sessions.
//! - [`imap`]: sessions that wait, and sessions that rewrite the mailbox all the time.
//! - [`mbox`]: mailboxes in which each message tells whether it is whole.

pub mod imap;
pub mod mbox;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::programs;
use tempfile::TempDir;

use crate::daemon::Daemon;

/// How long the server may take to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Lays the unpacked packages over the machine's own files, writes to memory, mounts the spool, and
/// becomes the server. The
/// arguments are tree, scratch directory, spool, port and a uid.
const RUN: &str = r#"set -eu
mount -t tmpfs tmpfs "$2"; mkdir "$2/up" "$2/work" "$2/root"
# A copy, since two layers must not lie one in the other; and /lib is a link to usr/lib.
cp -a "$1" "$2/packages"
if [ -d "$2/packages/lib" ]; then cp -a "$2/packages/lib" "$2/packages/usr/"; rm -r "$2/packages/lib"; fi
mount -t overlay overlay "$2/root" -o "lowerdir=$2/packages:/,upperdir=$2/up,workdir=$2/work"
for dir in proc dev; do mount --rbind "/$dir" "$2/root/$dir"; done
mkdir -p "$2/root/var/indexes" "$2/root/etc/dovecot" "$2/root/var/mail"; chmod 1777 "$2/root/var/indexes"
mount --bind "$3" "$2/root/var/mail"
echo dovecot:x:44798:44798::/nonexistent:/bin/false >> "$2/root/etc/passwd"
echo dovenull:x:44799:44799::/nonexistent:/bin/false >> "$2/root/etc/passwd"
echo "dovecot:x:44798:
dovenull:x:44799:" >> "$2/root/etc/group"
for uid in $(seq 44800 44999) "$5"; do
    echo "$uid:x:$uid:$uid::/var/indexes/$uid:/bin/false" >> "$2/root/etc/passwd"
done
cat > "$2/root/etc/dovecot/dovecot.conf" <<EOF
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = /dev/stderr
mail_location = mbox:/var/indexes/%u:INBOX=/var/mail/%u
mail_max_userip_connections = 1000
first_valid_uid = 1000
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = passwd
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = $4
  }
  inet_listener imaps {
    port = 0
  }
}
EOF
exec chroot "$2/root" /usr/sbin/dovecot -F"#;

/// A running Dovecot. Its users are called by their uids: the one that it was started for, and those
/// from 44800 to 44999.
#[derive(Debug)]
pub struct Dovecot {
    daemon: Daemon,
    address: SocketAddr,
    _scratch: TempDir,
}

impl Dovecot {
    /// Where `tests/tools.sh` has unpacked it; `None` if it has not.
    #[must_use]
    pub fn tree() -> Option<PathBuf> {
        let program = programs::unpacked("dovecot/usr/sbin/dovecot")?;
        program.ancestors().nth(3).map(Path::to_owned)
    }

    /// Starts one that serves the mailboxes in `spool`, and waits until the user `uid` can log
    /// in. Needs root.
    pub fn start(tree: &Path, spool: &Path, uid: u32) -> Result<Self, Fault> {
        let scratch = tempfile::tempdir().or_fault("no directory")?;
        let root = scratch.path().join("tree");
        fs::create_dir(&root).or_fault("no directory")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(programs::other("unshare")?);
        command.args(["--mount", "--propagation", "private", "sh", "-c", RUN, "dovecot"]);
        command.arg(tree).arg(&root).arg(spool).arg(address.port().to_string());
        command.arg(uid.to_string());
        let mut daemon = Daemon::start("dovecot", &command, &scratch.path().join("dovecot.log"))?;
        // A connection alone does not tell: its login is refused as long as the server still starts.
        daemon.ready(|| imap::Session::open(address, &uid.to_string()).is_ok())?;
        Ok(Self { daemon, address, _scratch: scratch })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Ends it with all its sessions.
    pub fn stop(mut self) -> Result<(), Fault> {
        self.daemon.terminate(LIMIT).map(drop)
    }
}
