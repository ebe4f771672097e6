//! What may be mounted where mail lies, and when: users' own file systems that never answer, a
//! spool that is mounted later or anew, and kernels and filters without openat2(2).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::world::{NOW, World, archive, archive_one, archive_result, pattern, user};
use procstorm_remediator::account::Account;
use procstorm_remediator::steps::archive::mailroom::Mailroom;
use procstorm_remediator::steps::archive::{Archiver, Dotlock, OpenError, Settings};
use procstorm_testkit::mounts::with_own_mounts;
use procstorm_testkit::needs_root;
use procstorm_testkit::wait::nap;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

const UID: u32 = 43_400;

/// A user's own file system, whose program answers nothing. What waits for it fails when this is
/// dropped.
struct Silent {
    _connection: File,
}

impl Silent {
    /// Mounts it as fusermount3 does for the user `uid` who says `allow_other`.
    fn mount_on(place: &Path, uid: u32) -> Self {
        let connection = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let mode = if place.is_dir() { "40000" } else { "100000" };
        let fd = connection.as_raw_fd();
        let options = format!("fd={fd},rootmode={mode},user_id={uid},group_id={uid},allow_other");
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("silent", place, "fuse", flags, Some(options.as_c_str())).unwrap();
        Self { _connection: connection }
    }
}

/// What `work` returns, within half a minute; whatever `silent` holds up goes on after that.
fn promptly<T: Send>(silent: Silent, work: impl FnOnce() -> T + Send) -> T {
    promptly_within(Duration::from_secs(30), silent, work)
}

fn promptly_within<T: Send>(time: Duration, silent: Silent, work: impl FnOnce() -> T + Send) -> T {
    let (say, said) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || say.send(work()).unwrap());
        let result = said.recv_timeout(time);
        drop(silent);
        result.expect("it waits for a user's file system")
    })
}

#[test]
fn a_users_file_system_on_the_lock_of_his_mail_file_is_not_entered() {
    needs_root!();
    with_own_mounts(|| {
        for answer in [None, Some(Errno::NOSYS), Some(Errno::PERM)] {
            let world = World::new();
            world.mail("alice", UID, b"mail");
            let lock = world.spool.join("alice.lock");
            fs::create_dir(&lock).unwrap();
            chown(&lock, Some(UID), Some(UID)).unwrap();
            let silent = Silent::mount_on(&lock, UID);
            let archived = promptly(silent, || {
                answer.into_iter().for_each(refuse_openat2);
                archive_one(&world.archiver(), "alice", UID, NOW)
            });
            unmount(&lock, UnmountFlags::DETACH).unwrap();
            assert!(!archived.dotlock, "{archived:?}");
            assert_eq!(world.read("alice.1700000000"), b"mail");
        }
    });
}

#[test]
fn a_users_file_system_on_the_lock_is_not_entered_by_whoever_looks_who_holds_it() {
    needs_root!();
    with_own_mounts(|| {
        for answer in [None, Some(Errno::NOSYS)] {
            let world = World::new();
            world.mail("alice", UID, b"From a@example.org Sat Nov 28 16:00:00 2026\n\nmail\n\n");
            archive_one(&world.archiver(), "alice", UID, NOW);
            let lock = world.mail("alice.lock", UID, b"");
            let silent = Silent::mount_on(&lock, UID);
            // To restore waits 30 s for a lock.
            let (found, refused) = promptly_within(Duration::from_secs(90), silent, || {
                answer.into_iter().for_each(refuse_openat2);
                let found = left_lock(&world);
                (found, world.archiver().restore(&user("alice"), UID, None, true).unwrap_err())
            });
            unmount(&lock, UnmountFlags::DETACH).unwrap();
            let lock = found.unwrap();
            assert!(lock.unread.as_ref().is_some_and(|why| why.contains("mount")), "{lock}");
            assert!(refused.to_string().contains("alice.lock"), "{refused}");
        }
    });
}

