//! Dry runs: what is said, how often, and that a live remediation does not suffer from it.

use std::os::unix::fs::symlink;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::opponent::Opponent;
use procstorm_tests::storm::Storm;

use crate::text;

const SOON: Duration = Duration::from_secs(60);

const RUNS: &str = "procstorm_remediations_total";

/// Later episodes of the same alert.
const LATER: [&str; 3] =
    ["2026-11-24T00:00:00Z", "2026-11-25T00:00:00.125Z", "2026-11-26T00:00:00Z"];

fn reload(host: &Host) -> Result<(), Fault> {
    let reloads = || host.daemon.log().matches("reloaded").count();
    let before = reloads();
    host.reload()?;
    wait::until("reloaded", SOON, || (reloads() > before).then_some(()))
}

/// Alertmanager repeats an alert as long as the storm lasts, which in a dry run it does; and a count
/// that goes up and down around the threshold makes a new alert each time.
#[test]
fn a_standing_storm_has_one_outcome_however_often_its_alert_comes() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let top = |dry_run: &str| format!("dry_run: {dry_run}\n{}", receiver.line());
    let host = Host::start("core-dr", playbook, &top("true"))?;
    let storm = Storm::raise(uid, b"core-dr", 8)?;
    let alert = Post::storm(uid, "core-dr");
    assert!(host.post(std::slice::from_ref(&alert))?.body.starts_with("1 accepted"));
    host.wait_for_verdicts(&["dry_run"])?;
    for _ in 0..3 {
        let answer = host.post(std::slice::from_ref(&alert))?;
        assert!(answer.body.starts_with("0 accepted, 1 coalesced"), "{}", answer.body);
    }
    assert!(host.post(&[alert.clone().since(LATER[0])])?.body.starts_with("1 accepted"));
    host.wait_for_verdicts(&["dry_run", "no_longer_true"])?;
    let why = text(&host.remediations()?[1], "summary").to_owned();
    let wanted = "would have killed these 8 processes; 0 of them have started since, below the \
                  threshold of 5";
    assert!(why.contains(wanted), "{why}");
    // As many new ones as make a storm by themselves would have been hit as well.
    let another = Storm::raise(uid, b"core-dr", 6)?;
    host.post(&[alert.clone().since(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "no_longer_true", "dry_run"])?;
    let posts = receiver.wait_for_posts(2)?;
    assert_eq!(posts.len(), 2, "{posts:?}");
    assert!(posts.iter().all(|post| text(&post["labels"], "dry_run") == "true"), "{posts:?}");
    assert_eq!((storm.living()?, another.living()?), (8, 6));
    let runs = |dry: &str, verdict: &str| {
        host.metric(&format!(
            "{RUNS}{{dry_run=\"{dry}\",playbook=\"storm\",verdict=\"{verdict}\"}}"
        ))
    };
    assert!((runs("true", "dry_run")? - 2.0).abs() < 0.1);
    // Its alert began days ago, and its notification came just now.
    let reaction = host.metric("procstorm_alert_to_action_seconds_sum{dry_run=\"true\"}")?;
    assert!(reaction < 3600.0, "{reaction}");
    // The one key arms it, and the standing storm is ended at the next repeat of its alert.
    host.change_policy("core-dr", playbook, &top("{except: [storm]}"))?;
    reload(&host)?;
    host.post(&[alert.since(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "no_longer_true", "dry_run", "none_seen"])?;
    assert_eq!((storm.living()?, another.living()?), (0, 0));
    assert!((runs("false", "none_seen")? - 1.0).abs() < 0.1);
    let live = receiver.wait_for_posts(3)?.remove(2);
    assert!(live["labels"].get("dry_run").is_none(), "{live}");
    Ok(())
}

#[test]
fn limits_hold_in_a_dry_run_as_they_would_live_and_do_not_count_against_a_live_one()
-> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s\n    limits: {per_user: 1/h, total: 9/h}";
    let top = |dry_run: &str| format!("dry_run: {dry_run}\n{}", receiver.line());
    let host = Host::start("core-dl", playbook, &top("true"))?;
    let alert = |starts_at| Post::storm(uid, "core-dl").since(starts_at);
    let first = Storm::raise(uid, b"core-dl", 8)?;
    host.post(&[alert(LATER[0])])?;
    host.wait_for_verdicts(&["dry_run"])?;
    let second = Storm::raise(uid, b"core-dl", 8)?;
    host.post(&[alert(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached"])?;
    host.post(&[alert(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached", "limit_reached"])?;
    let posts = receiver.wait_for_posts(2)?;
    assert_eq!(posts.len(), 2, "{posts:?}");
    let summary = text(&posts[1]["annotations"], "summary").to_owned();
    let wanted = format!("dry run: would not act on {uid} core-dl processes: 1 remediations for");
    assert!(summary.starts_with(&wanted), "{summary}");
    assert_eq!(text(&posts[1]["labels"], "severity"), "warning");
    host.change_policy("core-dl", playbook, &top("false"))?;
    reload(&host)?;
    host.post(&[alert(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached", "limit_reached", "none_seen"])?;
    assert_eq!((first.living()?, second.living()?), (0, 0));
    Ok(())
}

#[test]
fn a_dry_run_says_that_an_archive_that_fails_would_stop_the_kill() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s\n    on_archive_failure: stop";
    let top = format!("dry_run: true\n{}", receiver.line());
    let host = Host::start("core-ds", playbook, &top)?;
    let mail = host.dir().join(format!("mail/{uid}"));
    symlink("/etc/shadow", &mail).unwrap();
    let storm = Storm::raise(uid, b"core-ds", 8)?;
    host.post(&[Post::storm(uid, "core-ds")])?;
    host.wait_for_verdicts(&["archive_failed"])?;
    assert!(host.post(&[Post::storm(uid, "core-ds")])?.body.contains("1 coalesced"));
    let post = receiver.wait_for_posts(1)?.remove(0);
    let summary = format!(
        "dry run: would not kill the 8 {uid} core-ds processes; mail file {} could not be saved",
        mail.display()
    );
    assert_eq!(text(&post["annotations"], "summary"), summary);
    assert!(!text(&post["annotations"], "description").contains("would kill"), "{post}");
    assert_eq!(text(&post["labels"], "severity"), "warning");
    assert_eq!(storm.living()?, 8);
    Ok(())
}

/// A restart between live and dry run: what was done live stays on record as done live, and the mail says so.
#[test]
fn a_live_kill_that_a_restart_into_a_dry_run_cuts_off_is_not_told_as_a_dry_run() -> Result<(), Fault>
{
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s\n    grace: 60s";
    let top = |dry_run: &str| format!("dry_run: {dry_run}\n{}", receiver.line());
    let mut host = Host::start("core-dc", playbook, &top("false"))?;
    // They ignore SIGTERM, so that the kill lasts as long as the grace.
    let storm = Opponent::start("deaf", uid, b"core-dc", 8, "")?;
    host.post(&[Post::storm(uid, "core-dc")])?;
    wait::until("it acts", SOON, || host.daemon.log().contains("message=acts").then_some(()))?;
    let begun = || {
        let page = host.get("/remediations/1").ok()?.body;
        let (_, steps) = page.split_once(">Steps<")?;
        steps.contains("kill_user_proc").then_some(())
    };
    wait::until("the kill has begun", SOON, begun)?;
    host.kill()?;
    host.change_policy("core-dc", playbook, &top("true"))?;
    host.restart()?;
    host.wait_for_verdicts(&["interrupted"])?;
    let outcome = receiver.wait_for_posts(1)?.remove(0);
    assert!(outcome["labels"].get("dry_run").is_none(), "{outcome}");
    let summary = text(&outcome["annotations"], "summary");
    assert!(summary.starts_with("8 ") && !summary.contains("dry run"), "{summary}");
    assert!(storm.fork_none_for(Duration::ZERO), "none has been replaced");
    Ok(())
}

/// What was mailed as "would not act" says nothing of a live remediation that does not act.
#[test]
fn a_refusal_that_a_dry_run_has_mailed_is_mailed_again_when_it_is_live() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s\n    limits: {per_user: 1/h, total: 9/h}";
    let top = |dry_run: &str| format!("dry_run: {dry_run}\n{}", receiver.line());
    let host = Host::start("core-dm", playbook, &top("true"))?;
    let alert = |starts_at| Post::storm(uid, "core-dm").since(starts_at);
    let _first = Storm::raise(uid, b"core-dm", 8)?;
    host.post(&[alert(LATER[0])])?;
    host.wait_for_verdicts(&["dry_run"])?;
    let _second = Storm::raise(uid, b"core-dm", 8)?;
    host.post(&[alert(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached"])?;
    receiver.wait_for_posts(2)?;
    host.change_policy("core-dm", playbook, &top("false"))?;
    reload(&host)?;
    host.post(&[alert(LATER[1])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached", "none_seen"])?;
    let _third = Storm::raise(uid, b"core-dm", 8)?;
    host.post(&[alert(LATER[2])])?;
    host.wait_for_verdicts(&["dry_run", "limit_reached", "none_seen", "limit_reached"])?;
    let live = receiver.wait_for_posts(4)?.remove(3);
    assert_eq!(text(&live["labels"], "verdict"), "limit_reached", "{live}");
    assert!(live["labels"].get("dry_run").is_none(), "{live}");
    Ok(())
}
