//! The journal of an older version: `remediator/tests/data/journal-0.1.0.sqlite`, whose README says
//! how it was made and what it holds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::storm::Storm;
use serde_json::{Value, json};

use crate::{text, with_journal};

const SOON: Duration = Duration::from_secs(60);

const USERS: [(&str, u32); 7] = [
    ("alice", 46_001),
    ("bob", 46_002),
    ("carol", 46_003),
    ("dora", 46_004),
    ("erik", 46_005),
    ("fred", 46_006),
    ("gina", GINA),
];

/// The user whose storm was being killed when the daemon was killed.
const GINA: u32 = 46_007;

/// The remediation of that storm.
const CUT_OFF: usize = 15;

/// Settles nothing by the clock, and forgets nothing: the journal's times are those of its making.
const TOP: &str = "history: 36500d\n";

/// How the remediations in the journal end, the first to the last. Those that had not ended are a
/// storm that waited for its cool-down, one that was watched for, and the one that was cut off.
const ENDS: [&str; 15] = [
    "none_seen",
    "no_longer_true",
    "none_seen",
    "limit_reached",
    "respawning",
    "archive_failed",
    "none_seen",
    "dry_run",
    "root",
    "unknown_user",
    "none_seen",
    "no_longer_true",
    "none_seen",
    "none_seen",
    "interrupted",
];

/// The outcomes that waited for Alertmanager.
const WAITING: [&str; 3] = ["11-1795896042939", "13-1795896043203", "14-1795896044464"];

fn events(receiver: &Receiver) -> Vec<String> {
    receiver.posts().iter().map(|post| text(&post["labels"], "event").to_owned()).collect()
}

