//! `reuse WHAT COUNT`: pids that go to strangers at the worst moments, and who is hit. Prints the
//! counts as JSON. Works in a pid namespace of its own, in which it decides who gets which pid.
//!
//! - [`pins`]: the pid goes to a stranger between pin, check and signal; COUNT rounds of each.
//! - [`traced`]: the same under the whole of `end_storm`, which is halted at its system calls.
//! - [`churn`]: targets and strangers share a few hundred pids, for COUNT milliseconds.

mod churn;
mod people;
mod pins;
mod traced;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_tests::forking;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(io::stderr(), "reuse: {}", fault.whole()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [what, count] = args.as_slice() else {
        return Err(Fault::new("usage: reuse pins|traced|churn COUNT"));
    };
    let count: u32 = count.parse().or_fault("no count")?;
    let work = match what.as_str() {
        "pins" => pins::run,
        "traced" => traced::run,
        "churn" => churn::run,
        _ => return Err(Fault::new("there is no such work")),
    };
    set_parent_process_death_signal(Some(Signal::KILL)).or_fault("cannot die with my parent")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).or_fault("no new namespaces")?;
    let ledger = people::ledger()?;
    let failed = people::ledger()?;
    forking::fork(&ledger, || {
        // The first of the namespace: with it, all of it ends.
        forking::die_with_parent();
        let done = own_proc()
            .and_then(|()| work(count))
            .and_then(|text| writeln!(io::stdout(), "{text}").or_fault("nobody listens"));
        if let Err(fault) = done {
            failed.up.add(1);
            drop(writeln!(io::stderr(), "reuse: {}", fault.whole()));
        }
    });
    wait(WaitOptions::empty()).or_fault("cannot wait")?;
    if failed.up.get() == 0 { Ok(()) } else { Err(Fault::new("it failed in its namespace")) }
}

/// A /proc of this pid namespace.
fn own_proc() -> Result<(), Fault> {
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", all).or_fault("cannot make mounts private")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None).or_fault("cannot mount a /proc")
}
