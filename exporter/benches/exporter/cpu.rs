//! CPU seconds, user and system together.

use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use procfs::process::Process;

/// What a running program has used so far, all its threads, to 10 ms.
pub(crate) fn of(pid: u32) -> f64 {
    let stat = Process::new(pid as i32).unwrap().stat().unwrap();
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

/// What `command` and all that it waited for used.
pub(crate) fn to_run(command: &mut Command) -> f64 {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
    };
    let before = used();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    used() - before
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
