//! Says aloud that a test was not run.

use crate::aloud;

/// Whether we are root. If not, says on the real standard error, which the test harness does not
/// swallow, that test `name` is skipped.
#[must_use]
pub fn is_root_or_skip(name: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(name, "needs root");
    }
    root
}

/// Says that test `name` is skipped, and why. `tests/totals.sh` gathers these lines.
pub fn skipped(name: &str, why: &str) {
    aloud::skipped(name, why);
}
