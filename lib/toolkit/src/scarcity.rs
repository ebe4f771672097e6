//! When the system has no descriptor or no memory to give.
//!
//! A machine that runs out of both is the one that must be measured. So what a scrape needs is held
//! back for it, and an error that says so is recognised as one that passes.
//!
//! - [`is_shortage`]: whether an error is of this kind.
//! - [`Descriptors`]: some, held for a scrape.
//! - [`allocator`]: address space, held for whoever needs memory when there is no other.

pub mod allocator;

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Whether an error says that the system has no descriptor or no memory at the moment.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::AGAIN];
    let number = error.raw_os_error();
    error.kind() == io::ErrorKind::OutOfMemory
        || shortages.iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// What a scan holds open at once: the directory, a file in it, and one for the name service.
const HELD: usize = 3;

/// Descriptors held between scans, so that connections cannot take those that a scan needs.
#[derive(Debug)]
pub struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    /// As many as there are to be had, up to what a scan needs.
    #[must_use]
    pub fn hold() -> Self {
        let mut descriptors = Self(Vec::with_capacity(HELD));
        descriptors.take_back();
        descriptors
    }

    /// Lets go of them.
    pub fn free(&mut self) {
        self.0.clear();
    }

    /// Takes them back, as far as there are any; the rest after the next scan.
    pub fn take_back(&mut self) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        while self.0.len() < HELD {
            let Ok(descriptor) = openat(CWD, "/", flags, Mode::empty()) else { return };
            self.0.push(descriptor);
        }
    }
}
