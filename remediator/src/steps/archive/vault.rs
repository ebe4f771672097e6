//! The archive directory: ours alone, so that what is in it is what we put there.
//!
//! A copy is made in a file without a name (`O_TMPFILE`) and gets its name when it is complete,
//! by a link that never replaces anything. Where the file system cannot do that, the file has a
//! name beginning with [`PARTIAL`] until then, which no archive can have, and which is cleaned
//! up at the next start.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, fsync, linkat, mkdirat, openat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;

use crate::account::UserName;

use super::failure::{Failure, OpenError};
use super::form::{archive_name, archive_second, parse_archive_name};
use super::lock::lock_exclusive;
use super::mark::Mark;
use super::place::open_directory;
use super::pulse::Pulse;
use super::spool::Spool;
use super::version::Version;

/// How much of two files is compared at a time.
const COMPARED: usize = 256 << 10;
/// How many seconds after the wanted one are tried when names are taken.
const MORE_NAMES: u64 = 63;
/// What a nameless file is called where there are none. No user's name begins with a dot.
const PARTIAL: &str = ".procstorm-partial.";
/// The owner's rights to list, write in and search the directory.
const OWN_RIGHTS: u32 = 0o700;
/// Permission bits of the directory that only the owner may have.
const OTHERS: u32 = 0o077;

/// The archive directory, open.
#[derive(Debug)]
pub(super) struct Vault {
    dir: OwnedFd,
    path: PathBuf,
    marks: bool,
}

/// An unfinished copy. Dropping the value removes it unless it was placed.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    pub(super) file: File,
    partial: Option<Partial<'a>>,
}

/// The name of an unfinished copy. Dropping the value removes it.
#[derive(Debug)]
struct Partial<'a> {
    dir: &'a OwnedFd,
    name: String,
}

/// An archive that is there.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) second: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// What it takes on the disk, in bytes.
    pub(super) allocated: u64,
    pub(super) mark: Option<Mark>,
}

impl Vault {
    /// Opens the directory at `path`, and makes it (0700) if it is missing. It must belong to
    /// root or to us and be closed to all others, and must not be the spool.
    pub(super) fn open(path: &Path, spool: &Spool) -> Result<Self, OpenError> {
        let failed = |action| move |source| OpenError::Io { action, path: path.to_owned(), source };
        let open = || open_directory(path, "open the archive directory");
        let dir = match open() {
            // Made only if it is missing: mkdir(2) waits for a frozen file system even where the
            // directory exists.
            Err(OpenError::Io { source: Errno::NOENT, .. }) => {
                match mkdirat(CWD, path, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => open()?,
                    Err(errno) => return Err(failed("make the archive directory")(errno)),
                }
            }
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&dir).map_err(failed("stat"))?;
        let spool = rustix::fs::fstat(spool.dir()).map_err(failed("compare the spool with"))?;
        let path = path.to_owned();
        if (stat.st_dev, stat.st_ino) == (spool.st_dev, spool.st_ino) {
            return Err(OpenError::Same { path });
        }
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(OpenError::Owner { path, owner: stat.st_uid });
        }
        if stat.st_mode & OTHERS != 0 {
            return Err(OpenError::Mode { path, mode: stat.st_mode & 0o7777 });
        }
        let vault = Self { marks: Mark::is_supported(&dir), dir, path };
        vault.clear_partials();
        Ok(vault)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether archives here have marks, so that a file without one is not ours.
    pub(super) fn has_marks(&self) -> bool {
        self.marks
    }

