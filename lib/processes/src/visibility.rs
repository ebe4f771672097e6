//! Whether other users' processes can be seen at all.
//!
//! Under the mount option `hidepid` a scan finds next to nothing and looks healthy.

use std::fmt;
use std::io;
use std::path::Path;

use procfs::process::MountInfo;
use procstorm_toolkit::scarcity::is_shortage;
use rustix::process::{getegid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

use crate::mounts::{mount_point, mounts, option};
use crate::proc_dir::ProcDir;

/// What hides processes from us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blindness {
    /// There is no reading of pid 1, which always exists.
    NoPid1,
    /// The mount option, with its value as the kernel shows it.
    HidePid(String),
    /// So many processes refused to be looked at.
    Denied(u64),
}

impl fmt::Display for Blindness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPid1 => f.write_str("pid 1 cannot be read"),
            Self::HidePid(value) => write!(f, "the mount option hidepid={value}"),
            Self::Denied(processes) => write!(f, "{processes} processes cannot be read"),
        }
    }
}

/// What hides processes in `proc` from this process; `None` if nothing does. If the system has no
/// descriptor or memory to find out, returns [`NoPid1`](Blindness::NoPid1).
#[must_use]
pub fn blindness(proc: &ProcDir) -> Option<Blindness> {
    look(proc).unwrap_or(Some(Blindness::NoPid1))
}

/// The same; fails where the system has no descriptor or no memory to find out.
pub fn look(proc: &ProcDir) -> io::Result<Option<Blindness>> {
    match proc.stat(1) {
        Ok(Some(_)) => {}
        Err(error) if is_shortage(&error) => return Err(error),
        Ok(None) | Err(_) => return Ok(Some(Blindness::NoPid1)),
    }
    // Pid 1 may be visible because it is our own user's (in a container) and all others hidden.
    let text = match std::fs::read(proc.path().join("self/mountinfo")) {
        Ok(text) => text,
        Err(error) if is_shortage(&error) => return Err(error),
        // A fixture has no such file.
        Err(_) => return Ok(None),
    };
    let Ok(path) = proc.path().canonicalize() else { return Ok(None) };
    let hide = hidepid(&text, &path);
    Ok(hide.filter(|hide| !hide.spares_us()).map(|hide| Blindness::HidePid(hide.value)))
}

/// What keeps a scan of `procfs` from telling the truth, in one line; `None` if nothing does.
#[must_use]
pub fn obstacle(procfs: &Path) -> Option<String> {
    match ProcDir::open(procfs).and_then(|proc| look(&proc)) {
        Ok(blindness) => blindness.map(|reason| format!("blind: {reason}")),
        Err(error) => Some(format!("cannot read {}: {error}", procfs.display())),
    }
}

/// The option of one mount.
#[derive(Debug, PartialEq, Eq)]
struct HidePid {
    value: String,
    gid: u32,
}

impl HidePid {
    /// The kernel's `has_pid_permissions` (`fs/proc/base.c`): the group sees all, unless only what
    /// could be traced is shown; with `CAP_SYS_PTRACE` that is everything.
    fn spares_us(&self) -> bool {
        if capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE)) {
            return true;
        }
        let ours = getgroups().unwrap_or_default();
        let in_group =
            getegid().as_raw() == self.gid || ours.iter().any(|g| g.as_raw() == self.gid);
        in_group && !matches!(self.value.as_str(), "ptraceable" | "4")
    }
}

/// What `mountinfo` says of the uppermost proc at `path`.
fn hidepid(mountinfo: &[u8], path: &Path) -> Option<HidePid> {
    let is_proc = |mount: &MountInfo| mount.fs_type == "proc" && mount_point(mount) == path;
    let mount = mounts(mountinfo).rev().find(is_proc)?;
    let value = option(&mount, "hidepid").filter(|&value| value != "0" && value != "off")?;
    let gid = option(&mount, "gid").and_then(|gid| gid.parse().ok()).unwrap_or(0);
    Some(HidePid { value: value.to_owned(), gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
25 1 0:22 / /proc rw,nosuid - proc proc rw
26 25 0:23 / /proc rw,nosuid - proc proc rw,gid=42,hidepid=invisible
27 1 0:24 / /host\\040proc rw master:1 - proc proc rw,hidepid=ptraceable
28 1 8:1 / / rw - ext4 /dev/sda rw,hidepid=2
29 1 0:25 / /home/mallory/\xff rw - fuse.evil evil rw,user_id=1000
";

    #[test]
    fn the_uppermost_mount_counts() {
        let hide = hidepid(MOUNTS, Path::new("/proc")).expect("hidden");
        assert_eq!(hide, HidePid { value: "invisible".to_owned(), gid: 42 });
        let hide = hidepid(MOUNTS, Path::new("/host proc")).expect("hidden");
        assert_eq!(hide, HidePid { value: "ptraceable".to_owned(), gid: 0 });
        assert_eq!(hidepid(MOUNTS, Path::new("/")), None);
    }
}
