//! Storms that are asked first: SIGTERM, time to exit, and SIGKILL for those that have not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::pin::{Delivery, Pin};
use procstorm_remediator::steps::kill::{Bounds, KillVerdict, Report, Target, survey};
use procstorm_testkit::fault::Fault;
use procstorm_testkit::needs_root;
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::wait;
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::opponent::Opponent;
use rustix::process::Signal;
use serde_json::Value;

use crate::{adding_up, end_storm};

const SOON: Duration = Duration::from_secs(60);

fn target(uid: u32) -> Target {
    Target { uid, command: Command::new(b"imapd").unwrap() }
}

/// With what a busy machine may take besides.
fn bounds(grace: Duration) -> Bounds {
    Bounds { grace, deadline: SOON, ..Bounds::default() }
}

fn end(uid: u32, bounds: &Bounds) -> Report {
    end_storm(Path::new("/proc"), &target(uid), bounds, &AtomicBool::new(false))
}

#[test]
fn those_that_exit_on_sigterm_are_not_killed_and_finish_what_they_do() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("polite", uid, b"imapd", 50, "200").unwrap();
    let before = survey(Path::new("/proc"), &target(uid)).unwrap().living;
    let report = end(uid, &bounds(SOON));
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.matched, report.asked, report.terminated), (50, 50, 50), "{report:?}");
    assert_eq!((report.signalled, report.exited, report.left), (0, 0, Some(0)), "{report:?}");
    assert_eq!(storm.ledger().up.get(), 100, "each has tidied up");
    let said: BTreeSet<i32> = report.pids.iter().copied().collect();
    assert_eq!(said, before.into_iter().collect(), "the journal names them all");
    assert!(report.elapsed < SOON, "nobody waits for the whole grace: {report:?}");
}

#[test]
fn without_a_grace_they_are_killed_at_once() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("polite", uid, b"imapd", 20, "0").unwrap();
    let report = end(uid, &bounds(Duration::ZERO));
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert_eq!((report.asked, report.terminated, report.exited), (0, 0, 20), "{report:?}");
    assert_eq!(storm.ledger().up.get(), 20, "none had the time");
}

#[test]
fn a_storm_that_ignores_sigterm_ends_a_grace_later() {
    needs_root!();
    let uid = claim_uid();
    let grace = Duration::from_millis(700);
    let deaf = Opponent::start("deaf", uid, b"imapd", 20, "").unwrap();
    let others = Opponent::start("polite", uid, b"imapd", 20, "0").unwrap();
    let report = end(uid, &bounds(grace));
    assert!(deaf.are_gone_within(SOON) && others.are_gone_within(SOON), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.matched, report.asked), (40, 40), "{report:?}");
    // On a busy machine one of the polite may need longer than it has.
    assert!(report.exited >= 20 && report.ended() == 40, "{report:?}");
    assert!(report.elapsed >= grace, "{report:?}");
    assert_eq!(report.pids.len(), 40, "each is named once: {report:?}");
}

#[test]
fn a_storm_that_forks_on_sigterm_ends_as_surely() {
    needs_root!();
    let _turn = crate::whole_machine();
    let uid = claim_uid();
    let storm = Opponent::start("breeders", uid, b"imapd", 20, "").unwrap();
    let report = end(uid, &bounds(Duration::from_millis(500)));
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert!(storm.fork_none_for(Duration::from_millis(300)), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!(report.ended(), report.matched, "{report:?}");
    assert!(report.replacement_count > 0 && report.exited > 0, "{report:?}");
}

#[test]
fn opponents_that_watch_each_other_are_beaten_with_a_grace_too() {
    needs_root!();
    let _turn = crate::whole_machine();
    let uid = claim_uid();
    for (role, count, extra) in [("hydra", 50, ""), ("master", 50, "0"), ("bomb", 200, "")] {
        let storm = Opponent::start(role, uid, b"imapd", count, extra).unwrap();
        let report = end(uid, &bounds(Duration::from_millis(500)));
        assert!(storm.are_gone_within(SOON), "{role}: {report:?}");
        assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{role}: {report:?}");
    }
}

#[test]
fn those_that_are_stopped_already_go_on_to_exit() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("polite", uid, b"imapd", 10, "0").unwrap();
    for pid in survey(Path::new("/proc"), &target(uid)).unwrap().living {
        let pin = Pin::open(pid).unwrap().unwrap();
        assert_eq!(pin.signal(Signal::STOP), Delivery::Sent);
    }
    let report = end(uid, &bounds(SOON));
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert_eq!((report.terminated, report.signalled), (10, 0), "{report:?}");
}

