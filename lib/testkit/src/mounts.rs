//! File systems of a test's own, in mounts of its own. All of it needs root.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::fault::{Fault, OrFail as _, OrFault as _};
use crate::skip::skipped;

/// Runs `scene` on a thread with mounts of its own: whatever it mounts is gone with the thread,
/// even if it panics or the whole program is killed.
///
/// # Panics
/// If `scene` does, or if the kernel gives no mounts of our own.
pub fn with_own_mounts(scene: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        own_mounts();
        scene();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn own_mounts() {
    // Mounts alone: descriptors and memory stay shared.
    let own = unshare(CloneFlags::CLONE_NEWNS).or_fault("cannot have mounts of our own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    own.and_then(|()| mount_change("/", private).or_fault("cannot keep our mounts to ourselves"))
        .or_fail();
}

/// A mounted file system, unmounted with its value.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Deref for Disk {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where it fails, the mount ends with the thread that has it.
        unmount(&self.0, UnmountFlags::DETACH).unwrap_or_default();
    }
}

/// Makes a file system of `kind` in a file below `root`, and mounts it there. `None`,
/// said as skipped, if this machine has no program to make one.
///
/// # Panics
/// If it cannot be made or mounted.
#[must_use]
#[track_caller]
pub fn disk(root: &Path, kind: &str, megabytes: u64) -> Option<Disk> {
    make_disk(root, kind, megabytes).or_fail()
}

/// A file system in memory (`tmpfs` or `ramfs`), mounted below `root`.
///
/// # Panics
/// If it cannot be mounted.
#[must_use]
#[track_caller]
pub fn memory(root: &Path, kind: &str) -> Disk {
    make_memory(root, kind).or_fail()
}

fn make_disk(root: &Path, kind: &str, megabytes: u64) -> Result<Option<Disk>, Fault> {
    let image = root.join(format!("{kind}.{megabytes}.img"));
    let file = fs::File::create(&image).and_then(|file| file.set_len(megabytes << 20));
    file.or_fault(format!("cannot make {}", image.display()))?;
    let mkfs = format!("mkfs.{kind}");
    match Command::new(&mkfs).arg("-q").arg(&image).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skipped(&format!("a test on {kind}"), &format!("needs {mkfs}"));
            return Ok(None);
        }
        Err(error) => return Err(error).or_fault(format!("cannot start {mkfs}")),
        Ok(made) if !made.status.success() => return Err(Fault::new(format!("{mkfs}: {made:?}"))),
        Ok(_) => {}
    }
    let place = root.join(format!("{kind}.{megabytes}"));
    fs::create_dir(&place).or_fault(format!("cannot make {}", place.display()))?;
    mount(Command::new("mount").args(["-o", "loop"]).arg(&image), place).map(Some)
}

fn make_memory(root: &Path, kind: &str) -> Result<Disk, Fault> {
    let place = root.join(kind);
    fs::create_dir(&place).or_fault(format!("cannot make {}", place.display()))?;
    mount(Command::new("mount").args(["-t", kind, kind]), place)
}

fn mount(command: &mut Command, place: PathBuf) -> Result<Disk, Fault> {
    let mounted = command.arg(&place).output().or_fault("cannot start mount")?;
    if mounted.status.success() {
        return Ok(Disk(place));
    }
    Err(Fault::new(format!("cannot mount {}: {mounted:?}", place.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_seen_by_its_own_thread_and_gone_with_its_value() {
        crate::needs_root!();
        let root = tempfile::tempdir().unwrap();
        let below = root.path().to_owned();
        with_own_mounts(move || {
            let disk = memory(&below, "tmpfs");
            fs::write(disk.join("file"), "x").unwrap();
            let elsewhere = below.join("tmpfs/file");
            let seen = std::thread::spawn({
                let elsewhere = elsewhere.clone();
                move || elsewhere.exists()
            });
            assert!(seen.join().unwrap(), "a thread that is begun here has these mounts");
            drop(disk);
            assert!(!elsewhere.exists());
            let _stays = memory(&below, "ramfs");
        });
        assert_eq!(fs::read_dir(root.path().join("ramfs")).unwrap().count(), 0);
    }
}
