//! Pids that go to strangers at the worst moments: nobody else is ever hit.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking, and tell")]

use std::process::Command as Program;

use procstorm_testkit::{needs_root, programs, skip};
use serde_json::Value;

/// What the program `reuse` counted.
fn reuse(what: &str, count: u32) -> Value {
    let output = Program::new(programs::ours("reuse").unwrap())
        .args([what, &count.to_string()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let counts = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("{what} {count}: {counts}");
    counts
}

#[test]
fn a_pin_never_hits_the_stranger_who_got_the_pid() {
    needs_root!();
    let counts = reuse("pins", 1_000);
    assert_eq!(counts["hit_between_pin_and_check"], 0);
    assert_eq!(counts["hit_between_check_and_signal"], 0);
    // That the strangers were really there to be hit is shown by the orders that are wrong.
    assert_eq!(counts["hit_when_checked_first"], 1_000);
    assert_eq!(counts["hit_by_number"], 1_000);
}

#[test]
fn the_whole_never_hits_the_stranger_who_got_the_pid_between_any_two_steps() {
    needs_root!();
    let counts = reuse("traced", 10);
    for moment in ["BeforePin", "AfterPin", "BeforeStop", "BeforeKill"] {
        assert_eq!(counts[moment], 0, "{moment}");
    }
}

#[test]
fn no_stranger_is_hit_where_all_share_a_few_hundred_pids() {
    needs_root!();
    let _turn = crate::whole_machine();
    let counts = reuse("churn", 5_000);
    if let Some(why) = counts["skipped"].as_str() {
        skip!("{why}");
    }
    assert_eq!(counts["ours"]["strangers_hit"], 0);
    assert!(counts["ours"]["targets_hit"].as_u64().unwrap() > 100);
    assert!(counts["ours"]["strangers"].as_u64().unwrap() > 1_000);
}