/// What the daemon finds at the lock of alice's mail file after a kill.
fn left_lock(world: &World) -> Option<Dotlock> {
    let account = Account { name: user("alice"), uid: UID };
    let room = Mailroom::new(world.settings(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let never = std::sync::atomic::AtomicBool::new(false);
    runtime.block_on(room.left_dotlock(account, "/proc".into(), &never)).unwrap()
}

#[test]
fn a_lock_is_read_only_where_mail_programs_could_have_made_it() {
    needs_root!();
    let world = World::new();
    assert_eq!(left_lock(&world), None);
    let lock = world.spool.join("alice.lock");
    let own = std::process::id();
    for (text, uid, pid, runs) in [
        (format!("{own}\n"), UID, i32::try_from(own).ok(), Some(true)),
        ("2147483647:".to_owned(), 0, Some(i32::MAX), Some(false)),
        ("2147483647:elsewhere.invalid".to_owned(), 8, Some(i32::MAX), None),
        (String::new(), UID, None, None),
        ("4242 and some secret".to_owned(), UID, None, None),
    ] {
        world.mail("alice.lock", uid, text.as_bytes());
        let found = left_lock(&world).unwrap();
        assert_eq!((found.pid, found.runs, &found.unread), (pid, runs, &None), "{text:?}");
        assert!(found.age_seconds.is_some_and(|age| age < 60), "{found}");
    }
    let secret = world.mail("bob", UID + 1, b"4242");
    let unread = |why: &str| {
        let found = left_lock(&world).unwrap();
        assert!(found.unread.as_ref().is_some_and(|text| text.contains(why)), "{why} in {found}");
        assert_eq!(found.pid, None);
    };
    world.mail("alice.lock", UID + 1, b"4242");
    unread("belongs to uid 43401");
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&secret, &lock).unwrap();
    unread("has 2 names");
    fs::remove_file(&lock).unwrap();
    symlink(&secret, &lock).unwrap();
    unread("symbolic link");
    fs::remove_file(&lock).unwrap();
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
    unread("it is a FIFO");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    unread("it is a directory");
}

#[test]
fn a_users_file_system_on_his_mail_file_is_not_entered() {
    needs_root!();
    with_own_mounts(|| {
        for answer in [None, Some(Errno::NOSYS), Some(Errno::PERM)] {
            for name in ["alice", ".alice.pop"] {
                let world = World::new();
                let archiver = world.archiver();
                let path = world.mail(name, UID, b"mail");
                let silent = Silent::mount_on(&path, UID);
                let labels = promptly(silent, || {
                    answer.into_iter().for_each(refuse_openat2);
                    let planned = archiver.plan(&user("alice"), UID, NOW).remove(0).action;
                    archiver.probe().unwrap();
                    let archived = archive_result(&archiver, "alice", UID, NOW);
                    [archived.unwrap_err().label(), planned.unwrap_err().label()]
                });
                unmount(&path, UnmountFlags::DETACH).unwrap();
                assert_eq!(labels, ["mount_point"; 2], "{name} {answer:?}");
            }
        }
    });
}

/// The archive directory is missing, and a user makes one of his own in the open spool.
#[test]
fn a_users_file_system_in_place_of_the_archive_directory_is_refused() {
    needs_root!();
    with_own_mounts(|| {
        let world = World::new();
        fs::create_dir(&world.arc).unwrap();
        chown(&world.arc, Some(UID), Some(UID)).unwrap();
        let silent = Silent::mount_on(&world.arc, UID);
        let refused = promptly(silent, || Archiver::open(world.settings()).unwrap_err());
        unmount(&world.arc, UnmountFlags::DETACH).unwrap();
        assert!(matches!(refused, OpenError::UsersMount { uid: UID, .. }), "{refused}");
        assert!(refused.to_string().contains(world.arc.to_str().unwrap()), "{refused}");
    });
}

/// Has openat2(2) fail with `answer` on this thread, as a filter of the unit's does.
fn refuse_openat2(answer: Errno) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let rules = BTreeMap::from([(libc::SYS_openat2, Vec::new())]);
    let answer = SeccompAction::Errno(answer.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn without_openat2_mail_is_saved_and_impostors_are_refused_all_the_same() {
    needs_root!();
    for answer in [Errno::NOSYS, Errno::PERM] {
        with_own_mounts(move || {
            refuse_openat2(answer);
            let tried = openat2(CWD, ".", OFlags::PATH, Mode::empty(), ResolveFlags::empty());
            assert_eq!(tried.unwrap_err(), answer, "the filter is at work");
            let world = World::new();
            let archiver = world.archiver();
            let alice = world.mail("alice", UID, &pattern(70_000));
            world.mail(".alice.pop", UID, b"pop");
            let reports = archive(&archiver, "alice", UID, NOW);
            assert!(reports.iter().all(|report| report.result.is_ok()), "{reports:?}");
            assert_eq!(world.read("alice.1700000000"), pattern(70_000));
            assert_eq!(world.read("alice.1700000001"), b"pop");
            archiver.probe().unwrap();
            assert!(archive(&archiver, "nobody", UID, NOW).is_empty());

            let label = |name: &str| archive_result(&archiver, name, UID, NOW).unwrap_err().label();
            symlink(&alice, world.spool.join("link")).unwrap();
            fs::hard_link(world.mail("one", UID, b""), world.spool.join("two")).unwrap();
            fs::create_dir(world.spool.join("dir")).unwrap();
            world.mail("bob", UID + 1, b"secret of bob");
            let mounted = world.mail("mounted", UID, b"");
            mount_bind(&alice, &mounted).unwrap();
            for (name, expected) in [
                ("link", "symlink"),
                ("two", "hard_linked"),
                ("dir", "maildir_unsupported"),
                ("bob", "wrong_owner"),
                ("mounted", "mount_point"),
            ] {
                assert_eq!(label(name), expected, "{name}");
            }
            unmount(&mounted, UnmountFlags::DETACH).unwrap();
        });
    }
}

/// By a filter of its own, which lets only the spool's files be refused: what readiness asks must
/// be what an archive does.
#[test]
fn a_spool_whose_files_cannot_be_opened_is_not_ready() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    archiver.probe().unwrap();
    for number in 0..3 {
        world.mail(&format!("user{number}"), UID, b"mail");
    }
    archiver.probe().unwrap();
    drop(archiver);
    // As another user without rights to the others' files, who has an archive of his own.
    fs::set_permissions(world.spool.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(&world.arc, Some(UID + 7), Some(UID + 7)).unwrap();
    let settings = world.settings();
    let refused = std::thread::spawn(move || {
        // For this thread alone: the C library's setuid(3) would be for all.
        rustix::thread::set_thread_groups(&[]).unwrap();
        let (gid, uid) = (rustix::fs::Gid::from_raw(UID + 7), rustix::fs::Uid::from_raw(UID + 7));
        rustix::thread::set_thread_gid(gid).unwrap();
        rustix::thread::set_thread_uid(uid).unwrap();
        Archiver::open(settings).unwrap().probe().unwrap_err()
    });
    let refused = refused.join().unwrap();
    assert_eq!(refused.label(), "denied");
    assert!(refused.to_string().contains("/user"), "{refused}");
}

#[test]
fn nothing_is_held_open_between_and_what_is_mounted_now_is_what_is_saved() {
    needs_root!();
    with_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let world = World::below(root.path(), root.path());
        let mut saved = Vec::new();
        for round in 0..3 {
            if round > 0 {
                mount("none", &world.spool, "tmpfs", MountFlags::empty(), None).unwrap();
            }
            world.mail("alice", UID, format!("mail of {round}").as_bytes());
            let archived = archive_one(&world.archiver(), "alice", UID, NOW + round);
            saved.push(fs::read(archived.path).unwrap());
            if round > 0 {
                // Not lazily: whoever held it open would be in the way.
                unmount(&world.spool, UnmountFlags::empty()).unwrap();
            }
        }
        assert_eq!(saved, [b"mail of 0", b"mail of 1", b"mail of 2"]);
    });
}

