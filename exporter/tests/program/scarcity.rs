//! A system that has no pid, no descriptor or no memory to give: the exporter answers all the while,
//! or says 503, and recovers by itself.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::wait::{for_value, nap};
use procstorm_testkit::{needs_root, skip};

use crate::world::{BINARY, Program, answer, copy_program, value};

/// Longer than an idle thread would stay in a pool that lets go of them.
const IDLE: Duration = Duration::from_secs(11);

const PASSWORD: &str = "Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ=\r\n";

/// Sets a soft limit of the running program: a number, or `unlimited`. Its own user may, root
/// perhaps not.
fn limit(program: &Program, resource: &str, value: impl Display) {
    let uid = std::fs::metadata(format!("/proc/{}", program.pid())).unwrap().uid();
    let mut command = Command::new("prlimit");
    if uid != rustix::process::getuid().as_raw() {
        command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
        command.arg("prlimit");
    }
    command.args(["--pid", &program.pid().to_string(), &format!("--{resource}={value}:")]);
    assert!(command.status().unwrap().success());
}

/// Whether `kernel.pid_max` is each pid namespace's own: else we would change the machine's.
fn pid_max_is_namespaced() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

/// A web configuration whose one user's password must be compared.
fn web_config(directory: &std::path::Path) -> String {
    let file = directory.join("web.yml");
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(&file, format!("basic_auth_users: {{prometheus: {hash}}}\n")).unwrap();
    file.display().to_string()
}

/// Fills the pids of its namespace on the first line of its standard input, gives them back on the
/// second. No command of it needs a process once they are full.
const FULL_TABLE: &str = r#"
echo 400 > /proc/sys/kernel/pid_max
"$0" "$@" &
read line
(
    trap 'echo the process table is full >&2; read line; kill -9 $pids; echo free >&2' EXIT
    while sleep 1000 & do pids="$pids $!"; done
)
wait
"#;

#[test]
fn scrapes_are_answered_while_the_process_table_is_full_and_afterwards() {
    needs_root!();
    if !pid_max_is_namespaced() {
        skip!("needs Linux 6.14, with a kernel.pid_max for each pid namespace");
    }
    let directory = tempfile::tempdir().unwrap();
    let web = web_config(directory.path());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", FULL_TABLE]);
    command.args([BINARY, "--web.config.file", &web]).stdin(Stdio::piped());
    let mut program = Program::spawn(&mut command);
    let mut tell = program.stdin();
    // The password is compared while all is well, and again while nothing is; nobody asks for so
    // long meanwhile that no thread is left that a pool would have let go.
    assert_eq!(program.get_with("/metrics", PASSWORD).0, 200);
    nap(IDLE);
    tell.write_all(b"fill\n").unwrap();
    program.logged("the process table is full");
    for round in 0..3 {
        // Another wrong password each time, which has to be compared.
        let wrong = ["cHJvbWV0aGV1czp4", "cHJvbWV0aGV1czp5", "cHJvbWV0aGV1czp6"][round];
        let wrong = format!("Authorization: Basic {wrong}\r\n");
        assert_eq!(program.get_with("/-/ready", &wrong).0, 401);
        let (status, _, body) = program.get_with("/metrics", PASSWORD);
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{body}");
        assert!(value(&body, "procstorm_scan_processes").unwrap() > 300, "{body}");
        assert_eq!(program.get_with("/-/ready", PASSWORD).0, 200);
    }
    tell.write_all(b"free\n").unwrap();
    program.logged("free");
    let body = String::from_utf8(program.get_with("/metrics", PASSWORD).2).unwrap();
    assert!(value(&body, "procstorm_scan_processes").is_some(), "{body}");
}

#[test]
fn scrapes_are_answered_where_no_thread_may_be_started() {
    needs_root!();
    let uid = claim_uid();
    // Root is free of this limit, so it must be another user, from a place where that may start it.
    let directory = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let binary = directory.path().join("exporter");
    copy_program(BINARY.as_ref(), &binary);
    let web = web_config(directory.path());
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
    command.arg(&binary).args(["--web.config.file", &web]);
    let program = Program::spawn(&mut command);
    limit(&program, "nproc", 1);
    nap(IDLE);
    for _ in 0..2 {
        assert_eq!(program.get_with("/metrics", PASSWORD).0, 200);
        assert_eq!(program.get_with("/-/ready", PASSWORD).0, 200);
    }
    program.signal(rustix::process::Signal::HUP);
    program.logged("reloaded");
}

