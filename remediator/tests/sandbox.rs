//! What each layer of the sandbox stops, and what it must let through. Each probe runs in a
//! process of its own, since there is no way back out of a sandbox: this test program again,
//! told by an environment variable to run one probe.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use procstorm_remediator::sandbox::{Layer, Places, enter};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const PLACE: &str = "SANDBOX_TEST_PLACE";

/// Runs the ignored test `probe` in a process of its own, with a directory that has `read` and
/// `write` in it. Asserts that it passes.
fn in_a_process_of_its_own(probe: &str) {
    let place = tempfile::tempdir().expect("a directory");
    for name in ["read", "write", "outside"] {
        fs::create_dir(place.path().join(name)).expect("a directory in it");
        fs::write(place.path().join(name).join("file"), name).expect("a file in it");
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", probe, "--ignored", "--nocapture", "--test-threads=1"])
        .env(PLACE, place.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{probe}: {said}");
}

fn place() -> PathBuf {
    std::env::var_os(PLACE).expect("run by the test of the same name").into()
}

fn enter_at(place: &Path) {
    let places =
        Places { read: vec![place.join("read"), "/proc".into()], write: vec![place.join("write")] };
    let sandbox = enter(&places);
    assert_eq!(sandbox.seccomp, Layer::Enforced);
    if let Layer::Off(why) = &sandbox.landlock {
        panic!("this kernel has no Landlock, so the probe shows nothing: {why}");
    }
}

#[test]
fn files_outside_are_closed() {
    in_a_process_of_its_own("probe_files");
}

#[test]
#[ignore = "a probe: run by files_outside_are_closed"]
fn probe_files() {
    let place = place();
    enter_at(&place);
    let denied = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("denied").kind(), ErrorKind::PermissionDenied);
    };
    denied(fs::read(place.join("outside/file")).map(drop));
    denied(fs::write(place.join("outside/new"), "x"));
    denied(fs::write(place.join("read/file"), "x"));
    denied(fs::remove_file(place.join("read/file")));
    denied(fs::write("/etc/procstorm-sandbox-test", "x"));
    denied(std::os::unix::fs::symlink("/etc/passwd", place.join("write/link")));

    assert_eq!(fs::read(place.join("read/file")).expect("the spool is read"), b"read");
    fs::write(place.join("write/new"), "x").expect("the archive is written");
    fs::rename(place.join("write/new"), place.join("write/moved")).expect("renamed within");
    fs::remove_file(place.join("write/moved")).expect("retention removes");
    assert!(fs::read("/proc/1/stat").is_ok(), "others' processes are seen");
    assert!(fs::read("/etc/passwd").is_ok(), "names are resolved");
}

#[test]
fn programs_are_not_run_and_pids_are_not_signalled() {
    in_a_process_of_its_own("probe_calls");
}

#[test]
#[ignore = "a probe: run by programs_are_not_run_and_pids_are_not_signalled"]
fn probe_calls() {
    let mut victim = Command::new("sleep").arg("60").spawn().expect("a process of our own");
    let pid = Pid::from_child(&victim);
    enter_at(&place());

    let error = Command::new("/bin/true").status().expect_err("no exec");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = victim.kill_by_number().expect_err("no kill(2)");
    assert_eq!(error, rustix::io::Errno::PERM);
    assert!(rustix::process::test_kill_process(pid).is_err(), "not even signal 0");

    // What the daemon is for still works, the other way.
    let pinned = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
    pidfd_send_signal(&pinned, Signal::KILL).expect("a signal through it");
    let status = victim.wait().expect("it ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    std::thread::spawn(|| ()).join().expect("threads start");
}

/// The call that the filter is there to stop.
trait ByNumber {
    fn kill_by_number(&self) -> Result<(), rustix::io::Errno>;
}

impl ByNumber for std::process::Child {
    #[expect(clippy::disallowed_methods, reason = "the test shows that it fails")]
    fn kill_by_number(&self) -> Result<(), rustix::io::Errno> {
        rustix::process::kill_process(Pid::from_child(self), Signal::KILL)
    }
}

#[test]
fn abort_still_ends_the_process() {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "probe_abort", "--ignored", "--nocapture"])
        .env(PLACE, "/nonexistent")
        .output()
        .expect("it starts");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6));
}

#[test]
#[ignore = "a probe: run by abort_still_ends_the_process"]
fn probe_abort() {
    enter_at(&place());
    std::process::abort();
}