#[test]
fn a_lease_on_the_mail_file_is_waited_for() {
    needs_root!();
    let world = World::new();
    let path = world.mail("alice", UID, b"mail");
    let settings = |wait| Settings { lock_wait: wait, ..world.settings() };
    let holder = File::options().read(true).write(true).open(&path).unwrap();
    ignore_sigio();
    lease(&holder, libc::F_WRLCK);
    let short = Archiver::open(settings(Duration::from_millis(100))).unwrap();
    let failure = archive_result(&short, "alice", UID, NOW).unwrap_err();
    assert_eq!(failure.label(), "leased");
    assert!(failure.to_string().contains("alice"), "{failure}");
    lease(&holder, libc::F_UNLCK);

    lease(&holder, libc::F_WRLCK);
    let patient = Archiver::open(settings(Duration::from_secs(30))).unwrap();
    let archived = std::thread::scope(|scope| {
        let archive = scope.spawn(|| archive_one(&patient, "alice", UID, NOW));
        nap(Duration::from_millis(200));
        assert!(!archive.is_finished(), "it waits");
        lease(&holder, libc::F_UNLCK);
        archive.join().unwrap()
    });
    assert_eq!(fs::read(archived.path).unwrap(), b"mail");
}

/// Takes a lease on `file`, or gives it back.
#[expect(unsafe_code, reason = "no crate of ours has F_SETLEASE")]
fn lease(file: &File, kind: libc::c_int) {
    // SAFETY: F_SETLEASE takes an int, and touches no memory of ours.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// By SIGIO the kernel tells the holder of a lease that somebody waits, which would end this program.
#[expect(unsafe_code, reason = "what a signal does is the whole program's")]
fn ignore_sigio() {
    // SAFETY: no handler of ours is called, it is ignored.
    assert_ne!(unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) }, libc::SIG_ERR);
}
