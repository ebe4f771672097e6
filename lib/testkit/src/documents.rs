//! Manual pages and units, as the tools that read them judge them.

use std::path::Path;
use std::process::Command;

use crate::fault::{OrFail as _, OrFault as _};
use crate::programs;
use crate::skip::skipped;

/// Asserts that mandoc has nothing to say against a manual page; without mandoc, says that `test`
/// is skipped.
///
/// # Panics
/// With what mandoc says.
#[track_caller]
pub fn assert_well_formed(test: &str, page: &Path) {
    assert_success(test, "mandoc", &["-T", "lint", "-W", "warning"], page);
}

/// Asserts that `systemd-analyze security` gives a unit at most so many tenths of exposure; without
/// systemd-analyze, says that `test` is skipped.
///
/// # Panics
/// With what systemd-analyze says.
#[track_caller]
pub fn assert_exposure(test: &str, unit: &Path, tenths: u32) {
    let threshold = format!("--threshold={tenths}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    assert_success(test, "systemd-analyze", &arguments, unit);
}

#[track_caller]
fn assert_success(test: &str, tool: &str, arguments: &[&str], file: &Path) {
    let Ok(program) = programs::other(tool) else {
        return skipped(test, &format!("needs {tool}"));
    };
    let output = Command::new(program).args(arguments).arg(file).output();
    let output = output.or_fault(format!("cannot start {tool}")).or_fail();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{tool}: {}: {said}", file.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_finds_fails_the_test() {
        let name = crate::test_name!();
        if programs::other("mandoc").is_err() {
            return skipped(name, "needs mandoc");
        }
        let page = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&page, ".Dd x\n.Sx nowhere\n").unwrap();
        let failed = std::panic::catch_unwind(|| assert_well_formed(name, page.path()));
        assert!(failed.unwrap_err().downcast::<String>().unwrap().contains("mandoc"));
    }
}
