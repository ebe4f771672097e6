//! Ending storms where the machine is against it: stuck and frozen processes, hidden ones, no
//! right to signal, few descriptors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::pin::{Delivery, Pin};
use procstorm_remediator::steps::kill::{
    Bounds, KillVerdict, Report, Target, release_stopped, survey,
};
use procstorm_testkit::skip::skipped;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, programs, skip, test_name, wait};
use procstorm_tests::opponent::Opponent;
use tempfile::TempDir;

use crate::{adding_up, end_storm};

const SOON: Duration = Duration::from_secs(60);
/// Long enough for a busy machine to send the signals; what is stuck is waited for so long.
const BRIEF: Bounds = Bounds {
    grace: Duration::ZERO,
    deadline: Duration::from_secs(5),
    rounds: 50,
    signals: 10_000,
    confirmations: 5,
    confirm_pause: Duration::from_millis(20),
    poll: Duration::from_millis(200),
    threshold: 0,
    nested_namespaces: false,
    allow_own_uid: false,
};

fn target(uid: u32) -> Target {
    Target { uid, command: Command::new(b"imapd").unwrap() }
}

fn end(uid: u32) -> Report {
    end_storm(Path::new("/proc"), &target(uid), &BRIEF, &AtomicBool::new(false))
}

/// The report of the kill run by a program of its own.
fn end_under(uid: u32, command: &str, circumstances: &[&str]) -> Report {
    let output = Program::new(programs::ours("end_storm").unwrap())
        .args([&uid.to_string(), command])
        // What a busy machine may take.
        .args(["--deadline-ms", "60000"])
        .args(circumstances)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    adding_up(report.map_err(|error| format!("{error}: {errors}")).unwrap())
}

fn states(uid: u32) -> Vec<u8> {
    let proc = ProcDir::open(Path::new("/proc")).unwrap();
    let living = survey(Path::new("/proc"), &target(uid)).unwrap().living;
    living.iter().filter_map(|&pid| proc.stat(pid).unwrap()).map(|stat| stat.state).collect()
}

/// Waits until all `count` of them sleep: who has only just come up may still be on the way to it.
fn all_sleep(uid: u32, count: usize) {
    let sleep = || (states(uid) == vec![b'S'; count]).then_some(());
    wait::until("all to sleep", SOON, sleep).unwrap();
}

/// Runs a program; false where it is not there or fails.
fn run(program: &str, args: &[&Path]) -> bool {
    programs::other(program)
        .is_ok_and(|path| Program::new(path).args(args).status().is_ok_and(|s| s.success()))
}

/// A small ext4 on a loop device; thawed and unmounted with this value.
struct LoopMount(PathBuf, #[expect(dead_code, reason = "removed when dropped")] TempDir);

impl LoopMount {
    fn make() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        (run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount]))
        .then(|| Self(mount, dir))
    }

    fn freeze(&self, option: &str) -> bool {
        run("fsfreeze", &[option.as_ref(), &self.0])
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        // It fails where the test has thawed it already.
        self.freeze("-u");
        run("umount", &["-l".as_ref(), &self.0]);
    }
}

/// Three that write to a frozen file system; or what this machine lacks for that.
fn stuck_writers(uid: u32) -> Result<(LoopMount, Opponent), &'static str> {
    let mount = LoopMount::make().ok_or("needs loop devices, mkfs.ext4 and mount")?;
    std::os::unix::fs::chown(&mount.0, Some(uid), None).unwrap();
    let storm = Opponent::start("writer", uid, b"imapd", 3, mount.0.to_str().unwrap()).unwrap();
    if !mount.freeze("-f") {
        return Err("needs fsfreeze");
    }
    wait::until("writers to be stuck", SOON, || (states(uid) == [b'D'; 3]).then_some(())).unwrap();
    Ok((mount, storm))
}

