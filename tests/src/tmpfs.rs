//! A small file system in memory, which a test can fill or make read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;

/// How long what is still open for writing may keep it from being remounted.
const LIMIT: Duration = Duration::from_secs(60);

/// A mounted tmpfs. Unmounted with the value.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of that size (as mount(8) has it) at `at`, which is made if it is not there, for
    /// its owner alone.
    pub fn mount(at: &Path, size: &str) -> Result<Self, Fault> {
        fs::create_dir_all(at).or_fault(format!("cannot make {}", at.display()))?;
        let options = format!("size={size},mode=700");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], at)?;
        Ok(Self(at.to_owned()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts it again with another option, such as `ro`.
    ///
    /// It is busy as long as a file is open for writing: a process that looks into /proc at a program that
    /// has just ended can hold its memory, and with it its files, a moment longer.
    pub fn remount(&self, option: &str) -> Result<(), Fault> {
        let option = format!("remount,{option}");
        let mut last = Ok(());
        let waited = wait::until("the file system is remounted", LIMIT, || {
            last = mount(&["-o", &option], &self.0);
            last.is_ok().then_some(())
        });
        waited.and(last)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, as a daemon may still be there.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), Fault> {
    let output = Command::new("mount").args(arguments).arg(at).output();
    let output = output.or_fault("cannot start mount")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::new(format!("cannot mount {}: {output:?}", at.display())))
}
