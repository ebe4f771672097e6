//! Bad luck: a clock that was wrong, a policy that was changed at the worst moment, a journal that
//! comes late, an Alertmanager that takes its time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::storm::Storm;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::change_journal;

const SOON: Duration = Duration::from_secs(60);

/// What a clock that was an hour ahead has written, once the clock is right again.
const AN_HOUR_AHEAD: &str = "
    UPDATE alerts SET received_ms = received_ms + 3600000;
    UPDATE remediations SET accepted_ms = accepted_ms + 3600000, due_ms = due_ms + 3600000,
        acted_ms = acted_ms + 3600000, ended_ms = ended_ms + 3600000,
        watch_ms = watch_ms + 3600000;";

/// Leaves a storm as a daemon does that is killed between SIGSTOP and SIGKILL.
fn stop_all(storm: &Storm) -> Result<(), Fault> {
    for pid in storm.pids() {
        let pidfd = pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(pidfd, Signal::STOP).unwrap();
    }
    wait::until("all are stopped", SOON, || {
        (storm.stopped().unwrap() == storm.pids().len()).then_some(())
    })
}

/// The last remediation is in the middle of its kill.
const CUT_OFF: &str = "
    UPDATE remediations SET state = 'acting', ended_ms = NULL, watch_ms = NULL, verdict = NULL;
    UPDATE steps SET ended_ms = NULL, outcome = NULL, good = NULL, detail = NULL
        WHERE name = 'kill_user_proc';";

#[test]
fn whoever_was_stopped_goes_on_even_if_the_policy_was_changed_since() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("luck-a", "    settle: 0s\n    cooldown: 0s", "")?;
    let first = Storm::raise(uid, b"luck-a", 8)?;
    host.post(&[Post::storm(uid, "luck-a")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    drop(first);
    let storm = Storm::raise(uid, b"luck-a", 8)?;
    host.stop()?;
    change_journal(&host, CUT_OFF);
    stop_all(&storm)?;
    host.change_policy("luck-z", "", "")?;
    host.restart()?;
    wait::until("all go on", SOON, || (storm.stopped().unwrap() == 0).then_some(()))
        .inspect_err(|_| eprintln!("{}", host.daemon.log()))?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    Ok(())
}

#[test]
fn a_clock_set_back_holds_no_kill_for_longer_than_the_cool_down() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let playbook = "    settle: 0s\n    cooldown: 2s\n    limits: {per_user: 1/h}";
    let mut host = Host::start("luck-b", playbook, "")?;
    let first = Storm::raise(uid, b"luck-b", 8)?;
    host.post(&[Post::storm(uid, "luck-b")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    drop(first);
    host.stop()?;
    change_journal(&host, AN_HOUR_AHEAD);
    host.restart()?;
    let second = Storm::raise(uid, b"luck-b", 8)?;
    host.post(&[Post::storm(uid, "luck-b")])?;
    host.wait_until_dead(&second)?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])
}

#[test]
fn what_is_pending_when_the_clock_is_set_back_comes_to_its_end() -> Result<(), Fault> {
    needs_root!();
    let [waiting, refused, watched] = claim_uids();
    let playbook = "    settle: 2s\n    cooldown: 1s";
    let mut host = Host::start("luck-c", playbook, "")?;
    let storm = Storm::raise(watched, b"luck-c", 8)?;
    host.post(&[watched, refused, waiting].map(|uid| Post::storm(uid, "luck-c")))?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    drop(storm);
    let storm = Storm::raise(waiting, b"luck-c", 8)?;
    host.stop()?;
    let pending = format!(
        "UPDATE remediations SET state = 'watching', watch_ms = ended_ms WHERE user = '{watched}';
         UPDATE remediations SET state = 'accepted', ended_ms = NULL, verdict = NULL
             WHERE user <> '{watched}';
         UPDATE remediations SET due_ms = due_ms + 1000 WHERE user = '{waiting}';"
    );
    change_journal(&host, &format!("{pending}{AN_HOUR_AHEAD}"));
    host.restart()?;
    host.wait_until_dead(&storm)?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    let mut verdicts = host.verdicts()?;
    verdicts.sort();
    assert_eq!(verdicts, ["no_longer_true", "none_seen", "none_seen"]);
    Ok(())
}

