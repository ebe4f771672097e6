//! `tests/totals.sh`: what was skipped is named, whole, whatever other tests print meanwhile; a
//! test that fails once and passes twice alone is named, and does not count.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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

/// What stands for cargo: the tests of `failing` fail in its first run of all, and alone as often
/// as `alone` says.
fn run_with(failing: &[&str], alone: u32) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let cargo = dir.path().join("cargo");
    let (names, count) = (failing.join(" "), failing.len());
    let script = format!(
        r#"#!/bin/sh
[ "$1" = test ] || exit 9
case "$*" in *--exact*)
    [ "$*" = "test -p crate --test program -- --exact ${{8}}" ] || exit 9
    echo "$8" >>{dir}/alone
    if [ "$(wc -l <{dir}/alone)" -le {alone} ]; then
        echo "still so"; echo "test result: FAILED. 0 passed; 1 failed; 0 ignored"; exit 101
    fi
    echo "test result: ok. 1 passed; 0 failed; 0 ignored"; exit 0
esac
[ "$*" = "test --workspace --no-fail-fast" ] || exit 9
for name in {names}; do echo "test $name ... FAILED"; done
for name in {names}; do echo "---- $name stdout ----"; done
echo "test result: FAILED. 5 passed; {count} failed; 0 ignored"
echo "error: 1 target failed:"
echo '    `-p crate --test program`'
exit 101
"#,
        dir = dir.path().display(),
    );
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let run = totals(&[cargo.to_str().unwrap(), "test", "--workspace", "--no-fail-fast"]);
    (run.status.code(), String::from_utf8(run.stdout).unwrap())
}

#[test]
fn a_test_that_fails_once_and_passes_twice_alone_is_named_as_unsteady() {
    let (code, said) = run_with(&["a::b", "c"], 0);
    assert_eq!(code, Some(0), "{said}");
    let end = said.split_once("-----\n").unwrap().1;
    for name in ["a::b", "c"] {
        assert!(end.contains(&format!("UNSTEADY: {name} failed")), "{said}");
    }
    assert!(end.contains("tests: 5 passed, 0 failed, 2 unsteady,"), "{said}");
}

#[test]
fn a_test_that_fails_alone_fails() {
    let (code, said) = run_with(&["a::b"], 1);
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("still so"), "why it failed alone is shown: {said}");
    let end = said.split_once("-----\n").unwrap().1;
    assert!(end.contains("test a::b ... FAILED") && !end.contains("UNSTEADY"), "{said}");
    assert!(end.contains("tests: 5 passed, 1 failed, 0 ignored"), "{said}");
}

#[test]
fn many_that_fail_are_no_accident() {
    let (code, said) = run_with(&["a", "b", "c", "d"], 0);
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("tests: 5 passed, 4 failed,") && !said.contains("UNSTEADY"), "{said}");
}

#[test]
fn a_program_that_crashes_is_not_unsteady() {
    let script = "echo 'error: 1 target failed:'; echo '    `-p crate --test program`'; exit 101";
    let run = totals(&["sh", "-c", script]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(101), "{said}");
    assert!(!said.contains("UNSTEADY"), "{said}");
}
