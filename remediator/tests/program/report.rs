//! `report`: what the journal says, of a running daemon as well.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Output;

use jiff::{SignedDuration, Timestamp};
use procstorm_remediator::journal::{Journal, ms};
use serde_json::Value;

use crate::command_line::{remediator, said};

/// A policy whose journal is in `place`, and its path.
fn policy(place: &Path) -> String {
    let path = place.join("remediator.yml");
    let text = format!(
        "host: moscow\nstate: {}\ndry_run: true\nplaybooks:\n  p: {{alerts: [A], command: imapd, \
         threshold: 90, steps: [kill_user_proc]}}\n",
        place.join("state").display()
    );
    fs::write(&path, text).expect("written");
    path.to_str().expect("a path").to_owned()
}

fn report(place: &Path, more: &[&str]) -> Output {
    let policy = policy(place);
    let arguments = [&["report", "--config.file", &policy], more].concat();
    remediator(&arguments)
}

/// A remediation: whose, whether dry, its verdict, its size, how many days ago, whether it acted.
type Row = (&'static str, bool, &'static str, i64, i64, bool);

const ROWS: [Row; 8] = [
    ("alice", true, "dry_run", 95, 1, true),
    ("alice", true, "dry_run", 120, 3, true),
    ("bob", true, "dry_run", 91, 2, true),
    ("bob", true, "limit_reached", 99, 2, false),
    ("carol", false, "none_seen", 200, 4, true),
    ("dora", true, "archive_failed", 93, 5, true),
    ("old", true, "dry_run", 999, 40, true),
    ("e\u{1b}[2Jve\n\u{9b}31m", true, "dry_run", 90, 1, true),
];

/// A journal with these rows, and an alert for each: the first is repeated by Alertmanager.
fn journal(place: &Path) -> Journal {
    let journal = Journal::start(&place.join("state")).expect("a thread");
    let now = Timestamp::now();
    let filled = journal.write(move |tx| {
        for (id, (user, dry, verdict, before, days, acted)) in (1_i64..).zip(ROWS) {
            let then = ms(now - SignedDuration::from_hours(24 * days));
            tx.execute(
                "INSERT INTO remediations (id, playbook, user, command, dry_run, state, accepted_ms,
                     due_ms, acted_ms, ended_ms, before, after, verdict, summary)
                 VALUES (?1, 'p', ?2, 'imapd', ?3, 'done', ?4, ?4, iif(?5, ?4, NULL), ?4, ?6, ?6, ?7,
                     'because of ' || ?2)",
                (id, user, dry, then, acted, before, verdict),
            )?;
            for _ in 0..3 {
                tx.execute(
                    "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user,
                         command, playbook, labels, decision, remediation)
                     VALUES (?1, 'f', '2026-11-23T13:51:45Z', 'firing', 'moscow', ?2, 'imapd', 'p',
                         '{}', 'accepted', ?3)",
                    (then, user, id),
                )?;
            }
        }
        for starts in ["a", "a", "b"] {
            tx.execute(
                "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user, command,
                     playbook, labels, decision, refusal, reason)
                 VALUES (?1, 'f', ?2, 'firing', 'moscow', 'root', 'imapd', 'p', '{}', 'refused',
                     'root', 'user root has uid 0')",
                (ms(now), starts),
            )?;
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(filled).expect("filled");
    journal
}

#[test]
fn people_and_machines_read_who_would_have_been_hit_while_the_journal_is_in_use() {
    let place = tempfile::tempdir().expect("a directory");
    let journal = journal(place.path());
    let told = report(place.path(), &[]);
    assert!(told.status.success(), "{}", said(&told));
    let text = String::from_utf8(told.stdout).expect("text");
    let plain = |c: char| c == '\n' || !c.is_control();
    assert!(text.chars().all(plain), "{text:?}");
    for line in [
        "In dry runs it would have hit 4 storms of 3 users (396 processes, at most 120 at once); \
         nothing was killed.",
        "Live, it hit 1 storm of 1 user (200 processes, at most 200 at once).",
        "  root, root: user root has uid 0",
        "  bob, limit_reached: because of bob",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line:?} in\n{text}");
    }
    assert!(!text.contains("old"), "{text}");
    let longer = report(place.path(), &["--since", "60d"]);
    assert!(said(&longer).contains("old"), "{}", said(&longer));

    let told = report(place.path(), &["--json"]);
    let text = String::from_utf8(told.stdout).expect("text");
    assert!(text.chars().all(plain), "{text:?}");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&json["schema_version"], &json["host"]), (&1.into(), &"moscow".into()));
    let hits = json["hits"].as_array().expect("a list");
    let alice = hits.iter().find(|hit| hit["user"] == "alice").expect("alice");
    assert_eq!(
        (&alice["times"], &alice["largest"], &alice["processes"], &alice["dry_run"]),
        (&2.into(), &120.into(), &215.into(), &true.into())
    );
    assert!(hits.iter().any(|hit| hit["user"] == ROWS[7].0), "as it is: {hits:?}");
    assert_eq!(json["events"].as_array().map(Vec::len), Some(5));
    let refusals = json["refusals"].as_array().expect("a list");
    let of = |why: &str| refusals.iter().find(|one| one["why"] == why).expect("refused");
    assert_eq!((&of("root")["alerts"], &of("root")["times"]), (&2.into(), &3.into()));
    assert_eq!(of("root")["dry_run"], Value::Null);
    // However often it was repeated.
    assert_eq!(
        (&of("limit_reached")["alerts"], &of("limit_reached")["largest"]),
        (&1.into(), &99.into())
    );
    assert_eq!(of("archive_failed")["user"], "dora");

    // Its fields are those of the document.
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.expect("the README");
    let section = readme.split("\n## ").find(|section| section.starts_with("What was hit"));
    let section = section.expect("its section");
    let lists = [&json, &json["hits"][0], &json["refusals"][0], &json["events"][0]];
    for field in lists.iter().flat_map(|object| object.as_object().expect("an object").keys()) {
        assert!(section.contains(&format!("`{field}`")), "{field} is not in the README");
    }
    drop(journal);
}