/// The storms of these tests are those of one user: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host whose remediator has stopped, and has the old journal for its next start.
fn host(receiver: &Receiver, playbook: &str) -> Result<Host, Fault> {
    let top = format!("{TOP}{}", receiver.line());
    let mut host = Host::start_among(&USERS, "imapd", playbook, &top)?;
    assert!(host.stop()?.success());
    let state = host.dir().join("state");
    fs::remove_dir_all(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let old = programs::project().join("remediator/tests/data/journal-0.1.0.sqlite");
    fs::copy(old, state.join("journal.sqlite")).unwrap();
    Ok(host)
}

/// Puts a mail file where gina's is.
fn put_mail(host: &Host) {
    let mail = host.dir().join("mail/gina");
    fs::write(&mail, "From gina\n\nafter the upgrade\n").unwrap();
    chown(&mail, Some(GINA), Some(GINA)).unwrap();
}

/// How many steps of that name the cut-off remediation has.
fn steps(host: &Host, name: &str) -> i64 {
    let name = name.to_owned();
    with_journal(host, async |journal| {
        journal
            .read(move |connection| {
                let count = "SELECT count(*) FROM steps WHERE remediation = 15 AND name = ?1";
                Ok(connection.query_row(count, [name], |row| row.get(0))?)
            })
            .await
    })
}

fn outcome(receiver: &Receiver, remediation: usize) -> Value {
    let of_it =
        |post: &Value| text(&post["labels"], "event").starts_with(&format!("{remediation}-"));
    receiver.posts().into_iter().find(of_it).unwrap_or_default()
}

#[test]
fn an_old_journal_shows_its_history_resumes_and_delivers_what_waited() -> Result<(), Fault> {
    needs_root!();
    let _turn = turn();
    let receiver = Receiver::start()?;
    let mut host = host(&receiver, "    settle: 0s\n    cooldown: 0s")?;
    host.restart()?;
    host.wait_for_verdicts(&ENDS)?;
    host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;

    let all = host.remediations()?;
    let first = &all[0];
    assert_eq!((text(first, "user"), text(first, "command")), ("alice", "imapd"));
    assert_eq!((&first["before"], &first["after"]), (&json!(8), &json!(0)));
    assert_eq!(text(first, "summary"), "killed all alice imapd processes");
    let archives = ["/var/mail/arc/alice.1795896041", "/var/mail/arc/alice.1795896042"];
    assert_eq!(first["archives"], json!(archives));
    let failure = "/var/mail/carol is a symbolic link, not followed";
    assert_eq!(all[5]["archive_failures"], json!([failure]));
    assert_eq!(all[7]["dry_run"], json!(true));
    let cut_off = &all[CUT_OFF - 1];
    assert_eq!((&cut_off["before"], &cut_off["after"]), (&json!(30), &json!(0)));
    assert_eq!(cut_off["archives"], json!(["/var/mail/arc/gina.1795896044"]));

    for (number, parts) in [
        (1, vec!["/var/mail/.alice.pop", archives[1], "copy_file_range", "None seen for", "81 ms"]),
        (5, vec!["Appeared", "from 60 (respawner)", "Sent SIGKILL", "856", "Not reaped"]),
        (6, vec!["could not save user mail file", failure]),
        (8, vec!["would save user mail file /var/mail/dora", "dry run"]),
        (CUT_OFF, vec!["kill_user_proc", "running", "gina.1795896044", "interrupted"]),
    ] {
        let page = host.get(&format!("/remediations/{number}"))?;
        assert_eq!(page.status, 200);
        for part in parts {
            assert!(page.body.contains(part), "{part} in {}", page.body);
        }
        assert!(!page.body.contains("Cannot be read"), "{}", page.body);
    }
    let page = host.get("/")?.body;
    for user in ["alice", "bob", "carol", "dora", "erik", "fred", "gina", "zoe"] {
        assert!(page.contains(user), "{user} in {page}");
    }

    // What waited is delivered first and once, and then what this start has ended.
    let posted = events(&receiver);
    let known: Vec<_> = posted.iter().filter(|event| WAITING.contains(&event.as_str())).collect();
    assert_eq!(known, WAITING);
    let once: BTreeSet<_> = posted.iter().collect();
    assert_eq!(once.len(), posted.len(), "{posted:?}");
    assert_eq!(text(&outcome(&receiver, CUT_OFF)["labels"], "verdict"), "interrupted");

    assert!(host.stop()?.success());
    let log = host.daemon.log();
    assert!(!log.contains("level=error"), "{log}");
    let version: i64 = with_journal(&host, async |journal| {
        journal
            .read(|connection| {
                Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
            })
            .await
    });
    assert!(version >= 2, "{version}");
    Ok(())
}

#[test]
fn a_kill_that_an_old_version_began_is_finished_and_its_archive_is_not_made_again()
-> Result<(), Fault> {
    needs_root!();
    let _turn = turn();
    let receiver = Receiver::start()?;
    let mut host = host(&receiver, "    settle: 0s\n    cooldown: 0s")?;
    put_mail(&host);
    let storm = Storm::raise(GINA, b"imapd", 8)?;
    host.restart()?;
    let ends = [&ENDS[..CUT_OFF - 1], &["none_seen"]].concat();
    host.wait_for_verdicts(&ends)?;
    assert_eq!(storm.living()?, 0);
    assert_eq!(host.archived()?, Vec::<std::path::PathBuf>::new());
    let cut_off = &host.remediations()?[CUT_OFF - 1];
    assert_eq!(cut_off["before"], json!(30), "as the old version counted");
    assert_eq!(cut_off["archives"], json!(["/var/mail/arc/gina.1795896044"]));
    // A new alert is served as ever.
    let _storm = Storm::raise(GINA, b"imapd", 8)?;
    host.post(&[Post::storm(GINA, "imapd").with("user", "gina")])?;
    host.wait_for_verdicts(&[ends, vec!["none_seen"]].concat())?;
    assert_eq!(host.archived()?.len(), 1);
    Ok(())
}

#[test]
fn an_archive_whose_record_cannot_be_read_is_not_made_again_and_people_are_told()
-> Result<(), Fault> {
    needs_root!();
    let _turn = turn();
    let receiver = Receiver::start()?;
    let mut host = host(&receiver, "    settle: 0s\n    cooldown: 0s")?;
    with_journal(&host, async |journal| {
        journal
            .write(|tx| {
                let detail = r#"[{"form":"mbox","source":"/var/mail/gina","beamed_up":{}}]"#;
                let sql = "UPDATE steps SET detail = ?1 WHERE remediation = 15 AND detail NOT NULL";
                assert_eq!(tx.execute(sql, [detail])?, 1);
                Ok(())
            })
            .await
    });
    put_mail(&host);
    let storm = Storm::raise(GINA, b"imapd", 8)?;
    host.restart()?;
    host.wait_for_verdicts(&[&ENDS[..CUT_OFF - 1], &["none_seen"]].concat())?;
    assert_eq!(storm.living()?, 0, "it was recorded as saved, so the kill goes on");
    assert_eq!(host.archived()?, Vec::<std::path::PathBuf>::new());
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let outcome = outcome(&receiver, CUT_OFF);
    assert_eq!(text(&outcome["labels"], "severity"), "warning");
    let told = text(&outcome["annotations"], "description");
    let said =
        "step archive_mail_file ended as \"saved\", but its record in the journal cannot be read";
    assert!(told.contains(said), "{told}");
    let log = host.daemon.log();
    assert!(log.contains("record of a step; the step is not repeated"), "{log}");
    let page = host.get(&format!("/remediations/{CUT_OFF}"))?.body;
    assert!(page.contains("Cannot be read") && page.contains("beamed_up"), "{page}");
    assert!(host.stop()?.success());
    assert_eq!(steps(&host, "archive_mail_file"), 1);
    Ok(())
}

/// Makes the kill that was cut off one that ended, with a record that cannot be read.
fn end_the_kill_illegibly(host: &Host) {
    with_journal(host, async |journal| {
        journal
            .write(|tx| {
                let sql = "UPDATE steps SET detail = '{}', outcome = 'respawning', good = 0, \
                           ended_ms = began_ms + 5 WHERE remediation = 15 AND ended_ms IS NULL";
                assert_eq!(tx.execute(sql, [])?, 1);
                // Nobody else's storm is to be watched for.
                tx.execute("UPDATE remediations SET state = 'done' WHERE id = 14", [])?;
                Ok(())
            })
            .await
    });
}

#[test]
fn a_kill_whose_record_cannot_be_read_is_told_though_its_storm_is_over() -> Result<(), Fault> {
    needs_root!();
    let _turn = turn();
    let receiver = Receiver::start()?;
    let mut host = host(&receiver, "    settle: 0s\n    cooldown: 0s")?;
    end_the_kill_illegibly(&host);
    host.restart()?;
    host.wait_for_verdicts(&ENDS)?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let outcome = outcome(&receiver, CUT_OFF);
    let summary = text(&outcome["annotations"], "summary");
    assert!(summary.starts_with("no gina imapd processes are left of 30"), "{summary}");
    assert!(summary.ends_with("record of what was done cannot be read"), "{summary}");
    let told = text(&outcome["annotations"], "description");
    assert!(told.contains("step kill_user_proc ended as \"respawning\""), "{told}");
    Ok(())
}

#[test]
fn a_kill_whose_record_cannot_be_read_is_not_repeated_but_its_storm_is_watched_for()
-> Result<(), Fault> {
    needs_root!();
    let _turn = turn();
    let receiver = Receiver::start()?;
    let mut host = host(&receiver, "    settle: 2m\n    cooldown: 0s")?;
    end_the_kill_illegibly(&host);
    let storm = Storm::raise(GINA, b"imapd", 8)?;
    host.restart()?;
    // Another remediation ends the storm that is still there.
    host.wait_for_verdicts(&[&ENDS[..], &["none_seen"]].concat())?;
    assert_eq!(storm.living()?, 0);
    wait::until("both outcomes", SOON, || {
        (outcome(&receiver, CUT_OFF + 1) != Value::Null).then_some(())
    })?;
    let outcome = outcome(&receiver, CUT_OFF);
    assert_eq!(text(&outcome["labels"], "severity"), "warning");
    let summary = text(&outcome["annotations"], "summary");
    assert!(summary.starts_with("8 gina imapd processes are left of 30"), "{summary}");
    let told = text(&outcome["annotations"], "description");
    assert!(told.contains("step kill_user_proc ended as \"respawning\""), "{told}");
    assert!(host.stop()?.success());
    assert_eq!(steps(&host, "kill_user_proc"), 1);
    Ok(())
}
