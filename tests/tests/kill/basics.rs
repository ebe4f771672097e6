//! Ending storms of ordinary and of odd processes: exactly the storm ends, and it is proven.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::{
    Bounds, KillVerdict, Report, Target, release_stopped, survey,
};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::opponent::Opponent;

use crate::end_storm;

const PROC: &str = "/proc";
const SOON: Duration = Duration::from_secs(60);

fn target(uid: u32, command: &[u8]) -> Target {
    Target { uid, command: Command::new(command).unwrap() }
}

/// The default bounds, but for the time that a busy machine may take.
fn unhurried() -> Bounds {
    Bounds { deadline: SOON, ..Bounds::default() }
}

fn end(target: &Target) -> Report {
    end_storm(Path::new(PROC), target, &unhurried(), &AtomicBool::new(false))
}

fn states(target: &Target) -> Vec<u8> {
    let proc = ProcDir::open(Path::new(PROC)).unwrap();
    let living = survey(Path::new(PROC), target).unwrap().living;
    living.iter().filter_map(|&pid| proc.stat(pid).unwrap()).map(|stat| stat.state).collect()
}

#[test]
fn exactly_the_storm_ends() {
    needs_root!();
    let [uid, other] = claim_uids();
    let storm = Opponent::start("sleepers", uid, b"imapd", 100, "").unwrap();
    let other_command = Opponent::start("sleepers", uid, b"imapd2", 3, "").unwrap();
    let other_user = Opponent::start("sleepers", other, b"imapd", 3, "").unwrap();
    let target = target(uid, b"imapd");
    let before = survey(Path::new(PROC), &target).unwrap();
    assert_eq!(before.living.len(), 100);

    let report = end(&target);

    assert!(storm.are_gone_within(SOON));
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(ms) if ms >= 80), "{report:?}");
    assert_eq!((report.matched, report.signalled, report.exited), (100, 100, 100));
    assert_eq!((report.rounds, report.replacement_count, report.left), (1, 0, Some(0)));
    let said: BTreeSet<i32> = report.pids.iter().copied().collect();
    assert_eq!(said, before.living.into_iter().collect(), "the dry run named the same");
    assert!(!other_command.are_gone_within(Duration::ZERO));
    assert_eq!(survey(Path::new(PROC), &self::target(uid, b"imapd2")).unwrap().living.len(), 3);
    assert_eq!(survey(Path::new(PROC), &self::target(other, b"imapd")).unwrap().living.len(), 3);
    assert_eq!(end(&target).verdict, KillVerdict::NoLongerTrue);
    drop((other_command, other_user));
}

#[test]
fn hostile_names_are_names() {
    needs_root!();
    let uid = claim_uid();
    for name in [b"im apd) S 1".as_slice(), b"a\nb\n", b"\xff\"\\", b"fifteen-bytes-x", b") ("] {
        let storm = Opponent::start("sleepers", uid, name, 5, "").unwrap();
        let report = end(&target(uid, name));
        assert!(storm.are_gone_within(SOON), "{}", name.escape_ascii());
        assert_eq!(report.matched, 5, "{}", name.escape_ascii());
    }
}

#[test]
fn a_name_too_long_for_the_kernel_is_refused_and_not_shortened() {
    needs_root!();
    let uid = claim_uid();
    // The kernel keeps the first 15 bytes.
    let storm = Opponent::start("sleepers", uid, b"sixteen-bytes-xx", 3, "").unwrap();
    let report = end(&target(uid, b"sixteen-bytes-xx"));
    assert!(matches!(report.verdict, KillVerdict::Refused(_)), "{report:?}");
    assert_eq!(survey(Path::new(PROC), &target(uid, b"sixteen-bytes-x")).unwrap().living.len(), 3);
    drop(storm);
}

