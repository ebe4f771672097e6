//! Storms that fight back. The judge is a counter of forks in shared memory, and the end of a
//! pipe that each of their processes holds; never a scan.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking, and tell")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::{Bounds, KillVerdict, Report, Target, survey};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, skip};
use procstorm_tests::opponent::Opponent;

use crate::end_storm;

const SOON: Duration = Duration::from_secs(60);
const WHILE: Duration = Duration::from_millis(300);

/// The default bounds, but for the time that a busy machine may take.
fn unhurried() -> Bounds {
    Bounds { deadline: Duration::from_secs(60), ..Bounds::default() }
}

/// The same for a respawner that a busy machine keeps from its work: whoever looks for longer sees
/// it all the same, and need not fight for as many rounds.
fn patient() -> Bounds {
    Bounds { rounds: 5, confirm_pause: Duration::from_secs(1), ..unhurried() }
}

fn end(uid: u32, bounds: &Bounds) -> Report {
    let target = Target { uid, command: Command::new(b"imapd").unwrap() };
    end_storm(Path::new("/proc"), &target, bounds, &AtomicBool::new(false))
}

fn tell(what: &str, opponent: &Opponent, before: u64, report: &Report) {
    eprintln!(
        "{what}: {} in {} rounds, {} ms; killed {}, replacements {}, forks meanwhile {}",
        report.verdict.label(),
        report.rounds,
        report.elapsed.as_millis(),
        report.signalled,
        report.replacement_count,
        opponent.forks().saturating_sub(before),
    );
}

/// Ends an opponent that can be ended, several times over, and has it judged.
fn beat(role: &str, uid: u32, count: usize, extra: &str, times: u32) -> Vec<Report> {
    let fight = |_| {
        let opponent = Opponent::start(role, uid, b"imapd", count, extra).unwrap();
        let before = opponent.forks();
        let report = end(uid, &unhurried());
        tell(role, &opponent, before, &report);
        assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
        assert!(opponent.are_gone_within(SOON), "{role}: some live: {report:?}");
        assert!(opponent.fork_none_for(WHILE), "{role}: some still fork: {report:?}");
        assert!(report.signalled > 0, "{report:?}");
        report
    };
    (0..times).map(fight).collect()
}

/// A respawner of another identity cannot be beaten, since it is nobody's target. What can be
/// asked for is the truth.
fn face(uid: u32, delay: &str, bounds: &Bounds) -> Report {
    let opponent = Opponent::start("respawner", uid, b"imapd", 50, delay).unwrap();
    let before = opponent.forks();
    let report = end(uid, bounds);
    tell(&format!("respawner after {delay} ms"), &opponent, before, &report);
    if matches!(report.verdict, KillVerdict::Respawning) {
        // A busy machine may have kept it from its work for a moment.
        assert!(report.left != Some(0) || !opponent.fork_none_for(SOON), "{report:?}");
        assert!(report.replacement_count > 0 && !report.replacements.is_empty(), "{report:?}");
        let parents = report.replacements.iter().map(|replacement| &replacement.parent_command);
        assert!(parents.filter(|parent| *parent == "respawner").count() > 0, "{report:?}");
    }
    report
}

#[test]
fn a_respawner_without_delay_is_called_one() {
    needs_root!();
    let uid = claim_uid();
    let report = face(uid, "0", &patient());
    assert_eq!(report.verdict, KillVerdict::Respawning);
}

#[test]
fn a_respawner_after_5_ms_is_called_one() {
    needs_root!();
    let uid = claim_uid();
    let report = face(uid, "5", &patient());
    assert_eq!(report.verdict, KillVerdict::Respawning);
}

#[test]
fn a_respawner_after_200_ms_outlasts_the_scans_and_no_more_is_claimed_than_was_seen() {
    needs_root!();
    let [uid, other] = claim_uids();
    let report = face(uid, "200", &unhurried());
    if let KillVerdict::NoneSeenForMs(ms) = report.verdict {
        assert!(u128::from(ms) <= report.elapsed.as_millis(), "{report:?}");
    } else {
        assert_eq!(report.verdict, KillVerdict::Respawning);
    }
    // Whoever looks for longer sees it.
    assert_eq!(face(other, "200", &patient()).verdict, KillVerdict::Respawning);
}

#[test]
fn a_respawner_of_the_same_identity_is_beaten() {
    needs_root!();
    let uid = claim_uid();
    for delay in ["0", "5"] {
        beat("master", uid, 50, delay, 6);
    }
}