/// A kill may end some and have no right to the others: its verdict is `denied`, and still it hit.
#[test]
fn a_kill_that_ended_some_is_a_hit_whatever_its_verdict() {
    let place = tempfile::tempdir().expect("a directory");
    let journal = Journal::start(&place.path().join("state")).expect("a thread");
    let now = Timestamp::now();
    let filled = journal.write(move |tx| {
        for (id, user, verdict, step, detail) in [
            (1, "killed", "denied", "kill_user_proc", Some(r#"{"exited":40,"denied":3}"#)),
            (2, "asked", "left_alone", "kill_user_proc", Some(r#"{"exited":0,"terminated":7}"#)),
            (3, "spared", "denied", "kill_user_proc", Some(r#"{"exited":0,"terminated":0}"#)),
            (4, "broken", "failed", "kill_user_proc", Some(r#"{"exited":40"#)),
            (5, "unknown", "blind", "kill_user_proc", None),
            (6, "other", "failed", "archive_mail_file", Some(r#"{"exited":40}"#)),
            // The same user and verdict a second time, and none is killed.
            (7, "killed", "denied", "kill_user_proc", Some(r#"{"exited":0,"denied":43}"#)),
        ] {
            tx.execute(
                "INSERT INTO remediations (id, playbook, user, command, state, accepted_ms, due_ms,
                     acted_ms, ended_ms, before, verdict, summary)
                 VALUES (?1, 'p', ?2, 'imapd', 'done', ?3, ?3, ?3, ?3, 43, ?4, 'number ' || ?1)",
                (id, user, ms(now), verdict),
            )?;
            tx.execute(
                "INSERT INTO steps (remediation, name, began_ms, ended_ms, detail)
                 VALUES (?1, ?2, ?3, ?3, ?4)",
                (id, step, ms(now), detail),
            )?;
            tx.execute(
                "INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user,
                     command, playbook, labels, decision, remediation)
                 VALUES (?1, 'f' || ?2, 'a', 'firing', 'moscow', ?3, 'imapd', 'p', '{}',
                     'accepted', ?2)",
                (ms(now), id, user),
            )?;
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(filled).expect("filled");

    let told = report(place.path(), &["--json"]);
    assert!(told.status.success(), "{}", said(&told));
    let json: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let of = |list: &str, fields: [&str; 3]| {
        let rows = json[list].as_array().expect("a list").iter();
        let mut rows: Vec<_> =
            rows.map(|row| fields.map(|field| row[field].to_string().replace('"', ""))).collect();
        rows.sort();
        rows
    };
    let row = |row: [&str; 3]| row.map(str::to_owned);
    assert_eq!(
        of("hits", ["user", "verdict", "times"]),
        [row(["asked", "left_alone", "1"]), row(["killed", "denied", "1"])]
    );
    assert_eq!(
        of("events", ["user", "remediation", "before"]),
        [row(["asked", "2", "43"]), row(["killed", "1", "43"])]
    );
    assert_eq!(
        of("refusals", ["user", "reason", "alerts"]),
        [
            row(["broken", "number 4", "1"]),
            row(["killed", "number 7", "1"]),
            row(["other", "number 6", "1"]),
            row(["spared", "number 3", "1"]),
            row(["unknown", "number 5", "1"]),
        ]
    );
    let text = said(&report(place.path(), &[]));
    assert!(text.contains("Live, it hit 2 storms of 2 users"), "{text}");
    drop(journal);
}

#[test]
fn a_journal_that_is_not_there_or_cannot_be_read_is_said_so() {
    let place = tempfile::tempdir().expect("a directory");
    let none = report(place.path(), &[]);
    assert!(none.status.success(), "{}", said(&none));
    assert!(said(&none).contains("There is no journal"), "{}", said(&none));
    assert!(!place.path().join("state").exists(), "it only reads");
    let json: Value =
        serde_json::from_slice(&report(place.path(), &["--json"]).stdout).expect("JSON");
    assert_eq!(json["has_journal"], false);

    let journal = Journal::start(&place.path().join("state")).expect("a thread");
    let newer = journal.write(|tx| Ok(tx.execute_batch("PRAGMA user_version = 99")?));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        newer.await.expect("written");
        journal.close().await;
    });
    let told = report(place.path(), &[]);
    assert_eq!(told.status.code(), Some(1));
    assert!(said(&told).contains("of version 99"), "{}", said(&told));

    let file = place.path().join("state/journal.sqlite");
    fs::write(&file, "not a database, but long enough to be one".repeat(100)).expect("written");
    let told = report(place.path(), &[]);
    assert_eq!(told.status.code(), Some(1), "{}", said(&told));
    assert!(said(&told).contains("cannot read the journal in"), "{}", said(&told));

    let wrong = remediator(&["report", "--since", "yesterday"]);
    assert!(
        !wrong.status.success() && said(&wrong).contains("such as 12h or 7d"),
        "{}",
        said(&wrong)
    );
}