#[test]
fn whoever_changes_all_the_time_is_asked_under_the_right_name_and_uid_alone() {
    needs_root!();
    let [uid, stranger] = claim_uids();
    let other = stranger.to_string();
    let innocent = Target { uid, command: Command::new(b"innocent").unwrap() };
    let mut asked = 0;
    for (role, extra, other) in
        [("renamers", "innocent", innocent), ("switchers", other.as_str(), target(stranger))]
            .repeat(3)
    {
        let storm = Opponent::start(role, uid, b"imapd", 8, extra).unwrap();
        let report = end(uid, &bounds(Duration::from_millis(500)));
        // Nobody reaps them: the dead still bear what they were ended under.
        let dead = survey(Path::new("/proc"), &other).unwrap().zombies;
        assert_eq!(dead, [], "{role}: {report:?}");
        asked += report.terminated;
        drop(storm);
    }
    assert!(asked > 0);
}

#[test]
fn a_client_that_reconnects_is_not_fought_for_ever() {
    needs_root!();
    let uid = claim_uid();
    for grace in [Duration::ZERO, Duration::from_millis(300), SOON] {
        let clients = Opponent::start("reconnecting", uid, b"imapd", 30, "").unwrap();
        // A busy server may be so slow that it is seen in none of the scans.
        let confirm_pause = Duration::from_secs(1);
        let report = end(uid, &Bounds { threshold: 20, confirm_pause, ..bounds(grace) });
        assert_eq!(report.verdict, KillVerdict::BelowThreshold, "{report:?}");
        assert!(report.rounds <= 6 && report.ended() >= 32, "{report:?}");
        assert!(report.left.is_some_and(|left| left <= 1), "{report:?}");
        assert!(report.replacements.iter().any(|one| one.parent_command == "server"));
        // A session that comes while the grace lasts may rewrite a mail file like any other.
        assert!(grace < SOON || report.signalled == 0, "SIGTERM for newcomers: {report:?}");
        drop(clients);
    }
}

/// A user who stays at one process for three rounds, and then forks again, is fought on.
#[test]
fn whoever_lies_low_and_then_comes_back_in_strength_is_ended_in_the_same_kill() {
    needs_root!();
    let uid = claim_uid();
    for grace in [Duration::ZERO, Duration::from_millis(300), SOON] {
        // A busy server may be so slow that it is seen in none of the scans.
        let confirm_pause = Duration::from_secs(1);
        let bounds = Bounds { threshold: 20, confirm_pause, ..bounds(grace) };
        // On a busy machine they may come back too late: then it is tried with others.
        let report = (0..20)
            .find_map(|_| {
                let storm = Opponent::start("lurkers", uid, b"imapd", 30, "3").unwrap();
                let report = end(uid, &bounds);
                drop(storm);
                (report.ended() >= 60).then_some(report)
            })
            .unwrap();
        assert_eq!(report.verdict, KillVerdict::BelowThreshold, "{report:?}");
        // All of them twice, and one at a time between and after.
        assert!(report.ended() >= 65 && report.rounds >= 7, "{report:?}");
        assert!(report.left.is_some_and(|left| left <= 1), "{report:?}");
    }
}

/// Fewer than the threshold do not exit, one always comes back, and once nobody is fought any more,
/// others come that make it a storm again.
#[test]
fn whoever_joins_those_that_ignore_sigterm_saves_neither() {
    needs_root!();
    let uid = claim_uid();
    let grace = Duration::from_secs(15);
    let bounds = Bounds { threshold: 20, confirm_pause: Duration::from_secs(1), ..bounds(grace) };
    let fight = |_| {
        let deaf = Opponent::start("deaf", uid, b"imapd", 15, "").unwrap();
        let clients = Opponent::start("reconnecting", uid, b"imapd", 10, "").unwrap();
        let (report, joined) = thread::scope(|scope| {
            let ending = scope.spawn(|| end(uid, &bounds));
            wait::until("few come back", SOON, || (clients.forks() > 12).then_some(())).unwrap();
            let is_left_alone = || clients.fork_none_for(Duration::from_millis(700)).then_some(());
            wait::until("they are let be", SOON, is_left_alone).unwrap();
            let joined = Opponent::start("deaf", uid, b"imapd", 15, "").unwrap();
            let are_in_time = !deaf.are_gone_within(Duration::ZERO);
            (ending.join().unwrap(), are_in_time.then_some(joined))
        });
        assert!(deaf.are_gone_within(SOON), "{report:?}");
        Some((report, joined?))
    };
    // On a busy machine they may join when the grace is over: then it is tried with others.
    let (report, joined) = (0..4).find_map(fight).unwrap();
    assert!(joined.are_gone_within(SOON), "{report:?}");
    assert_eq!(report.verdict, KillVerdict::BelowThreshold, "{report:?}");
}

