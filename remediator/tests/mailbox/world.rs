//! A mail spool and an archive directory of a test's own, and the users in it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use procstorm_remediator::account::UserName;
use procstorm_remediator::policy::Reserve;
use procstorm_remediator::steps::archive::{Archived, Archiver, Failure, FormReport, Settings};

/// When it is, in the tests that do not care.
pub(crate) const NOW: u64 = 1_700_000_000;

/// A spool with its archive, in a temporary directory or below a given one.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) spool: PathBuf,
    pub(crate) arc: PathBuf,
    /// Not read: removed with the world.
    root: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("procstorm-mail.").tempdir().unwrap();
        let mut world = Self::below(root.path(), root.path());
        // As the original's: /var/mail and /var/mail/arc.
        world.arc = world.spool.join("arc");
        world.root = Some(root);
        world
    }

    /// The spool below one directory, the archive below another.
    pub(crate) fn below(spool: &Path, arc: &Path) -> Self {
        let (spool, arc) = (spool.join("mail"), arc.join("arc"));
        fs::create_dir(&spool).unwrap();
        // As Debian's: everybody may make files, nobody another's.
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o1777)).unwrap();
        Self { spool, arc, root: None }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            spool: self.spool.clone(),
            archive: self.arc.clone(),
            reserve: Reserve::Bytes(0),
            lock_wait: Duration::from_millis(100),
            ..Settings::default()
        }
    }

    pub(crate) fn archiver(&self) -> Archiver {
        Archiver::open(self.settings()).unwrap()
    }

    /// Writes a mail file, owned by `uid`, mode 0600, last changed long before now.
    pub(crate) fn mail(&self, name: &str, uid: u32, content: &[u8]) -> PathBuf {
        let path = self.spool.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }

    /// What is in the archive directory, sorted.
    pub(crate) fn archives(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.arc)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn read(&self, archive: &str) -> Vec<u8> {
        fs::read(self.arc.join(archive)).unwrap()
    }
}

pub(crate) fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// Archives without an order to stop.
pub(crate) fn archive(archiver: &Archiver, name: &str, uid: u32, now: u64) -> Vec<FormReport> {
    archiver.archive(&user(name), uid, now, &AtomicBool::new(false))
}

/// Archives a user with one mail file, which must succeed.
pub(crate) fn archive_one(archiver: &Archiver, name: &str, uid: u32, now: u64) -> Archived {
    archive_result(archiver, name, uid, now).unwrap()
}

/// Archives a user with one mail file.
pub(crate) fn archive_result(
    archiver: &Archiver,
    name: &str,
    uid: u32,
    now: u64,
) -> Result<Archived, Failure> {
    let mut reports = archive(archiver, name, uid, now);
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0).result
}

/// Everything of a file that an archive keeps.
pub(crate) fn kept(path: &Path) -> (u32, u32, u32, u64, (i64, i64)) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mode() & 0o777, meta.uid(), meta.gid(), meta.len(), (meta.mtime(), meta.mtime_nsec()))
}

pub(crate) fn epoch_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Bytes in which every position shows: a copy that shifts, repeats or loses some differs.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut word = 0_u64;
    while bytes.len() < length {
        word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
