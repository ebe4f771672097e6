//! A test that sees no process but those that it starts, and is seen by nobody else's counting:
//! it runs once more, in a pid namespace of its own, where it is pid 1, with a /proc of its own.

use std::env;
use std::process::{Command, Stdio};

use crate::programs;
use crate::skip::{is_root_or_skip, skipped};

/// Set for the test that is inside.
const INSIDE: &str = "PROCSTORM_TEST_INSIDE";

/// Whether we are the one inside. Otherwise test `name` is run there now, and a failure there is
/// one here; without root it is skipped, aloud.
///
/// # Panics
/// If the test fails inside, or cannot be run there.
#[must_use]
#[expect(clippy::panic, clippy::print_stderr, reason = "a test fails by panicking, and prints")]
pub fn in_a_world_apart(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if !is_root_or_skip(name) {
        return false;
    }
    let run = || {
        let mut again = Command::new(programs::other("setpriv")?);
        again.args(["--pdeathsig", "KILL", "--"]).arg(programs::other("unshare")?);
        again.args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--"]);
        let us = env::current_exe().map_err(crate::fault::Fault::new)?;
        // A test that is ignored runs here all the same: it was asked for, or we were not here.
        again.arg(us).args(["--exact", name, "--nocapture", "--include-ignored"]);
        again.env(INSIDE, "1");
        again.stdin(Stdio::null()).output().map_err(crate::fault::Fault::new)
    };
    let says_one_passed = |said: &[u8]| String::from_utf8_lossy(said).contains("1 passed");
    match run() {
        // A name that no test bears would succeed as well.
        Ok(output) if output.status.success() && says_one_passed(&output.stdout) => {
            // Neither what was skipped inside nor the figures that it printed are swallowed.
            let said = String::from_utf8_lossy(&output.stderr);
            for line in said.lines() {
                match skipped_inside(line) {
                    Some((what, why)) => skipped(what, why),
                    None => eprintln!("{line}"),
                }
            }
            false
        }
        Ok(output) => panic!(
            "{name} failed in a world apart ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(fault) => panic!("{name} cannot be run in a world apart: {fault}"),
    }
}

fn skipped_inside(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("SKIPPED: ")?.split_once(": ")
}
