//! Clocks that differ: a host's from Alertmanager's, by an hour and more, and one that is set back.
//! Outcomes live by Alertmanager's clock, and nothing is lost, held up or done in a hurry.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, skip};
use procstorm_tests::host::{Host, Post, Receiver, faketime};
use procstorm_tests::storm::Storm;
use serde_json::Value;

use crate::change_journal;

/// More than an outcome lives.
const OFF: i64 = 61 * 60;

const SKEW: &str = "procstorm_alertmanager_clock_skew_seconds";

fn time(post: &Value, key: &str) -> Timestamp {
    post[key].as_str().unwrap().parse().unwrap()
}

fn seconds(count: i64) -> f64 {
    SignedDuration::from_secs(count).as_secs_f64()
}

/// Whether an outcome that was posted just now is one that Alertmanager, whose clock is so far
/// ahead of the machine's, would mail: it has begun, and lives for about an hour.
fn lives(post: &Value, ahead: i64) {
    let now = Timestamp::now() + SignedDuration::from_secs(ahead);
    let left = time(post, "endsAt").duration_since(now).as_secs();
    assert!((50 * 60..=60 * 60 + 5).contains(&left), "{left} s are left: {post}");
    let begun = now.duration_since(time(post, "startsAt")).as_secs();
    assert!(begun >= -2, "it begins {begun} s ago: {post}");
}

#[test]
fn an_outcome_lives_by_alertmanagers_clock() -> Result<(), Fault> {
    needs_root!();
    for ahead in [OFF, -OFF, -26 * 3600] {
        let uid = claim_uid();
        let receiver = Receiver::start()?;
        receiver.run_ahead(ahead);
        let host = Host::start("clock-a", "    settle: 0s", &receiver.line())?;
        let _storm = Storm::raise(uid, b"clock-a", 6)?;
        host.post(&[Post::storm(uid, "clock-a")])?;
        lives(&receiver.wait_for_posts(1)?[0], ahead);
        host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
        let skew = host.metric(SKEW)?;
        assert!((skew + seconds(ahead)).abs() < 3.0, "{skew}");
    }
    Ok(())
}

#[test]
fn a_clock_that_is_set_while_outcomes_wait_loses_none() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    receiver.fail(Some(503));
    let host = Host::start("clock-b", "    settle: 0s", &receiver.line())?;
    let _storm = Storm::raise(uid, b"clock-b", 6)?;
    host.post(&[Post::storm(uid, "clock-b")])?;
    host.wait_for_metric("procstorm_outcomes_pending", 1.0)?;
    receiver.run_ahead(OFF);
    receiver.fail(None);
    // A first post may go by the clock that was read before it was set: the answer's date shows that,
    // and a second one corrects it.
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let posts = receiver.posts();
    assert!(posts.len() <= 2, "corrected more than once: {posts:?}");
    lives(posts.last().unwrap(), OFF);
    Ok(())
}

#[test]
fn a_host_whose_clock_is_off_ends_storms_and_tells_of_each_once() -> Result<(), Fault> {
    needs_root!();
    if faketime().is_none() {
        skip!("needs libfaketime");
    }
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 1s\n    cooldown: 2s\n    limits: {per_user: 20/h}";
    let mut host = Host::start("clock-c", playbook, &receiver.line())?;
    let mut verdicts = Vec::new();
    // From one clock to the next, as a machine does that is set again and again.
    for ahead in [0, OFF, -OFF, 26 * 3600, -26 * 3600, 0] {
        host.stop()?;
        host.restart_ahead(ahead)?;
        for _ in 0..2 {
            let storm = Storm::raise(uid, b"clock-c", 6)?;
            host.post(&[Post::storm(uid, "clock-c")])?;
            host.wait_until_dead(&storm)?;
            verdicts.push("none_seen");
            host.wait_for_verdicts(&verdicts)?;
            host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
            host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
            let posts = receiver.posts();
            assert_eq!(posts.len(), verdicts.len(), "each once");
            lives(posts.last().unwrap(), 0);
        }
        let skew = host.metric(SKEW)?;
        assert!((skew - seconds(ahead)).abs() < 3.0, "{skew}");
        // The alert began days ago; by whatever clock, not before that and not hours later.
        let sum = host.metric("procstorm_alert_to_action_seconds_sum{dry_run=\"false\"}")? / 2.0;
        let real = Timestamp::now().duration_since("2026-11-23T13:51:45.789Z".parse().unwrap());
        assert!((sum - real.as_secs_f64()).abs() < 120.0, "{sum}, {real}");
    }
    Ok(())
}

#[test]
fn a_clock_set_back_before_the_cool_down_makes_no_hurry() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("clock-d", "    settle: 0s\n    cooldown: 8s", "")?;
    let first = Storm::raise(uid, b"clock-d", 6)?;
    host.post(&[Post::storm(uid, "clock-d")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    drop(first);
    let second = Storm::raise(uid, b"clock-d", 6)?;
    host.stop()?;
    // The second was accepted by a clock an hour ahead.
    change_journal(
        &host,
        "INSERT INTO remediations (repeats, playbook, user, command, state, accepted_ms, due_ms)
             SELECT id, playbook, user, command, 'accepted', accepted_ms + 3600000,
                 accepted_ms + 3600000 FROM remediations;
         UPDATE remediations SET acted_ms = (unixepoch() * 1000) WHERE acted_ms IS NOT NULL;",
    );
    host.restart()?;
    host.wait_until_dead(&second)?;
    let log = host.daemon.log();
    let waits = log.matches("waits for the cooldown").count();
    assert!((1..=3).contains(&waits), "{waits} times judged:\n{log}");
    Ok(())
}
