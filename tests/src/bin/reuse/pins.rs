//! The pid goes to a stranger between pin, check and signal.

use std::path::Path;

use procstorm_processes::proc_dir::ProcDir;
use procstorm_remediator::steps::kill::Target;
use procstorm_remediator::steps::kill::pin::{Delivery, Pin};
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_tests::ledger::Ledger;
use rustix::process::Signal;

use crate::people;

/// How many strangers were hit in each order of pin (P), check (C), swap (!) and signal (S).
#[derive(Debug, Default)]
struct Hits {
    /// Ours: P ! C S and P C ! S.
    ours: [u32; 2],
    /// C ! P S: checked first and pinned after.
    checked_first: u32,
    /// C ! S by number.
    by_number: u32,
}

pub(crate) fn run(rounds: u32) -> Result<String, Fault> {
    let proc = ProcDir::open(Path::new("/proc")).or_fault("no /proc")?;
    let (target, ledger) = (people::target()?, people::ledger()?);
    let mut hits = Hits::default();
    for _ in 0..rounds {
        hits.ours[0] += u32::from(pin_swap_check(&proc, &target, &ledger)?);
        hits.ours[1] += u32::from(pin_check_swap(&proc, &target, &ledger)?);
        hits.checked_first += u32::from(check_swap_pin(&proc, &target, &ledger)?);
        hits.by_number += u32::from(check_swap_number(&proc, &target, &ledger)?);
    }
    Ok(serde_json::json!({
        "rounds": rounds,
        "hit_between_pin_and_check": hits.ours[0],
        "hit_between_check_and_signal": hits.ours[1],
        "hit_when_checked_first": hits.checked_first,
        "hit_by_number": hits.by_number,
    })
    .to_string())
}

fn is_target(proc: &ProcDir, pid: i32, target: &Target) -> bool {
    let command = proc.stat(pid).ok().flatten().map(|stat| stat.command);
    proc.owner(pid) == Some(target.uid) && command == Some(target.command)
}

fn pin(pid: i32) -> Result<Pin, Fault> {
    Pin::open(pid).or_fault("no pin")?.ok_or_else(|| Fault::new("nobody to pin"))
}

fn must(holds: bool, what: &str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::new(what)) }
}

fn pin_swap_check(proc: &ProcDir, target: &Target, ledger: &Ledger) -> Result<bool, Fault> {
    let pid = people::make_target(ledger)?;
    let pin = pin(pid)?;
    people::swap(pid, ledger)?;
    must(!is_target(proc, pid, target), "the check took a stranger for the target")?;
    // Even if the check had been deceived.
    must(pin.signal(Signal::KILL) == Delivery::Gone, "the signal found somebody")?;
    Ok(!people::was_unharmed(pid)?)
}

fn pin_check_swap(proc: &ProcDir, target: &Target, ledger: &Ledger) -> Result<bool, Fault> {
    let pid = people::make_target(ledger)?;
    let pin = pin(pid)?;
    must(is_target(proc, pid, target), "the check did not know the target")?;
    people::swap(pid, ledger)?;
    must(pin.signal(Signal::KILL) == Delivery::Gone, "the signal found somebody")?;
    Ok(!people::was_unharmed(pid)?)
}

/// The order that is wrong: it pins the stranger.
fn check_swap_pin(proc: &ProcDir, target: &Target, ledger: &Ledger) -> Result<bool, Fault> {
    let pid = people::make_target(ledger)?;
    must(is_target(proc, pid, target), "the check did not know the target")?;
    people::swap(pid, ledger)?;
    must(pin(pid)?.signal(Signal::KILL) == Delivery::Sent, "nobody was there")?;
    Ok(!people::was_unharmed(pid)?)
}

/// What kill(1), pkill(1) and `ps | xargs kill` do.
fn check_swap_number(proc: &ProcDir, target: &Target, ledger: &Ledger) -> Result<bool, Fault> {
    let pid = people::make_target(ledger)?;
    must(is_target(proc, pid, target), "the check did not know the target")?;
    people::swap(pid, ledger)?;
    must(procstorm_tests::forking::kill_by_number(pid, libc::SIGKILL), "nobody was there")?;
    Ok(!people::was_unharmed(pid)?)
}