#[test]
fn zombies_are_counted_apart_and_their_parent_is_named() {
    needs_root!();
    let uid = claim_uid();
    let zombies = Opponent::start("zombies", uid, b"imapd", 20, "").unwrap();
    let target = target(uid, b"imapd");
    wait::until("zombies", SOON, || {
        (survey(Path::new(PROC), &target).ok()?.zombies.len() == 20).then_some(())
    })
    .unwrap();
    let report = end(&target);
    assert_eq!(report.verdict, KillVerdict::NoLongerTrue, "the dead are no storm");
    assert_eq!((report.zombie_count, report.signalled), (20, 0));
    let parents: BTreeSet<i32> = report.zombies.iter().map(|zombie| zombie.parent).collect();
    let careless: Vec<_> = report.careless.iter().map(|one| (one.pid, one.uid)).collect();
    assert_eq!(careless, parents.iter().map(|pid| (*pid, uid)).collect::<Vec<_>>());
    let proc = ProcDir::open(Path::new(PROC)).unwrap();
    let names: Vec<_> = parents.iter().filter_map(|&pid| proc.stat(pid).unwrap()).collect();
    assert_eq!(names.len(), 1);
    assert!(names.iter().all(|stat| stat.command.as_bytes() == b"careless"));
    drop(zombies);
}

#[test]
fn what_is_killed_and_not_reaped_does_not_keep_us() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("unreaped", uid, b"imapd", 30, "").unwrap();
    let report = end(&target(uid, b"imapd"));
    assert!(storm.are_gone_within(SOON));
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.exited, report.zombie_count, report.rounds), (30, 30, 1));
    assert!(report.zombies.iter().all(|zombie| zombie.parent == storm.keeper()));
}

#[test]
fn a_process_whose_first_thread_has_exited_is_alive_and_killed() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("leaderless", uid, b"imapd", 5, "").unwrap();
    let target = target(uid, b"imapd");
    wait::until("first threads to exit", SOON, || (states(&target) == [b'Z'; 5]).then_some(()))
        .unwrap();
    let report = end(&target);
    assert!(storm.are_gone_within(SOON));
    assert_eq!((report.matched, report.exited), (5, 5), "{report:?}");
}

#[test]
fn a_process_that_is_not_dumpable_is_its_users_all_the_same() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("undumpable", uid, b"imapd", 5, "").unwrap();
    let report = end(&target(uid, b"imapd"));
    assert!(storm.are_gone_within(SOON));
    assert_eq!(report.matched, 5);
}

/// In the namespace that `child` has made: its user 0 is `uid`, and its user 1 is `next`.
fn map_users(child: &Child, uid: u32, next: u32) {
    let dir = PathBuf::from(format!("{PROC}/{}", child.id()));
    let ours = fs::read_link("/proc/self/ns/user").unwrap();
    wait::until("a user namespace", SOON, || {
        fs::read_link(dir.join("ns/user")).ok().filter(|theirs| *theirs != ours)
    })
    .unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(dir.join(map), format!("0 {uid} 1\n1 {next} 1\n")).unwrap();
    }
}

