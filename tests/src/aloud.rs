//! Says that a test was not run, where it cannot be overlooked. The tests of each package include
//! this file, since the test harness swallows what `eprintln!` says in a test that passes.

use std::fs::File;
use std::io::Write as _;

/// Says that `test` is skipped, and why: on the real standard error, and in the file that
/// `PROCSTORM_SKIPPED` names, if it does, which `tests/totals.sh` prints at the end.
///
/// Each is one write(2), the first on a line of its own, so that no other test's output tears it.
pub(crate) fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}\n");
    // Nothing can be done about a standard error that is closed, or a file that is gone.
    drop(std::io::stderr().write_all(format!("\n{line}").as_bytes()));
    if let Some(path) = std::env::var_os("PROCSTORM_SKIPPED") {
        let file = File::options().append(true).open(path);
        drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }
}
