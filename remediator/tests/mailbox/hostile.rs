//! Whatever a user may have put in place of the mail file, and whatever the user is called.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::{NOW, World, archive, archive_one, archive_result, kept, pattern, user};
use procstorm_remediator::account::UserName;
use procstorm_remediator::policy::Reserve;
use procstorm_remediator::steps::archive::{Archiver, Failure, Settings};
use procstorm_testkit::mounts::with_own_mounts;
use procstorm_testkit::{needs_root, test_name};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};

const UID: u32 = 43_100;

/// What takes the place of a mail file, and the word for the refusal.
const IMPOSTORS: [(&str, &str); 13] = [
    ("symlink to another's mail", "symlink"),
    ("symlink to own mail", "symlink"),
    ("dangling symlink", "symlink"),
    ("symlink to a directory", "symlink"),
    ("symlink loop", "symlink"),
    ("fifo", "not_regular"),
    ("null device", "not_regular"),
    ("endless device", "not_regular"),
    ("block device", "not_regular"),
    ("socket", "not_regular"),
    ("directory", "maildir_unsupported"),
    ("hard link", "hard_linked"),
    ("another's file", "wrong_owner"),
];

fn make(impostor: &str, world: &World, path: &Path) {
    let node = |kind, major, minor| {
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), makedev(major, minor)).unwrap();
    };
    let bob = world.spool.join("bob");
    match impostor {
        "symlink to another's mail" => symlink("bob", path).unwrap(),
        "symlink to own mail" => {
            world.mail("own", UID, b"own");
            symlink(world.spool.join("own"), path).unwrap();
        }
        "dangling symlink" => symlink("/nonexistent/mail", path).unwrap(),
        "symlink to a directory" => symlink("/etc", path).unwrap(),
        "symlink loop" => symlink(path, path).unwrap(),
        "fifo" => node(FileType::Fifo, 0, 0),
        "null device" => node(FileType::CharacterDevice, 1, 3),
        "endless device" => node(FileType::CharacterDevice, 1, 5),
        "block device" => node(FileType::BlockDevice, 7, 200),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "directory" => fs::create_dir(path).unwrap(),
        "hard link" => {
            world.mail("own", UID, b"own");
            fs::hard_link(world.spool.join("own"), path).unwrap();
        }
        "another's file" => drop(fs::copy(bob, path).unwrap()),
        other => unreachable!("{other}"),
    }
    std::os::unix::fs::lchown(
        path,
        Some(if impostor == "another's file" { 43_101 } else { UID }),
        None,
    )
    .unwrap();
}

/// A file's mode, change time and content.
type State = (u32, i64, i64, Option<Vec<u8>>);

/// Everything in the spool but the archive.
fn state_of(world: &World) -> BTreeMap<String, State> {
    let entries = fs::read_dir(&world.spool).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| *path != world.arc)
        .map(|path| {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = meta.is_file().then(|| fs::read(&path).unwrap());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, (meta.mode(), meta.ctime(), meta.ctime_nsec(), content))
        })
        .collect()
}

#[test]
fn what_is_no_mail_file_is_refused_in_both_forms() {
    needs_root!();
    for (impostor, label) in IMPOSTORS {
        for name in ["alice", ".alice.pop"] {
            let world = World::new();
            let archiver = world.archiver();
            world.mail("bob", 43_101, b"secret of bob");
            make(impostor, &world, &world.spool.join(name));
            let before = state_of(&world);
            let started = Instant::now();

            // Whoever waited for a FIFO, or read a device to its end, would need the whole minute
            // that an archive may take.
            let failure = archive_result(&archiver, "alice", UID, NOW).unwrap_err();
            let planned = archiver.plan(&user("alice"), UID, NOW).remove(0).action.unwrap_err();

            assert_eq!((failure.label(), planned.label()), (label, label), "{impostor}: {failure}");
            let path = world.spool.join(name);
            assert!(failure.to_string().contains(path.to_str().unwrap()), "{failure}");
            assert!(started.elapsed() < Duration::from_secs(30), "{impostor}");
            assert!(world.archives().is_empty(), "{impostor}");
            assert_eq!(state_of(&world), before, "{impostor}");
        }
    }
}