    /// A new, empty file for a copy, which no other program can see or open.
    pub(super) fn stage(&self) -> Result<Staged<'_>, Failure> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&self.dir, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Staged { file: file.into(), partial: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                self.stage_named()
            }
            Err(errno) => Err(self.no_file(errno)),
        }
    }

    /// Whether a copy could be made now: makes the file of one, and lets it go. Only that tells;
    /// the directory may be another's, on a disk that is full or read-only, or closed by a sandbox.
    pub(super) fn probe(&self) -> Result<(), Failure> {
        self.stage().map(drop)
    }

    /// Why no file can be made here: `errno`, and what is behind it if the directory tells.
    fn no_file(&self, errno: Errno) -> Failure {
        let uid = rustix::process::geteuid().as_raw();
        let path = self.path.clone();
        match (errno, rustix::fs::fstat(&self.dir)) {
            (Errno::ACCESS | Errno::PERM, Ok(stat)) if stat.st_uid != uid => {
                Failure::NotOurs { path, owner: stat.st_uid, uid, source: errno }
            }
            // Ours, and open to us: then it is not the directory's mode that forbids it.
            (Errno::ACCESS, Ok(stat)) if stat.st_mode & OWN_RIGHTS == OWN_RIGHTS => {
                Failure::Closed { path, source: errno }
            }
            _ => Failure::of("make a file in", path, errno),
        }
    }

    fn stage_named(&self) -> Result<Staged<'_>, Failure> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..=MORE_NAMES {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PARTIAL}{}.{count}", std::process::id());
            let file = openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|errno| self.no_file(errno))?;
            let file = File::from(file);
            let partial = Partial { dir: &self.dir, name };
            // Another may have taken it for a predecessor's before it was locked, and removed it.
            let is_ours = match lock_exclusive(&file) {
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => false,
                Ok(()) => file.metadata().is_ok_and(|meta| meta.nlink() > 0),
                Err(error) => {
                    tracing::debug!(name = partial.name, %error, "could not lock an unfinished copy");
                    true
                }
            };
            if is_ours {
                return Ok(Staged { file, partial: Some(partial) });
            }
        }
        let path = self.path.join(PARTIAL);
        Err(Failure::Collisions { path, more: MORE_NAMES })
    }

    /// Removes what a predecessor left half-made. One that is locked is being made at this
    /// moment, by another daemon.
    fn clear_partials(&self) {
        let names = self.names().unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(PARTIAL)) {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = openat(&self.dir, name, flags, Mode::empty()) else { continue };
            let file = File::from(file);
            if lock_exclusive(&file).is_ok() {
                drop(Partial { dir: &self.dir, name: name.clone() });
            }
        }
    }

    /// Gives a complete copy its name: `U.SECOND`, or the first free second after it. The name
    /// is on the disk when this returns.
    pub(super) fn place(
        &self,
        staged: Staged<'_>,
        user: &UserName,
        first_second: u64,
    ) -> Result<PathBuf, Failure> {
        let mut staged = staged;
        for more in 0..=MORE_NAMES {
            let name = archive_name(user, first_second.saturating_add(more));
            match self.link(&mut staged, &name) {
                Ok(()) => {
                    self.sync()?;
                    return Ok(self.path_of(&name));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::of("link", self.path_of(&name), errno)),
            }
        }
        let path = self.path_of(&archive_name(user, first_second));
        Err(Failure::Collisions { path, more: MORE_NAMES })
    }

    fn link(&self, staged: &mut Staged<'_>, name: &str) -> Result<(), Errno> {
        let Some(partial) = &staged.partial else {
            // By the descriptor itself where we have the right to that, by /proc otherwise.
            return match linkat(&staged.file, "", &self.dir, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT | Errno::PERM) => {
                    let fd = format!("/proc/self/fd/{}", staged.file.as_raw_fd());
                    linkat(CWD, fd, &self.dir, name, AtFlags::SYMLINK_FOLLOW)
                }
                other => other,
            };
        };
        match renameat_with(partial.dir, &partial.name, &self.dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // The old name is gone: nothing is left to remove.
                if let Some(partial) = staged.partial.take() {
                    std::mem::forget(partial);
                }
                Ok(())
            }
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(partial.dir, &partial.name, &self.dir, name, AtFlags::empty())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Makes names made and removed lasting.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        fsync(&self.dir).map_err(|errno| Failure::of("sync", &self.path, errno))
    }

    /// Removes an archive.
    pub(super) fn remove(&self, name: &str) -> Result<(), Failure> {
        unlinkat(&self.dir, name, AtFlags::empty())
            .map_err(|errno| Failure::of("remove", self.path_of(name), errno))
    }

    /// The user's archives, the newest first: regular files with exactly the right names.
    pub(super) fn archives_of(&self, user: &UserName) -> Result<Vec<Stored>, Failure> {
        let names = self.names()?.into_iter();
        let ours = names.filter_map(|name| Some((archive_second(user, &name)?, name)));
        Ok(self.look_at(ours.collect()))
    }

    /// The archives of these seconds and names, the newest first.
    pub(super) fn look_at(&self, names: Vec<(u64, String)>) -> Vec<Stored> {
        let names = names.into_iter();
        let mut archives: Vec<Stored> =
            names.filter_map(|(second, name)| self.stored(name, second)).collect();
        archives.sort_unstable_by_key(|stored| std::cmp::Reverse(stored.second));
        archives
    }

    /// The seconds and names of all archives, by their users.
    pub(super) fn by_user(&self) -> Result<BTreeMap<UserName, Vec<(u64, String)>>, Failure> {
        let mut users: BTreeMap<UserName, Vec<(u64, String)>> = BTreeMap::new();
        for name in self.names()? {
            if let Some((user, second)) = parse_archive_name(&name) {
                users.entry(user).or_default().push((second, name));
            }
        }
        Ok(users)
    }

    /// Whether the archive's content is that of `file`, read from both now.
    pub(super) fn holds(&self, stored: &Stored, file: &File, pulse: &Pulse) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(archive) = openat(&self.dir, &stored.name, flags, Mode::empty()) else {
            return false;
        };
        is_same_content(&File::from(archive), file, pulse).unwrap_or(false)
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        let failed = |errno| Failure::of("list", &self.path, errno);
        let entries = Dir::read_from(&self.dir).map_err(failed)?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // A name that is not text is none of ours.
            if let Ok(name) = entry.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn stored(&self, name: String, second: u64) -> Option<Stored> {
        let stat = statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.dir, &name, flags, Mode::empty()).ok().map(File::from);
        let meta = file.as_ref().and_then(|file| file.metadata().ok());
        Some(Stored {
            name,
            second,
            bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            allocated: meta.as_ref().map_or(0, allocated),
            mark: file.and_then(Mark::read),
        })
    }
}

