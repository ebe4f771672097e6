//! What the exporter says when processes are hidden from it, in mount namespaces of our own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use procstorm_testkit::needs_root;

use crate::world::{BINARY, copy_program, value};

const UID: &str = "41500";
const GROUP: &str = "41501";

/// One way to mount /proc, and who looks at it.
struct Case {
    options: &'static str,
    /// The supplementary group of an unprivileged user; `None` is root.
    group: Option<&'static str>,
    /// In a pid namespace whose pid 1 is the exporter itself, which it can always see.
    as_pid_1: bool,
    blind: u64,
}

const fn case(options: &'static str, group: Option<&'static str>, blind: u64) -> Case {
    Case { options, group, as_pid_1: false, blind }
}

const CASES: &[Case] = &[
    case("hidepid=0", Some(UID), 0),
    case("hidepid=1", Some(UID), 1),
    case("hidepid=2", Some(UID), 1),
    case("hidepid=2,gid=41501", Some(UID), 1),
    case("hidepid=2,gid=41501", Some(GROUP), 0),
    case("hidepid=4", Some(UID), 1),
    case("hidepid=4,gid=41501", Some(GROUP), 1),
    case("hidepid=2", None, 0),
    // Root with CAP_SYS_PTRACE may trace all, so it sees all; a pid 1 that a security module keeps
    // from it would be one process less, of which it has to tell: here pid 1 is one of ours.
    Case { options: "hidepid=4", group: None, as_pid_1: true, blind: 0 },
    Case { options: "hidepid=0", group: Some(UID), as_pid_1: true, blind: 0 },
    Case { options: "hidepid=1", group: Some(UID), as_pid_1: true, blind: 1 },
    Case { options: "hidepid=2", group: Some(UID), as_pid_1: true, blind: 1 },
    Case { options: "hidepid=2,gid=41501", group: Some(GROUP), as_pid_1: true, blind: 0 },
];

#[test]
fn hidden_processes_are_told_of() {
    needs_root!();
    // A place where any user may run the program from.
    let directory = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open.clone()).unwrap();
    let (binary, proc) = (directory.path().join("exporter"), directory.path().join("proc"));
    copy_program(BINARY.as_ref(), &binary);
    std::fs::set_permissions(&binary, open).unwrap();
    std::fs::create_dir(&proc).unwrap();
    for case in CASES {
        let (exposition, log) = look(case, &binary, &proc);
        let told = value(&exposition, "procstorm_scan_blind");
        let Case { options, group, as_pid_1, blind } = case;
        assert_eq!(told, Some(*blind), "{options} {group:?} pid 1: {as_pid_1}\n{log}");
        assert_eq!(log.matches("blind: processes of other users").count() as u64, *blind, "{log}");
    }
}

/// The exposition, and the log.
fn look(case: &Case, binary: &Path, proc: &Path) -> (String, String) {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if case.as_pid_1 {
        command.args(["--pid", "--fork"]);
    }
    let user = case.group.map_or_else(String::new, |group| {
        format!("setpriv --reuid {UID} --regid {UID} --groups {group} --")
    });
    // The other process of the namespace is root's: the one that is hidden.
    let script = format!(
        "set -e; mount -t proc -o {} proc \"$1\"; sleep 60 & exec {user} \"$0\" --once \
         --web.disable-exporter-metrics --path.procfs \"$1\"",
        case.options
    );
    let script = if case.as_pid_1 { script } else { script.replace("sleep 60 & ", "") };
    command.args(["sh", "-c", &script]).arg(binary).arg(proc);
    // What is left in the background must not keep our pipes open.
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {log}", case.options);
    (String::from_utf8(output.stdout).unwrap(), log)
}
