//! What each layer of the sandbox stops, and what it must let through. Each probe runs in a
//! process of its own, since there is no way back out of a sandbox: this test program again,
//! told by an environment variable to run one probe.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "what no crate offers is what a sandbox must refuse")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::{Duration, Instant};

use procstorm_remediator::sandbox::{Layer, Places, Sandbox, enter};
use procstorm_testkit::apart::run_ignored;
use procstorm_testkit::skip::skipped;
use procstorm_testkit::{needs_root, test_name};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

const PLACE: &str = "SANDBOX_TEST_PLACE";

/// Runs the ignored test `probe` in a process of its own, with a directory that has `read` and
/// `write` in it. Asserts that it passes.
fn in_a_process_of_its_own(probe: &str) {
    let place = tempfile::tempdir().expect("a directory");
    for name in ["read", "write", "outside"] {
        fs::create_dir(place.path().join(name)).expect("a directory in it");
        fs::write(place.path().join(name).join("file"), name).expect("a file in it");
    }
    run_ignored(probe, |command| {
        command.env(PLACE, place.path());
    });
}

fn place() -> PathBuf {
    std::env::var_os(PLACE).expect("run by the test of the same name").into()
}

fn places(place: &Path) -> Places {
    Places { read: vec![place.join("read"), "/proc".into()], write: vec![place.join("write")] }
}

/// Enters a sandbox that is as whole as this kernel can make it.
fn enter_at(place: &Path) -> Sandbox {
    let sandbox = enter(&places(place), Path::new("/proc"));
    assert_eq!(sandbox.faults(), Vec::<String>::new());
    assert_eq!(sandbox.seccomp, Layer::Enforced);
    assert_eq!(sandbox.capabilities, Layer::Enforced);
    sandbox
}

/// Whether this kernel closes files at all; if not, says that the probe shows nothing.
fn closes_files(sandbox: &Sandbox) -> bool {
    let closes = sandbox.landlock.restricts();
    if !closes {
        skipped("what Landlock closes", &sandbox.landlock.to_string());
    }
    closes
}

#[test]
fn files_outside_are_closed() {
    in_a_process_of_its_own(test_name!(probe_files));
}

#[test]
#[ignore = "a probe: run by files_outside_are_closed"]
fn probe_files() {
    let place = place();
    if !closes_files(&enter_at(&place)) {
        return;
    }
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
    in_a_process_of_its_own(test_name!(probe_calls));
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
    assert_eq!(error, Errno::PERM);
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
    fn kill_by_number(&self) -> Result<(), Errno>;
}

impl ByNumber for std::process::Child {
    #[expect(clippy::disallowed_methods, reason = "the test shows that it fails")]
    fn kill_by_number(&self) -> Result<(), Errno> {
        rustix::process::kill_process(Pid::from_child(self), Signal::KILL)
    }
}

#[test]
fn abort_still_ends_the_process() {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test_name!(probe_abort), "--ignored", "--nocapture"])
        .env(PLACE, "/nonexistent")
        .output()
        .expect("it starts");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(6));
}

#[test]
#[ignore = "a probe: run by abort_still_ends_the_process"]
fn probe_abort() {
    let sandbox = enter(&Places::default(), Path::new("/proc"));
    assert_eq!(sandbox.seccomp, Layer::Enforced);
    std::process::abort();
}

#[test]
fn a_place_that_cannot_be_opened_stays_closed_and_the_others_do_not() {
    in_a_process_of_its_own(test_name!(probe_missing_place));
}

#[test]
#[ignore = "a probe: run by a_place_that_cannot_be_opened_stays_closed_and_the_others_do_not"]
fn probe_missing_place() {
    let place = place();
    let mut places = places(&place);
    places.read.insert(0, place.join("missing"));
    let sandbox = enter(&places, Path::new("/proc"));
    if !closes_files(&sandbox) {
        return;
    }
    let fault = sandbox.landlock.fault().expect("it is said");
    assert!(fault.contains("missing stays closed: No such file"), "{fault}");
    assert_eq!(sandbox.landlock.value(), 0.1);
    assert_eq!(sandbox.seccomp, Layer::Enforced);
    assert!(fs::read(place.join("outside/file")).is_err(), "what is outside is closed");
    assert!(fs::read(place.join("read/file")).is_ok(), "the other places are open");
    fs::write(place.join("write/new"), "x").expect("the archive is written");
}

/// A filter as a unit's `SystemCallFilter=` makes it: these calls fail with this error.
fn refuse(calls: &[i64], error: Errno) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let error = SeccompAction::Errno(error.raw_os_error().unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("it is installed");
}

#[test]
fn a_filter_that_refuses_one_layer_leaves_the_others() {
    in_a_process_of_its_own(test_name!(probe_landlock_refused));
    in_a_process_of_its_own(test_name!(probe_rules_refused));
    in_a_process_of_its_own(test_name!(probe_seccomp_refused));
}

