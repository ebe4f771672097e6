//! A mail spool and an archive directory of a test's own, and the users in it.

#![allow(dead_code, reason = "each test file uses its part of the world")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use procstorm_remediator::account::UserName;
use procstorm_remediator::policy::Reserve;
use procstorm_remediator::steps::archive::{Archived, Archiver, Failure, FormReport, Settings};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

#[path = "../../../tests/src/aloud.rs"]
pub(crate) mod aloud;

/// When it is, in the tests that do not care.
pub(crate) const NOW: u64 = 1_700_000_000;

/// Says so loudly if we are not root; tests with users of their own cannot run then.
pub(crate) fn skipped_unless_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        aloud::skipped(test, "needs root");
    }
    !root
}

/// Runs `scene` on a thread with mounts of its own: whatever it mounts is gone with the thread,
/// even if it panics or the whole program is killed.
pub(crate) fn with_own_mounts(scene: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare_mounts();
        scene();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn unshare_mounts() {
    // Not for shared descriptors or memory: mounts alone.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).unwrap();
}

/// A file system of a test's own, unmounted with its value.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl std::ops::Deref for Disk {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Makes a file system of `kind` in a file below `root` and mounts it there, in the mounts of
/// this thread. `None`, said loudly, if there is no program to make one.
pub(crate) fn disk(root: &Path, kind: &str, megabytes: u64) -> Option<Disk> {
    let image = root.join(format!("{kind}.{megabytes}.img"));
    fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
    let mkfs = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
    match mkfs {
        Err(error) => {
            aloud::skipped(kind, &format!("mkfs.{kind}: {error}"));
            return None;
        }
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
    let place = root.join(format!("{kind}.{megabytes}"));
    fs::create_dir(&place).unwrap();
    let mount = Command::new("mount").args(["-o", "loop"]).args([&image, &place]).output();
    let mount = mount.unwrap();
    assert!(mount.status.success(), "{mount:?}");
    Some(Disk(place))
}

/// Calls `work` again and again on a thread while `scene` runs.
pub(crate) fn meanwhile<T>(mut work: impl FnMut() + Send, scene: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (begun, stop_seen) = (&begun, &stop);
        scope.spawn(move || {
            while !stop_seen.load(Ordering::Relaxed) {
                work();
                begun.store(true, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        until("the writer is at work", || begun.load(Ordering::Relaxed));
        scene()
    })
}

/// A file system in memory (`tmpfs` or `ramfs`), mounted below `root`.
pub(crate) fn memory(root: &Path, kind: &str) -> Disk {
    let place = root.join(kind);
    fs::create_dir(&place).unwrap();
    let mount = Command::new("mount").args(["-t", kind, kind]).arg(&place).status();
    assert!(mount.unwrap().success());
    Disk(place)
}

/// Waits for a moment (in tests whose subject is that time passes).
pub(crate) fn pass(moment: Duration) {
    let moment = rustix::event::Timespec::try_from(moment).unwrap();
    rustix::event::poll(&mut [], Some(&moment)).unwrap();
}

/// Waits until `event`, a minute at most.
pub(crate) fn until(what: &str, mut event: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !event() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::yield_now();
    }
}

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
