//! How long an archive may take: the deadline and the order to stop, asked between chunks; and a
//! line in the log for a copy that takes long.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use super::failure::Failure;
use super::pulse::Pulse;

/// A line a second: the first after one second.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The bounds of one call.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    abort: &'a AtomicBool,
    pulse: &'a Pulse,
    started: Instant,
    allowed: Duration,
    last_line: Instant,
}

impl<'a> Pace<'a> {
    pub(super) fn new(allowed: Duration, abort: &'a AtomicBool, pulse: &'a Pulse) -> Self {
        let started = Instant::now();
        Self { abort, pulse, started, allowed, last_line: started }
    }

    /// The time left.
    pub(super) fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.started.elapsed())
    }

    /// Whether work on `path` may go on. That it is asked is a sign of life.
    pub(super) fn check(&self, path: &Path) -> Result<(), Failure> {
        self.pulse.beat();
        if self.abort.load(Ordering::Relaxed) || self.pulse.is_given_up() {
            return Err(Failure::Aborted { path: path.to_owned() });
        }
        if self.left().is_zero() {
            let allowed_ms = self.allowed.as_millis();
            return Err(Failure::Deadline { path: path.to_owned(), allowed_ms });
        }
        Ok(())
    }

    /// The same before what may take longer than any other call: bringing a file to its disk.
    pub(super) fn check_before_sync(&self, path: &Path) -> Result<(), Failure> {
        self.check(path)?;
        self.pulse.beat_before_sync();
        Ok(())
    }

    /// Logs how far the copy of `path` has come, once a second.
    pub(super) fn progress(&mut self, path: &Path, done: u64, total: u64) {
        if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            tracing::info!(path = %path.display(), done, total, seconds, "copying a mail file");
        }
    }
}

/// Waits for a moment, at most 100 ms. (`poll` for nothing with a time-out: the kernel tells
/// nobody when a lock of another process is released or when its clock ticks.)
pub(super) fn pause(moment: Duration) {
    let nanos = i64::from(moment.subsec_nanos()).min(100_000_000);
    // An interruption shortens the pause, and the caller looks again.
    if let Err(error) = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: nanos })) {
        tracing::trace!(%error, "pause cut short");
    }
}
