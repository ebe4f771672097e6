//! The ordinary life of an archive: both forms, attributes, names, retention.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};

use crate::world::{NOW, World, archive, archive_one, archive_result, kept, pattern, user};
use procstorm_remediator::policy::Retention;
use procstorm_remediator::steps::archive::{Archiver, Form, Method, OpenError, Planned, Settings};
use procstorm_testkit::needs_root;

#[test]
fn both_forms_are_archived_as_the_original_did() {
    needs_root!();
    let world = World::new();
    let mbox = world.mail("alice", 43_001, b"From alice\n");
    let pop = world.mail(".alice.pop", 43_001, b"From pop\n");
    let reports = archive(&world.archiver(), "alice", 43_001, NOW);

    let forms: Vec<Form> = reports.iter().map(|report| report.form).collect();
    assert_eq!(forms, Form::ALL);
    assert_eq!(world.archives(), ["alice.1700000000", "alice.1700000001"]);
    assert_eq!(world.read("alice.1700000000"), b"From alice\n");
    assert_eq!(world.read("alice.1700000001"), b"From pop\n");
    for (report, source) in reports.iter().zip([mbox, pop]) {
        let archived = report.result.as_ref().unwrap();
        assert_eq!(report.source, source);
        assert_eq!(kept(&archived.path), kept(&source));
        assert!(archived.locked && !archived.changed && archived.lost.is_empty(), "{archived:?}");
    }
}

#[test]
fn a_user_without_mail_has_no_report() {
    let world = World::new();
    assert!(archive(&world.archiver(), "nobody", 43_002, NOW).is_empty());
    assert!(world.archives().is_empty());
}

#[test]
fn mode_acl_owner_and_nanoseconds_are_kept() {
    needs_root!();
    let world = World::new();
    let source = world.mail("alice", 43_003, &pattern(100_000));
    fs::set_permissions(&source, fs::Permissions::from_mode(0o6640)).unwrap();
    run("setfacl", &["-m", "u:43004:r,g:43005:rw", source.to_str().unwrap()]);
    let times = fs::FileTimes::new()
        .set_accessed(UNIX_EPOCH + Duration::new(1_234_567, 123_456_789))
        .set_modified(UNIX_EPOCH + Duration::new(2_345_678, 987_654_321));
    File::options().write(true).open(&source).unwrap().set_times(times).unwrap();
    let before = fs::metadata(&source).unwrap();

    let archived = archive_one(&world.archiver(), "alice", 43_003, NOW);

    assert!(archived.lost.is_empty(), "{archived:?}");
    assert_eq!(kept(&archived.path), kept(&source));
    let copy = fs::metadata(&archived.path).unwrap();
    assert_eq!(copy.mode() & 0o7000, 0, "nobody runs a mailbox");
    assert_eq!((copy.atime(), copy.atime_nsec()), (1_234_567, 123_456_789));
    assert_eq!(acl(&archived.path), acl(&source));
    assert!(acl(&source).contains("user:43004:r--"), "{}", acl(&source));
    // Our reading is not the user's reading.
    let after = fs::metadata(&source).unwrap();
    assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()));
    assert_eq!((after.ctime(), after.ctime_nsec()), (before.ctime(), before.ctime_nsec()));
}

#[test]
fn a_default_acl_of_the_archive_directory_does_not_reach_the_archive() {
    needs_root!();
    let world = World::new();
    let source = world.mail("alice", 43_006, b"x");
    let archiver = world.archiver();
    run("setfacl", &["-d", "-m", "u:43007:rwx", world.arc.to_str().unwrap()]);
    let archived = archive_one(&archiver, "alice", 43_006, NOW);
    assert_eq!(acl(&archived.path), acl(&source));
}

#[test]
fn holes_stay_holes() {
    needs_root!();
    let world = World::new();
    let source = world.mail("alice", 43_008, b"");
    let file = File::options().write(true).open(&source).unwrap();
    let data = pattern(1 << 20);
    for offset in [0, 300 << 20, 700 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&file, &data, offset).unwrap();
    }
    file.set_len(1 << 30).unwrap();
    let archived = archive_one(&world.archiver(), "alice", 43_008, NOW);
    let (copy, original) = (fs::metadata(&archived.path).unwrap(), fs::metadata(&source).unwrap());
    assert_eq!(archived.bytes, 1 << 30);
    assert_eq!(copy.len(), original.len());
    assert!(copy.blocks() <= original.blocks() + 64, "{} blocks", copy.blocks());
    assert!(same_content(&archived.path, &source));
}

