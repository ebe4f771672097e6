//! The sum holds whatever processes do, and `ps` counts the same.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use procstorm_exporter::census::Census;
use procstorm_processes::proc_dir::ProcDir;
use procstorm_testkit::needs_root;
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::wait::until_so;

use crate::world::{Processes, Program, copy_program, value};

/// Calls itself by two names and is two users by turns, without an end.
const SHAPE_SHIFTER: &str = "while (1) { $0 = 'NAME-1'; $> = UID; $> = 0; $0 = 'NAME-2'; \
                             $> = OTHER; $> = 0 }";

fn census(proc: &mut ProcDir) -> BTreeMap<(u32, String), u64> {
    let census = Census::take(proc, false).unwrap();
    assert_eq!(census.groups.values().sum::<u64>(), census.processes, "the sum holds");
    let groups = census.groups.into_iter();
    groups.map(|(group, n)| ((group.uid, group.command.to_text().into_owned()), n)).collect()
}

fn named(groups: &BTreeMap<(u32, String), u64>, names: &[&str]) -> u64 {
    groups.iter().filter(|((_, name), _)| names.contains(&name.as_str())).map(|(_, n)| n).sum()
}

#[test]
fn a_process_that_changes_name_and_uid_is_counted_once() {
    needs_root!();
    let [uid, other] = claim_uids();
    let script = SHAPE_SHIFTER.replace("NAME", &format!("pst{uid}"));
    let script = script.replace("UID", &uid.to_string()).replace("OTHER", &other.to_string());
    let mut processes = Processes::default();
    for _ in 0..3 {
        processes.spawn(Command::new("perl").args(["-e", &script]));
    }
    let mut proc = ProcDir::open(Path::new("/proc")).unwrap();
    let names = [format!("pst{uid}-1"), format!("pst{uid}-2")];
    let names = names.each_ref().map(String::as_str);
    until_so("all are up", || named(&census(&mut proc), &names) == 3);
    for _ in 0..50 {
        assert_eq!(named(&census(&mut proc), &names), 3);
    }
}

#[test]
fn a_process_that_execs_is_counted_once() {
    needs_root!();
    let directory = tempfile::tempdir().unwrap();
    // Names that a second run of these tests does not use at the same time.
    let id = claim_uid();
    let names = [format!("ping{id}"), format!("pong{id}")];
    let names = names.each_ref().map(String::as_str);
    for (name, next) in [(names[0], names[1]), (names[1], names[0])] {
        let file = directory.path().join(name);
        let next = directory.path().join(next);
        let written = directory.path().join("script");
        std::fs::write(&written, format!("#!/bin/sh\nexec {}\n", next.display())).unwrap();
        copy_program(&written, &file);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(file, mode).unwrap();
    }
    let mut processes = Processes::default();
    for _ in 0..2 {
        processes.spawn(&mut Command::new(directory.path().join(names[0])));
    }
    let mut proc = ProcDir::open(Path::new("/proc")).unwrap();
    until_so("both are up", || named(&census(&mut proc), &names) == 2);
    for _ in 0..50 {
        assert_eq!(named(&census(&mut proc), &names), 2);
    }
}

#[test]
fn ps_counts_the_same() {
    needs_root!();
    let uids: [u32; 2] = claim_uids();
    let mut processes = Processes::default();
    for (uid, names) in uids.into_iter().zip(["a b,c(d),e)", "x\"y,c(d)"]) {
        for name in names.split(',') {
            for _ in 0..3 {
                let script = format!("$0 = q\u{1}{name}\u{1}; sleep 600");
                processes.spawn(Command::new("perl").args(["-e", &script]).uid(uid).gid(uid));
            }
        }
    }
    let mut proc = ProcDir::open(Path::new("/proc")).unwrap();
    let ours = |proc: &mut ProcDir| {
        let mut groups = census(proc);
        groups.retain(|(uid, _), _| uids.contains(uid));
        groups
    };
    until_so("all have their names", || {
        let groups = ours(&mut proc);
        groups.len() == 5 && groups.values().all(|&n| n == 3)
    });
    let mut by_ps = BTreeMap::new();
    let output = Command::new("ps").args(["-eo", "euid=,comm="]).output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (uid, command) = line.trim_start().split_once(' ').unwrap();
        let uid: u32 = uid.parse().unwrap();
        if uids.contains(&uid) {
            *by_ps.entry((uid, command.to_owned())).or_default() += 1;
        }
    }
    assert_eq!(ours(&mut proc), by_ps);
}

#[test]
fn the_dead_are_counted() {
    needs_root!();
    let fixture = Fixture::new();
    for pid in 2..10 {
        fixture.process(pid, 41620, b"imapd");
    }
    fixture.zombie(10, 41620, b"imapd");
    fixture.process(11, 41621, b"imapd");
    fixture.process(12, 41620, b"imapd2");
    let mut proc = ProcDir::open(fixture.path()).unwrap();
    assert!(proc.stat(10).unwrap().unwrap().is_dead());
    assert_eq!(census(&mut proc)[&(41620, "imapd".to_owned())], 9);
}

