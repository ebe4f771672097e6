//! A /proc directory, opened once: the pids in it, and what it says of each.
//!
//! A process that has vanished between two reads is ordinary: it is `None`, never an error.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, openat, seek, statat};
use rustix::io::Errno;

use crate::process::Stat;

/// The longest line of `/proc/PID/stat`: 52 fields of at most 20 digits, and the command.
const STAT_LINE_MAX: usize = 2048;

/// A /proc directory (or a fixture that looks like one), held open.
#[derive(Debug)]
pub struct ProcDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl ProcDir {
    /// Opens the directory at `path`. Fails as `open(2)` does.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `visit` with every pid, as the directory is read in bites of `buffer`'s size: a
    /// small buffer meets short-lived processes while they live, a large one needs fewer calls.
    /// The first error of `visit` ends the walk. Not for two threads at once on one `ProcDir`,
    /// since a directory has one reading position.
    pub fn pids<E: From<Errno>>(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        mut visit: impl FnMut(&Self, i32) -> Result<(), E>,
    ) -> Result<(), E> {
        seek(&self.fd, SeekFrom::Start(0))?;
        let mut entries = RawDir::new(&self.fd, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or_default();
            if let Ok(pid) = name.parse() {
                visit(self, pid)?;
            }
        }
        Ok(())
    }

    /// The effective uid of a process: the owner of its directory, which stays right for a
    /// process that is not dumpable, whose files inside then show root.
    #[must_use]
    pub fn owner(&self, pid: i32) -> Option<u32> {
        let mut name = [0; 11];
        let name = decimal(pid, &mut name);
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_uid)
    }

    /// What `/proc/PID/stat` says of a process. An error is one of rights or of the file system;
    /// a process that is gone is `Ok(None)`.
    pub fn stat(&self, pid: i32) -> io::Result<Option<Stat>> {
        let file = match openat(
            &self.fd,
            format!("{pid}/stat"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut line = [0; STAT_LINE_MAX];
        match rustix::io::read(&file, &mut line) {
            Ok(length) => Ok(line.get(..length).and_then(Stat::parse)),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether other users' processes are hidden from us (`hidepid`): pid 1 is always there.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        !matches!(self.stat(1), Ok(Some(_)))
    }
}

/// `pid` in digits, without an allocation.
fn decimal(pid: i32, buffer: &mut [u8; 11]) -> &str {
    let mut rest = pid.unsigned_abs();
    let mut start = buffer.len();
    for digit in buffer.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        start -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    buffer.get(start..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default()
}
