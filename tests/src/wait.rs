//! Waiting for an event, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something, for at most `limit`. The fault says that
/// `what` did not come.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Fault> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > limit {
            return Err(Fault::new(format!("{what}: not within {} s", limit.as_secs_f32())));
        }
        pause();
    }
}

/// A short while, between two looks at something that cannot call.
pub fn pause() {
    thread::park_timeout(PAUSE);
}

/// So long a while. For programs whose work is to wait, and not for readiness.
pub fn nap(time: Duration) {
    thread::park_timeout(time);
}
