//! A remediation's way: recount, cool-down, limits, the storm's return, silences, a dry run.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::opponent::Opponent;
use procstorm_tests::storm::Storm;
use serde_json::{Value, json};

use crate::text;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_storm_ends_its_mail_is_saved_and_the_next_alert_is_recounted() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let storm = Storm::raise(uid, b"core-a", 30)?;
    let bystanders = (Storm::raise(uid, b"core-a2", 6)?, Storm::raise(claim_uid(), b"core-a", 6)?);
    let host = Host::start("core-a", "    settle: 0s\n    cooldown: 0s", "")?;
    host.put_mail(uid, b"From alice\n\nhello\n")?;
    let answer = host.post(&[Post::storm(uid, "core-a")])?;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "1 accepted, 0 coalesced, 0 refused\n")
    );
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(storm.living()?, 0);
    assert_eq!((bystanders.0.living()?, bystanders.1.living()?), (6, 6));
    let remediation = &host.remediations()?[0];
    assert_eq!(remediation["before"], 30);
    assert_eq!(remediation["after"], 0);
    assert_eq!(text(remediation, "summary"), format!("killed all {uid} core-a processes"));
    let archived = host.archived()?;
    assert_eq!(remediation["archives"], json!([archived[0]]));
    assert_eq!(fs::read(&archived[0]).unwrap(), b"From alice\n\nhello\n");
    host.post(&[Post::storm(uid, "core-a")])?;
    host.wait_for_verdicts(&["none_seen", "no_longer_true"])?;
    assert_eq!(host.archived()?.len(), 1);
    let page = host.get("/remediations/1")?;
    assert!(page.body.contains("kill_user_proc") && page.body.contains("core-a"), "{}", page.body);
    assert_eq!(host.get("/")?.status, 200);
    assert!((host.metric("procstorm_processes_killed_total")? - 30.0).abs() < 0.5);
    Ok(())
}

#[test]
fn a_storm_that_returns_is_ended_again_until_the_limit_and_people_are_told() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 120s\n    cooldown: 200ms\n    limits: {per_user: 2/h}";
    let host = Host::start("core-b", playbook, &receiver.line())?;
    let _first = Storm::raise(uid, b"core-b", 8)?;
    host.post(&[Post::storm(uid, "core-b")])?;
    // A storm that rises while the first is being ended would be ended with it.
    host.wait_for_verdicts(&["none_seen"])?;
    // No alert tells of these two.
    let _second = Storm::raise(uid, b"core-b", 7)?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])?;
    let third = Storm::raise(uid, b"core-b", 6)?;
    host.wait_for_verdicts(&["none_seen", "none_seen", "limit_reached"])?;
    assert_eq!(third.living()?, 6, "the limit holds");
    let posts = receiver.wait_for_posts(3)?;
    let label = |post: &Value, name: &str| text(&post["labels"], name).to_owned();
    let seen: Vec<_> =
        posts.iter().map(|post| (label(post, "verdict"), label(post, "severity"))).collect();
    let expected = [("none_seen", "info"), ("none_seen", "warning"), ("limit_reached", "critical")];
    assert_eq!(seen, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let events: std::collections::BTreeSet<_> =
        posts.iter().map(|post| label(post, "event")).collect();
    assert_eq!(events.len(), 3, "each is an event of its own");
    let summary = |post: &Value| text(&post["annotations"], "summary").to_owned();
    assert!(summary(&posts[1]).ends_with("; the storm had come back, recurrence 1"));
    assert!(summary(&posts[2]).contains("limits.per_user"));
    // The next alert is refused, and nobody is told twice of the same limit.
    host.post(&[Post::storm(uid, "core-b")])?;
    host.wait_for_verdicts(&["none_seen", "none_seen", "limit_reached", "limit_reached"])?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    assert_eq!(receiver.posts().len(), 3);
    Ok(())
}

#[test]
fn during_the_cool_down_an_alert_waits_and_is_not_lost() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    // So long that the second alert certainly comes within it.
    let host = Host::start("core-c", "    settle: 0s\n    cooldown: 20s", "")?;
    let _first = Storm::raise(uid, b"core-c", 8)?;
    host.post(&[Post::storm(uid, "core-c")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    let second = Storm::raise(uid, b"core-c", 8)?;
    host.post(&[Post::storm(uid, "core-c")])?;
    wait::until("waits", SOON, || {
        host.daemon.log().contains("waits for the cooldown").then_some(())
    })?;
    assert_eq!(second.living()?, 8);
    // Whatever comes meanwhile is served by the one that waits.
    let answer = host.post(&[Post::storm(uid, "core-c")])?;
    assert_eq!(answer.body, "0 accepted, 1 coalesced, 0 refused\n");
    host.wait_until_dead(&second)?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])
}

