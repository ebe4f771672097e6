//! The directory with keys and certificates.
//!
//! A user who can write to it can have any certificate made, so it must be its owner's alone, and no
//! symbolic link in it is followed. Files are replaced at once: first all are written beside their
//! places, then each is renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, mkdirat,
    openat, renameat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::CertificatesError;

/// The largest file that is read. A certificate has 1 KB.
const FILE_MAX: u64 = 1 << 20;

/// What two runs at once both want.
const LOCK: &str = ".lock";

/// Rights of the group and of all others.
const OF_OTHERS: u32 = 0o077;

/// Rights of the group and of all others to write.
const WRITTEN_BY_OTHERS: u32 = 0o022;

/// Where a file is: in the directory itself (an empty name), or in one below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) directory: &'static str,
    pub(super) name: String,
}

impl At {
    pub(super) fn top(name: &str) -> Self {
        Self { directory: "", name: name.to_owned() }
    }

    /// The file beside it with this ending.
    pub(super) fn with(&self, ending: &str) -> Self {
        Self { directory: self.directory, name: format!("{}.{ending}", self.name) }
    }

    pub(super) fn relative(&self) -> PathBuf {
        Path::new(self.directory).join(&self.name)
    }
}

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) at: At,
    pub(super) text: String,
    /// Whether its owner alone may read it.
    pub(super) is_secret: bool,
}

/// The directory, which no other run has open.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    top: OwnedFd,
    below: BTreeMap<&'static str, OwnedFd>,
    lock: OwnedFd,
}

impl Drop for Store {
    /// By its own call: a process that another thread has just forked holds the descriptor, and with it
    /// the lock, until it executes its program.
    fn drop(&mut self) {
        flock(&self.lock, FlockOperation::Unlock).unwrap_or_default();
    }
}

