//! Mail programs at work during the copy, with and without locks; and the daemon killed in
//! mid-copy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::world::{NOW, World, archive_one, archive_result, kept, pattern};
use nix::fcntl::{FcntlArg, fcntl};
use procstorm_remediator::policy::Reserve;
use procstorm_remediator::steps::archive::{Archived, Archiver, Method, Settings};
use procstorm_testkit::mounts::{disk, memory, with_own_mounts};
use procstorm_testkit::race::meanwhile;
use procstorm_testkit::wait::{closely_until_so, nap};
use procstorm_testkit::{needs_root, test_name};

const MIB: usize = 1 << 20;

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn lock(file: &File, kind: libc::c_int) -> bool {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(kind))).is_ok()
}

/// Whether somebody holds a lock on the file: the copy has begun. It is asked for and not tried, as
/// who tries again and again keeps others from it.
fn is_locked(path: &Path) -> bool {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
    i32::from(lock.l_type) != libc::F_UNLCK
}

fn for_writing(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

#[test]
fn growth_keeps_a_prefix_and_says_so() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let source = world.mail("alice", 43_200, &pattern(32 * MIB));
    let mut appender = File::options().append(true).open(&source).unwrap();
    let mut length = 32 * MIB;
    let begun = Instant::now();
    let (mut copies, mut changed) = (0, false);
    meanwhile(
        || {
            // Slowly enough for a disk that others use, and to go on for a while.
            if length < 256 * MIB {
                appender.write_all(&pattern(1000)).unwrap();
                length += 1000;
            }
            nap(Duration::from_micros(100));
        },
        || {
            // On a busy machine the writer may not get its turn during a whole copy, which is then
            // rightly called unchanged.
            while !changed && begun.elapsed() < Duration::from_secs(60) {
                let archived = archive_one(&archiver, "alice", 43_200, NOW + copies);
                assert!(archived.bytes >= as_u64(32 * MIB), "{archived:?}");
                let (copy, grown) = (fs::read(&archived.path).unwrap(), fs::read(&source).unwrap());
                assert_eq!(as_u64(copy.len()), archived.bytes);
                assert!(grown.starts_with(&copy));
                fs::remove_file(&archived.path).unwrap();
                changed = archived.changed;
                copies += 1;
            }
        },
    );
    assert!(changed, "none of {copies} copies is called changed");
}

#[test]
fn a_shrinking_file_never_gets_a_tail_of_nuls() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let content = pattern(32 * MIB);
    let mut shrunk = 0;
    for round in 0..10 {
        let source = world.mail("alice", 43_201, &content);
        let file = for_writing(&source);
        let mut length = as_u64(content.len());
        let archived = meanwhile(
            || {
                length = length.saturating_sub(40_000);
                file.set_len(length).unwrap();
            },
            || archive_one(&archiver, "alice", 43_201, NOW + round),
        );
        let copy = fs::read(&archived.path).unwrap();
        assert_eq!(as_u64(copy.len()), archived.bytes);
        assert!(content.starts_with(&copy), "round {round}: {archived:?}");
        shrunk += u32::from(archived.changed);
    }
    println!("{shrunk} of 10 changed during the copy");
}

#[test]
fn cut_off_in_mid_copy_it_is_copied_again() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let content = pattern(64 * MIB);
    for round in 0..5 {
        let source = world.mail("alice", 43_202, &content);
        let archived = std::thread::scope(|scope| {
            let archive = scope.spawn(|| archive_one(&archiver, "alice", 43_202, NOW + round));
            // On a busy machine it may have ended before we look again, and is whole then.
            let begun = || is_locked(&source) || archive.is_finished();
            closely_until_so("the copy has begun", begun);
            for_writing(&source).set_len(5_000_001).unwrap();
            archive.join().unwrap()
        });
        let copy = fs::read(&archived.path).unwrap();
        assert!(content.starts_with(&copy));
        assert!(!archived.changed, "once cut off it stays as it is: {archived:?}");
        assert!([5_000_001, content.len()].contains(&copy.len()), "{archived:?}");
    }
}

#[test]
fn of_files_that_replace_each_other_one_is_kept_whole() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let contents = [vec![b'a'; 3 * MIB], vec![b'b'; 4 * MIB]];
    world.mail("alice", 43_203, &contents[0]);
    let mut turn = 0;
    let mut seen = std::collections::BTreeMap::new();
    meanwhile(
        || {
            turn += 1;
            let new = world.mail("new", 43_203, &contents[turn % 2]);
            fs::rename(new, world.spool.join("alice")).unwrap();
        },
        || {
            for round in 0..30 {
                let archived = archive_one(&archiver, "alice", 43_203, NOW + round);
                let copy = fs::read(&archived.path).unwrap();
                assert!(contents.contains(&copy), "torn: {archived:?}");
                *seen.entry((copy[0], archived.changed)).or_insert(0) += 1;
            }
        },
    );
    println!("(content, changed) -> times: {seen:?}");
}

