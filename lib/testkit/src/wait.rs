//! Waiting for an event, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::fault::{Fault, OrFail as _};

/// How long a test waits for what must come, on a machine that is slow and has much else to do.
pub const LIMIT: Duration = Duration::from_secs(120);

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
        // Before the look, so that one which itself took long is followed by another.
        let is_last = start.elapsed() > limit;
        if let Some(found) = look() {
            return Ok(found);
        }
        if is_last {
            return Err(Fault::new(format!("{what}: not within {} s", limit.as_secs_f32())));
        }
        pause();
    }
}

/// What `look` finds, within two minutes.
///
/// # Panics
/// If it finds nothing in time.
#[track_caller]
pub fn for_value<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until(what, LIMIT, look).or_fail()
}

/// Waits until `is_so` holds, two minutes at most.
///
/// # Panics
/// If it does not hold in time.
#[track_caller]
pub fn until_so(what: &str, mut is_so: impl FnMut() -> bool) {
    for_value(what, || is_so().then_some(()));
}

/// The same, without a pause between two looks: for a moment that is soon over.
///
/// # Panics
/// If it does not hold in time.
#[track_caller]
pub fn closely_until_so(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        thread::yield_now();
    }
}

/// A short while, between two looks at something that cannot call.
pub fn pause() {
    nap(PAUSE);
}

/// So long a while. For programs whose work is to wait, and for tests whose subject is that time
/// passes; not for readiness.
pub fn nap(time: Duration) {
    let end = Instant::now() + time;
    // A thread that is parked may be woken early.
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_named() {
        let fault = until("the end of the world", Duration::ZERO, || None::<()>).unwrap_err();
        assert_eq!(fault.to_string(), "the end of the world: not within 0 s");
    }

    #[test]
    fn what_came_during_a_long_look_is_seen() {
        let begun = Instant::now();
        let limit = Duration::from_millis(10);
        let look = || {
            let late = begun.elapsed() > limit;
            nap(limit * 2);
            late.then_some(())
        };
        assert!(until("it", limit, look).is_ok());
    }

    #[test]
    fn a_nap_is_not_cut_short() {
        thread::current().unpark();
        let begun = Instant::now();
        nap(Duration::from_millis(30));
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }
}