#[test]
fn lengths_around_a_chunk() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    for length in [0, 1, 4095, 4096, 4097, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20_000_003] {
        let content = pattern(length);
        let name = format!("u{length}");
        world.mail(&name, 43_009, &content);
        let archived = archive_one(&archiver, &name, 43_009, NOW);
        assert!(fs::read(&archived.path).unwrap() == content, "{length} bytes");
    }
}

#[test]
fn a_taken_name_is_never_overwritten_or_followed() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    world.mail("alice", 43_010, b"mail");
    let victim = world.spool.join("victim");
    fs::write(&victim, b"precious").unwrap();
    symlink(&victim, world.arc.join("alice.1700000000")).unwrap();
    symlink("/nonexistent", world.arc.join("alice.1700000001")).unwrap();
    fs::write(world.arc.join("alice.1700000002"), b"older").unwrap();
    fs::create_dir(world.arc.join("alice.1700000003")).unwrap();
    fs::write(world.arc.join("alice.1700000004"), b"old").unwrap();

    let archived = archive_one(&archiver, "alice", 43_010, NOW);

    assert_eq!(archived.path, world.arc.join("alice.1700000005"));
    assert_eq!(fs::read(victim).unwrap(), b"precious");
    assert_eq!(world.read("alice.1700000002"), b"older");
    assert_eq!(world.read("alice.1700000005"), b"mail");
}

#[test]
fn when_every_name_is_taken_it_says_so() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    world.mail("alice", 43_011, b"mail");
    for second in NOW..NOW + 100 {
        fs::write(world.arc.join(format!("alice.{second}")), b"").unwrap();
    }
    let failure = archive_result(&archiver, "alice", 43_011, NOW).unwrap_err();
    assert_eq!(failure.label(), "collisions");
    assert_eq!(world.archives().len(), 100);
}

#[test]
fn an_unchanged_mail_file_is_not_copied_twice() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let source = world.mail("alice", 43_012, b"mail");
    world.mail(".alice.pop", 43_012, b"pop");
    archive(&archiver, "alice", 43_012, NOW);
    for again in archive(&archiver, "alice", 43_012, NOW + 300) {
        let again = again.result.unwrap();
        assert_eq!((again.method, again.changed), (Method::Identical, false));
        assert!(again.path.exists());
    }
    assert_eq!(world.archives().len(), 2);
    // Another content of the same length, its old time put back: the change time tells.
    let mtime = fs::metadata(&source).unwrap().modified().unwrap();
    fs::write(&source, b"MAIL").unwrap();
    File::options().write(true).open(&source).unwrap().set_modified(mtime).unwrap();
    let reports = archive(&archiver, "alice", 43_012, NOW + 600);
    assert_ne!(reports[0].result.as_ref().unwrap().method, Method::Identical);
    assert_eq!(reports[1].result.as_ref().unwrap().method, Method::Identical);
    assert_eq!(world.read("alice.1700000600"), b"MAIL");
    // An archive that lost its content does not count.
    File::options()
        .write(true)
        .open(world.arc.join("alice.1700000600"))
        .unwrap()
        .set_len(1)
        .unwrap();
    archive(&archiver, "alice", 43_012, NOW + 900);
    assert_eq!(world.read("alice.1700000900"), b"MAIL");
}

#[test]
fn retention_takes_only_our_own_and_never_the_newest() {
    needs_root!();
    let world = World::new();
    let retention = Retention {
        keep: Some(2),
        max_age: Some(Duration::from_secs(1000)),
        max_bytes: Some(1 << 30),
    };
    let archiver = Archiver::open(Settings { retention, ..world.settings() }).unwrap();
    // Strangers: another's, hand-made, and of users whose names begin alike.
    let strangers = ["alice.1", "alice.1.5", "alice.bob.5", "alice.5.gz", "alice", "alicex.5"];
    for name in strangers {
        fs::write(world.arc.join(name), b"stranger").unwrap();
    }
    for (n, name) in (0..).zip(["alice.1", "alice", "alice", "alice", "alice", "alice"]) {
        world.mail(name, 43_013, format!("mail {n}").as_bytes());
        archive(&archiver, name, 43_013, NOW + n);
    }
    world.mail(".alice.pop", 43_013, b"pop");
    archive(&archiver, "alice", 43_013, NOW + 5);
    let ours = ["alice.1.1700000000", "alice.1700000004", "alice.1700000005", "alice.1700000006"];
    let mut expected: Vec<&str> = strangers.into_iter().chain(ours).collect();
    expected.sort_unstable();
    assert_eq!(world.archives(), expected);

    // Ten years later all are too old; the newest of each form and user stay.
    let pruned = archiver.prune_all(NOW + 315_360_000);
    assert!(pruned.failed.is_empty(), "{pruned:?}");
    assert_eq!(pruned.removed, [world.arc.join("alice.1700000004")]);
}

