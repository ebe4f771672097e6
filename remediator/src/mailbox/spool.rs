//! The mail spool: a directory in which every name is its user's to choose what it leads to.
//!
//! The directory is opened once. A name in it is first pinned without being opened (`O_PATH`),
//! so that no device, no FIFO and no user's own file system (FUSE) is ever asked anything; only
//! what proves to be a regular file with one link and the right owner is opened, and checked
//! again by its descriptor.

use std::fs::{File, FileType, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;

use crate::account::UserName;

use super::failure::{Failure, OpenError};
use super::version::Version;

/// A dotlock older than this is one that its maker forgot (mail programs break them after 2 to
/// 17 minutes).
const DOTLOCK_FRESH_SECONDS: u64 = 300;

/// How often a name is looked up that leads to another file each time.
const FINDS: u32 = 10;

/// The spool directory, held open.
#[derive(Debug)]
pub(super) struct Spool {
    dir: OwnedFd,
    path: PathBuf,
}

/// A mail file, open for reading: a regular file, one link, owned by its user when it was opened.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) file: File,
    pub(super) path: PathBuf,
    name: String,
}

impl Spool {
    /// Opens the directory. The path itself is the administrator's and may lead through links.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty()).map_err(|source| OpenError::Io {
            action: "open the spool",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { dir, path: path.to_owned() })
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The mail file `name` of the user with `uid`; `Ok(None)` if there is none.
    pub(super) fn find(&self, name: &str, uid: u32) -> Result<Option<Mailbox>, Failure> {
        let mut found = self.find_once(name, uid);
        for _ in 1..FINDS {
            // Opened, and replaced by another before we looked at it: no fault of the new one.
            let Err(Failure::HardLinked { links: 0, .. }) = found else { break };
            found = self.find_once(name, uid);
        }
        found
    }

    fn find_once(&self, name: &str, uid: u32) -> Result<Option<Mailbox>, Failure> {
        let path = self.path_of(name);
        let pin = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(pinned) = self.open_beneath(name, pin)? else { return Ok(None) };
        check(&metadata(&File::from(pinned), &path)?, &path, uid)?;

        let read =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Reading must not look like the user's reading, where we have the right to that.
        let opened = match self.open_beneath(name, read | OFlags::NOATIME) {
            Err(Failure::Denied { source: Errno::PERM, .. }) => self.open_beneath(name, read),
            other => other,
        };
        let Some(opened) = opened? else { return Ok(None) };
        let file = File::from(opened);
        check(&metadata(&file, &path)?, &path, uid)?;
        Ok(Some(Mailbox { file, path, name: name.to_owned() }))
    }

    fn open_beneath(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>, Failure> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let path = self.path_of(name);
        match openat2(&self.dir, name, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(Failure::Symlink { path }),
            Err(Errno::XDEV) => Err(Failure::MountPoint { path }),
            Err(errno) => Err(Failure::of("open", path, errno)),
        }
    }

    /// Whether the mail file's name still leads to it.
    pub(super) fn still_names(&self, mailbox: &Mailbox) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = self.open_beneath(&mailbox.name, flags).ok().flatten().map(File::from);
        match (there.map(|file| file.metadata()), mailbox.file.metadata()) {
            (Some(Ok(there)), Ok(ours)) => Version::of(&there).same_file(&Version::of(&ours)),
            _ => false,
        }
    }

    /// Whether a dotlock of the user says that a mail program is at work. We make none ourselves:
    /// one that we left behind would stop the user's mail.
    pub(super) fn has_fresh_dotlock(&self, user: &UserName, now_epoch: u64) -> bool {
        let Ok(stat) = statat(&self.dir, format!("{user}.lock"), AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        u64::try_from(stat.st_mtime)
            .is_ok_and(|made| made.abs_diff(now_epoch) <= DOTLOCK_FRESH_SECONDS)
    }
}

impl Mailbox {
    /// What the open file's inode says now.
    pub(super) fn metadata(&self) -> Result<Metadata, Failure> {
        metadata(&self.file, &self.path)
    }
}

/// What a descriptor's inode says.
pub(super) fn metadata(file: &File, path: &Path) -> Result<Metadata, Failure> {
    file.metadata().map_err(|error| {
        Failure::of("stat", path, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// Refuses whatever is not a regular file with one link that belongs to `uid`.
fn check(meta: &Metadata, path: &Path, uid: u32) -> Result<(), Failure> {
    let kind = meta.file_type();
    let path = path.to_owned();
    if kind.is_symlink() {
        return Err(Failure::Symlink { path });
    }
    if kind.is_dir() {
        return Err(Failure::MaildirUnsupported { path });
    }
    if !kind.is_file() {
        return Err(Failure::NotRegular { path, kind: special_kind(kind) });
    }
    if meta.nlink() != 1 {
        return Err(Failure::HardLinked { path, links: meta.nlink() });
    }
    if meta.uid() != uid {
        return Err(Failure::WrongOwner { path, found: meta.uid(), expected: uid });
    }
    Ok(())
}

fn special_kind(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_block_device() {
        "block device"
    } else {
        "special file"
    }
}
