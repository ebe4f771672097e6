//! The whole way: a real storm beside bystanders is seen, archived, killed and mailed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use procstorm_testkit::{in_a_world_apart, wait};
use procstorm_tests::smtp::Mail;
use procstorm_tests::stack::site::likeness;
use procstorm_tests::stack::{Person, Remediation, Stack, Timing};
use procstorm_tests::storm::Storm;

/// How long any one thing may take to be seen.
const LIMIT: Duration = Duration::from_secs(120);

fn person(name: &str, uid: u32) -> Person {
    Person::new(name, uid)
}

/// Waits for the first remediation of `user` to end.
fn remediation(stack: &Stack, user: &str) -> Remediation {
    let ended = wait::until("a remediation that has ended", LIMIT, || {
        let list = stack.remediations().ok()?;
        list.into_iter().rfind(|one| one.user() == user && one.is_done())
    });
    ended.unwrap_or_else(|fault| panic!("{fault}\n{}", stack.remediator.log()))
}

fn mail(stack: &Stack, what: &str, wanted: impl Fn(&Mail) -> bool) -> Mail {
    let found = wait::until(what, LIMIT, || stack.mail.find(&wanted));
    found.unwrap_or_else(|fault| {
        let all: Vec<String> = stack.mail.mails().iter().map(Mail::subject).collect();
        panic!("{fault}; there are {all:#?}\n{}", stack.remediator.log())
    })
}

/// Sets a time of change with nanoseconds, as a mail server leaves it.
fn set_changed(path: &Path, seconds: u64, nanoseconds: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
}

