//! `systemctl reload` that waits for the answer.
//!
//! SIGHUP tells nothing back. So the daemon writes the result of each reload into the file `reload`
//! in its `RUNTIME_DIRECTORY`, and the unit's `ExecReload=` is the program itself (`--reload
//! $MAINPID`), which sends the signal, waits for a new result, and fails with the daemon's reason.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long the daemon may take. systemd's own limit is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the result is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The directory that systemd made for this daemon, if it did.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    let directories = env::var_os("RUNTIME_DIRECTORY")?;
    env::split_paths(&directories).next().filter(|first| first.is_absolute())
}

/// Where the daemon writes how its reloads ended.
#[derive(Debug, Default)]
pub struct Report {
    directory: Option<PathBuf>,
    reloads: AtomicU64,
}

impl Report {
    /// In [`directory`]; without one, nothing is written.
    #[must_use]
    pub fn new() -> Self {
        Self { directory: directory(), reloads: AtomicU64::new(0) }
    }

    /// Writes how a reload has ended: well, or why not. A fault is a warning in the log: the reload
    /// itself is over.
    pub fn write(&self, fault: Option<&str>) {
        let Some(directory) = &self.directory else { return };
        let count = self.reloads.fetch_add(1, Ordering::Relaxed);
        let text = format!("{} {count}\n{}", std::process::id(), fault.unwrap_or_default());
        // Whole at once, for a reader that comes in between.
        let (new, file) = (directory.join("reload.new"), directory.join("reload"));
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &file)) {
            let file = file.display();
            tracing::warn!(%file, %error, "cannot write the result of the reload");
        }
    }
}

/// Why a reload did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is not run by the unit.
    #[error("--reload is for ExecReload= of the unit: RUNTIME_DIRECTORY is not set")]
    NoDirectory,
    /// There is no such process, or it is not ours.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Its pid.
        pid: u32,
        /// What the system says.
        source: io::Error,
    },
    /// It does not answer.
    #[error("the daemon has not answered within {PATIENCE:?}; its log may say why")]
    Silent,
    /// It stays with the configuration that it had.
    #[error("configuration reload failed; still using the previous configuration: {0}")]
    Refused(String),
}

/// Asks the daemon `pid` to reload, and waits until it has.
pub fn request(pid: u32) -> Result<(), ReloadError> {
    let file = directory().ok_or(ReloadError::NoDirectory)?.join("reload");
    let before = stamp(&file);
    let signalled = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .and_then(|pinned| pidfd_send_signal(pinned, Signal::HUP));
    signalled.map_err(|errno| ReloadError::Signal { pid, source: errno.into() })?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if stamp(&file) != before
            && let Ok(text) = fs::read_to_string(&file)
        {
            let (_, fault) = text.split_once('\n').unwrap_or_default();
            return match fault {
                "" => Ok(()),
                fault => Err(ReloadError::Refused(fault.to_owned())),
            };
        }
        thread::park_timeout(LOOK);
    }
    Err(ReloadError::Silent)
}

/// What changes when a result is written: it is another file each time.
fn stamp(file: &Path) -> Option<(u64, i64, i64, Vec<u8>)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.ino(), meta.ctime(), meta.ctime_nsec(), fs::read(file).ok()?))
}