#[test]
fn kernel_threads_count_when_asked_for() {
    needs_root!();
    let fixture = Fixture::new();
    fixture.kernel_thread(2, 0, b"kthreadd");
    let program = Program::start(fixture.path(), &[]);
    assert_eq!(program.value("procstorm_scan_processes"), 1);
    let program = Program::start(fixture.path(), &["--collector.kernel-threads"]);
    assert_eq!(program.value("procstorm_scan_processes"), 2);
}

#[test]
fn as_many_pids_as_there_can_be() {
    needs_root!();
    let fixture = Fixture::new();
    for pid in 2..=32_768 {
        let directory = fixture.path().join(pid.to_string());
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("comm"), format!("c{}\n", pid % 7)).unwrap();
        std::os::unix::fs::chown(&directory, Some(41630 + pid % 3), None).unwrap();
    }
    let program = Program::start(fixture.path(), &[]);
    let exposition = program.get("/metrics");
    assert_eq!(value(&exposition, "procstorm_scan_processes"), Some(32_768));
    assert_eq!(value(&exposition, "procstorm_user_processes{user=\"41630\"}"), Some(10_922));
    assert_eq!(value(&exposition, "procstorm_scan_vanished_total"), Some(0));
}

#[test]
fn a_user_of_a_thousand_names_is_still_a_thousand() {
    needs_root!();
    let fixture = Fixture::new();
    for pid in 2..1002 {
        fixture.process(pid, 41640, format!("disguise{pid}").as_bytes());
    }
    fixture.process(2000, 41641, b"imapd");
    let flags = ["--collector.min-processes=1", "--collector.max-commands-per-user=10"];
    let program = Program::start(fixture.path(), &flags);
    let exposition = program.get("/metrics");
    let other = "procstorm_processes{command=\"(other)\",user=\"41640\"}";
    assert_eq!(value(&exposition, other), Some(990));
    assert_eq!(value(&exposition, "procstorm_user_processes{user=\"41640\"}"), Some(1000));
    assert_eq!(value(&exposition, "procstorm_scan_folded_groups"), Some(990));
    assert_eq!(value(&exposition, "procstorm_scan_folded_processes"), Some(990));
    let bystander = "procstorm_processes{command=\"imapd\",user=\"41641\"}";
    assert_eq!(value(&exposition, bystander), Some(1));
    assert_eq!(exposition.matches("\nprocstorm_processes{").count(), 13);
}

#[test]
fn small_groups_are_added_together_by_user() {
    needs_root!();
    let fixture = Fixture::new();
    let mut pids = 2..;
    let mut start = |uid: u32, command: &str, n: usize| {
        for pid in pids.by_ref().take(n) {
            fixture.process(pid, uid, command.as_bytes());
        }
    };
    start(41660, "imapd", 97);
    for n in 0..40 {
        start(41660, &format!("tool{n}"), 1);
    }
    // The name of what is beyond the limits is a name as any other.
    start(41660, "(other)", 30);
    // Small in each of its groups, but not in all.
    start(41661, "sh", 9);
    start(41661, "ls", 3);
    start(41662, "sh", 2);
    start(41663, "sh", 2);
    let program = Program::start(fixture.path(), &[]);
    let exposition = program.get("/metrics");
    let shown = |name: &str| -> Vec<String> {
        let lines = exposition.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(
        shown("procstorm_processes"),
        [
            // With init.
            r#"{command="(smaller-groups)",user="(smaller-users)"} 5"#,
            r#"{command="(other)",user="41660"} 30"#,
            r#"{command="(smaller-groups)",user="41660"} 40"#,
            r#"{command="imapd",user="41660"} 97"#,
            r#"{command="(smaller-groups)",user="41661"} 12"#,
        ]
    );
    let users = [r#"{user="(smaller-users)"} 17"#, r#"{user="41660"} 167"#];
    assert_eq!(shown("procstorm_user_processes"), users);
    assert_eq!(value(&exposition, "procstorm_scan_processes"), Some(184));
    assert_eq!(value(&exposition, "procstorm_scan_min_processes"), Some(10));
    assert_eq!(value(&exposition, "procstorm_scan_min_user_processes"), Some(100));
    assert_eq!(value(&exposition, "procstorm_scan_small_groups"), Some(45));
    // It is not a sign of too many groups.
    assert_eq!(value(&exposition, "procstorm_scan_folded_processes"), Some(0));

    // That mark alone shows each user's sum, whatever the mark of the groups.
    let each = Program::start(fixture.path(), &["--collector.min-user-processes=1"]);
    let each = each.get("/metrics");
    for (user, n) in [("root", 1), ("41660", 167), ("41661", 12), ("41662", 2), ("41663", 2)] {
        let series = format!("procstorm_user_processes{{user=\"{user}\"}}");
        assert_eq!(value(&each, &series), Some(n), "{user}");
    }
    assert_eq!(each.matches("\nprocstorm_user_processes{").count(), 5, "{each}");
    assert_eq!(value(&each, "procstorm_scan_min_user_processes"), Some(1));
    assert_eq!(each.matches("\nprocstorm_processes{").count(), 5, "{each}");

    // A group that grows has its name in the first scrape in which it reaches the mark.
    start(41663, "sh", 8);
    assert_eq!(program.value(r#"procstorm_processes{command="sh",user="41663"}"#), 10);
}