/// Whether both files have the same bytes.
fn is_same_content(one: &File, other: &File, pulse: &Pulse) -> std::io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; COMPARED], vec![0; COMPARED]);
    let mut offset = 0;
    loop {
        pulse.beat();
        let read = one.read_at(&mut ours, offset)?;
        let (Some(ours), Some(theirs)) = (ours.get(..read), theirs.get_mut(..read.max(1))) else {
            return Ok(false);
        };
        if read == 0 {
            // Whether the other one ends here, too.
            return Ok(other.read_at(theirs, offset)? == 0);
        }
        if other.read_exact_at(theirs, offset).is_err() || ours != theirs {
            return Ok(false);
        }
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}

impl Stored {
    /// Whether this is a copy of that file in a state that looked like that one.
    pub(super) fn may_be_copy_of(&self, version: &Version) -> bool {
        self.bytes == version.size && self.mark.is_some_and(|mark| mark.version == *version)
    }

    /// Whether this is a whole copy of exactly that state of that file.
    pub(super) fn is_copy_of(&self, version: &Version) -> bool {
        self.bytes == version.size
            && self.mark.is_some_and(|mark| mark.steady && mark.version == *version)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // It may have been removed as a predecessor's.
        if let Err(error) = unlinkat(self.dir, &self.name, AtFlags::empty())
            && error != Errno::NOENT
        {
            tracing::warn!(name = self.name, %error, "could not remove an unfinished copy");
        }
    }
}

impl AsFd for Vault {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// What a file takes on its disk, in bytes. (`st_blocks` counts 512 bytes on every file system.)
pub(super) fn allocated(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vault() -> (tempfile::TempDir, Vault) {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        let vault = Vault::open(&root.path().join("arc"), &spool).unwrap();
        (root, vault)
    }

    fn names(vault: &Vault) -> Vec<String> {
        let mut names = vault.names().unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    #[test]
    fn without_nameless_files_a_copy_has_a_name_that_no_archive_has() {
        let (_root, vault) = vault();
        let alice = UserName::new("alice").unwrap();
        fs::write(vault.path_of("alice.7"), "old").unwrap();

        let mut staged = vault.stage_named().unwrap();
        staged.file.write_all(b"mail").unwrap();
        let partial = names(&vault).remove(0);
        assert!(partial.starts_with(PARTIAL), "{partial}");
        assert_eq!(parse_archive_name(&partial), None);
        let mode = fs::metadata(vault.path_of(&partial)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let path = vault.place(staged, &alice, 7).unwrap();
        assert_eq!(path, vault.path_of("alice.8"));
        assert_eq!(fs::read(path).unwrap(), b"mail");
        assert_eq!(fs::read(vault.path_of("alice.7")).unwrap(), b"old");
        assert_eq!(names(&vault), ["alice.7", "alice.8"]);

        drop(vault.stage_named().unwrap());
        assert_eq!(names(&vault), ["alice.7", "alice.8"]);
    }

    #[test]
    fn what_a_predecessor_left_half_made_is_removed_at_the_start() {
        let (root, vault) = vault();
        fs::write(vault.path_of(&format!("{PARTIAL}1.0")), "half").unwrap();
        fs::write(vault.path_of("alice.7"), "whole").unwrap();
        let at_work = vault.stage_named().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        let next = Vault::open(&root.path().join("arc"), &spool).unwrap();
        assert_eq!(names(&next).len(), 2, "{:?}", names(&next));
        drop(at_work);
        assert_eq!(names(&next), ["alice.7"]);
    }

    #[test]
    fn a_nameless_file_is_never_seen() {
        let (_root, vault) = vault();
        let staged = vault.stage().unwrap();
        assert!(names(&vault).is_empty());
        let path = vault.place(staged, &UserName::new("a").unwrap(), 1).unwrap();
        assert_eq!(names(&vault), ["a.1"]);
        assert_eq!(path, vault.path_of("a.1"));
    }
}