#[test]
fn each_alert_of_a_group_is_judged_by_itself_and_duplicates_are_one() -> Result<(), Fault> {
    needs_root!();
    let uids: [u32; 3] = claim_uids();
    let uid = uids[0];
    let storms: Vec<_> =
        uids.iter().map(|&uid| Storm::raise(uid, b"core-d", 6)).collect::<Result<_, _>>()?;
    let host = Host::start("core-d", "    settle: 1s", "")?;
    let mut group: Vec<_> =
        uids.iter().cycle().take(100).map(|&uid| Post::storm(uid, "core-d")).collect();
    group.push(Post::storm(uid, "core-d").resolved());
    group.push(Post::storm(uid, "core-d").with("host", "nantes"));
    group.push(Post::storm(uid, "/usr/sbin/core-d"));
    group.push(Post::storm(uid, "core-d").with("user", "../root"));
    group.push(Post::storm(uid, "core-d").with("user", "root"));
    group.push(Post::storm(uid, "core-d").with("user", "no-such-user"));
    let answer = host.post(&group)?;
    assert_eq!(answer.body, "5 accepted, 97 coalesced, 4 refused\n");
    for storm in &storms {
        host.wait_until_dead(storm)?;
    }
    wait::until("all are done", SOON, || {
        let verdicts = host.verdicts().ok()?;
        let count = |wanted: &str| verdicts.iter().filter(|verdict| *verdict == wanted).count();
        ((count("none_seen"), count("root"), count("unknown_user")) == (3, 1, 1)).then_some(())
    })?;
    for refusal in ["resolved", "other_host", "other_command", "bad_user_name"] {
        let series = format!("procstorm_webhook_alerts_total{{decision=\"{refusal}\"}}");
        assert!((host.metric(&series)? - 1.0).abs() < 0.1, "{refusal}");
    }
    assert!((host.metric("procstorm_processes_killed_total")? - 18.0).abs() < 0.5);
    Ok(())
}

#[test]
fn a_silence_made_since_stops_the_repeat() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let host = Host::start("core-e", "    settle: 120s\n    cooldown: 1s", &receiver.line())?;
    let _first = Storm::raise(uid, b"core-e", 8)?;
    host.post(&[Post::storm(uid, "core-e")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    // One without matchers, as Alertmanager before 0.33.1 tells of it, and one that is none.
    receiver.silence(&json!([
        {"id": "b7a0", "status": {"state": "active"}, "matchers": null},
        {"id": "b7a2"},
        {"id": "b7a1", "status": {"state": "active"}, "matchers":
            [{"name": "user", "value": uid.to_string(), "isRegex": false, "isEqual": true}]},
    ]));
    let second = host.raise_until_silenced(uid, b"core-e")?;
    assert_eq!(second.living()?, 8);
    Ok(())
}

#[test]
fn a_silence_that_one_member_of_a_cluster_knows_stops_the_repeat() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let members = [Receiver::start()?, Receiver::start()?, Receiver::start()?];
    let urls = members.each_ref().map(|one| one.line().replace("alertmanager: ", ""));
    let top = format!("alertmanager: [{}]", urls.join(", "));
    let host = Host::start("core-n", "    settle: 120s\n    cooldown: 1s", &top)?;
    let _first = Storm::raise(uid, b"core-n", 8)?;
    host.post(&[Post::storm(uid, "core-n")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    // Of the others, one knows of none, and one says nothing.
    members[0].fail(Some(503));
    members[2].silence(&json!([{"id": "b7a1", "status": {"state": "active"}, "matchers":
        [{"name": "user", "value": uid.to_string(), "isRegex": false, "isEqual": true}]}]));
    let second = host.raise_until_silenced(uid, b"core-n")?;
    assert_eq!(second.living()?, 8);
    Ok(())
}

#[test]
fn a_dry_run_names_pids_and_files_and_touches_nothing() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let host = Host::start("core-f", "    settle: 1s\n    dry_run: true", &receiver.line())?;
    host.put_mail(uid, b"mail")?;
    let storm = Storm::raise(uid, b"core-f", 8)?;
    host.post(&[Post::storm(uid, "core-f")])?;
    host.wait_for_verdicts(&["dry_run"])?;
    assert_eq!(storm.living()?, 8);
    assert!(host.archived()?.is_empty());
    let posts = receiver.wait_for_posts(1)?;
    let annotations = &posts[0]["annotations"];
    assert_eq!(
        text(annotations, "summary"),
        format!("dry run: would kill 8 {uid} core-f processes")
    );
    let description = text(annotations, "description");
    let mut pids = storm.pids().to_vec();
    pids.sort_unstable();
    let listed: Vec<_> = pids.iter().map(ToString::to_string).collect();
    assert!(
        description.contains(&format!("would kill pids {}", listed.join(" "))),
        "{description}"
    );
    assert!(description.contains("would save user mail file"), "{description}");
    Ok(())
}

#[test]
fn a_failed_archive_is_told_and_stops_the_kill_only_if_it_should() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s\n    on_archive_failure: ";
    let host = Host::start("core-g", &format!("{playbook}stop"), &receiver.line())?;
    symlink("/etc/shadow", host.dir().join(format!("mail/{uid}"))).unwrap();
    let storm = Storm::raise(uid, b"core-g", 8)?;
    host.post(&[Post::storm(uid, "core-g")])?;
    host.wait_for_verdicts(&["archive_failed"])?;
    assert_eq!(storm.living()?, 8);
    host.change_policy("core-g", &format!("{playbook}continue"), &receiver.line())?;
    host.reload()?;
    wait::until("reloaded", SOON, || host.daemon.log().contains("reloaded").then_some(()))?;
    host.post(&[Post::storm(uid, "core-g")])?;
    host.wait_for_verdicts(&["archive_failed", "none_seen"])?;
    assert_eq!(storm.living()?, 0);
    assert!(host.archived()?.is_empty());
    let posts = receiver.wait_for_posts(2)?;
    assert_eq!(text(&posts[0]["labels"], "severity"), "critical");
    assert_eq!(text(&posts[1]["labels"], "severity"), "warning");
    let description = text(&posts[1]["annotations"], "description");
    assert!(description.contains("could not save user mail file"), "{description}");
    assert!(description.contains("symbolic link"), "{description}");
    Ok(())
}