impl Store {
    /// Opens the directory, and makes it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, CertificatesError> {
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make", path, error)),
        }
        let top = directory(CWD, path, path)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = path.join(LOCK);
        let lock = openat(&top, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("open", &at, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(CertificatesError::Busy(path.to_owned())),
            Err(error) => return Err(failed("lock", &at, error)),
        }
        Ok(Self { path: path.to_owned(), top, below: BTreeMap::new(), lock })
    }

    /// Opens a directory below; `None` if it is missing.
    fn enter(&mut self, name: &'static str) -> Result<Option<BorrowedFd<'_>>, CertificatesError> {
        if name.is_empty() {
            return Ok(Some(self.top.as_fd()));
        }
        if !self.below.contains_key(name) {
            match directory(self.top.as_fd(), Path::new(name), &self.path.join(name)) {
                Ok(opened) => drop(self.below.insert(name, opened)),
                Err(CertificatesError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.below.get(name).map(|opened| opened.as_fd()))
    }

    pub(super) fn path_of(&self, at: &At) -> PathBuf {
        self.path.join(at.relative())
    }

    /// What a file holds; `None` if there is none. A secret that others may read is an error.
    pub(super) fn read(
        &mut self,
        at: &At,
        is_secret: bool,
    ) -> Result<Option<Vec<u8>>, CertificatesError> {
        let path = self.path_of(at);
        let Some(directory) = self.enter(at.directory)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, &at.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed("open", &path, error)),
        };
        let stat = fstat(&file).map_err(|error| failed("examine", &path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(CertificatesError::refused(&path, "is not a regular file"));
        }
        is_ours(&path, stat.st_uid, stat.st_mode)?;
        if is_secret && stat.st_mode & OF_OTHERS != 0 {
            let what = format!(
                "has mode {:04o}, so others may have read this key: delete it together with its \
                 certificate, and a new pair is made; or, if nobody has, chmod 0600",
                stat.st_mode & 0o7777
            );
            return Err(CertificatesError::refused(&path, &what));
        }
        let mut bytes = Vec::new();
        let read = File::from(file).take(FILE_MAX.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| CertificatesError::Io { what: "read", path: path.clone(), source })?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(CertificatesError::refused(&path, "is larger than 1 MiB"));
        }
        Ok(Some(bytes))
    }

    /// The names in a directory, without those that begin with a dot, sorted.
    pub(super) fn names(&mut self, name: &'static str) -> Result<Vec<String>, CertificatesError> {
        let path = self.path.join(name);
        let Some(directory) = self.enter(name)? else { return Ok(Vec::new()) };
        let fault = |error| failed("list", &path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
            names.extend((!name.starts_with('.')).then_some(name));
        }
        names.sort();
        Ok(names)
    }

    /// Writes all of these files, in this order. If one cannot be written, none is replaced.
    pub(super) fn write(&mut self, drafts: &[Draft]) -> Result<(), CertificatesError> {
        if drafts.is_empty() {
            return Ok(());
        }
        for (count, draft) in drafts.iter().enumerate() {
            if let Err(error) = self.draft(draft) {
                for draft in drafts.iter().take(count.saturating_add(1)) {
                    self.discard(&draft.at);
                }
                return Err(error);
            }
        }
        // Before a new file takes an old one's place, it is on the disk.
        syncfs(&self.top).map_err(|error| failed("sync", &self.path, error))?;
        for Draft { at, .. } in drafts {
            let path = self.path_of(at);
            let Some(directory) = self.enter(at.directory)? else { continue };
            renameat(directory, beside(at), directory, &at.name)
                .map_err(|error| failed("replace", &path, error))?;
        }
        syncfs(&self.top).map_err(|error| failed("sync", &self.path, error))
    }

    /// Writes a file beside its place.
    fn draft(&mut self, draft: &Draft) -> Result<(), CertificatesError> {
        let at = &draft.at;
        let path = self.path_of(at);
        if self.enter(at.directory)?.is_none() {
            mkdirat(&self.top, at.directory, Mode::RWXU)
                .map_err(|error| failed("make", &self.path.join(at.directory), error))?;
        }
        self.discard(at);
        let Some(directory) = self.enter(at.directory)? else {
            return Err(failed("open", &path, Errno::NOENT));
        };
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Its owner's alone from the first moment on, whatever the umask is.
        let file = openat(directory, beside(at), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("make", &path, error))?;
        if !draft.is_secret {
            let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
            fchmod(&file, mode).map_err(|error| failed("chmod", &path, error))?;
        }
        let written = File::from(file).write_all(draft.text.as_bytes());
        written.map_err(|source| CertificatesError::Io { what: "write", path, source })
    }

    /// Removes what a run that was killed has left beside a file's place.
    fn discard(&mut self, at: &At) {
        if let Ok(Some(directory)) = self.enter(at.directory) {
            // What cannot be removed is noticed when it is to be made.
            unlinkat(directory, beside(at), AtFlags::empty()).unwrap_or_default();
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&mut self, at: &At) -> Result<(), CertificatesError> {
        let path = self.path_of(at);
        let Some(directory) = self.enter(at.directory)? else { return Ok(()) };
        match unlinkat(directory, &at.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &path, error)),
        }
    }
}

/// Where a file is written before it takes its place.
fn beside(at: &At) -> String {
    format!(".{}.new", at.name)
}

fn directory(from: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<OwnedFd, CertificatesError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(from, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => CertificatesError::refused(
            path,
            "is not a directory (a symbolic link is not followed: name the directory itself)",
        ),
        error => failed("open", path, error),
    })?;
    let stat = fstat(&opened).map_err(|error| failed("examine", path, error))?;
    is_ours(path, stat.st_uid, stat.st_mode)?;
    Ok(opened)
}

/// Whether its owner, who runs this, alone can have put something there.
fn is_ours(path: &Path, owner: u32, mode: u32) -> Result<(), CertificatesError> {
    let uid = rustix::process::geteuid().as_raw();
    if owner != uid {
        let what =
            format!("belongs to uid {owner}, and this runs as uid {uid}: run it as its owner");
        return Err(CertificatesError::refused(path, &what));
    }
    if mode & WRITTEN_BY_OTHERS != 0 {
        let what = format!(
            "has mode {:04o}, so others can write to it: chmod go-w, and see that what is in it is yours",
            mode & 0o7777
        );
        return Err(CertificatesError::refused(path, &what));
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path, error: Errno) -> CertificatesError {
    if error == Errno::LOOP {
        return CertificatesError::refused(path, "is a symbolic link, which is not followed");
    }
    CertificatesError::Io { what, path: path.to_owned(), source: error.into() }
}
