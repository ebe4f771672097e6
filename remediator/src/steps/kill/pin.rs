//! A process held by a pidfd. The only place of the program that sends a signal.
//!
//! The order is the whole point: pin, then check, then signal through the pin. What the check
//! reads is about a pid, and the pid is the pinned process's as long as that one lives; if it has
//! died and its pid has gone to a stranger, the check may read the stranger, but the signal goes
//! to the pin, and so to no process. (Checking first and pinning after would pin the stranger.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use procstorm_processes::namespaces::PidfdView;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// A process held by a pidfd: the one that had the pid when the pin was made.
#[derive(Debug)]
pub struct Pin {
    fd: OwnedFd,
    pid: i32,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// It was sent.
    Sent,
    /// The process is gone.
    Gone,
    /// We have no right to signal it.
    Denied,
}

impl Pin {
    /// Pins the process that bears `pid` now. `None` where there is none. Fails where there are
    /// no descriptors left (`EMFILE`, `ENFILE`) or no memory.
    pub fn open(pid: i32) -> Result<Option<Self>, Errno> {
        let Some(raw) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Ok(None) };
        match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { fd, pid })),
            // EINVAL and ENOENT: a thread's number, or a thread that leads no process any more.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes room for that many pins in the table of descriptors, which never shrinks. It would
    /// grow to that by doubling, and in a process of several threads the kernel waits for a grace
    /// period of RCU each time, while none of them can open anything (`expand_fdtable` in its
    /// `fs/file.c`): 50 ms in all for 5,000 pins. Where it cannot be done, it is only slower.
    pub(super) fn reserve(count: usize) {
        let Ok(count) = i32::try_from(count) else { return };
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        drop(own.and_then(|own| fcntl_dupfd_cloexec(&own, count)));
    }

    /// The pid it was pinned by.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal to the pinned process, or to none. Any refusal of the kernel other than
    /// "gone" counts as denied.
    pub fn signal(&self, signal: Signal) -> Delivery {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Delivery::Sent,
            Err(Errno::SRCH) => Delivery::Gone,
            Err(_) => Delivery::Denied,
        }
    }

    /// Waits for the process to exit, at most so long. A zombie has exited; a process whose first
    /// thread alone has exited has not.
    #[must_use]
    pub fn has_exited_within(&self, wait: Duration) -> bool {
        let timeout = Timespec::try_from(wait).ok();
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        // An interrupted or failed wait is "not yet": the caller looks again until its deadline.
        poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Which of these processes have exited, as [`has_exited_within`](Self::has_exited_within) has it,
    /// in the order of `pins`: one call for all. Where that fails, for lack of memory or of a limit that allows so many, each
    /// is asked alone.
    pub(super) fn exited<'a>(pins: impl IntoIterator<Item = &'a Self>) -> Vec<i32> {
        let pins: Vec<&Self> = pins.into_iter().collect();
        let mut fds: Vec<_> = pins.iter().map(|pin| PollFd::new(&pin.fd, PollFlags::IN)).collect();
        if poll(&mut fds, Some(&Timespec::default())).is_err() {
            let alone = pins.iter().filter(|pin| pin.has_exited_within(Duration::ZERO));
            return alone.map(|pin| pin.pid).collect();
        }
        let seen = pins.iter().zip(&fds);
        seen.filter(|(_, fd)| !fd.revents().is_empty()).map(|(pin, _)| pin.pid).collect()
    }

    /// Whether the pinned process lives in a pid namespace below the one of the /proc that
    /// `view` is of. `None` if it is gone.
    pub fn is_nested(&self, view: &mut PidfdView) -> io::Result<Option<bool>> {
        Ok(view.nesting(&self.fd)?.map(|depth| depth > 1))
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits for a while in which nothing can happen that we would hear of.
pub(super) fn pause(time: Duration) {
    // An interrupted pause is a short one: the scans after it count all the same, and their
    // verdict says how long they really took.
    let _interrupted = poll(&mut [], Timespec::try_from(time).ok().as_ref());
}
