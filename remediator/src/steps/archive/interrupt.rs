//! The signals by which a person or the system ends a program, held back while a mailbox is between
//! two states.
//!
//! Ended in the middle, it would leave half a message, and a lock that stops the user's mail.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Holds the signals back from this thread, and tells whether one has come. With its value gone, it
/// is as it was. Only for a program of one thread: any other would still be ended by them.
#[derive(Debug)]
pub(super) struct Interrupts {
    before: SigSet,
    /// `None` where they could not be held back.
    arrivals: Option<SignalFd>,
}

impl Interrupts {
    /// Begins to hold them back.
    pub(super) fn hold() -> Self {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
            .into_iter()
            .collect();
        let before = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let held = set.thread_block().and_then(|()| SignalFd::with_flags(&set, flags));
        if let Err(error) = &held {
            tracing::warn!(%error, "could not block signals; do not interrupt");
        }
        Self { before, arrivals: held.ok() }
    }

    /// Whether one has come since it was asked last.
    pub(super) fn any(&self) -> bool {
        let next = self.arrivals.as_ref().map(SignalFd::read_signal);
        next.is_some_and(|next| matches!(next, Ok(Some(_))))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        if let Err(error) = self.before.thread_set_mask() {
            tracing::warn!(%error, "could not unblock signals");
        }
    }
}