#[test]
fn a_hydra_among_thousands_is_beaten_without_a_replacement() {
    needs_root!();
    let _turn = crate::whole_machine();
    // So many that several threads share the work: none may kill before all have stopped theirs.
    let (uid, crowd) = (claim_uid(), 1_100);
    let sleepers = Opponent::start("sleepers", uid, b"imapd", crowd, "").unwrap();
    let hydra = Opponent::start("hydra", uid, b"imapd", 50, "").unwrap();
    let before = hydra.forks();
    let report = end(uid, &unhurried());
    tell("hydra among thousands", &hydra, before, &report);
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert!(sleepers.are_gone_within(SOON) && hydra.are_gone_within(SOON), "{report:?}");
    assert_eq!((hydra.forks(), report.replacement_count), (before, 0));
    assert_eq!(report.exited, u64::try_from(crowd).unwrap() + 50);
}

#[test]
fn a_hydra_is_beaten_without_a_replacement() {
    needs_root!();
    let uid = claim_uid();
    let reports = beat("hydra", uid, 50, "", 6);
    assert!(reports.iter().all(|report| report.replacement_count == 0));
}

#[test]
fn chains_of_forks_are_beaten() {
    needs_root!();
    let _turn = crate::whole_machine();
    let uid = claim_uid();
    for count in [1, 4] {
        beat("chains", uid, count, "", 9);
    }
}

#[test]
fn chains_of_forks_that_may_not_be_ended_are_never_called_gone() {
    needs_root!();
    let uid = claim_uid();
    let opponent = Opponent::start("chains", uid, b"imapd", 4, "").unwrap();
    for _ in 0..20 {
        let before = opponent.forks();
        let report = end(uid, &Bounds { signals: 0, ..unhurried() });
        tell("chains, no signals", &opponent, before, &report);
        let is_true = matches!(report.verdict, KillVerdict::Unfinished | KillVerdict::Respawning);
        assert!(is_true && report.signalled == 0, "{report:?}");
    }
    assert!(!opponent.fork_none_for(SOON), "they live on");
}

#[test]
fn whoever_changes_the_name_when_stopped_is_let_go_and_never_called_killed() {
    needs_root!();
    let uid = claim_uid();
    // On a busy machine their companion may come too late: then it is tried with others.
    let (opponent, report) = (0..20)
        .find_map(|_| {
            let opponent = Opponent::start("evaders", uid, b"imapd", 30, "").unwrap();
            let report = end(uid, &Bounds { threshold: 20, ..unhurried() });
            tell("evaders", &opponent, opponent.forks(), &report);
            assert_eq!(report.matched, 30, "{report:?}");
            assert_eq!(report.exited + report.changed, 30, "one or the other: {report:?}");
            (report.changed > 0).then_some((opponent, report))
        })
        .unwrap();
    assert_eq!((&report.verdict, report.left), (&KillVerdict::Evaded, Some(0)), "{report:?}");
    let known = |command: &str| ["innocent", ""].contains(&command);
    assert!(report.changed_to.iter().all(|one| known(&one.command)), "{report:?}");
    assert!(!opponent.are_gone_within(Duration::ZERO), "they live on");
}

/// Who runs and is let go on by another whenever it is stopped is waited for; but not beyond the
/// deadline, and what is left then is a count.
#[test]
fn whoever_is_let_go_on_all_the_time_holds_nothing_up_beyond_the_deadline() {
    needs_root!();
    for deadline in [300, 1_000, 5_000] {
        let uid = claim_uid();
        let opponent = Opponent::start("resumed", uid, b"imapd", 100, "").unwrap();
        let deadline = Duration::from_millis(deadline);
        // Nothing but the deadline can end it.
        let (rounds, signals) = (u32::MAX, u64::MAX);
        let report = end(uid, &Bounds { deadline, rounds, signals, ..Bounds::default() });
        tell("resumed", &opponent, opponent.forks(), &report);
        // What is held up is held up without an end; a busy machine needs some seconds.
        assert!(report.elapsed < deadline + SOON, "{report:?}");
        let target = Target { uid, command: Command::new(b"imapd").unwrap() };
        let living = survey(Path::new("/proc"), &target).unwrap().living;
        // Whoever was sent SIGKILL may go in between, and nobody comes.
        let living = u64::try_from(living.len()).unwrap();
        assert!(report.left.is_none_or(|left| left >= living), "{living} live: {report:?}");
        assert!(report.left != Some(0) || living == 0, "{living} live: {report:?}");
    }
}

/// Why reading the clock, or every program, is much slower here than on a mail server; if it is.
fn slow() -> Option<String> {
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let clock = std::fs::read_to_string(clock).unwrap_or_default();
    if ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "xen"].contains(&clock.trim()) {
        return Some(format!("the clock source is {}", clock.trim()));
    }
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    processor.contains("QEMU TCG").then(|| "the processor is emulated".to_owned())
}

#[test]
fn a_fork_bomb_is_beaten() {
    needs_root!();
    let _turn = crate::whole_machine();
    let uid = claim_uid();
    // Who forks reads no clock, who counts and kills does, again and again.
    if let Some(why) = slow() {
        skip!("this machine is too slow: {why}");
    }
    beat("bomb", uid, 200, "", 3);
}
