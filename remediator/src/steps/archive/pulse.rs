//! A sign of life of work on a file system that may stop answering in the middle of any call.
//!
//! A thread that waits for such a file system cannot be stopped. So it records between its calls
//! that it is alive, and another thread checks how long ago that was.

use crate::steps::millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one call may take: that of a disk that has much else to do, but not longer than a storm
/// can wait.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// How long it may take to bring what was written to the disk.
const SYNC_MAX: Duration = Duration::from_secs(40);

/// The pulse of one piece of work. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Pulse {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    begun: Instant,
    /// Until when the next sign of life is due, in milliseconds after the beginning.
    due: AtomicU64,
    given_up: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        let inner = Inner {
            begun: Instant::now(),
            due: AtomicU64::new(millis(QUIET_MAX)),
            given_up: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Pulse {
    /// A sign of life: the call before has returned, the next one begins.
    pub fn beat(&self) {
        self.next_due_after(QUIET_MAX);
    }

    /// The same, before a call that may well take longer than others.
    pub(super) fn beat_before_sync(&self) {
        self.next_due_after(SYNC_MAX);
    }

    fn next_due_after(&self, time: Duration) {
        let due = self.inner.begun.elapsed().saturating_add(time);
        self.inner.due.store(millis(due), Ordering::Relaxed);
    }

    /// Since when the work is under way.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.inner.begun.elapsed()
    }

    /// Whether it has been given up, or a call takes longer than any should.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_given_up()
            || millis(self.inner.begun.elapsed()) > self.inner.due.load(Ordering::Relaxed)
    }

    /// The caller has stopped waiting for the work. If it ever goes on, it ends at its next step.
    pub fn give_up(&self) {
        self.inner.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether the caller has stopped waiting for the work.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.inner.given_up.load(Ordering::Relaxed)
    }
}