#[test]
fn what_is_accepted_while_the_journal_comes_back_is_pursued_once() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut first = Host::start("luck-d", "", "")?;
    let top = format!("state: {}", first.dir().join("state").display());
    let second = Host::start("luck-d", "    settle: 3s", &top)?;
    let storm = Storm::raise(uid, b"luck-d", 8)?;
    first.stop()?;
    // Before the engine has asked the journal what is unfinished: it asks once a second.
    let answer = second.post(&[Post::storm(uid, "luck-d")])?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    second.wait_until_dead(&storm)?;
    second.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    assert_eq!(second.verdicts()?, ["none_seen"]);
    Ok(())
}

#[test]
fn a_repeat_whose_beginning_is_forgotten_is_not_stuck() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("luck-e", "    settle: 0s\n    cooldown: 0s", "")?;
    let first = Storm::raise(uid, b"luck-e", 8)?;
    host.post(&[Post::storm(uid, "luck-e")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    drop(first);
    let storm = Storm::raise(uid, b"luck-e", 8)?;
    host.stop()?;
    change_journal(
        &host,
        "UPDATE remediations SET ended_ms = 1;
         INSERT INTO remediations (repeats, playbook, user, command, state, accepted_ms, due_ms)
             SELECT id, playbook, user, command, 'accepted', accepted_ms, due_ms
             FROM remediations;",
    );
    host.restart()?;
    host.wait_until_dead(&storm)?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)
}

#[test]
fn a_slow_alertmanager_does_not_hold_up_the_stop() -> Result<(), Fault> {
    needs_root!();
    let receiver = Receiver::start()?;
    let mut host = Host::start("luck-f", "    settle: 0s", &receiver.line())?;
    receiver.fail(Some(503));
    let users: [u32; 12] = claim_uids();
    let storms: Vec<_> =
        users.iter().map(|&uid| Storm::raise(uid, b"luck-f", 5)).collect::<Result<_, _>>()?;
    host.post(&users.map(|uid| Post::storm(uid, "luck-f")))?;
    host.wait_for_metric("procstorm_outcomes_pending", 12.0)?;
    drop(storms);
    receiver.slow_down(Duration::from_secs(3));
    receiver.fail(None);
    let attempts = receiver.attempts();
    wait::until("it is posting", SOON, || (receiver.attempts() > attempts).then_some(()))?;
    let begun = Instant::now();
    host.stop()?;
    // To wait for all of them would take 36 s.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // Nothing is lost by that.
    receiver.slow_down(Duration::ZERO);
    host.restart()?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let events: std::collections::BTreeSet<_> =
        receiver.posts().iter().map(|post| post["labels"]["event"].to_string()).collect();
    assert_eq!(events.len(), 12);
    Ok(())
}

#[test]
fn a_long_history_is_forgotten_within_the_sandbox_and_holds_up_no_alert() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("luck-g", "    settle: 0s", "")?;
    host.stop()?;
    change_journal(
        &host,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO remediations (playbook, user, command, state, accepted_ms, due_ms, ended_ms)
             SELECT 'storm', 'u' || i, 'luck-g', 'done', 1, 1, 1 FROM n;
         INSERT INTO steps (remediation, name, began_ms, detail)
             SELECT id, 'kill_user_proc', 1, printf('%.300c', 'x') FROM remediations;
         INSERT INTO outcomes (remediation, event, created_ms, labels, annotations, taken_ms)
             SELECT id, id, 1, '{}', '{}', 1 FROM remediations;",
    );
    let storm = Storm::raise(uid, b"luck-g", 8)?;
    host.restart()?;
    host.post(&[Post::storm(uid, "luck-g")])?;
    host.wait_until_dead(&storm)?;
    wait::until("all of it is forgotten", Duration::from_secs(180), || {
        (host.remediations().ok()?.len() == 1).then_some(())
    })
    .beside(|| host.daemon.log())
}