#[test]
fn a_limit_of_descriptors_that_sinks_below_what_is_open_is_survived() {
    let proc = Fixture::new();
    let mut program = Program::start(proc.path(), &[]);
    // Connections that have asked once and stay.
    let idle: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(program.address()).unwrap();
            stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count();
    assert!(open > 60, "{open}");
    limit(&program, "nofile", open - 40);
    // A connection may be closed to make room for the next one, which is then to be tried again.
    let scrape = || program.try_get("/metrics").filter(|(status, _)| *status == 200);
    for _ in 0..5 {
        for_value("a scrape succeeds", scrape);
    }
    limit(&program, "nofile", 1024);
    for_value("a scrape succeeds", scrape);
    assert!(program.runs());
    drop(idle);
}

#[test]
fn a_scan_without_a_descriptor_is_503_and_the_next_with_one_is_200() {
    let proc = Fixture::new();
    let mut program = Program::start(proc.path(), &[]);
    let stream = program.ask_later();
    // Nothing at all may be opened.
    limit(&program, "nofile", 3);
    let (status, _, body) = answer(program.finish(stream, "/metrics"));
    let body = String::from_utf8(body).unwrap();
    assert!(status == 503 && body.contains("Too many open files"), "{status}: {body}");
    limit(&program, "nofile", 1024);
    for_value("a scrape succeeds", || {
        program.try_get("/metrics").filter(|(status, _)| *status == 200)
    });
    assert!(program.runs());
}

/// The bytes of address space that a process has.
fn address_space(program: &Program) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", program.pid())).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * u64::try_from(rustix::param::page_size()).unwrap()
}

#[test]
fn a_limit_of_memory_is_survived_and_told_by_503() {
    let proc = Fixture::new();
    // As the unit has it: with several arenas, glibc has address space of its own to spare.
    let mut command = Command::new(BINARY);
    command.env("MALLOC_ARENA_MAX", "1").arg("--path.procfs").arg(proc.path());
    let mut program = Program::spawn(&mut command);
    assert_eq!(program.get_with("/metrics", "").0, 200);
    for pid in 2..20_000_u32 {
        proc.process(pid, 0, format!("command-{pid}").as_bytes());
    }
    let before = address_space(&program);
    let mut refused = 0;
    for spare in [1 << 20, 1 << 16, 0] {
        limit(&program, "as", before + spare);
        for _ in 0..5 {
            let streams: Vec<_> = (0..20).map(|_| program.ask("/metrics", "")).collect();
            for stream in streams {
                let (status, _, body) = answer(stream);
                let body = String::from_utf8(body).unwrap();
                assert!(matches!(status, 200 | 503), "{status}: {body}");
                refused += u32::from(status == 503);
            }
        }
    }
    println!("{refused} of 300 scrapes were refused for want of memory");
    assert!(program.runs());
    limit(&program, "as", "unlimited");
    let text = program.get("/metrics");
    assert_eq!(value(&text, "procstorm_scan_processes"), Some(19_999));
}

#[test]
fn all_threads_exist_from_the_start() {
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &[]);
    let threads = || -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        let mut names: Vec<_> = names.map(|name| name.unwrap().trim().to_owned()).collect();
        names.sort();
        names
    };
    // A thread has its name once it runs.
    let wanted = ["names", "names", "names", "names", "ready", "reload", "scan", "serve"];
    let before = for_value("all threads run", || {
        let names = threads();
        (names.iter().filter(|name| !name.starts_with("procstorm")).eq(wanted)).then_some(names)
    });
    program.get("/metrics");
    program.get("/-/ready");
    program.signal(rustix::process::Signal::HUP);
    program.logged("reloaded");
    assert_eq!(threads(), before);
}