/// All come back each time, as many as before: that is a storm.
#[test]
fn a_server_that_replaces_all_is_respawning_and_no_less() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("respawner", uid, b"imapd", 50, "0").unwrap();
    let bounds = Bounds {
        threshold: 20,
        rounds: 6,
        confirm_pause: Duration::from_secs(1),
        ..bounds(Duration::from_millis(300))
    };
    let report = end(uid, &bounds);
    assert_eq!(report.verdict, KillVerdict::Respawning, "{report:?}");
    drop(storm);
}

#[test]
fn hundreds_are_asked_with_few_descriptors() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("polite", uid, b"imapd", 300, "20").unwrap();
    let program = procstorm_testkit::programs::ours("end_storm").unwrap();
    let output = std::process::Command::new(program)
        .args([&uid.to_string(), "imapd", "--deadline-ms", "60000", "--grace-ms", "20000"])
        .args(["--descriptors", "64"])
        .output()
        .unwrap();
    let report: Report = adding_up(serde_json::from_slice(&output.stdout).unwrap());
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.terminated, report.signalled), (300, 0), "{report:?}");
    assert_eq!(storm.ledger().up.get(), 600, "each has tidied up");
}

#[test]
fn the_grace_belongs_to_the_deadline_and_nothing_goes_on_beyond_both() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("deaf", uid, b"imapd", 30, "").unwrap();
    let grace = Duration::from_millis(500);
    let bounds = Bounds { deadline: Duration::ZERO, ..bounds(grace) };
    let report = end(uid, &bounds);
    assert!(report.elapsed < grace + Duration::from_secs(20), "{report:?}");
    // Those that are held when the deadline comes are still killed.
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    let target = target(uid);
    let living = survey(Path::new("/proc"), &target).unwrap();
    assert!(living.stopped.is_empty(), "nobody is left stopped");
    assert!(report.left.is_none_or(|left| left >= u64::try_from(living.living.len()).unwrap()));
    drop(storm);
}

/// How many went by SIGTERM, and how many by SIGKILL, as the description of an outcome says.
fn ways(description: &str) -> Option<(u32, u32)> {
    let before = |what| description.split(what).next()?.rsplit(' ').next()?.parse().ok();
    Some((before(" by SIGTERM")?, before(" by SIGKILL")?))
}

fn text<'v>(post: &'v Value, name: &str) -> &'v str {
    post.get("annotations").and_then(|all| all.get(name)).and_then(Value::as_str).unwrap_or("")
}

#[test]
fn by_default_a_playbook_asks_first_and_says_how_many_went_by_which() -> Result<(), Fault> {
    needs_root!();
    let (uid, command) = (claim_uid(), "core-grace");
    let receiver = Receiver::start()?;
    let quick = "    settle: 0s\n    cooldown: 0s";
    let host = Host::start(command, quick, &receiver.line())?;
    let polite = Opponent::start("polite", uid, command.as_bytes(), 8, "0")?;
    let deaf = Opponent::start("deaf", uid, command.as_bytes(), 3, "")?;
    let polite_up = || f64::from(u32::try_from(polite.ledger().up.get()).unwrap());
    host.post(&[Post::storm(uid, command)])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert!(polite.are_gone_within(SOON) && deaf.are_gone_within(SOON));
    let told = receiver.wait_for_posts(1)?;
    let told = told.first().unwrap();
    assert_eq!(text(told, "summary"), format!("killed all {uid} {command} processes"));
    let description = text(told, "description");
    // On a busy machine one of the polite may need longer than it has.
    let (asked, killed) = ways(description).unwrap();
    assert!(asked + killed == 11 && (1..=8).contains(&asked), "{description}");
    assert!(f64::from(8 + asked) <= polite_up(), "whoever went by SIGTERM has tidied up");
    host.wait_for_metric("procstorm_processes_killed_total", 11.0)?;
    host.wait_for_metric("procstorm_processes_terminated_total", f64::from(asked))?;

    host.change_policy(command, &format!("{quick}\n    grace: 0s"), &receiver.line())?;
    host.reload_and_wait()?;
    let polite = Opponent::start("polite", uid, command.as_bytes(), 8, "0")?;
    host.post(&[Post::storm(uid, command).with("pod", "other")])?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])?;
    host.wait_for_metric("procstorm_processes_killed_total", 19.0)?;
    host.wait_for_metric("procstorm_processes_terminated_total", f64::from(asked))?;
    assert_eq!(polite.ledger().up.get(), 8, "none had the time");
    Ok(())
}