/// Head and tail with the same number, as fast as it can be done.
fn stamp(file: &File, length: usize, number: u64) {
    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
    file.write_all_at(&number.to_le_bytes(), as_u64(length) - 8).unwrap();
}

/// Head and tail of an archive.
fn stamps(archived: &Archived) -> (u64, u64) {
    let copy = fs::read(&archived.path).unwrap();
    let head = u64::from_le_bytes(*copy.first_chunk().unwrap());
    (head, u64::from_le_bytes(*copy.last_chunk().unwrap()))
}

#[test]
fn a_torn_copy_is_never_called_unchanged() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let length = 16 * MIB;
    let source = world.mail("alice", 43_204, &vec![0; length]);
    let file = for_writing(&source);
    let (mut number, mut torn, mut changed) = (0, 0, 0);
    let rounds = 40;
    meanwhile(
        || {
            // Bursts, so that some copies fall between two.
            let burst = Instant::now();
            while burst.elapsed() < Duration::from_millis(10) {
                number += 1;
                stamp(&file, length, number);
            }
            nap(Duration::from_millis(22));
        },
        || {
            for round in 0..rounds {
                let archived = archive_one(&archiver, "alice", 43_204, NOW + round);
                let (head, tail) = stamps(&archived);
                // The copy goes from head to tail: a change meanwhile makes the tail newer. With
                // the head newer by one, the writer stood between the two for the whole copy, and
                // the copy is of a state that the file had.
                let whole = head == tail || head == tail + 1;
                assert!(archived.changed || whole, "{head} {tail} {archived:?}");
                torn += u32::from(!whole);
                changed += u32::from(archived.changed);
                fs::remove_file(&archived.path).unwrap();
            }
        },
    );
    println!("{rounds} copies: {changed} changed, {torn} torn, none of them called unchanged");
}

#[test]
fn beside_a_writer_without_a_pause_copies_are_called_changed() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let length = 16 * MIB;
    let source = world.mail("alice", 43_205, &vec![0; length]);
    let file = for_writing(&source);
    let (mut number, mut torn, mut changed, mut copies) = (0, 0, 0, 0);
    let begun = Instant::now();
    meanwhile(
        || {
            number += 1;
            stamp(&file, length, number);
        },
        || {
            while copies < 8 || (changed == 0 && begun.elapsed() < Duration::from_secs(60)) {
                let round = copies;
                copies += 1;
                let archived = archive_one(&archiver, "alice", 43_205, NOW + round);
                let (head, tail) = stamps(&archived);
                // On a busy machine the writer may not get its turn during a whole copy, which
                // is then rightly called unchanged.
                let whole = head == tail || head == tail + 1;
                assert!(archived.changed || whole, "{head} {tail} {archived:?}");
                changed += u32::from(archived.changed);
                torn += u32::from(!whole);
                fs::remove_file(&archived.path).unwrap();
            }
        },
    );
    assert!(changed > 0, "the writer wrote all the time");
    println!("{copies} copies: {changed} called changed, {torn} torn");
}

#[test]
fn a_writer_that_locks_is_never_torn() {
    needs_root!();
    let world = World::new();
    let settings = Settings { lock_wait: Duration::from_secs(50), ..world.settings() };
    let archiver = Archiver::open(settings).unwrap();
    let length = 4 * MIB;
    let source = world.mail("alice", 43_206, &vec![0; length]);
    let file = for_writing(&source);
    let mut number = 0;
    meanwhile(
        || {
            if lock(&file, libc::F_WRLCK) {
                number += 1;
                stamp(&file, length, number);
                lock(&file, libc::F_UNLCK);
            }
            nap(Duration::from_millis(1));
        },
        || {
            for round in 0..20 {
                let archived = archive_one(&archiver, "alice", 43_206, NOW + round);
                let (head, tail) = stamps(&archived);
                assert_eq!(head, tail);
                assert!(archived.locked && !archived.changed, "{archived:?}");
            }
        },
    );
}

