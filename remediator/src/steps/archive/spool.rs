//! The mail spool: a directory in which every name is its user's to choose what it leads to.
//!
//! A name in it is first pinned without being opened (`O_PATH`), so that no device, no FIFO and no
//! user's own file system (FUSE) is ever asked anything; only what proves to be a regular file with
//! one link and the right owner is opened, and checked again by its descriptor.
//!
//! openat2(2) does that in one call each. Where there is none (an older kernel, or a filter: that
//! of systemd's `RestrictSUIDSGID=` answers ENOSYS, others EPERM), the same is done in steps: the
//! pin must be on the spool's own mount, and what is read is opened by the pin itself.

use std::fs::{File, FileType, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::account::Account;
use crate::account::UserName;

use super::dotlock::dotlock_name;
use super::failure::{Failure, OpenError};
use super::place::{mount_id, open_directory};
use super::pulse::Pulse;
use super::version::Version;

/// A dotlock older than this is one that its maker forgot (mail programs break them after 2 to
/// 17 minutes).
const DOTLOCK_FRESH_SECONDS: u64 = 300;

/// How often a name is looked up that leads to another file each time.
const FINDS: u32 = 10;

/// What leads to a mail file: no link, no mount, nothing above the spool.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A name that no mail file has: too long for a user's.
const NOBODY: &str =
    ".procstorm-tries-whether-a-name-in-this-directory-can-be-opened-as-it-opens-mail";

/// How many entries of the spool are looked at for one that can be opened.
const SAMPLE: usize = 16;

/// The spool directory, open.
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

/// How many names of others' mail are listed.
const OTHERS_TOLD: usize = 3;

/// Names in `spool` that belong to the account's uid and not to its name: the mail of others behind the
/// same uid, three at most. Blocks for as long as the file system does.
pub(super) fn others(
    spool: &Path,
    account: &Account,
    pulse: &Pulse,
) -> Result<Vec<String>, OpenError> {
    let spool = Spool::open(spool)?;
    Ok(spool.others(&account.name, account.uid, OTHERS_TOLD, || pulse.beat()))
}

impl Spool {
    /// Opens the directory. The path itself is the administrator's and may lead through links.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let dir = open_directory(path, "open the spool")?;
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
        let Some(pinned) = self.pin(name)? else { return Ok(None) };
        check(&metadata(&pinned, &path)?, &path, uid)?;
        let Some(file) = self.open_pinned(name, &pinned)? else { return Ok(None) };
        check(&metadata(&file, &path)?, &path, uid)?;
        Ok(Some(Mailbox { file, path, name: name.to_owned() }))
    }

    /// Pins what `name` leads to: without opening it, and without entering what is mounted on it.
    pub(super) fn pin(&self, name: &str) -> Result<Option<File>, Failure> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = match openat2(&self.dir, name, flags, Mode::empty(), RESOLVE) {
            Err(Errno::NOSYS | Errno::PERM) => self.pin_in_steps(name, flags),
            other => other,
        };
        self.sorted(name, pinned)
    }

    /// Opens for reading what is pinned. Reading must not look like the user's reading, where we
    /// have the right to that.
    pub(super) fn open_pinned(&self, name: &str, pinned: &File) -> Result<Option<File>, Failure> {
        let read =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| match openat2(&self.dir, name, flags, Mode::empty(), RESOLVE) {
            Err(Errno::NOSYS | Errno::PERM) => open_by(pinned, flags),
            other => other,
        };
        let opened = match open(read | OFlags::NOATIME) {
            Err(Errno::PERM) => open(read),
            other => other,
        };
        self.sorted(name, opened)
    }

    fn pin_in_steps(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let pinned = openat(&self.dir, name, flags, Mode::empty())?;
        // A name has one component, so that nothing but a mount could lead elsewhere.
        if mount_id(&pinned)? == mount_id(&self.dir)? { Ok(pinned) } else { Err(Errno::XDEV) }
    }

    fn sorted(&self, name: &str, opened: Result<OwnedFd, Errno>) -> Result<Option<File>, Failure> {
        let path = self.path_of(name);
        match opened {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(Failure::Symlink { path }),
            Err(Errno::XDEV) => Err(Failure::MountPoint { path }),
            Err(source @ Errno::WOULDBLOCK) => Err(Failure::Leased { path, source }),
            Err(errno) => Err(Failure::of("open", path, errno)),
        }
    }

    /// Whether mail files could be opened now: tries it as [`Self::find`] does, with a name that
    /// nobody has, and with the first regular file of the directory that can be opened. Fails if
    /// there are regular files and none of the first can be opened for lack of rights.
    pub(super) fn probe(&self) -> Result<(), Failure> {
        self.pin(NOBODY)?;
        let mut refused = None;
        // A spool that may be searched and not listed is good enough to save mail from.
        let entries = Dir::read_from(&self.dir).into_iter().flatten().flatten();
        for entry in entries.take(SAMPLE) {
            let Ok(name) = entry.file_name().to_str() else { continue };
            // What a user has put there in place of a file says nothing of the others.
            let Ok(Some(pinned)) = self.pin(name) else { continue };
            if !metadata(&pinned, &self.path_of(name)).is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            match self.open_pinned(name, &pinned) {
                Ok(Some(_)) => return Ok(()),
                Err(failure @ (Failure::Denied { .. } | Failure::Io { .. })) => {
                    refused = refused.or(Some(failure));
                }
                Ok(None) | Err(_) => {}
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The names of what belongs to `uid` and is not of `user`'s name: the mail of others behind the
    /// same uid. At most `most` of them.
    pub(super) fn others(
        &self,
        user: &UserName,
        uid: u32,
        most: usize,
        alive: impl Fn(),
    ) -> Vec<String> {
        let (own, hidden) = (format!("{user}."), format!(".{user}."));
        let is_others = |name: &str| {
            name != user.as_str()
                && !matches!(name, "." | "..")
                && !name.starts_with(&own)
                && !name.starts_with(&hidden)
        };
        let entries = Dir::read_from(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        let is_theirs = |name: &String| {
            alive();
            let Ok(Some(pinned)) = self.pin(name) else { return false };
            pinned.metadata().is_ok_and(|meta| meta.uid() == uid)
        };
        names.filter(|name| is_others(name)).filter(is_theirs).take(most).collect()
    }

    /// Whether the mail file's name still leads to it.
    pub(super) fn still_names(&self, mailbox: &Mailbox) -> bool {
        let there = self.pin(&mailbox.name).ok().flatten();
        match (there.map(|file| file.metadata()), mailbox.file.metadata()) {
            (Some(Ok(there)), Ok(ours)) => Version::of(&there).same_file(&Version::of(&ours)),
            _ => false,
        }
    }

    /// Whether a dotlock of the user says that a mail program is at work. We make none ourselves:
    /// one that we left behind would stop the user's mail.
    pub(super) fn has_fresh_dotlock(&self, user: &UserName, now_epoch: u64) -> bool {
        // Pinned first: on this name, too, a user may have mounted what never answers.
        let Ok(Some(pinned)) = self.pin(&dotlock_name(user)) else { return false };
        pinned.metadata().is_ok_and(|meta| {
            let made = u64::try_from(meta.mtime());
            made.is_ok_and(|made| made.abs_diff(now_epoch) <= DOTLOCK_FRESH_SECONDS)
        })
    }
}

impl Mailbox {
    /// What the open file's inode says now.
    pub(super) fn metadata(&self) -> Result<Metadata, Failure> {
        metadata(&self.file, &self.path)
    }
}

/// Opens for reading what is pinned, and nothing else, whatever its name leads to by now.
fn open_by(pinned: &File, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    match openat(CWD, path, flags - OFlags::NOFOLLOW, Mode::empty()) {
        // Without /proc the file is not missing, it only cannot be opened in this way.
        Err(Errno::NOENT) => Err(Errno::NOSYS),
        other => other,
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

pub(super) fn special_kind(kind: FileType) -> &'static str {
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
