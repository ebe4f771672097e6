//! Targets and strangers share a few hundred pids, and each lives for a moment.

use std::ffi::CStr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::ProcDir;
use procstorm_remediator::steps::kill::{Bounds, end_storm};
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait::nap;
use procstorm_tests::forking::{
    become_user, die_with_parent, exit, fork, kill_by_number, set_name,
};
use procstorm_tests::ledger::Ledger;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::people;

/// The kernel allows no less than 301.
const PID_MAX: u32 = 350;

/// How long each of them lives.
const LIFE: Duration = Duration::from_micros(500);

/// How many targets must have been hit, and how many strangers spared, for a contest to show
/// anything; it goes on until then, on a slow machine for longer, but not for ever.
const TARGETS_HIT: u64 = 200;
const STRANGERS: u64 = 2_000;
const LIMIT: Duration = Duration::from_secs(120);

/// How many nurseries there are of each kind.
const NURSERIES: usize = 3;

/// What became of those that one kind of nursery has made.
struct Fates {
    /// `up` counts the children, `over` those that were hit by a signal.
    ledger: Ledger,
}

pub(crate) fn run(milliseconds: u32) -> Result<String, Fault> {
    if !has_own_pid_max()? {
        return Ok(serde_json::json!({ "skipped": "needs Linux 6.14" }).to_string());
    }
    std::fs::write("/proc/sys/kernel/pid_max", PID_MAX.to_string()).or_fault("no pid_max")?;
    let time = Duration::from_millis(u64::from(milliseconds));
    let ours = contest(time, ours)?;
    let naive = contest(time, by_number)?;
    Ok(serde_json::json!({ "ours": ours, "by_number": naive }).to_string())
}

/// Since Linux 6.14 each pid namespace has its own `pid_max`; before, there was only the
/// machine's, which is not ours to change.
fn has_own_pid_max() -> Result<bool, Fault> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").or_fault("no release")?;
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(version >= (6, 14))
}

/// Lets `kill` work against a crowd for that time at least.
fn contest(time: Duration, kill: fn() -> Result<(), Fault>) -> Result<serde_json::Value, Fault> {
    let targets = Fates { ledger: people::ledger()? };
    let strangers = Fates { ledger: people::ledger()? };
    let mut nurseries = Vec::new();
    for _ in 0..NURSERIES {
        nurseries.push(nursery(&targets, people::UID, c"imapd")?);
        nurseries.push(nursery(&strangers, people::STRANGER, c"imapd")?);
        nurseries.push(nursery(&strangers, people::UID, c"other")?);
    }
    let begun = Instant::now();
    let mut runs: u32 = 0;
    let is_telling =
        || targets.ledger.over.get() >= TARGETS_HIT && strangers.ledger.up.get() >= STRANGERS;
    while begun.elapsed() < time || (!is_telling() && begun.elapsed() < LIMIT) {
        kill()?;
        runs += 1;
    }
    for pid in nurseries {
        people::end(pid)?;
    }
    Ok(serde_json::json!({
        "runs": runs,
        "targets": targets.ledger.up.get(),
        "targets_hit": targets.ledger.over.get(),
        "strangers": strangers.ledger.up.get(),
        "strangers_hit": strangers.ledger.over.get(),
    }))
}

/// Makes children that exit by themselves, and counts those that do not, or are stopped.
fn nursery(fates: &Fates, uid: u32, name: &CStr) -> Result<i32, Fault> {
    let ledger = &fates.ledger;
    let raise = || {
        set_name(c"nursery");
        die_with_parent();
        loop {
            let child = fork(ledger, || {
                if become_user(uid, name).is_ok() {
                    nap(LIFE);
                    exit()
                }
            });
            let Some(pid) = child else {
                nap(LIFE);
                continue;
            };
            ledger.up.add(1);
            ledger.over.add(u64::from(is_hit(pid)));
        }
    };
    fork(ledger, raise).ok_or_else(|| Fault::new("cannot fork"))
}

/// Waits for a child to end, and says whether any signal has ended or stopped it.
fn is_hit(pid: i32) -> bool {
    let mut hit = false;
    while let Ok(Some((_, status))) = waitpid(Pid::from_raw(pid), WaitOptions::UNTRACED) {
        hit |= !status.exited();
        if !status.stopped() {
            break;
        }
    }
    hit
}

fn ours() -> Result<(), Fault> {
    let target = people::target()?;
    let bounds = Bounds { deadline: Duration::from_millis(300), ..Bounds::default() };
    end_storm(Path::new("/proc"), &target, &bounds, &AtomicBool::new(false));
    Ok(())
}

/// One `ps | xargs kill -9`: lists first, and signals the numbers after.
fn by_number() -> Result<(), Fault> {
    let target = people::target()?;
    let mut proc = ProcDir::open(Path::new("/proc")).or_fault("no /proc")?;
    let mut listed = Vec::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    proc.pids(&mut buffer, |proc, pid| -> std::io::Result<()> {
        let command = proc.stat(pid)?.map(|stat| stat.command);
        if proc.owner(pid) == Some(target.uid) && command == Some(target.command) {
            listed.push(pid);
        }
        Ok(())
    })
    .or_fault("cannot read /proc")?;
    for pid in listed {
        kill_by_number(pid, libc::SIGKILL);
    }
    Ok(())
}