#[test]
fn a_storm_is_seen_archived_killed_and_mailed_and_bystanders_live() {
    in_a_world_apart!();
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (person("alice", 45_100), person("bob", 45_101));
    let people = [alice.clone(), bob.clone()];
    // The shipped timing: with 1 s the storm is killed, and its alert resolved, before the mail
    // of it has waited its second for others (group_wait).
    let stack = Stack::start(dir.path(), &people, Timing::Shipped).unwrap();

    // Bytes that a copy by lines or by text would not keep.
    let mbox: Vec<u8> = (0..=255).cycle().take(300_001).collect();
    let pop = b"From alice\n\nheld by the POP server\n".repeat(1000);
    let mbox_path = stack.site.put_mail(&alice, "alice", &mbox, 0o660).unwrap();
    let pop_path = stack.site.put_mail(&alice, ".alice.pop", &pop, 0o600).unwrap();
    let bobs = stack.site.put_mail(&bob, "bob", b"From bob\n", 0o600).unwrap();
    set_changed(&mbox_path, 956_880_000, 123_456_789);
    set_changed(&pop_path, 956_880_001, 987_654_321);

    let bystanders = [
        ("the same user, another command", Storm::raise(alice.uid, b"vi", 5).unwrap()),
        ("the same user, nearly that command", Storm::raise(alice.uid, b"imapd-idle", 5).unwrap()),
        ("another user, that command, below red", Storm::raise(bob.uid, b"imapd", 80).unwrap()),
        ("another red alert, with no playbook", Storm::raise(bob.uid, b"cruncher", 30).unwrap()),
    ];
    // The storm's line shall join a group of which a mail was sent already.
    mail(&stack, "the lasting alert's mail", |mail| {
        mail.subject() == "ProcNumChkRed on moscow: 30 bob cruncher"
    });
    let emergency = mail(&stack, "the other alert's mail", |mail| {
        mail.subject().contains("ProcNumChkEmergency") && mail.text().contains("  80 bob imapd")
    });
    assert_eq!(emergency.to, ["postmaster@example.org"]);
    let storm = Storm::raise(alice.uid, b"imapd", 120).unwrap();
    // From the alert until its mail Prometheus sees nothing more. The alert of a storm that was
    // killed resolves at the next evaluation, and the mail leaves a second before that: less than
    // what a busy machine may be late by.
    wait::until("the alert is taken", LIMIT, || {
        stack.remediations().ok()?.iter().any(|one| one.user() == "alice").then_some(())
    })
    .unwrap();
    stack.prometheus.daemon.halt().unwrap();

    let done = remediation(&stack, "alice");
    assert_eq!(done.verdict(), "none_seen", "{done:?}\n{}", stack.remediator.log());
    assert_eq!((done.before(), done.after()), (Some(120), Some(0)), "{done:?}");
    assert_eq!(storm.living().unwrap(), 0);
    for (who, bystander) in &bystanders {
        assert_eq!(bystander.living().unwrap(), bystander.pids().len(), "{who}");
    }

    let archived = stack.site.archived().unwrap();
    let [first, second] = archived.as_slice() else { panic!("{archived:?}") };
    for (archive, original, content) in [(first, &mbox_path, &mbox), (second, &pop_path, &pop)] {
        assert_eq!(&std::fs::read(archive).unwrap(), content, "{}", archive.display());
        assert_eq!(likeness(archive).unwrap(), likeness(original).unwrap());
        assert_eq!(&std::fs::read(original).unwrap(), content, "the mail file is untouched");
    }
    // As the original named them: the POP file one second later, so that they never collide.
    let epoch = |path: &Path| -> u64 {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.strip_prefix("alice.").unwrap().parse().unwrap()
    };
    assert_eq!(epoch(second), epoch(first) + 1);
    assert_eq!(std::fs::read(bobs).unwrap(), b"From bob\n");

    let alert = mail(&stack, "the alert's mail", |mail| {
        mail.subject().contains("ProcNumChkRed on moscow: 120 alice imapd")
    });
    for line in [" 120 alice imapd", "  30 bob cruncher"] {
        assert!(alert.text().contains(line), "no {line:?} in {}", alert.text());
    }
    assert!(!alert.text().contains("bob imapd"), "{}", alert.text());
    stack.prometheus.daemon.resume().unwrap();
    let told = mail(&stack, "the outcome's mail", |mail| {
        mail.subject().contains("killed all alice imapd processes")
    });
    for archive in [first, second] {
        let line = format!("saved user mail file as {}", archive.display());
        assert!(told.text().contains(&line), "no {line:?} in {}", told.text());
    }

    // The storm is over for Prometheus too; bob is left to people.
    wait::until("the alert resolves", LIMIT, || {
        let alerts = stack.prometheus.alerts().ok()?;
        (!alerts.iter().any(|alert| alert.label("user") == "alice")).then_some(())
    })
    .unwrap();
    assert_eq!(stack.remediations().unwrap().iter().filter(|one| one.user() == "bob").count(), 0);
    let outcomes = stack.mail.mails();
    let outcomes = outcomes.iter().filter(|mail| mail.subject().contains("killed all")).count();
    assert_eq!(outcomes, 1, "one mail a remediation");
}

#[test]
fn the_remediator_ends_with_success_in_the_middle_of_its_work() {
    in_a_world_apart!();
    let dir = tempfile::tempdir().unwrap();
    let carol = person("carol", 45_110);
    let people = [carol.clone()];
    let mut stack = Stack::start(dir.path(), &people, Timing::Fast).unwrap();
    let storm = Storm::raise(carol.uid, b"imapd", 100).unwrap();
    wait::until("the alert is taken", LIMIT, || {
        let list = stack.remediations().ok()?;
        (!list.is_empty()).then_some(())
    })
    .unwrap();
    let ended = stack.remediator.terminate(LIMIT).unwrap();
    assert!(ended.success(), "{}", stack.remediator.log());
    assert_eq!(storm.stopped().unwrap(), 0, "nobody is left stopped");
    // What was accepted is finished after a restart, if it was not before.
    stack.restart_remediator().unwrap();
    wait::until("the storm is gone", LIMIT, || (storm.living().ok()? == 0).then_some(())).unwrap();
}