#[test]
#[ignore = "a probe: run by a_filter_that_refuses_one_layer_leaves_the_others"]
fn probe_landlock_refused() {
    refuse(&[libc::SYS_landlock_create_ruleset], Errno::PERM);
    let sandbox = enter(&places(&place()), Path::new("/proc"));
    let fault = sandbox.landlock.fault().expect("it is off");
    assert!(fault.contains("SystemCallFilter=") && !fault.contains("kernel"), "{fault}");
    assert_eq!(sandbox.landlock.value(), 0.0);
    assert_eq!(sandbox.seccomp, Layer::Enforced);
    assert_eq!(sandbox.capabilities, Layer::Enforced);
    let told = sandbox.faults().join("; ");
    assert!(told.starts_with("sandbox layer landlock is off: a system call filter"), "{told}");
}

#[test]
#[ignore = "a probe: run by a_filter_that_refuses_one_layer_leaves_the_others"]
fn probe_rules_refused() {
    refuse(&[libc::SYS_landlock_add_rule], Errno::PERM);
    let place = place();
    let sandbox = enter(&places(&place), Path::new("/proc"));
    if sandbox.landlock == Layer::Older(0) {
        return;
    }
    assert!(matches!(&sandbox.landlock, Layer::Off(why) if why.contains("SystemCallFilter=")));
    // Without a rule everything would be closed, and the daemon could do nothing.
    assert!(fs::read(place.join("read/file")).is_ok());
    assert_eq!(sandbox.seccomp, Layer::Enforced);
}

#[test]
#[ignore = "a probe: run by a_filter_that_refuses_one_layer_leaves_the_others"]
fn probe_seccomp_refused() {
    refuse(&[libc::SYS_seccomp], Errno::PERM);
    let place = place();
    let sandbox = enter(&places(&place), Path::new("/proc"));
    let fault = sandbox.seccomp.fault().expect("it is off");
    assert!(fault.contains("refuses seccomp(2) (EPERM)"), "{fault}");
    assert_eq!(sandbox.landlock.fault(), None);
    assert_eq!(sandbox.capabilities, Layer::Enforced);
    if closes_files(&sandbox) {
        assert!(fs::read(place.join("outside/file")).is_err());
    }
}

#[test]
fn a_kernel_without_pidfds_is_named_at_the_start() {
    in_a_process_of_its_own(test_name!(probe_old_kernel));
}

#[test]
#[ignore = "a probe: run by a_kernel_without_pidfds_is_named_at_the_start"]
fn probe_old_kernel() {
    refuse(&[libc::SYS_pidfd_open], Errno::NOSYS);
    let program = env!("CARGO_BIN_EXE_procstorm-remediator");
    let output = Command::new(program).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("Linux 5.10 or newer is needed"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Makes a call with arguments that do nothing if it is let through.
fn call(number: i64, arguments: [i64; 4]) -> Result<i64, Errno> {
    let [a, b, c, d] = arguments;
    // SAFETY: the arguments are numbers and null; no memory of ours is touched.
    let answer = unsafe { libc::syscall(number, a, b, c, d) };
    match answer {
        -1 => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).expect("an errno"))
        }
        answer => Ok(answer),
    }
}

#[test]
fn the_filter_refuses_each_way_around_it() {
    in_a_process_of_its_own(test_name!(probe_filter));
}

