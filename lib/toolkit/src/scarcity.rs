//! When the system has no descriptor or no memory to give.
//!
//! A machine that runs out of both is the one that must be measured. So what a scrape needs is held
//! back for it, and an error that says so is recognised as one that passes.
//!
//! - [`is_shortage`]: whether an error is of this kind.
//! - [`Descriptors`]: some, held for a scrape.
//! - [`room_for_connections`]: how many connections the limit of descriptors allows.
//! - [`allocator`]: address space, reserved for when an allocation would fail.

pub mod allocator;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Whether an error says that the system has no descriptor or no memory at the moment.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::AGAIN];
    let number = error.raw_os_error();
    error.kind() == io::ErrorKind::OutOfMemory
        || shortages.iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Descriptors held between scrapes, so that connections cannot take those that a scrape needs.
#[derive(Debug)]
pub struct Descriptors {
    held: Vec<OwnedFd>,
    wanted: usize,
}

impl Descriptors {
    /// Holds `count` descriptors, or as many as are available.
    #[must_use]
    pub fn hold(count: usize) -> Self {
        let mut descriptors = Self { held: Vec::with_capacity(count), wanted: count };
        descriptors.take_back();
        descriptors
    }

    /// Lets go of them.
    pub fn free(&mut self) {
        self.held.clear();
    }

    /// Takes them back, as far as there are any; the rest after the next scrape.
    pub fn take_back(&mut self) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        while self.held.len() < self.wanted {
            let Ok(descriptor) = openat(CWD, "/", flags, Mode::empty()) else { return };
            self.held.push(descriptor);
        }
    }
}

/// How many connections may be held, so that `kept` of the descriptors that are free now stay free of
/// them: at least one.
pub fn room_for_connections(kept: usize) -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(room(limit, in_use()?, u64::try_from(kept).unwrap_or(u64::MAX)))
}

/// How many descriptors are open: the kernel gives the lowest number that is free.
fn in_use() -> io::Result<u64> {
    let next = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(u64::try_from(next.as_raw_fd()).unwrap_or_default())
}

fn room(limit: u64, in_use: u64, kept: u64) -> usize {
    let room = limit.saturating_sub(in_use).saturating_sub(kept);
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_others_and_there_is_always_one() {
        assert_eq!(room(1024, 20, 16), 988);
        assert_eq!(room(64, 60, 16), 1);
        assert_eq!(room(u64::MAX, 20, 16), usize::MAX - 36);
    }
}
