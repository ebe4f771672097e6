//! Real storms of processes and the library that ends them.
//!
//! - `basics`: exactly the storm ends, and it is proven.
//! - `circumstances`: stuck, frozen and hidden processes, missing rights.
//! - `grace`: SIGTERM, time to exit, then SIGKILL.
//! - `opponents`: storms that fight back.
//! - `reuse`: pids that go to strangers.
//! - `told`: what people hear of storms in containers.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use procstorm_remediator::steps::kill::{self, Bounds, KillVerdict, Report, Target};

mod basics;
mod circumstances;
mod grace;
mod opponents;
mod reuse;
mod told;

/// Held by a test whose storm takes the whole machine: two at once would leave neither kill enough
/// time.
fn whole_machine() -> MutexGuard<'static, ()> {
    static TAKEN: Mutex<()> = Mutex::new(());
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kill, whose report must add up.
fn end_storm(procfs: &Path, target: &Target, bounds: &Bounds, abort: &AtomicBool) -> Report {
    adding_up(kill::end_storm(procfs, target, bounds, abort))
}

/// A report in which each process is counted once, and as one thing.
fn adding_up(report: Report) -> Report {
    let Report { matched, exited, terminated, gone, changed, released, .. } = report;
    let Report { asked, signalled, stuck_count: stuck, replacement_count, .. } = report;
    let sum = exited + terminated + gone + changed + stuck + released;
    assert_eq!(matched, sum, "each that was found ended in one way: {report:?}");
    assert_eq!(signalled, exited + stuck, "each that was killed has exited or not: {report:?}");
    assert!(terminated <= asked && asked <= matched, "{report:?}");
    assert!(replacement_count <= matched, "{report:?}");
    let is_over = matches!(report.verdict, KillVerdict::NoneSeenForMs(_));
    assert!(!is_over || (stuck, released) == (0, 0), "none is seen any more: {report:?}");
    report
}