#[test]
fn one_impostor_does_not_stop_the_other_form() {
    needs_root!();
    let world = World::new();
    make("fifo", &world, &world.spool.join("alice"));
    world.mail(".alice.pop", UID, b"pop");
    let reports = archive(&world.archiver(), "alice", UID, NOW);
    assert_eq!(reports[0].result.as_ref().unwrap_err().label(), "not_regular");
    assert!(reports[1].result.is_ok());
    assert_eq!(world.archives(), ["alice.1700000001"]);
}

#[test]
fn a_file_system_mounted_on_the_name_is_not_entered() {
    needs_root!();
    with_own_mounts(|| {
        let world = World::new();
        let archiver = world.archiver();
        let alice = world.mail("alice", UID, b"");
        let other = world.mail("other", UID, b"other");
        rustix::mount::mount_bind(&other, &alice).unwrap();
        let failure = archive_result(&archiver, "alice", UID, NOW).unwrap_err();
        assert_eq!(failure.label(), "mount_point");
        rustix::mount::unmount(&alice, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_spool_that_is_swapped_for_a_link_while_we_run_is_not_followed() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    world.mail("alice", UID, b"mail");
    let away = world.spool.with_file_name("away");
    fs::rename(&world.spool, &away).unwrap();
    symlink("/etc", &world.spool).unwrap();
    archive_one(&archiver, "alice", UID, NOW);
    assert_eq!(fs::read(away.join("arc/alice.1700000000")).unwrap(), b"mail");
}

/// Changes between a mail file and a link to another's as fast as it can be done: the check and
/// the opening must be of one and the same file.
#[test]
fn a_name_that_changes_between_check_and_opening_gives_nothing_away() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let bob = world.mail("bob", 43_101, b"secret of bob");
    let (alice, link) = (world.mail("alice", UID, b"mail"), world.spool.join("link"));
    symlink(&bob, &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0_u64.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                // Now shorter, now longer, so as not to fall into step.
                for _ in 0..turn * 7919 % 4001 {
                    std::hint::spin_loop();
                }
                renameat_with(CWD, &alice, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let started = Instant::now();
        // Until both were met often: a disk that others use can hold the renaming up for long.
        for round in 0.. {
            let met = |label| outcomes.get(label).is_some_and(|&times| times >= 15);
            let both = met("archived") && met("symlink");
            if (round >= 300 && both) || started.elapsed() > Duration::from_secs(60) {
                break;
            }
            let outcome = archive(&archiver, "alice", UID, NOW + round);
            let label = match outcome.first().map(|report| &report.result) {
                None => "none",
                Some(Ok(_)) => "archived",
                Some(Err(failure)) => failure.label(),
            };
            *outcomes.entry(label).or_default() += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{outcomes:?}");
    assert!(outcomes.keys().all(|label| ["archived", "symlink"].contains(label)), "{outcomes:?}");
    assert!(outcomes.len() == 2, "both were met: {outcomes:?}");
    for name in world.archives() {
        assert_eq!(world.read(&name), b"mail", "{name}");
    }
}

#[test]
fn a_user_called_as_the_archive_directory_gets_nothing_of_it() {
    needs_root!();
    let world = World::new();
    let failure = archive_result(&world.archiver(), "arc", UID, NOW).unwrap_err();
    assert_eq!(failure.label(), "maildir_unsupported");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any two users' mail, both forms, in one spool: each archive is its own user's.
    #[test]
    fn every_name_gets_its_own_mail_and_no_other(
        one in "[A-Za-z0-9_@+$][A-Za-z0-9_@+$.-]{0,63}", two in "[a1][a1.]{0,4}",
    ) {
        prop_assume!(one != two && ![&one, &two].contains(&&"arc".to_owned()));
        needs_root!();
        let world = World::new();
        let archiver = world.archiver();
        for name in [&one, &two] {
            world.mail(name, UID, format!("mbox of {name}").as_bytes());
            world.mail(&format!(".{name}.pop"), UID, format!("pop of {name}").as_bytes());
        }
        for name in [&one, &two] {
            prop_assert_eq!(archive(&archiver, name, UID, NOW).len(), 2);
        }
        for name in [&one, &two] {
            for (second, kind) in [(NOW, "mbox"), (NOW + 1, "pop")] {
                let content = String::from_utf8(world.read(&format!("{name}.{second}"))).unwrap();
                prop_assert_eq!(content, format!("{kind} of {name}"));
            }
        }
        prop_assert_eq!(world.archives().len(), 4);
    }

    /// Whatever passes as a user's name stays within the spool and the archive.
    #[test]
    fn any_text_is_refused_or_stays_in_its_place(name in "\\PC{0,70}") {
        let Ok(user) = UserName::new(&name) else { return Ok(()) };
        for part in [user.to_string(), format!(".{user}.pop"), format!("{user}.{}", u64::MAX)] {
            let parts: Vec<_> = Path::new(&part).components().collect();
            prop_assert!(matches!(parts.as_slice(), [std::path::Component::Normal(_)]), "{part}");
            prop_assert!(part.len() < 255);
        }
    }
}

/// A world that anybody may look into, with mail of alice's and bob's; its archive is `owner`'s.
fn readable_world(owner: u32) -> World {
    let world = World::new();
    fs::set_permissions(world.spool.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    world.mail("alice", 43_102, &pattern(70_000));
    world.mail("bob", 43_103, b"secret of bob");
    fs::create_dir(&world.arc).unwrap();
    fs::set_permissions(&world.arc, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&world.arc, Some(owner), Some(owner)).unwrap();
    world
}

#[test]
fn an_ordinary_user_archives_his_own_mail() {
    needs_root!();
    let world = readable_world(43_102);
    let mut child = child(&world);
    child.uid(43_102).gid(43_102).env("PROCSTORM_EXPECT", "own");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let archive = world.arc.join("alice.1700000000");
    assert_eq!(kept(&archive), kept(&world.spool.join("alice")));
    assert_eq!(world.archives(), ["alice.1700000000"]);
}

#[test]
fn three_capabilities_are_enough() {
    needs_root!();
    let world = readable_world(43_104);
    let inner = child(&world);
    let output = Command::new("setpriv")
        .args(["--reuid=43104", "--regid=43104", "--clear-groups"])
        .arg("--inh-caps=-all,+dac_read_search,+chown,+fowner")
        .arg("--ambient-caps=-all,+dac_read_search,+chown,+fowner")
        .arg("--bounding-set=-all,+dac_read_search,+chown,+fowner")
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))))
        .env("PROCSTORM_EXPECT", "all")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["alice", "bob"] {
        let archive = world.arc.join(format!("{name}.1700000000"));
        assert_eq!(kept(&archive), kept(&world.spool.join(name)));
    }
}

/// This program again, as the daemon with other rights.
fn child(world: &World) -> Command {
    // Where anybody may run it. Copied by another program: a file that we had open for writing cannot
    // be run ("text file busy") as long as what another test starts meanwhile has not let go of it.
    let program = world.spool.with_file_name("daemon");
    let copied = Command::new("cp").args([&std::env::current_exe().unwrap(), &program]).status();
    assert!(copied.unwrap().success());
    let mut child = Command::new(program);
    child.args(["--exact", test_name!(daemon_with_other_rights), "--ignored", "--nocapture"]);
    child.env("PROCSTORM_SPOOL", &world.spool).env("PROCSTORM_ARC", &world.arc);
    child
}

#[test]
#[ignore = "run by the tests above, with other rights"]
fn daemon_with_other_rights() {
    let [spool, archive_dir, expect] = ["PROCSTORM_SPOOL", "PROCSTORM_ARC", "PROCSTORM_EXPECT"]
        .map(|name| std::env::var(name).unwrap());
    let settings = Settings {
        spool: spool.into(),
        archive: archive_dir.into(),
        reserve: Reserve::Bytes(0),
        ..Settings::default()
    };
    let archiver = Archiver::open(settings).unwrap();
    let archived = archive_one(&archiver, "alice", 43_102, NOW);
    assert!(archived.lost.is_empty(), "{archived:?}");
    // The mark can be read again.
    assert_eq!(archive_one(&archiver, "alice", 43_102, NOW + 1).path, archived.path);
    let bob = archive_result(&archiver, "bob", 43_103, NOW);
    if expect == "all" {
        assert!(bob.unwrap().lost.is_empty());
    } else {
        assert!(matches!(bob, Err(Failure::Denied { .. })), "{bob:?}");
    }
}
