//! `tests/totals.sh`: what was skipped is named, whole, whatever other tests print meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use procstorm_testkit::{programs, skip, test_name};

/// What stands for a run of cargo: this test program again, which skips something.
const INSIDE: &str = "PROCSTORM_TEST_SKIPS";

fn totals(arguments: &[&str]) -> Output {
    Command::new(programs::project().join("tests/totals.sh"))
        .args(arguments)
        .env(INSIDE, "1")
        .output()
        .unwrap()
}

#[test]
fn what_is_skipped_is_named_at_the_end_and_cargo_is_answered_for() {
    let us = std::env::current_exe().unwrap();
    let test = test_name!(one_that_is_skipped);
    let run = totals(&[us.to_str().unwrap(), "--ignored", "--exact", test]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}");
    let (log, end) = said.split_once("-----\n").unwrap();
    let line = format!("SKIPPED: {test}: needs the moon");
    // The harness has begun its line, and what is skipped does not go on with it.
    assert!(log.lines().any(|found| found == line), "{said}");
    assert!(end.lines().any(|found| found == line), "{said}");
    let totals = "tests: 1 passed, 0 failed, 0 ignored, 1 lines of what was skipped";
    assert_eq!(end.lines().last(), Some(totals), "{said}");
}

#[test]
#[ignore = "run by what_is_skipped_is_named_at_the_end_and_cargo_is_answered_for"]
fn one_that_is_skipped() {
    if std::env::var_os(INSIDE).is_some() {
        skip!("needs {}", "the moon");
    }
}

#[test]
fn what_other_tests_print_does_not_tear_it() {
    // As two tests print at once: a line that another's output ends, and one that begins late.
    let script = "printf 'SKIPPED: a: needs b\\nSKIPPED: c: needs d\\n' >>\"$PROCSTORM_SKIPPED\"
        printf 'SKIPPED: a: netest x ... ok\\ntest y ... SKIPPED: c: needs d\\n'; exit 7";
    let run = totals(&["sh", "-c", script]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(7));
    let end = said.split_once("-----\n").unwrap().1;
    assert!(
        end.contains("SKIPPED: a: needs b\n") && end.contains("SKIPPED: c: needs d\n"),
        "{end}"
    );
}