#[test]
fn a_lock_that_the_killed_left_is_named_in_the_outcome_the_journal_and_on_the_page()
-> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let host = Host::start("core-l", "    settle: 0s\n    cooldown: 0s", &receiver.line())?;
    let storm = Storm::raise(uid, b"core-l", 8)?;
    let holder = storm.pids()[0];
    let lock = host.dir().join(format!("mail/{uid}.lock"));
    fs::write(&lock, format!("{holder}\n")).unwrap();
    host.post(&[Post::storm(uid, "core-l")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    let remediation = &host.remediations()?[0];
    let summary = format!("killed all {uid} core-l processes; lock {} is there", lock.display());
    assert_eq!(text(remediation, "summary"), summary);
    let post = receiver.wait_for_posts(1)?.remove(0);
    assert_eq!(text(&post["labels"], "severity"), "warning");
    let description = text(&post["annotations"], "description");
    let said = format!("holds pid {holder}, which no longer runs");
    assert!(description.contains(&said), "{description}");
    let page = host.get("/remediations/1")?.body;
    for part in ["mail_file_lock", &lock.display().to_string(), &holder.to_string()] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(lock.exists(), "it is for a person to remove");
    // Nothing is said of what is not there.
    fs::remove_file(&lock).unwrap();
    let _storm = Storm::raise(uid, b"core-l", 8)?;
    host.post(&[Post::storm(uid, "core-l").with("pod", "other")])?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])?;
    let summary = format!("killed all {uid} core-l processes");
    assert!(host.remediations()?.iter().any(|one| text(one, "summary") == summary));
    Ok(())
}

#[test]
fn another_name_of_an_account_is_refused_and_its_own_is_taken() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let storm = Storm::raise(uid, b"core-alias", 6)?;
    // The first line of a uid is its own name, as for the exporter.
    let users = [("carla", uid), ("hostmaster", uid)];
    let host = Host::start_among(&users, "core-alias", "", "")?;
    host.post(&[Post::storm(uid, "core-alias").with("user", "hostmaster")])?;
    host.wait_for_verdicts(&["alias"])?;
    assert_eq!(storm.living()?, 6);
    host.post(&[Post::storm(uid, "core-alias").with("user", "carla")])?;
    host.wait_for_verdicts(&["alias", "none_seen"])?;
    assert_eq!(storm.living()?, 0);
    Ok(())
}