#[test]
#[ignore = "a probe: run by the_filter_refuses_each_way_around_it"]
fn probe_filter() {
    enter_at(&place());
    let nothing = [-1, -1, -1, -1];
    for (name, number) in [
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("fanotify_mark", libc::SYS_fanotify_mark),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_madvise", libc::SYS_process_madvise),
        ("memfd_secret", libc::SYS_memfd_secret),
        ("mount", libc::SYS_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("fsmount", libc::SYS_fsmount),
        ("open_tree", libc::SYS_open_tree),
        ("open_tree_attr", 467),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("mknodat", libc::SYS_mknodat),
        ("capset", libc::SYS_capset),
        ("setresuid", libc::SYS_setresuid),
        ("setfsuid", libc::SYS_setfsuid),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("quotactl_fd", libc::SYS_quotactl_fd),
        ("bpf", libc::SYS_bpf),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("migrate_pages", libc::SYS_migrate_pages),
        ("sched_setscheduler", libc::SYS_sched_setscheduler),
    ] {
        assert_eq!(call(number, nothing), Err(Errno::PERM), "{name}");
    }
    // Calls that are needed, with arguments that are not.
    let refused = [
        ("clone into a user namespace", libc::SYS_clone, [0x1000_0000, 0, 0, 0]),
        ("clone into a pid namespace", libc::SYS_clone, [0x2000_0000, 0, 0, 0]),
        ("prlimit64 of another", libc::SYS_prlimit64, [1, 7, 0, 0]),
        ("fcntl F_SETOWN", libc::SYS_fcntl, [0, 8, 1, 0]),
        ("fcntl F_SETSIG", libc::SYS_fcntl, [0, 10, 9, 0]),
        ("ioctl TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0, 0]),
        ("fchmod set-uid", libc::SYS_fchmod, [-1, 0o4755, 0, 0]),
        ("fchmodat set-gid", libc::SYS_fchmodat, [-1, 0, 0o2755, 0]),
        ("fchmodat2 set-uid", 452, [-1, 0, 0o4755, 0]),
        ("openat set-uid", libc::SYS_openat, [-1, 0, 0o101, 0o4700]),
        ("a raw socket", libc::SYS_socket, [2, 3, 255, 0]),
    ];
    for (what, number, arguments) in refused {
        assert_eq!(call(number, arguments), Err(Errno::PERM), "{what}");
    }
    for (family, number) in [("netlink", 16), ("packet", 17), ("vsock", 40), ("alg", 38)] {
        let socket = call(libc::SYS_socket, [number, 2, 0, 0]);
        assert_eq!(socket, Err(Errno::AFNOSUPPORT), "{family}");
    }
    let x32_kill = call(0x4000_0000 | libc::SYS_kill, [i64::from(std::process::id()), 0, 0, 0]);
    assert_eq!(x32_kill, Err(Errno::NOSYS), "kill(2) by its x32 number");
    assert_eq!(call(libc::SYS_clone3, nothing), Err(Errno::NOSYS));

    // What the daemon does is let through.
    std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    std::os::unix::net::UnixDatagram::unbound().expect("a local socket");
    std::thread::spawn(|| ()).join().expect("threads start");
    assert_eq!(call(libc::SYS_fchmod, [-1, 0o600, 0, 0]), Err(Errno::BADF));
    assert_ne!(call(libc::SYS_openat2, nothing), Err(Errno::PERM));
    assert_ne!(call(libc::SYS_openat2, nothing), Err(Errno::NOSYS));
}

/// The value of a line of /proc/thread-self/status.
fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").expect("of this thread");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    line.expect("a line of it").to_owned()
}

#[test]
fn root_keeps_four_capabilities_and_can_gain_none() {
    needs_root!();
    in_a_process_of_its_own(test_name!(probe_capabilities));
}

#[test]
#[ignore = "a probe: run by root_keeps_four_capabilities_and_can_gain_none"]
fn probe_capabilities() {
    use std::os::unix::process::CommandExt as _;
    let mut other = Command::new("sleep").arg("60").uid(44_991).gid(44_991).spawn().expect("it");
    let pinned = pidfd_open(Pid::from_child(&other), PidfdFlags::empty()).expect("a pidfd");
    let place = place();
    let theirs = place.join("read/theirs");
    fs::write(&theirs, "secret").expect("written");
    std::os::unix::fs::chown(&theirs, Some(44_991), Some(44_991)).expect("another's");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&theirs, mode).expect("closed to all");

    enter_at(&place);
    // CAP_CHOWN, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_KILL.
    let four = "000000000000002d";
    assert_eq!([status("CapEff"), status("CapPrm")], [four, four]);
    assert_eq!([status("CapInh"), status("CapAmb")], ["0000000000000000"; 2]);
    let bounding = u64::from_str_radix(&status("CapBnd"), 16).expect("a number");
    assert_eq!(bounding & !0x2d, 0, "{bounding:x}");
    assert_eq!(status("NoNewPrivs"), "1");
    let of_a_thread = std::thread::spawn(|| {
        let text = fs::read_to_string("/proc/thread-self/status").expect("of this thread");
        text.contains("CapEff:\t000000000000002d")
    });
    assert!(of_a_thread.join().expect("it runs"), "threads have no more");

    assert_eq!(fs::read(&theirs).expect("mail is read whatever its mode"), b"secret");
    let written = fs::write(&theirs, "x").expect_err("and not written");
    assert_eq!(written.kind(), ErrorKind::PermissionDenied);
    pidfd_send_signal(&pinned, Signal::KILL).expect("others' processes are killed");
    other.wait().expect("it ends");
}

#[test]
fn a_spool_that_is_mounted_later_is_read() {
    needs_root!();
    in_a_process_of_its_own(test_name!(probe_later_mount));
}

#[test]
#[ignore = "a probe: run by a_spool_that_is_mounted_later_is_read"]
fn probe_later_mount() {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let place = place();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of its own");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private mounts");
    let spool = place.join("read");
    // It waits until this process is in its sandbox.
    let script = "until [ -e write/go ]; do sleep 0.05; done; \
                  mount -t tmpfs tmpfs read && echo later > read/later";
    let mut other = Command::new("sh").args(["-ec", script]).current_dir(&place).spawn().expect("");
    let places = Places { read: vec![spool.clone(), place.clone()], write: places(&place).write };
    assert_eq!(enter(&places, Path::new("/proc")).faults(), Vec::<String>::new());
    fs::write(place.join("write/go"), "").expect("written");
    let begun = Instant::now();
    while other.try_wait().expect("ours").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is mounted");
        std::thread::yield_now();
    }
    assert_eq!(fs::read(spool.join("later")).expect("read"), b"later\n");
}
