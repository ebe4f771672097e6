//! Where the counts come from: what is chosen, what is said of it, and what is left of the rights.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use procstorm_exporter::bpf::TaskIterator;
use procstorm_exporter::source::{Origin, Source};
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::skip::skipped;
use procstorm_testkit::{needs_root, programs, test_name};

use crate::world::{BINARY, Program, value};

const BY_KERNEL: &str = "procstorm_scan_source{source=\"bpf\"}";
const BY_PROC: &str = "procstorm_scan_source{source=\"procfs\"}";

/// CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, by their numbers.
const LOADING: u64 = 1 << 39 | 1 << 38 | 1 << 21;

/// Whether the machine has what the BPF program is fitted to.
fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// The rights of each thread of a program.
fn rights(pid: u32) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let permitted = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t"));
        u64::from_str_radix(line.unwrap(), 16).unwrap()
    };
    let status = |thread: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap()
    };
    threads.map(status).map(permitted).collect()
}

#[test]
fn with_the_rights_the_kernel_counts_and_they_are_given_up() {
    needs_root!();
    if !has_btf() {
        return skipped(test_name!(), "this kernel has no BTF");
    }
    let program = Program::start(Path::new("/proc"), &["--collector.source=bpf"]);
    let exposition = program.get("/metrics");
    assert_eq!(value(&exposition, BY_KERNEL), Some(1));
    assert_eq!(value(&exposition, BY_PROC), None);
    assert!(value(&exposition, "procstorm_scan_processes").unwrap() >= 2, "{exposition}");
    assert_eq!(value(&exposition, "procstorm_scan_vanished_total"), Some(0));
    assert_eq!(program.get_with("/-/ready", "").0, 200);
    let rights = rights(program.pid());
    assert!(rights.len() > 3, "{rights:?}");
    // Older kernels want CAP_BPF for each scan.
    let kept = if is_older_than_6() { 1 << 39 } else { 0 };
    assert!(rights.iter().all(|rights| rights & LOADING == kept), "{rights:x?}");
}

fn is_older_than_6() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.split('.').next().unwrap().parse::<u32>().unwrap() < 6
}

#[test]
fn why_proc_is_read_stands_in_one_line() {
    needs_root!();
    let fixture = Fixture::new();
    let without = ["--bounding-set=-bpf,-perfmon,-sys_admin", BINARY];
    let path = format!("--path.procfs={}", fixture.path().display());
    let cases: [(&[&str], &str); 3] = [
        (&without, "CAP_BPF and CAP_PERFMON are missing"),
        (&[BINARY, &path], "does not show the pid namespace of the exporter"),
        (&[BINARY, "--collector.source=procfs"], "source=procfs\n"),
    ];
    for (args, why) in cases {
        let program = Program::spawn(Command::new("setpriv").args(args));
        let log = program.first_lines();
        assert_eq!(log.matches("counting processes").count(), 1, "{log}");
        assert!(log.contains(why) && log.contains("source=procfs"), "{why}: {log}");
        assert_eq!(value(&program.get("/metrics"), BY_PROC), Some(1));
    }
}

#[test]
fn what_is_asked_for_and_cannot_be_had_is_refused() {
    needs_root!();
    let fixture = Fixture::new();
    let refused = |command: &mut Command, why: &str| {
        let output = command.args(["--once", "--collector.source=bpf"]).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("--collector.source=bpf: cannot count in the kernel"), "{log}");
        assert!(log.contains(why), "{log}");
        assert!(output.stdout.is_empty());
    };
    let mut command = Command::new(BINARY);
    refused(command.arg("--path.procfs").arg(fixture.path()), "does not show the pid namespace");
    let mut command = Command::new("setpriv");
    let without = command.arg("--bounding-set=-bpf,-perfmon,-sys_admin").arg(BINARY);
    refused(without, "CAP_BPF and CAP_PERFMON are missing");
}

#[test]
fn the_proc_of_another_pid_namespace_is_read() {
    needs_root!();
    // The exporter is alone in a namespace of its own, and is given the /proc of this one.
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", BINARY, "--path.procfs=/proc"]);
    let program = Program::spawn(&mut unshare);
    assert!(program.first_lines().contains("does not show the pid namespace"));
    let exposition = program.get("/metrics");
    assert_eq!(value(&exposition, BY_PROC), Some(1));
    assert!(value(&exposition, "procstorm_scan_processes").unwrap() >= 3, "{exposition}");
}

#[test]
fn a_scan_that_fails_in_the_kernel_reads_proc() {
    needs_root!();
    let fixture = Fixture::new();
    fixture.process(2, 41650, b"imapd");
    // No link of a BPF program.
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut source = Source::from(TaskIterator::from(null));
    assert!(source.is_kernel());
    for _ in 0..2 {
        let taken = source.take(fixture.path(), false).unwrap();
        assert_eq!((taken.origin, taken.census.processes), (Origin::Procfs, 2));
    }
}

/// The instructions in an object, by the name of the program's section.
fn instructions(object: &Path, directory: &Path) -> Vec<u8> {
    let file = directory.join("instructions");
    let mut dump = Command::new(programs::other("llvm-objcopy-14").unwrap());
    dump.arg(format!("--dump-section=iter/task={}", file.display())).arg(object).arg("/dev/null");
    assert!(dump.status().unwrap().success());
    std::fs::read(file).unwrap()
}

#[test]
fn the_object_is_what_its_source_gives() {
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let (Ok(clang), Ok(strip)) = (programs::other("clang-14"), programs::other("llvm-strip-14"))
    else {
        return skipped(test_name!(), "needs Debian's clang-14 and llvm-14: tests/tools.sh clang");
    };
    let directory = tempfile::tempdir().unwrap();
    let rebuilt = directory.path().join("rebuilt.o");
    let mut build = Command::new(bpf.join("build.sh"));
    build.arg(&rebuilt).env("CLANG", clang).env("LLVM_STRIP", strip);
    assert!(build.status().unwrap().success());
    let kept = instructions(&bpf.join("census.bpf.o"), directory.path());
    assert!(kept.len() > 100 && kept.len().is_multiple_of(8), "{} bytes", kept.len());
    assert_eq!(instructions(&rebuilt, directory.path()), kept, "run exporter/bpf/build.sh");
}
