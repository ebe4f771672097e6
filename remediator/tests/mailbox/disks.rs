//! Archives on disks of their own: full ones, ones that share blocks, and across two.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::world::{NOW, World, archive_one, archive_result, kept, pattern};
use procstorm_remediator::policy::{Reserve, Retention};
use procstorm_remediator::steps::archive::{Archiver, Attribute, Method, Settings};
use procstorm_testkit::mounts::{disk, memory, with_own_mounts};
use procstorm_testkit::needs_root;
use procstorm_testkit::race::meanwhile;
use procstorm_testkit::skip::skipped;
use procstorm_testkit::wait::closely_until_so;
use procstorm_toolkit::chain::Chain;

const MIB: usize = 1 << 20;

/// A directory for images and their mounts.
fn images() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("procstorm-disks.").tempdir().unwrap()
}

fn available(place: &Path) -> u64 {
    let disk = rustix::fs::statvfs(place).unwrap();
    disk.f_bavail * disk.f_frsize
}

#[test]
fn a_disk_that_is_too_small_is_left_alone() {
    needs_root!();
    with_own_mounts(|| {
        let root = images();
        let Some(small) = disk(root.path(), "ext4", 16) else { return };
        let world = World::below(root.path(), &small);
        let archiver = world.archiver();
        world.mail("small", 43_300, &pattern(MIB));
        world.mail("alice", 43_301, &pattern(32 * MIB));
        let old = archive_one(&archiver, "small", 43_300, NOW);
        let before = available(&small);

        let failure = archive_result(&archiver, "alice", 43_301, NOW).unwrap_err();
        assert_eq!(failure.label(), "reserve");
        assert!(failure.to_string().contains(small.to_str().unwrap()), "{failure}");
        assert_eq!(available(&small), before);
        assert_eq!(world.archives(), ["small.1700000000"]);
        assert_eq!(fs::read(old.path).unwrap(), pattern(MIB));

        // What would fit is refused too if it eats into the reserve.
        let settings = Settings { reserve: Reserve::Percent(90), ..world.settings() };
        world.mail("bob", 43_302, &pattern(2 * MIB));
        let failure =
            archive_result(&Archiver::open(settings).unwrap(), "bob", 43_302, NOW).unwrap_err();
        assert_eq!(failure.label(), "reserve");
    });
}

#[test]
fn a_disk_that_fills_up_in_mid_copy_gets_its_space_back() {
    needs_root!();
    with_own_mounts(|| {
        let root = images();
        let Some(small) = disk(root.path(), "ext4", 96) else { return };
        let world = World::below(root.path(), &small);
        let archiver = world.archiver();
        let source = world.mail("alice", 43_303, &pattern(64 * MIB));
        let (mut refused, mut copies, begun) = (0, 0, Instant::now());
        // On a busy machine a copy may be whole before the filler gets its turn.
        while copies < 5 || (refused == 0 && begun.elapsed() < Duration::from_secs(60)) {
            let round = copies;
            copies += 1;
            let filled = AtomicBool::new(false);
            let outcome = std::thread::scope(|scope| {
                scope.spawn(|| {
                    // As soon as the copy takes space, the rest is taken away.
                    let before = available(&small);
                    closely_until_so("the copy has begun", || {
                        available(&small) < before || filled.load(Ordering::Relaxed)
                    });
                    let mut filler = File::create(small.join("filler")).unwrap();
                    while filler.write_all(&[1; 65_536]).is_ok() {}
                });
                let outcome = archive_result(&archiver, "alice", 43_303, NOW + round);
                filled.store(true, Ordering::Relaxed);
                outcome
            });
            fs::remove_file(small.join("filler")).unwrap();
            match outcome {
                Ok(archived) => {
                    assert_eq!(fs::read(&archived.path).unwrap(), fs::read(&source).unwrap());
                    fs::remove_file(archived.path).unwrap();
                }
                Err(failure) => {
                    assert!(["reserve", "full"].contains(&failure.label()), "{failure}");
                    refused += 1;
                }
            }
            assert!(world.archives().is_empty());
            closely_until_so("the space is back", || {
                available(&small) > u64::try_from(70 * MIB).unwrap()
            });
        }
        println!("{copies} copies onto a disk that filled up: {refused} refused, nothing left");
        assert!(refused > 0);
    });
}