#[test]
fn a_protected_name_protects_every_name_of_its_uid_and_one_of_nobody_is_told() -> Result<(), Fault>
{
    needs_root!();
    let [uid, other] = claim_uids();
    let storms = [Storm::raise(uid, b"core-prot", 6)?, Storm::raise(other, b"core-prot", 6)?];
    // The name service calls the uid by its first line; the policy protects the second.
    let users = [("carla", uid), ("hostmaster", uid), ("dora", other)];
    let top = "accounts: {protected: [hostmaster, nosuchuser, \"@nosuchgroup\"]}";
    let host = Host::start_among(&users, "core-prot", "", top)?;
    wait::until("what protects nobody is said", SOON, || {
        let log = host.daemon.log();
        let told = ["account \\\"nosuchuser\\\"", "group \\\"nosuchgroup\\\""];
        told.iter().all(|part| log.contains(part)).then_some(())
    })
    .beside(|| host.daemon.log())?;
    host.wait_for_metric("procstorm_protected_entries_void", 2.0)?;
    for (round, user) in [(1, "carla".to_owned()), (2, uid.to_string())] {
        host.post(&[Post::storm(uid, "core-prot").with("user", &user)])?;
        host.wait_for_verdicts(&vec!["protected_user"; round])?;
    }
    let answer = host.post(&[Post::storm(uid, "core-prot").with("user", "hostmaster")])?;
    assert_eq!(answer.body, "0 accepted, 0 coalesced, 1 refused\n");
    assert_eq!(storms[0].living()?, 6);
    // After a reload the list is another.
    host.change_policy("core-prot", "", &format!("accounts: {{protected: [{other}]}}"))?;
    host.reload()?;
    host.wait_for_metric("procstorm_protected_entries_void", 0.0)?;
    host.post(&[Post::storm(other, "core-prot").with("user", "dora")])?;
    host.wait_for_verdicts(&["protected_user"; 3])?;
    host.post(&[Post::storm(uid, "core-prot").with("user", "carla")])?;
    host.wait_until_dead(&storms[0])?;
    assert_eq!(storms[1].living()?, 6);
    Ok(())
}

#[test]
fn nobody_is_acted_on_but_those_whom_the_policy_allows_under_any_name() -> Result<(), Fault> {
    needs_root!();
    let [carla, dora, eve] = claim_uids();
    let storms = [
        Storm::raise(carla, b"core-only", 6)?,
        Storm::raise(dora, b"core-only", 6)?,
        Storm::raise(eve, b"core-only", 6)?,
    ];
    // The policy allows carla by her second name, and dora by her group.
    let users =
        [("carla", carla), ("clerk", carla), ("dora", dora), ("eve", eve), ("@team:dora", 59_990)];
    let top = "accounts: {only: [clerk, \"@team\", nosuchuser]}";
    let host = Host::start_among(&users, "core-only", "", top)?;
    wait::until("what allows nobody is said", SOON, || {
        let told = "accounts.only: there is no account \\\"nosuchuser\\\"";
        host.daemon.log().contains(told).then_some(())
    })
    .beside(|| host.daemon.log())?;
    host.post(&[Post::storm(eve, "core-only").with("user", "eve")])?;
    host.wait_for_verdicts(&["excluded_user"])?;
    for user in ["carla", "dora"] {
        host.post(&[Post::storm(0, "core-only").with("user", user)])?;
    }
    host.wait_for_verdicts(&["excluded_user", "none_seen", "none_seen"])?;
    let living: Result<Vec<_>, _> = storms.iter().map(Storm::living).collect();
    assert_eq!(living?, [0, 0, 6]);
    // Protected wins.
    let top = "accounts: {only: [eve, dora], protected: [\"@team\"]}";
    host.change_policy("core-only", "", top)?;
    host.reload_and_wait()?;
    let again = Storm::raise(dora, b"core-only", 6)?;
    host.post(&[Post::storm(0, "core-only").with("user", "eve")])?;
    host.post(&[Post::storm(0, "core-only").with("user", "dora")])?;
    host.wait_for_verdicts(&[
        "excluded_user",
        "none_seen",
        "none_seen",
        "none_seen",
        "protected_user",
    ])?;
    assert_eq!(again.living()?, 6);
    Ok(())
}