#[test]
fn a_process_in_uninterruptible_sleep_is_called_stuck() {
    needs_root!();
    let uid = claim_uid();
    let (mount, storm) = match stuck_writers(uid) {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    let report = end(uid);
    assert_eq!(report.verdict, KillVerdict::Stuck, "{report:?}");
    assert_eq!((report.stuck_count, report.signalled, report.exited), (3, 3, 0));
    assert!(report.elapsed < SOON, "it waits for them no longer than it should: {report:?}");
    assert!(mount.freeze("-u"));
    assert!(storm.are_gone_within(SOON), "the signal waits for them");
}

/// What a remediator leaves that is killed between SIGSTOP and SIGKILL: the next one lets go on
/// even those on whom the SIGSTOP has not taken hold.
#[test]
fn a_stop_that_has_not_taken_hold_is_taken_back() {
    needs_root!();
    let uid = claim_uid();
    let (mount, storm) = match stuck_writers(uid) {
        Ok(both) => both,
        Err(why) => skip!("{why}"),
    };
    for pid in survey(Path::new("/proc"), &target(uid)).unwrap().living {
        let pin = Pin::open(pid).unwrap().unwrap();
        assert_eq!(pin.signal(rustix::process::Signal::STOP), Delivery::Sent);
    }
    let released = release_stopped(Path::new("/proc"), &target(uid)).unwrap();
    assert_eq!(
        (released.resumed, released.denied),
        (Vec::new(), Vec::new()),
        "none is stopped yet"
    );
    assert!(mount.freeze("-u"));
    let written = storm.ledger().up.get();
    wait::until("all to write on", SOON, || {
        (storm.ledger().up.get() > written + 100).then_some(())
    })
    .unwrap();
    assert!(!states(uid).contains(&b'T'));
}

/// A cgroup with the storm in it, thawed and removed with this value.
struct Cgroup {
    dir: PathBuf,
    control: &'static str,
    thaw: &'static str,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::write(self.dir.join(self.control), self.thaw));
        let gone = || fs::remove_dir(&self.dir).ok();
        drop(wait::until("the cgroup to be empty", SOON, gone));
    }
}

fn put_into(dir: PathBuf, uid: u32, control: &'static str, thaw: &'static str) -> Option<Cgroup> {
    fs::create_dir(&dir).ok()?;
    let cgroup = Cgroup { dir, control, thaw };
    for pid in survey(Path::new("/proc"), &target(uid)).unwrap().living {
        fs::write(cgroup.dir.join("cgroup.procs"), pid.to_string()).ok()?;
    }
    cgroup.dir.join(control).exists().then_some(cgroup)
}

/// Named by the storm's uid, which this test alone has on the machine: other pid namespaces may have
/// its pid.
fn cgroup_dir(root: &str, uid: u32) -> PathBuf {
    Path::new(root).join(format!("procstorm-test-{uid}"))
}

#[test]
fn a_process_in_a_frozen_v1_cgroup_is_called_stuck() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 5, "").unwrap();
    let dir = cgroup_dir("/sys/fs/cgroup/freezer", uid);
    let Some(cgroup) = put_into(dir, uid, "freezer.state", "THAWED") else {
        skip!("needs a v1 freezer");
    };
    fs::write(cgroup.dir.join("freezer.state"), "FROZEN").unwrap();
    wait::until("the cgroup to freeze", SOON, || {
        (fs::read_to_string(cgroup.dir.join("freezer.state")).ok()?.trim() == "FROZEN")
            .then_some(())
    })
    .unwrap();
    let report = end(uid);
    assert_eq!((&report.verdict, report.stuck_count), (&KillVerdict::Stuck, 5), "{report:?}");
    assert!(!storm.are_gone_within(Duration::ZERO));
    drop(cgroup);
    assert!(storm.are_gone_within(SOON), "the signal waits for them");
}

#[test]
fn a_process_in_a_frozen_v2_cgroup_dies() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 5, "").unwrap();
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let Some(root) = roots.into_iter().find(|dir| Path::new(dir).join("cgroup.procs").exists())
    else {
        skip!("needs cgroup v2");
    };
    let Some(cgroup) = put_into(cgroup_dir(root, uid), uid, "cgroup.freeze", "0") else {
        skip!("needs a v2 cgroup that can be written and frozen");
    };
    fs::write(cgroup.dir.join("cgroup.freeze"), "1").unwrap();
    wait::until("the cgroup to freeze", SOON, || {
        fs::read_to_string(cgroup.dir.join("cgroup.events"))
            .ok()?
            .contains("frozen 1")
            .then_some(())
    })
    .unwrap();
    let report = end(uid);
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!(report.exited, 5);
}

#[test]
fn hidden_processes_are_seen_with_the_right_to_and_else_it_is_called_blind() {
    needs_root!();
    let blind = ["--without-cap-sys-ptrace", "--first-group", "42397"];
    let member = ["--without-cap-sys-ptrace", "--first-group", "42397", "--group", "42399"];
    // Landlock takes the right to trace others: in the sandbox only membership of hidepid's group
    // helps, which is root's own where none is named, and nothing helps with 4.
    for (options, circumstances, sees, sees_sandboxed) in [
        ("hidepid=0", blind.as_slice(), true, true),
        ("hidepid=1", &[], true, true),
        ("hidepid=1", &blind, false, false),
        ("hidepid=2", &[], true, true),
        ("hidepid=2", &blind, false, false),
        ("hidepid=1,gid=42399", &member, true, true),
        ("hidepid=2,gid=42399", &member, true, true),
        ("hidepid=2,gid=42398", &member, false, false),
        ("hidepid=4", &[], true, false),
        ("hidepid=4", &blind, false, false),
        // This group helps with 1 and 2 only.
        ("hidepid=4,gid=42399", &member, false, false),
    ] {
        let arguments = [&["--proc-options", options], circumstances].concat();
        if sees && options == "hidepid=4" && fs::read("/proc/1/environ").is_err() {
            skipped(
                test_name!(),
                "hidepid=4: pid 1 of this machine cannot be traced, not even by root",
            );
        } else {
            sees_and_ends_or_is_blind(&arguments, sees);
        }
        sees_and_ends_or_is_blind(
            &[&["--sandboxed"], arguments.as_slice()].concat(),
            // Without Landlock, before Linux 5.13, nothing takes that right.
            if has_landlock() { sees_sandboxed } else { sees },
        );
    }
}

