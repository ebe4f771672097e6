//! A shared lock on a mail file: while we hold it, a mail program that locks waits for us.
//!
//! An open file description lock, not a process's: it goes with our descriptor, and closing
//! another descriptor of the same file elsewhere in the daemon does not release it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::failure::Failure;
use super::pace::{Pace, pause};

/// How long between two tries.
const RETRY: Duration = Duration::from_millis(20);

/// Tries to lock `file` for up to `patience`. `Ok(false)` if another program holds it all that
/// time, or if the file system has no locks: the copy is then made all the same.
pub(super) fn lock_shared(
    file: &File,
    path: &Path,
    patience: Duration,
    pace: &Pace<'_>,
) -> Result<bool, Failure> {
    let started = Instant::now();
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK))) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the mail file");
                return Ok(false);
            }
        }
        pace.check(path)?;
        if started.elapsed() >= patience {
            return Ok(false);
        }
        pause(RETRY);
    }
}

/// Takes an exclusive lock on `file`, which goes with it. Fails with `EAGAIN` or `EACCES` if
/// another program holds one, with another error where the file system has none.
pub(super) fn lock_exclusive(file: &File) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).map(drop)
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