#[test]
fn retention_by_bytes_lets_the_oldest_go_first() {
    needs_root!();
    let world = World::new();
    let retention = Retention { max_bytes: Some((3 << 20) + 65_536), ..Retention::default() };
    let archiver = Archiver::open(Settings { retention, ..world.settings() }).unwrap();
    for n in 0..6 {
        world.mail("alice", 43_014, &pattern((1 << 20) - usize::try_from(n).unwrap()));
        archive_one(&archiver, "alice", 43_014, NOW + n);
    }
    assert_eq!(world.archives(), ["alice.1700000003", "alice.1700000004", "alice.1700000005"]);
    world.mail("alice", 43_014, &pattern(5 << 20));
    archive_one(&archiver, "alice", 43_014, NOW + 9);
    assert_eq!(world.archives(), ["alice.1700000009"], "the newest stays, however big");
}

#[test]
fn a_plan_names_the_files_and_writes_nothing() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    world.mail("alice", 43_015, b"mail");
    let plan = archiver.plan(&user("alice"), 43_015, NOW);
    let path = world.arc.join("alice.1700000000");
    assert_eq!(plan[0].action.as_ref().unwrap(), &Planned::Copy { path: path.clone(), bytes: 4 });
    assert_eq!(plan.len(), 1);
    assert!(world.archives().is_empty());
    archive_one(&archiver, "alice", 43_015, NOW);
    let plan = archiver.plan(&user("alice"), 43_015, NOW + 1);
    assert_eq!(plan[0].action.as_ref().unwrap(), &Planned::Identical { path });
    let plan = archiver.plan(&user("alice"), 43_016, NOW + 1);
    assert_eq!(plan[0].action.as_ref().unwrap_err().label(), "wrong_owner");
}

#[test]
fn the_deadline_and_an_abort_leave_nothing() {
    needs_root!();
    let world = World::new();
    world.mail("alice", 43_017, &pattern(1 << 20));
    let settings = Settings { deadline: Duration::ZERO, ..world.settings() };
    let archiver = Archiver::open(settings).unwrap();
    let failure = archive_result(&archiver, "alice", 43_017, NOW).unwrap_err();
    assert_eq!(failure.label(), "deadline");
    let stop = AtomicBool::new(true);
    let reports = world.archiver().archive(&user("alice"), 43_017, NOW, &stop);
    assert_eq!(reports[0].result.as_ref().unwrap_err().label(), "aborted");
    assert!(world.archives().is_empty());
}

#[test]
fn an_archive_directory_that_is_not_ours_alone_is_refused() {
    needs_root!();
    let world = World::new();
    drop(world.archiver());
    assert_eq!(fs::metadata(&world.arc).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(&world.arc, fs::Permissions::from_mode(0o710)).unwrap();
    assert!(matches!(Archiver::open(world.settings()), Err(OpenError::Mode { mode: 0o710, .. })));
    fs::set_permissions(&world.arc, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&world.arc, Some(43_018), None).unwrap();
    assert!(matches!(
        Archiver::open(world.settings()),
        Err(OpenError::Owner { owner: 43_018, .. })
    ));
    let same = Settings { archive: world.spool.clone(), ..world.settings() };
    assert!(matches!(Archiver::open(same), Err(OpenError::Same { .. })));
    let missing = Settings { spool: "/nonexistent/mail".into(), ..world.settings() };
    let error = Archiver::open(missing).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/mail"), "{error}");
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.as_ref().is_ok_and(|s| s.success()), "{program} {arguments:?}: {status:?}");
}

fn acl(path: &Path) -> String {
    let output = Command::new("getfacl").args(["-n", "-c", "-p"]).arg(path).output().unwrap();
    if !output.status.success() {
        panic!("getfacl: {output:?}");
    }
    String::from_utf8(output.stdout).unwrap()
}

fn same_content(one: &Path, other: &Path) -> bool {
    Command::new("cmp").arg("-s").args([one, other]).status().unwrap().success()
}