#[test]
fn alertmanagers_own_word_of_a_silence_counts_before_ours() -> Result<(), Fault> {
    needs_root!();
    for (status, word) in [
        (json!({"state": "suppressed", "silencedBy": ["b7a3"], "inhibitedBy": []}), "b7a3"),
        (json!({"state": "suppressed", "silencedBy": [], "inhibitedBy": ["f00d"]}), "f00d"),
    ] {
        let uid = claim_uid();
        let receiver = Receiver::start()?;
        let host = Host::start("core-own", "    settle: 120s\n    cooldown: 1s", &receiver.line())?;
        let _first = Storm::raise(uid, b"core-own", 8)?;
        host.post(&[Post::storm(uid, "core-own")])?;
        host.wait_for_verdicts(&["none_seen"])?;
        // No silence that could be compared says so.
        receiver.hold(&Post::storm(uid, "core-own"), &status);
        let second = host.raise_until_silenced(uid, b"core-own")?;
        assert_eq!(second.living()?, 8);
        let summary = host.remediations()?.pop().unwrap();
        assert!(text(&summary, "summary").contains(word), "{summary}");
    }
    // One that seems to cover the alert, and of which Alertmanager says that it does not.
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let host = Host::start("core-own", "    settle: 120s\n    cooldown: 1s", &receiver.line())?;
    let _first = Storm::raise(uid, b"core-own", 8)?;
    host.post(&[Post::storm(uid, "core-own")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    receiver.hold(&Post::storm(uid, "core-own"), &json!({"state": "active", "silencedBy": []}));
    receiver.silence(&json!([{"id": "b7a1", "status": {"state": "active"}, "matchers":
        [{"name": "user", "value": uid.to_string(), "isRegex": false, "isEqual": true}]}]));
    let second = Storm::raise(uid, b"core-own", 8)?;
    host.wait_for_verdicts(&["none_seen", "none_seen"])?;
    assert_eq!(second.living()?, 0);
    Ok(())
}

#[test]
fn a_uid_that_holds_the_mail_of_several_users_is_left_alone_and_told_unless_allowed()
-> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let host = Host::start_among(&[("vmail", uid)], "core-vm", playbook, &receiver.line())?;
    let own = |name: &str| {
        let path = host.dir().join("mail").join(name);
        fs::write(&path, "mail").unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).unwrap();
    };
    // The user's own, with what servers leave beside it.
    for name in ["vmail", "vmail.lock", ".vmail.pop"] {
        own(name);
    }
    let post = || host.post(&[Post::storm(uid, "core-vm").with("user", "vmail")]);
    let _first = Storm::raise(uid, b"core-vm", 6)?;
    post()?;
    host.wait_for_verdicts(&["none_seen"])?;
    own("customer1");
    let second = Storm::raise(uid, b"core-vm", 6)?;
    for round in 1..=2 {
        post()?;
        let mut verdicts = vec!["none_seen"];
        verdicts.resize(round + 1, "shared_uid");
        host.wait_for_verdicts(&verdicts)?;
    }
    assert_eq!(second.living()?, 6);
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let told: Vec<_> = receiver
        .posts()
        .into_iter()
        .filter(|post| text(&post["labels"], "verdict") == "shared_uid")
        .collect();
    assert_eq!(told.len(), 1, "once: {told:?}");
    assert!(text(&told[0]["annotations"], "summary").contains("\"customer1\""), "{told:?}");
    let top = format!("accounts: {{allow_shared_uid: true}}\n{}", receiver.line());
    host.change_policy("core-vm", playbook, &top)?;
    host.reload()?;
    wait::until("reloaded", SOON, || host.daemon.log().contains("reloaded").then_some(()))?;
    post()?;
    host.wait_until_dead(&second)?;
    Ok(())
}

/// Two may not act at once here, and while one waits for the other, the operator forbids all.
#[test]
fn what_waits_for_its_turn_is_judged_by_the_policy_that_is_in_force_then() -> Result<(), Fault> {
    needs_root!();
    let [first, second] = claim_uids();
    let playbook = "    settle: 0s\n    grace: 10s";
    let host = Host::start("core-turn", playbook, "parallel: 1")?;
    let deaf = Opponent::start("deaf", first, b"core-turn", 8, "")?;
    let storm = Storm::raise(second, b"core-turn", 8)?;
    host.post(&[Post::storm(first, "core-turn")])?;
    let acts = || host.daemon.log().contains("acts").then_some(());
    wait::until("the first acts", SOON, acts).beside(|| host.daemon.log())?;
    host.post(&[Post::storm(second, "core-turn")])?;
    // Its account is looked up by then; were it not, the test would only show less.
    wait::nap(Duration::from_secs(1));
    host.change_policy("core-turn", playbook, "parallel: 1\ndry_run: true")?;
    host.reload()?;
    host.wait_for_verdicts(&["none_seen", "dry_run"])?;
    assert_eq!(storm.living()?, 8);
    assert!(deaf.are_gone_within(SOON));
    Ok(())
}
