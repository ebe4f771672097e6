//! One thing that goes on while another happens.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::wait::closely_until_so;

/// Calls `work` again and again on a thread while `scene` runs, which begins when `work` has run
/// once.
///
/// # Panics
/// If `work` does not come to its end even once, or panics.
pub fn meanwhile<T>(mut work: impl FnMut() + Send, scene: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (begun, stop_seen) = (&begun, &stop);
        scope.spawn(move || {
            while !stop_seen.load(Ordering::Relaxed) {
                work();
                begun.store(true, Ordering::Relaxed);
            }
        });
        // Dropped even where the scene panics: the thread would never end otherwise.
        let _stop = Stop(&stop);
        closely_until_so("the work beside the scene has begun", || begun.load(Ordering::Relaxed));
        scene()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn the_work_goes_on_until_the_scene_is_over() {
        let rounds = AtomicU32::new(0);
        let count = || rounds.load(Ordering::Relaxed);
        let work = || {
            rounds.fetch_add(1, Ordering::Relaxed);
        };
        meanwhile(work, || closely_until_so("ten rounds", || count() > 10));
        let after = count();
        std::thread::yield_now();
        assert_eq!(count(), after);
    }
}