fn has_landlock() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(13))
}

fn sees_and_ends_or_is_blind(arguments: &[&str], sees: bool) {
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 4, "").unwrap();
    let report = end_under(uid, "imapd", arguments);
    if sees {
        assert!(storm.are_gone_within(SOON), "{arguments:?}: {report:?}");
        assert_eq!(report.exited, 4, "{arguments:?}: {report:?}");
    } else {
        assert_eq!(report.verdict, KillVerdict::Blind, "{arguments:?}: {report:?}");
        all_sleep(uid, 4);
    }
}

/// In the sandbox, and as the unit runs it, the daemon has no right to trace others, and so cannot
/// ask the kernel for the owner of a namespace.
#[test]
fn without_the_right_to_trace_a_users_own_pid_namespace_is_told_from_a_container() {
    needs_root!();
    let uid = claim_uid();
    for (role, verdict, exited, nested) in [
        ("burrowers", "none_seen", 6, 0),
        ("nested_burrowers", "left_alone", 0, 6),
        ("nested", "left_alone", 0, 6),
    ] {
        for under in ["--sandboxed", "--without-cap-sys-ptrace"] {
            let storm = Opponent::start(role, uid, b"imapd", 6, "").unwrap();
            let report = end_under(uid, "imapd", &[under]);
            assert_eq!(report.verdict.label(), verdict, "{role} {under}: {report:?}");
            assert_eq!((report.exited, report.nested), (exited, nested), "{role} {under}");
            drop(storm);
        }
    }
}

#[test]
fn whoever_keeps_the_killed_from_exiting_is_named() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("traced", uid, b"imapd", 4, "").unwrap();
    let report = end(uid);
    assert_eq!((&report.verdict, report.stuck_count), (&KillVerdict::Stuck, 4), "{report:?}");
    assert_eq!((report.left, report.traced.len()), (Some(4), 4), "{report:?}");
    for traced in &report.traced {
        assert_eq!((traced.tracer.command.as_str(), traced.tracer.uid), ("debugger", uid));
    }
    assert!(!storm.are_gone_within(Duration::ZERO));
}

#[test]
fn without_the_right_to_kill_it_is_called_denied() {
    needs_root!();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 20, "").unwrap();
    let report = end_under(uid, "imapd", &["--without-cap-kill"]);
    assert_eq!((&report.verdict, report.denied), (&KillVerdict::Denied, 20), "{report:?}");
    assert!(report.elapsed < SOON / 2, "there is nothing to wait for: {report:?}");
    all_sleep(uid, 20);
    drop(storm);
}

#[test]
fn a_thousand_processes_are_ended_with_64_descriptors() {
    needs_root!();
    let _turn = crate::whole_machine();
    let uid = claim_uid();
    let storm = Opponent::start("sleepers", uid, b"imapd", 1_000, "").unwrap();
    let report = end_under(uid, "imapd", &["--descriptors", "64"]);
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert!(matches!(report.verdict, KillVerdict::NoneSeenForMs(_)), "{report:?}");
    assert_eq!((report.exited, report.left), (1_000, Some(0)));
}

#[test]
fn an_ordinary_user_may_end_processes_of_its_own_if_it_is_said() {
    needs_root!();
    let uid = claim_uid();
    let user = uid.to_string();
    let storm = Opponent::start("sleepers", uid, b"imapd", 5, "").unwrap();
    let report = end_under(uid, "imapd", &["--user", &user]);
    assert!(matches!(report.verdict, KillVerdict::Refused(_)), "{report:?}");
    assert!(!storm.are_gone_within(Duration::ZERO));
    let report = end_under(uid, "imapd", &["--user", &user, "--allow-own-uid"]);
    assert!(storm.are_gone_within(SOON), "{report:?}");
    assert_eq!(report.exited, 5);
    // And never itself.
    let report = end_under(uid, "end_storm", &["--user", &user, "--allow-own-uid"]);
    assert_eq!(report.verdict, KillVerdict::NoLongerTrue, "{report:?}");
}