#[test]
fn a_lock_that_is_held_delays_but_does_not_prevent() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let source = world.mail("alice", 43_207, b"mail");
    let holder = for_writing(&source);
    assert!(lock(&holder, libc::F_WRLCK));
    let archived = archive_one(&archiver, "alice", 43_207, NOW);
    assert!(!archived.locked && archived.elapsed >= Duration::from_millis(100), "{archived:?}");
    assert_eq!(fs::read(&archived.path).unwrap(), b"mail");
    // A reader's lock is no obstacle.
    lock(&holder, libc::F_UNLCK);
    assert!(lock(&File::open(&source).unwrap(), libc::F_RDLCK));
    fs::remove_file(archived.path).unwrap();
    assert!(archive_one(&archiver, "alice", 43_207, NOW).locked);
}

#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    needs_root!();
    let world = World::new();
    let settings = Settings { lock_wait: Duration::from_secs(20), ..world.settings() };
    let archiver = Archiver::open(settings).unwrap();
    let source = world.mail("alice", 43_208, b"old mail");
    let holder = for_writing(&source);
    assert!(lock(&holder, libc::F_WRLCK));
    let archived = std::thread::scope(|scope| {
        let archive = scope.spawn(|| archive_one(&archiver, "alice", 43_208, NOW));
        nap(Duration::from_millis(200));
        // As a mail server rewrites a mailbox: another file in its place, then the lock is gone.
        let new = world.mail("new", 43_208, b"new mail");
        fs::rename(new, &source).unwrap();
        drop(holder);
        archive.join().unwrap()
    });
    assert!(archived.locked && !archived.changed, "{archived:?}");
    assert_eq!(fs::read(&archived.path).unwrap(), b"new mail");
}

#[test]
fn an_abort_ends_the_wait_for_a_lock() {
    needs_root!();
    let world = World::new();
    let settings = Settings { lock_wait: Duration::from_secs(600), ..world.settings() };
    let archiver = Archiver::open(settings).unwrap();
    let holder = for_writing(&world.mail("alice", 43_209, b"mail"));
    assert!(lock(&holder, libc::F_WRLCK));
    let abort = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let user = crate::world::user("alice");
        let (archiver, abort) = (&archiver, &abort);
        let archive = scope.spawn(move || archiver.archive(&user, 43_209, NOW, abort));
        nap(Duration::from_millis(50));
        abort.store(true, Ordering::Relaxed);
        let report = archive.join().unwrap().remove(0);
        assert_eq!(report.result.unwrap_err().label(), "aborted");
    });
}

#[test]
fn a_dotlock_is_noted_if_it_is_fresh() {
    needs_root!();
    let world = World::new();
    let archiver = world.archiver();
    let now = crate::world::epoch_now();
    for (user, age, noted) in [("new", 0, true), ("old", 3600, false)] {
        world.mail(user, 43_210, b"mail");
        let dotlock = world.mail(&format!("{user}.lock"), 43_210, b"");
        let made = std::time::SystemTime::now() - Duration::from_secs(age);
        for_writing(&dotlock).set_modified(made).unwrap();
        assert_eq!(archive_one(&archiver, user, 43_210, now).dotlock, noted, "{user}");
        assert!(dotlock.exists());
    }
}

/// Sixty daemons, each killed at another instant of its copy; more, as long as too few of them were
/// in the middle of it.
#[test]
fn killed_in_mid_copy_nothing_half_written_is_visible() {
    needs_root!();
    let world = World::new();
    let content = pattern(24 * MIB);
    let source = world.mail("alice", 43_211, &content);
    chown(&source, Some(43_211), Some(43_212)).unwrap();
    let before = (kept(&source), fs::metadata(&source).unwrap().ctime_nsec());
    drop(world.archiver());

    // The first ones are left alone, to know how long it takes.
    let spared = 3;
    let mut whole = Duration::MAX;
    let (mut unfinished, mut finished, mut round) = (0, 0, 0_u32);
    while round < spared + 60 || (unfinished < 20 && round < 600) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test_name!(daemon_that_is_killed), "--ignored", "--nocapture"])
            .env("PROCSTORM_SPOOL", &world.spool)
            .env("PROCSTORM_ARC", &world.arc)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.filter(|line| line.starts_with("daemon:"));
        lines.next().unwrap();
        let begun = Instant::now();
        if round < spared {
            lines.next().unwrap();
        } else {
            nap(whole * ((round - spared) % 60) / 60);
            // By its handle, which no other process can have got.
            child.kill().unwrap();
        }
        let took = begun.elapsed();
        child.wait().unwrap();

        for name in world.archives() {
            let path = world.arc.join(&name);
            assert!(fs::read(&path).unwrap() == content, "round {round}: {name}");
            assert_eq!(kept(&path), kept(&source), "round {round}: {name}");
            fs::remove_file(path).unwrap();
            finished += 1;
            // It takes no longer than that: on a machine that others use, less than it did before.
            whole = whole.min(took);
        }
        round += 1;
        unfinished = round - finished;
        assert!(fs::read(&source).unwrap() == content);
        assert_eq!((kept(&source), fs::metadata(&source).unwrap().ctime_nsec()), before);
    }
    println!(
        "{} daemons killed within {whole:?}: {unfinished} before the archive had its name",
        round - spared
    );
    assert!(unfinished >= 20, "too few were killed in mid-copy: {unfinished}");
    // The next one does its work.
    assert!(archive_result(&world.archiver(), "alice", 43_211, NOW).is_ok());
}

