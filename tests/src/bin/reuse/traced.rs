//! The whole of `end_storm`, halted at its system calls: while it stands still, its target's pid
//! goes to a stranger.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;
use procstorm_tests::ledger::Ledger;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::people;

/// When the pid changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The owner was right; now it is pinned.
    BeforePin,
    /// It is pinned; now it is checked.
    AfterPin,
    /// It is pinned and checked; now it is stopped.
    BeforeStop,
    /// It is stopped; now it is killed.
    BeforeKill,
}

const MOMENTS: [Moment; 4] =
    [Moment::BeforePin, Moment::AfterPin, Moment::BeforeStop, Moment::BeforeKill];

pub(crate) fn run(rounds: u32) -> Result<String, Fault> {
    let ledger = people::ledger()?;
    let mut counts = serde_json::Map::new();
    for moment in MOMENTS {
        let mut hit: u32 = 0;
        for _ in 0..rounds {
            hit += u32::from(!is_survived(moment, &ledger)?);
        }
        counts.insert(format!("{moment:?}"), hit.into());
    }
    Ok(serde_json::Value::Object(counts).to_string())
}

/// Whether the stranger who gets the pid at that moment comes to no harm.
fn is_survived(moment: Moment, ledger: &Ledger) -> Result<bool, Fault> {
    let pid = people::make_target(ledger)?;
    let mut command = Command::new(programs::ours("end_storm")?);
    let report = tempfile::NamedTempFile::new().or_fault("no file for the report")?;
    let output = report.reopen().or_fault("no file for the report")?;
    command.args([&people::UID.to_string(), "imapd"]).stdout(Stdio::from(output));
    // Each of its system calls is halted: on a busy machine the default would not suffice.
    command.args(["--deadline-ms", "60000"]);
    let tracee = Pid::from_raw(start_traced(&mut command)?);
    waitpid(tracee, None).or_fault("it does not start")?;
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(tracee, options).or_fault("cannot trace")?;
    let mut swapped = false;
    let mut entered = None;
    loop {
        ptrace::syscall(tracee, None).or_fault("cannot go on")?;
        match waitpid(tracee, None).or_fault("cannot wait")? {
            WaitStatus::PtraceSyscall(_) => {
                let call = call_at(tracee)?;
                let now = moment_of(pid, call, entered);
                entered = call;
                if !swapped && now == Some(moment) {
                    people::swap(pid, ledger)?;
                    swapped = true;
                }
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => {}
        }
    }
    if !swapped {
        let report = std::fs::read_to_string(report.path()).unwrap_or_default();
        return Err(Fault::new(format!("{moment:?} never came; what end_storm reports: {report}")));
    }
    people::was_unharmed(pid)
}

#[expect(unsafe_code, reason = "between fork and exec")]
fn start_traced(command: &mut Command) -> Result<i32, Fault> {
    // On one processor it kills with one hand, the thread that is traced, even while there are so many
    // processes on the machine that two would be worth their while.
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    let start = move || {
        sched_setaffinity(None, &one)?;
        Ok(ptrace::traceme()?)
    };
    // SAFETY: both calls may be made between fork and exec.
    let command = unsafe { command.pre_exec(start) };
    // It is waited for by `waitpid`.
    let child = command.spawn().or_fault("cannot start end_storm")?;
    i32::try_from(child.id()).or_fault("a pid")
}

/// A system call that is entered: its number and its first two arguments.
type Call = (u64, [u64; 2]);

/// The call that the tracee enters; `None` where it leaves one.
#[expect(unsafe_code, reason = "a union of the C library's")]
fn call_at(tracee: Pid) -> Result<Option<Call>, Fault> {
    let info = ptrace::syscall_info(tracee).or_fault("cannot see the call")?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says that this is the one that was filled in.
    let entry = unsafe { info.u.entry };
    Ok(Some((entry.nr, [entry.args[0], entry.args[1]])))
}

/// Which moment this is, with the call that was entered last.
fn moment_of(pid: i32, call: Option<Call>, entered: Option<Call>) -> Option<Moment> {
    let is = |call: Option<Call>, number: i64, place: usize, value: i32| {
        call.is_some_and(|(nr, args)| {
            i64::try_from(nr) == Ok(number)
                && u64::try_from(value).is_ok_and(|value| args.get(place) == Some(&value))
        })
    };
    let (open, signal) = (libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal);
    if is(call, open, 0, pid) {
        Some(Moment::BeforePin)
    } else if call.is_none() && is(entered, open, 0, pid) {
        Some(Moment::AfterPin)
    } else if is(call, signal, 1, libc::SIGSTOP) {
        Some(Moment::BeforeStop)
    } else if is(call, signal, 1, libc::SIGKILL) {
        Some(Moment::BeforeKill)
    } else {
        None
    }
}