#[test]
fn whose_a_process_is_is_not_whose_its_files_are() {
    needs_root!();
    let [uid, next] = claim_uids();
    let piped = |program: &str, arguments: &[&str]| {
        let mut command = Program::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    // Both end with their standard input.
    let container = piped("unshare", &["--user", "cat"]);
    map_users(&container, uid, next);
    let storm = Opponent::start("sleepers", uid, b"imapd", 3, "").unwrap();
    // A worker of a container that runs as the user without root's rights: another user, and its
    // files in /proc belong to the root of its namespace, who is the storm's user.
    let script = "use POSIX; POSIX::setuid(1); $0 = 'imapd'; $| = 1; print \"up\\n\"; <STDIN>";
    let id = container.id().to_string();
    let enter = ["--user", "--target", &id, "perl", "-e", script];
    let mut stranger = piped("nsenter", &enter);
    let mut up = [0; 3];
    stranger.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let dir = PathBuf::from(format!("{PROC}/{}", stranger.id()));
    assert_eq!(fs::metadata(&dir).unwrap().uid(), next);
    assert_eq!(fs::metadata(dir.join("stat")).unwrap().uid(), uid);
    assert_eq!(fs::read_to_string(dir.join("comm")).unwrap(), "imapd\n");

    let report = end(&target(uid, b"imapd"));

    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert_eq!((report.matched, report.signalled), (3, 3), "{report:?}");
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed: {report:?}");
    for mut child in [stranger, container] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn those_that_die_in_a_nested_pid_namespace_are_none_of_ours() {
    needs_root!();
    let uid = claim_uid();
    let container = Opponent::start("nested_mortals", uid, b"imapd", 20, "").unwrap();
    let report = end(&target(uid, b"imapd"));
    assert_eq!(report.verdict, KillVerdict::NoLongerTrue, "{report:?}");
    assert_eq!((report.zombie_count, report.signalled), (0, 0), "{report:?}");
    assert!(!container.fork_none_for(SOON), "they are born and die still");
}

#[test]
fn a_nested_pid_namespace_is_left_alone_unless_the_bounds_say_otherwise() {
    needs_root!();
    let uid = claim_uid();
    let container = Opponent::start("nested", uid, b"imapd", 4, "").unwrap();
    let ours = Opponent::start("sleepers", uid, b"imapd", 3, "").unwrap();
    let target = target(uid, b"imapd");
    let before = survey(Path::new(PROC), &target).unwrap();
    assert_eq!((before.living.len(), before.nested.len()), (3, 4));
    let report = end(&target);
    assert!(ours.are_gone_within(SOON));
    assert_eq!((report.matched, report.nested), (3, 4), "{report:?}");
    assert_eq!((&report.verdict, report.left), (&KillVerdict::LeftAlone, Some(0)), "{report:?}");
    assert_eq!(survey(Path::new(PROC), &target).unwrap().nested.len(), 4);

    let bounds = Bounds { nested_namespaces: true, ..unhurried() };
    let report = end_storm(Path::new(PROC), &target, &bounds, &AtomicBool::new(false));
    assert_eq!(report.matched, 4, "{report:?}");
    drop(container);
}

#[test]
fn a_pid_namespace_that_the_user_has_made_is_the_users_storm() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("burrowers", uid, b"imapd", 10, "").unwrap();
    let target = target(uid, b"imapd");
    let before = survey(Path::new(PROC), &target).unwrap();
    assert_eq!((before.living.len(), before.nested.len()), (10, 0), "the recount says so, too");
    let report = end(&target);
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.exited, report.nested, report.left), (10, 0, Some(0)), "{report:?}");
    drop(storm);
}

#[test]
fn what_a_user_makes_inside_of_roots_container_is_part_of_that() {
    needs_root!();
    let uid = claim_uid();
    let container = Opponent::start("nested_burrowers", uid, b"imapd", 4, "").unwrap();
    let target = target(uid, b"imapd");
    let before = survey(Path::new(PROC), &target).unwrap();
    assert_eq!((before.living.len(), before.nested.len()), (0, 4));
    let report = end(&target);
    assert_eq!((&report.verdict, report.nested), (&KillVerdict::LeftAlone, 4), "{report:?}");
    assert_eq!((report.matched, report.left), (0, Some(0)), "{report:?}");
    assert_eq!(survey(Path::new(PROC), &target).unwrap().nested.len(), 4, "they live");
    drop(container);
}

#[test]
fn an_abort_leaves_nobody_stopped() {
    needs_root!();
    let uid = claim_uid();
    let start = || Opponent::start("sleepers", uid, b"imapd", 400, "").unwrap();
    let mut storm = start();
    let target = target(uid, b"imapd");
    let proc = ProcDir::open(Path::new(PROC)).unwrap();
    let abort = AtomicBool::new(false);
    let (mut bitten, begun) = (0, Instant::now());
    // On a busy machine an abort may come too late: then it is tried again with another storm.
    for (attempt, fraction) in (1..=8).cycle().enumerate() {
        if (attempt >= 8 && bitten > 0) || begun.elapsed() > SOON {
            break;
        }
        abort.store(false, Ordering::Relaxed);
        let pids = survey(Path::new(PROC), &target).unwrap().living;
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| end_storm(Path::new(PROC), &target, &unhurried(), &abort));
            // Abort as soon as so many eighths of them are stopped.
            let stopped =
                |pid: &&i32| proc.stat(**pid).ok().flatten().is_some_and(|stat| stat.is_stopped());
            let watched = pids.get(pids.len() * fraction / 9).unwrap();
            while !running.is_finished() && !stopped(&watched) {
                std::hint::spin_loop();
            }
            abort.store(true, Ordering::Relaxed);
            running.join().unwrap()
        });
        bitten += u32::from(report.verdict == KillVerdict::Aborted);
        let stopped = || !states(&target).contains(&b'T');
        wait::until("all to go on", SOON, || stopped().then_some(())).unwrap();
        assert!(release_stopped(Path::new(PROC), &target).unwrap().resumed.is_empty());
        if survey(Path::new(PROC), &target).unwrap().living.len() < 200 {
            drop(storm);
            storm = start();
        }
    }
    assert!(bitten > 0, "no abort came in time");
    let report = end(&target);
    assert!(storm.are_gone_within(SOON), "{report:?}");
}