#[test]
#[ignore = "run, and killed, by the test above"]
fn daemon_that_is_killed() {
    let [spool, arc] =
        ["PROCSTORM_SPOOL", "PROCSTORM_ARC"].map(|name| std::env::var(name).unwrap());
    let (spool, archive) = (spool.into(), arc.into());
    let settings = Settings { spool, archive, reserve: Reserve::Bytes(0), ..Settings::default() };
    let archiver = Archiver::open(settings).unwrap();
    println!("\ndaemon: begun");
    let archived = archive_one(&archiver, "alice", 43_211, NOW);
    assert_ne!(archived.method, Method::Identical);
    println!("\ndaemon: done");
}

/// A mapping of a file that is shared with it.
struct Map {
    start: *mut u8,
    length: usize,
}

impl Map {
    #[expect(unsafe_code, reason = "there is no safe mmap(2)")]
    fn of(file: &File, length: usize) -> Self {
        use std::os::fd::AsRawFd;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (none, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new mapping, which nobody else knows of.
        let start = unsafe { libc::mmap(none, length, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), length }
    }

    #[expect(unsafe_code, reason = "there is no safe mmap(2)")]
    fn store(&self, offset: usize, byte: u8) {
        assert!(offset < self.length);
        // SAFETY: within the mapping, which is alive.
        unsafe { self.start.add(offset).write_volatile(byte) };
    }
}

/// A page that is dirty already is written to again without a trace in the inode.
#[test]
fn what_is_written_through_a_map_is_never_called_unchanged() {
    needs_root!();
    with_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let mut places = vec![root.path().to_owned()];
        let memory = memory(root.path(), "tmpfs");
        places.push(memory.to_path_buf());
        for place in places {
            let arc = tempfile::tempdir_in(root.path()).unwrap();
            let world = World::below(&place, arc.path());
            let archiver = world.archiver();
            let source = world.mail("alice", 43_220, &pattern(8192));
            let file = File::options().read(true).write(true).open(&source).unwrap();
            let map = Map::of(&file, 8192);
            map.store(0, b'a');
            for (round, byte) in (0..5).zip(b'b'..) {
                nap(Duration::from_millis(60));
                let archived = archive_one(&archiver, "alice", 43_220, NOW + round);
                let now = fs::read(&source).unwrap();
                assert!(fs::read(&archived.path).unwrap() == now, "{place:?} {round} {archived:?}");
                map.store(0, byte);
            }
        }
    });
}

/// On a file system whose clock ticks as seldom as on ext3, a writer that stops within the tick in
/// which the copy began leaves no trace in the times.
#[test]
fn the_last_writes_before_a_coarse_clock_ticks_are_saved() {
    needs_root!();
    with_own_mounts(|| {
        let root = tempfile::tempdir().unwrap();
        let Some(disk) = disk(root.path(), "ext3", 64) else { return };
        let world = World::below(&disk, &disk);
        let archiver = world.archiver();
        let length = 64 << 10;
        let source = world.mail("alice", 43_221, &vec![0; length]);
        let file = for_writing(&source);
        let mut number = 0;
        for round in 0..60 {
            std::thread::scope(|scope| {
                let archive = scope.spawn(|| archive_one(&archiver, "alice", 43_221, NOW + round));
                // Some ticks are waited for before the copy; it ends in the middle of one.
                let end = Duration::from_micros(52_000 + 600 * (round % 40));
                let begun = Instant::now();
                while begun.elapsed() < end {
                    number += 1;
                    stamp(&file, length, number);
                }
                archive.join().unwrap();
            });
            let last = archive_one(&archiver, "alice", 43_221, NOW + 1000 + round);
            assert_eq!(stamps(&last), (number, number), "round {round}: {last:?}");
        }
    });
}
