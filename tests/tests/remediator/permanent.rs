//! What can never be done comes to an end, with a verdict, and people are told once: it is not
//! tried for ever, and takes in no later alert.

use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::storm::Storm;

use crate::change_journal;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_name_that_is_not_taken_ends_the_remediation_and_is_told_once() -> Result<(), Fault> {
    needs_root!();
    let receiver = Receiver::start()?;
    let long = "a".repeat(65);
    let names = [r"CORP\alice", "alice smith", &long, ".alice.pop", "alic\u{e9}"];
    let users: Vec<_> = names.into_iter().map(|name| (name, claim_uid())).collect();
    let host = Host::start_among(&users, "perm-a", "    settle: 0s", &receiver.line())?;
    let storms: Vec<_> =
        users.iter().map(|(_, uid)| Storm::raise(*uid, b"perm-a", 5)).collect::<Result<_, _>>()?;
    // The exporter shows a number where the name service was silent for a moment.
    let alerts: Vec<_> = users.iter().map(|(_, uid)| Post::storm(*uid, "perm-a")).collect();
    for round in 1..=2 {
        host.post(&alerts)?;
        host.wait_for_verdicts(&vec!["bad_user_name"; names.len() * round])?;
    }
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    let posts = receiver.posts();
    let told: std::collections::BTreeSet<_> =
        posts.iter().map(|post| post["labels"]["user"].to_string()).collect();
    assert_eq!((posts.len(), told.len()), (names.len(), names.len()), "each once: {posts:?}");
    for post in &posts {
        assert_eq!(post["labels"]["severity"], "critical");
        let summary = post["annotations"]["summary"].as_str().unwrap();
        assert!(summary.contains("user name"), "{summary}");
    }
    assert!(storms.iter().all(|storm| storm.living().unwrap() == 5));
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read_ends_and_holds_up_no_later_alert() -> Result<(), Fault> {
    needs_root!();
    let receiver = Receiver::start()?;
    let uid = claim_uid();
    let mut host = Host::start("perm-b", "    settle: 0s", &receiver.line())?;
    for (ruin, rounds) in [
        "UPDATE alerts SET labels = 'not JSON'",
        "DELETE FROM alerts",
        "UPDATE remediations SET due_ms = 9223372036854775807",
        "UPDATE alerts SET starts_at = 'yesterday'",
    ]
    .into_iter()
    .zip(1..)
    {
        host.post(&[Post::storm(uid, "perm-b")])?;
        wait::until("done", SOON, || {
            let verdicts = host.verdicts().ok()?;
            (verdicts.len() == 1 && verdicts[0] != "running").then_some(())
        })?;
        host.stop()?;
        change_journal(
            &host,
            "DELETE FROM outcomes; DELETE FROM steps;
             UPDATE remediations SET state = 'accepted', verdict = NULL, acted_ms = NULL;",
        );
        change_journal(&host, ruin);
        host.restart()?;
        host.wait_for_verdicts(&["failed"])?;
        wait::until("it is told", SOON, || {
            let posts = receiver.posts();
            let failed = posts.iter().filter(|post| post["labels"]["verdict"] == "failed");
            (failed.count() == rounds).then_some(())
        })?;
        // The next alert is acted on.
        let storm = Storm::raise(uid, b"perm-b", 6)?;
        host.post(&[Post::storm(uid, "perm-b")])?;
        host.wait_until_dead(&storm)?;
        host.stop()?;
        change_journal(&host, "DELETE FROM alerts; DELETE FROM remediations;");
        host.restart()?;
    }
    Ok(())
}

#[test]
fn an_outcome_that_cannot_be_read_holds_up_no_other() -> Result<(), Fault> {
    needs_root!();
    let receiver = Receiver::start()?;
    receiver.fail(Some(503));
    let uid = claim_uid();
    let mut host = Host::start("perm-c", "    settle: 0s\n    cooldown: 0s", &receiver.line())?;
    for round in 1..=2 {
        let _storm = Storm::raise(uid, b"perm-c", 6)?;
        host.post(&[Post::storm(uid, "perm-c")])?;
        host.wait_for_verdicts(&vec!["none_seen"; round])?;
    }
    host.wait_for_metric("procstorm_outcomes_pending", 2.0)?;
    host.stop()?;
    change_journal(&host, "UPDATE outcomes SET labels = '{' WHERE id = 1");
    receiver.fail(None);
    host.restart()?;
    let posts = receiver.wait_for_posts(1)?;
    assert_eq!(posts.len(), 1);
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    host.wait_for_metric("procstorm_outcomes_total{result=\"rejected\"}", 1.0)
}

/// A recurrence is not posted if it only repeats what people know; of what was dropped they know
/// nothing.
#[test]
fn a_recurrence_is_told_if_the_outcomes_before_it_were_dropped_or_cannot_be_read()
-> Result<(), Fault> {
    needs_root!();
    let receiver = Receiver::start()?;
    receiver.fail(Some(400));
    let uid = claim_uid();
    let playbook = "    settle: 120s\n    cooldown: 200ms\n    limits: {per_user: 9/h}";
    let mut host = Host::start("perm-r", playbook, &receiver.line())?;
    let mut storms = Vec::new();
    let mut verdicts = Vec::new();
    let mut raise = |host: &Host| {
        storms.push(Storm::raise(uid, b"perm-r", 6)?);
        if storms.len() == 1 {
            host.post(&[Post::storm(uid, "perm-r")])?;
        }
        verdicts.push("none_seen");
        host.wait_for_verdicts(&verdicts)
    };
    raise(&host)?;
    raise(&host)?;
    host.wait_for_metric("procstorm_outcomes_total{result=\"rejected\"}", 2.0)?;
    receiver.fail(None);
    raise(&host)?;
    receiver.wait_for_posts(1)?;
    host.stop()?;
    change_journal(&host, "UPDATE outcomes SET labels = '{'");
    host.restart()?;
    raise(&host)?;
    receiver.wait_for_posts(2)?;
    Ok(())
}