#[test]
fn a_quota_of_inodes_is_an_error_that_names_the_directory() {
    needs_root!();
    with_own_mounts(|| {
        let root = images();
        let Some(small) = disk(root.path(), "ext4", 16) else { return };
        let world = World::below(root.path(), &small);
        let archiver = world.archiver();
        world.mail("alice", 43_304, b"mail");
        for n in 0.. {
            if File::create(small.join(format!("f{n}"))).is_err() {
                break;
            }
        }
        let failure = archive_result(&archiver, "alice", 43_304, NOW).unwrap_err();
        assert_eq!(failure.label(), "full");
        assert!(
            Chain(&failure).to_string().contains(world.arc.to_str().unwrap()),
            "{}",
            Chain(&failure)
        );
    });
}

fn shares_blocks(kind: &str) {
    let root = images();
    let Some(place) = disk(root.path(), kind, 400) else { return };
    let world = World::below(&place, &place);
    let archiver = world.archiver();
    let length = 64 * MIB;
    let source = world.mail("alice", 43_305, &pattern(length));
    let setfacl = Command::new("setfacl").args(["-m", "u:43306:r"]).arg(&source).status();
    assert!(setfacl.unwrap().success());

    let archived = archive_one(&archiver, "alice", 43_305, NOW);
    assert_eq!(archived.method, Method::Reflink, "{kind}");
    assert!(archived.locked && !archived.changed && archived.lost.is_empty(), "{archived:?}");
    assert_eq!(fs::read(&archived.path).unwrap(), pattern(length));
    assert_eq!(kept(&archived.path), kept(&source));
    println!("{kind}: 64 MiB shared in {:?}, sync and all", archived.elapsed);
    assert_eq!(archive_one(&archiver, "alice", 43_305, NOW + 1).method, Method::Identical);

    // A writer that stamps head and tail all the time tears none of them.
    let file = File::options().write(true).open(&source).unwrap();
    let (mut number, mut changed) = (0_u64, 0);
    meanwhile(
        || {
            number += 1;
            file.write_all_at(&number.to_le_bytes(), 0).unwrap();
            file.write_all_at(&number.to_le_bytes(), u64::try_from(length - 8).unwrap()).unwrap();
        },
        || {
            for round in 0..20 {
                let archived = archive_one(&archiver, "alice", 43_305, NOW + 10 + round);
                let copy = fs::read(&archived.path).unwrap();
                let head = u64::from_le_bytes(*copy.first_chunk().unwrap());
                let tail = u64::from_le_bytes(*copy.last_chunk().unwrap());
                // Between the two, the file itself is like that.
                assert!(head == tail || head == tail + 1, "torn: {head} {tail} {archived:?}");
                assert_eq!(archived.method, Method::Reflink);
                changed += u32::from(archived.changed);
                fs::remove_file(archived.path).unwrap();
            }
        },
    );
    println!("{kind}: 20 copies under a writer, 0 torn, {changed} called changed");
}

#[test]
fn btrfs_shares_blocks() {
    needs_root!();
    with_own_mounts(|| shares_blocks("btrfs"));
}

#[test]
fn xfs_shares_blocks() {
    needs_root!();
    with_own_mounts(|| shares_blocks("xfs"));
}

