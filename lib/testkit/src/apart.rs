//! A test in a process of its own: because it changes what all threads of a process share, such as
//! limits or a sandbox, or because it must see no process but those that it starts.

use std::env;
use std::process::{Command, Output, Stdio};

use crate::fault::{Fault, OrFault as _};
use crate::programs;
use crate::skip::{is_root, skipped};

/// Set for the test that is inside.
const INSIDE: &str = "PROCSTORM_TEST_INSIDE";

/// Runs the test that this stands in once more, as pid 1 of a pid namespace of its own with a /proc
/// of its own, and returns; inside, goes on. It sees no process but those that it starts, and no
/// other program's counting sees those. Skipped unless it runs as root.
#[macro_export]
macro_rules! in_a_world_apart {
    () => {
        if !$crate::apart::is_inside_or_ran($crate::test_name!()) {
            return $crate::skip::Passed::passed();
        }
    };
}

/// As [`in_a_world_apart!`](crate::in_a_world_apart), and in a network namespace of its own too, in
/// which even the loopback is down.
#[macro_export]
macro_rules! in_a_network_apart {
    () => {
        if !$crate::apart::is_inside_or_ran_with($crate::test_name!(), &["--net"]) {
            return $crate::skip::Passed::passed();
        }
    };
}

/// For [`in_a_world_apart!`](crate::in_a_world_apart): whether we are the one inside. Otherwise
/// runs test `name` there.
///
/// # Panics
/// If the test fails inside, or cannot be run there.
#[must_use]
pub fn is_inside_or_ran(name: &str) -> bool {
    is_inside_or_ran_with(name, &[])
}

/// The same, in the `further` namespaces as well, each an option of unshare(1).
///
/// # Panics
/// If the test fails inside, or cannot be run there.
#[must_use]
pub fn is_inside_or_ran_with(name: &str, further: &[&str]) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if is_root() {
        // A test that is ignored runs there all the same: it was asked for, or we were not here.
        run(
            name,
            &["--include-ignored"],
            in_namespaces(further).map(|mut unshare| {
                unshare.env(INSIDE, "1");
                unshare
            }),
        );
    } else {
        skipped(name, "needs root");
    }
    false
}

/// Runs the ignored test `name` of this program in a process of its own, with `set` in its
/// environment; [`test_name!`](crate::test_name) knows the name of a function.
///
/// # Panics
/// If it fails, or cannot be run.
pub fn run_ignored(name: &str, set: impl FnOnce(&mut Command)) {
    let command = this_program().map(|mut command| {
        set(&mut command);
        command
    });
    run(name, &["--ignored"], command);
}

/// A command that runs this program, in namespaces of its own, in which it is killed if we are.
fn in_namespaces(further: &[&str]) -> Result<Command, Fault> {
    let mut command = Command::new(programs::other("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(programs::other("unshare")?);
    command.args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]).args(further);
    command.arg("--");
    command.arg(env::current_exe().or_fault("cannot tell where this program is")?);
    Ok(command)
}

fn this_program() -> Result<Command, Fault> {
    env::current_exe().map(Command::new).or_fault("cannot tell where this program is")
}

#[expect(clippy::panic, clippy::print_stderr, reason = "a test fails by panicking, and prints")]
fn run(name: &str, further: &[&str], command: Result<Command, Fault>) {
    let output = command.and_then(|mut command| {
        command.args(["--exact", name, "--nocapture"]).args(further);
        command.stdin(Stdio::null()).output().or_fault("cannot start it")
    });
    let output = output.unwrap_or_else(|fault| panic!("{name} cannot be run apart: {fault:?}"));
    // A name that no test bears would succeed as well.
    if !output.status.success() || !said(&output).contains("1 passed") {
        panic!("{name} failed apart ({}):\n{}", output.status, said(&output));
    }
    // Neither what was skipped inside nor the figures that it printed are swallowed.
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        match skipped_inside(line) {
            Some((what, why)) => skipped(what, why),
            None => eprintln!("{line}"),
        }
    }
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn skipped_inside(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("SKIPPED: ")?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn inside_no_process_is_seen_but_our_own() {
        crate::in_a_world_apart!();
        assert_eq!(std::process::id(), 1);
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| pid(entry.unwrap()));
        assert_eq!(pids.collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_fails_apart_fails_here() {
        let failed = std::panic::catch_unwind(|| run_ignored(crate::test_name!(fails), |_| {}));
        let said = *failed.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("so it does"), "{said}");
        let none = std::panic::catch_unwind(|| run_ignored("no_such_test", |_| {}));
        assert!(none.is_err(), "no test of that name");
    }

    #[test]
    #[ignore = "run by what_fails_apart_fails_here"]
    fn fails() {
        panic!("so it does");
    }
}