#[test]
fn bounds_that_are_reached_leave_nobody_stopped() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 50, "").unwrap();
    let target = target(uid, b"imapd");
    // It waits for those whom it has killed.
    let short = Bounds { signals: 41, ..unhurried() };
    let report = end_storm(Path::new(PROC), &target, &short, &AtomicBool::new(false));
    assert_eq!(
        (report.verdict, report.signalled, report.left),
        (KillVerdict::Unfinished, 20, Some(30))
    );
    // Who has only just come up may still be on the way to sleep.
    let all_sleep = || (states(&target) == [b'S'; 30]).then_some(());
    wait::until("all to sleep", SOON, all_sleep).unwrap();
    let hurried = Bounds { deadline: Duration::ZERO, ..Bounds::default() };
    let report = end_storm(Path::new(PROC), &target, &hurried, &AtomicBool::new(false));
    assert_eq!((report.verdict, report.signalled), (KillVerdict::Unfinished, 0));
    wait::until("all to sleep", SOON, all_sleep).unwrap();
    drop(storm);
}

#[test]
fn a_remediation_that_was_cut_off_can_be_undone() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 10, "").unwrap();
    let target = target(uid, b"imapd");
    let pids = survey(Path::new(PROC), &target).unwrap().living;
    for &pid in &pids {
        let pin = procstorm_remediator::steps::kill::pin::Pin::open(pid).unwrap().unwrap();
        assert_eq!(
            pin.signal(rustix::process::Signal::STOP),
            procstorm_remediator::steps::kill::pin::Delivery::Sent
        );
    }
    let all_stopped = || states(&target) == [b'T'; 10];
    wait::until("all to stop", SOON, || all_stopped().then_some(())).unwrap();
    assert_eq!(survey(Path::new(PROC), &target).unwrap().stopped, pids);
    let released = release_stopped(Path::new(PROC), &target).unwrap();
    assert_eq!((released.resumed, released.denied), (pids, Vec::new()));
    let none_stopped = || states(&target) == [b'S'; 10];
    wait::until("all to go on", SOON, || none_stopped().then_some(())).unwrap();
    drop(storm);
}

#[test]
fn who_changes_the_name_all_the_time_is_only_killed_under_the_right_one() {
    needs_root!();
    let uid = claim_uid();
    let mut killed = 0;
    for _ in 0..5 {
        let storm = Opponent::start("renamers", uid, b"imapd", 8, "innocent").unwrap();
        let report = end(&target(uid, b"imapd"));
        // Nobody reaps them: the dead still bear the name that they were killed under.
        let innocent = survey(Path::new(PROC), &target(uid, b"innocent")).unwrap();
        assert_eq!(innocent.zombies, [], "{report:?}");
        killed += report.signalled;
        drop(storm);
    }
    assert!(killed > 0);
}

#[test]
fn who_changes_the_uid_all_the_time_is_only_killed_under_the_right_one() {
    needs_root!();
    let [uid, stranger] = claim_uids();
    let other = stranger.to_string();
    let mut killed = 0;
    for _ in 0..5 {
        let storm = Opponent::start("switchers", uid, b"imapd", 8, &other).unwrap();
        let report = end(&target(uid, b"imapd"));
        let other = survey(Path::new(PROC), &target(stranger, b"imapd")).unwrap();
        assert_eq!(other.zombies, [], "{report:?}");
        killed += report.signalled;
        drop(storm);
    }
    assert!(killed > 0);
}

#[test]
fn a_proc_of_another_namespace_is_refused() {
    let fixture = tempfile::tempdir().unwrap();
    let report = end_storm(
        fixture.path(),
        &target(1000, b"imapd"),
        &Bounds::default(),
        &AtomicBool::new(false),
    );
    assert!(matches!(report.verdict, KillVerdict::Refused(_)), "{report:?}");
}