/// From each kind of file system to each other: content, attributes and holes arrive.
#[test]
fn across_file_systems() {
    needs_root!();
    with_own_mounts(|| {
        let root = images();
        let mut places = vec![("tmpfs", memory(root.path(), "tmpfs"))];
        for (kind, size) in [("ext4", 64), ("btrfs", 256), ("xfs", 400)] {
            places.extend(disk(root.path(), kind, size).map(|place| (kind, place)));
        }
        let mut worlds = 0;
        for (from, spool) in &places {
            for (to, arc) in &places {
                worlds += 1;
                let dir = |place: &Path| {
                    let dir = place.join(format!("world{worlds}"));
                    fs::create_dir_all(&dir).unwrap();
                    dir
                };
                let world = World::below(&dir(spool), &dir(arc));
                crossing(&world, from, to);
                fs::remove_dir_all(world.spool.parent().unwrap()).unwrap();
                fs::remove_dir_all(dir(arc)).unwrap();
            }
        }
        println!("{worlds} crossings");
    });
}

/// Whether files in that directory can have attributes of users.
fn holds_marks(directory: &Path) -> bool {
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(file.path(), "user.test", b"", flags) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::OPNOTSUPP);
            false
        }
    }
}

fn crossing(world: &World, from: &str, to: &str) {
    let archiver = world.archiver();
    let source = world.mail("alice", 43_307, &pattern(9 * MIB + 77));
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(&pattern(1000), 40 << 20).unwrap();
    file.set_len(50 << 20).unwrap();
    let setfacl = Command::new("setfacl").args(["-m", "u:43308:rw,g::r"]).arg(&source).status();
    assert!(setfacl.unwrap().success());
    let archived = archive_one(&archiver, "alice", 43_307, NOW);
    assert!(archived.lost.is_empty() && !archived.changed, "{from} to {to}: {archived:?}");
    assert!(fs::read(&archived.path).unwrap() == fs::read(&source).unwrap(), "{from} to {to}");
    assert_eq!(kept(&archived.path), kept(&source), "{from} to {to}");
    let blocks = fs::metadata(&archived.path).unwrap().blocks();
    assert!(blocks * 512 < 12 << 20, "{from} to {to}: {blocks} blocks");
    println!("{from} to {to}: {}", archived.method.label());
    let again = archive_one(&archiver, "alice", 43_307, NOW + 1);
    if holds_marks(&world.arc) {
        assert_eq!(again.method, Method::Identical, "{from} to {to}");
    } else {
        // Of what an archive is a copy cannot be told there: every copy is made.
        assert_ne!(again.method, Method::Identical, "{from} to {to}");
        assert_eq!(to, "tmpfs", "all others hold attributes of users");
        skipped(
            &format!("across_file_systems, {from} to {to}, identical"),
            "this kernel's tmpfs holds no attributes of users (Linux 6.6 has)",
        );
    }
}

/// A ramfs has neither lists of rights nor extended attributes, and does not count its space.
#[test]
fn what_a_file_system_cannot_keep_is_said() {
    needs_root!();
    with_own_mounts(|| {
        let root = images();
        let place = memory(root.path(), "ramfs");
        let world = World::below(root.path(), &place);
        let retention = Retention { keep: Some(1), ..Retention::default() };
        let archiver = Archiver::open(Settings { retention, ..world.settings() }).unwrap();
        let source = world.mail("alice", 43_309, b"mail");
        let setfacl = Command::new("setfacl").args(["-m", "u:43310:rw,g::-"]).arg(&source).status();
        assert!(setfacl.unwrap().success());
        assert_eq!(fs::metadata(&source).unwrap().mode() & 0o777, 0o660, "the mask shows");

        let archived = archive_one(&archiver, "alice", 43_309, NOW);
        assert_eq!(archived.lost, [Attribute::Acl]);
        let mode = fs::metadata(&archived.path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "a mask is no right of the group");
        assert_eq!(fs::read(&archived.path).unwrap(), b"mail");

        // Without marks every copy is made, and each is taken for one of either form.
        for round in 1..5 {
            let archived = archive_one(&archiver, "alice", 43_309, NOW + round);
            assert_ne!(archived.method, Method::Identical);
        }
        assert_eq!(world.archives(), ["alice.1700000003", "alice.1700000004"]);
    });
}
