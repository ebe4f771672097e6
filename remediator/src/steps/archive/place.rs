//! The administrator's directories, opened without entering what a user may have mounted there.
//!
//! An ordinary user can mount a program of their own (FUSE) on their directory, and that program
//! may never answer. What does not ask it, tried on Linux 6.18: opening with `O_PATH`, openat2(2)
//! with `RESOLVE_NO_XDEV`, reading `/proc/self/fdinfo`, and statx(2) of the mount's number with
//! `AT_STATX_DONT_SYNC`. What does: fstat(2), fstatat(2), fstatfs(2), opening to read.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use procstorm_processes::mounts::{mounts, option};
use procstorm_toolkit::chain::Chain;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;

use super::Settings;
use super::failure::OpenError;
use crate::policy::Mail;
use crate::sandbox::Places;

/// How long the mail directories may take to show themselves. One that hangs must not keep the daemon
/// from listening.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens the directory at `path`, which may lead through links, to read it. Refuses one on a file
/// system that is an ordinary user's own program.
pub(super) fn open_directory(path: &Path, action: &'static str) -> Result<OwnedFd, OpenError> {
    let failed = |source| OpenError::Io { action, path: path.to_owned(), source };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let pinned = openat(CWD, path, flags | OFlags::PATH, Mode::empty()).map_err(failed)?;
    if let Some(uid) = mount_id(&pinned).ok().and_then(user_of_mount)
        && uid != 0
        && uid != rustix::process::geteuid().as_raw()
    {
        return Err(OpenError::UsersMount { path: path.to_owned(), uid });
    }
    // By the pin and not by the path, on which something else may be mounted by now.
    openat(&pinned, ".", flags | OFlags::RDONLY, Mode::empty()).map_err(failed)
}

/// The places that a sandbox must leave open for the mail. Found by a thread apart, which is not waited
/// for long: a mail file system that hangs must not keep the daemon from starting.
pub(super) fn places_in_time(mail: &Mail) -> Places {
    let settings = Settings::from(mail);
    let (answer, answered) = mpsc::channel();
    let finder = move || answer.send(places(&settings)).unwrap_or_default();
    let started = thread::Builder::new().name("places".to_owned()).spawn(finder);
    let found = started.is_ok().then(|| answered.recv_timeout(PATIENCE).ok()).flatten();
    found.unwrap_or_else(|| {
        let Mail { spool, archive, .. } = mail;
        tracing::error!(
            spool = %spool.display(), archive = %archive.display(),
            "the mail directories do not answer; the sandbox keeps the archive closed until the \
             daemon is restarted"
        );
        let read = spool.parent().filter(|parent| parent.parent().is_some());
        // To be tried all the same: that it stays closed is then known.
        let write = vec![archive.clone()];
        Places { read: read.into_iter().map(Path::to_owned).collect(), write }
    })
}

/// What a sandbox must leave open for `settings`. Makes the archive directory if it is missing.
/// Blocks for as long as the file systems do.
///
/// The spool's parent directory, to be read: Landlock goes up from a file to the directories that
/// have a rule, and at the root of a mount it goes on above the mount point. So a rule for the spool
/// itself is worth nothing once something is mounted on it. The archive directory itself, to be
/// written: no directory above it should be. Where a file system with the archive in it is mounted
/// later, the archive stays closed until a restart, and [`super::Failure::Closed`] says so.
fn places(settings: &Settings) -> Places {
    let mut places = Places::default();
    let spool = &settings.spool;
    // By the path as it is written, and as it is without links.
    for path in [Some(spool.clone()), fs::canonicalize(spool).ok()].into_iter().flatten() {
        match path.parent() {
            // Not everything: then only what is mounted now can be read.
            Some(root) if root.parent().is_none() => places.read.push(path),
            Some(parent) => places.read.push(parent.to_owned()),
            None => {}
        }
    }
    let archive = &settings.archive;
    if !is_directory(archive)
        && let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(archive)
    {
        let directory = archive.display();
        tracing::warn!(%directory, %error, "cannot be made; the sandbox keeps it closed");
    }
    match open_directory(archive, "open the archive directory") {
        Ok(_) => places.write.push(archive.clone()),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "the sandbox keeps the archive closed")
        }
    }
    places
}

/// Whether there is a directory at `path`. Asks nothing that is mounted there.
pub(super) fn is_directory(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).is_ok()
}

/// The number of the mount that `file` is on. Asks no file system.
pub(super) fn mount_id(file: impl AsFd) -> Result<u64, Errno> {
    let file = file.as_fd();
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    if let Ok(stat) = statx(file, "", flags, StatxFlags::MNT_ID)
        && stat.stx_mask & StatxFlags::MNT_ID.bits() != 0
    {
        return Ok(stat.stx_mnt_id);
    }
    // An older kernel, a filter, or a user's own file system, which root may not ask.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or(Errno::NOSYS)
}

/// The uid of the user whose program serves the mount `id`; `None` for any other mount.
fn user_of_mount(id: u64) -> Option<u32> {
    // The thread's own mounts; what is below `/proc/self` is of the first thread.
    user_in(&fs::read("/proc/thread-self/mountinfo").ok()?, id)
}

/// The same by the text of `/proc/self/mountinfo`.
fn user_in(mountinfo: &[u8], id: u64) -> Option<u32> {
    let id = i32::try_from(id).ok()?;
    let mount = mounts(mountinfo).find(|mount| mount.mnt_id == id)?;
    mount.fs_type.starts_with("fuse").then(|| option(&mount, "user_id")?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
        66 49 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        68 66 0:40 / /home/mallory/\xff rw - fuse.evil evil rw,user_id=40501\n\
        69 66 0:41 / /var/mail/arc rw,nosuid,nodev - fuse.hang hang rw,user_id=40500,group_id=40500\n\
        70 66 0:42 / /mnt/a\\040-\\040b rw master:2 - fuse s3fs rw,user_id=0,group_id=0,allow_other\n\
        71 66 8:2 / /mnt/ntfs rw - fuseblk /dev/sda2 rw,user_id=0,group_id=0\n";

    #[test]
    fn a_mount_of_a_user_is_told_from_the_administrators() {
        for (id, user) in [
            (66, None),
            (68, Some(40_501)),
            (69, Some(40_500)),
            (70, Some(0)),
            (71, Some(0)),
            (9, None),
        ] {
            assert_eq!(user_in(MOUNTS, id), user, "mount {id}");
        }
    }

    #[test]
    fn two_directories_of_one_mount_have_its_number() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("in")).unwrap();
        let of = |path: &Path| mount_id(open_directory(path, "open").unwrap()).unwrap();
        assert_eq!(of(root.path()), of(&root.path().join("in")));
        assert_ne!(of(root.path()), of(Path::new("/proc")));
    }
}
