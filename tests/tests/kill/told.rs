//! What people are told of storms that the daemon cannot, or will not, end like others.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use procstorm_testkit::fault::Fault;
use procstorm_testkit::needs_root;
use procstorm_testkit::uids::claim_uid;
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::opponent::Opponent;
use serde_json::Value;

fn text<'v>(post: &'v Value, kind: &str, name: &str) -> &'v str {
    post[kind][name].as_str().unwrap_or_default()
}

#[test]
fn a_storm_in_a_container_is_left_alone_and_told_with_its_number() -> Result<(), Fault> {
    needs_root!();
    let (uid, command) = (claim_uid(), "core-told");
    let receiver = Receiver::start()?;
    let quick = "    settle: 0s\n    cooldown: 0s";
    let host = Host::start(command, quick, &receiver.line())?;
    let container = Opponent::start("nested", uid, command.as_bytes(), 8, "")?;
    host.post(&[Post::storm(uid, command)])?;
    host.wait_for_verdicts(&["left_alone"])?;
    let told = receiver.wait_for_posts(1)?;
    let summary = text(&told[0], "annotations", "summary");
    assert!(summary.contains("8 processes live in containers"), "{summary}");
    assert!(!summary.contains("0 processes live,"), "{summary}");
    let (verdict, severity) =
        (text(&told[0], "labels", "verdict"), text(&told[0], "labels", "severity"));
    assert_eq!((verdict, severity), ("left_alone", "critical"));

    // It is told once, not with each alert.
    host.post(&[Post::storm(uid, command).with("pod", "other")])?;
    host.wait_for_verdicts(&["left_alone", "left_alone"])?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    assert_eq!(receiver.posts().len(), 1);

    // And those on the host are ended without them.
    let storm = Opponent::start("sleepers", uid, command.as_bytes(), 6, "")?;
    host.post(&[Post::storm(uid, command).with("pod", "third")])?;
    host.wait_for_verdicts(&["left_alone", "left_alone", "left_alone"])?;
    let told = receiver.wait_for_posts(2)?;
    let summary = text(&told[1], "annotations", "summary");
    assert!(summary.starts_with("killed 6 ") && summary.contains("8 in "), "{summary}");
    assert!(storm.are_gone_within(std::time::Duration::ZERO));

    // Unless the policy says that they are of the storm.
    host.change_policy(
        command,
        &format!("{quick}\n    nested_namespaces: kill"),
        &receiver.line(),
    )?;
    host.reload_and_wait()?;
    host.post(&[Post::storm(uid, command).with("pod", "fourth")])?;
    host.wait_for_verdicts(&["left_alone", "left_alone", "left_alone", "none_seen"])?;
    drop(container);
    Ok(())
}
