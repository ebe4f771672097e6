//! What the kernel's iterator counts is what /proc shows, on real processes of every kind.
//!
//! - `slices`: the limit of tasks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod slices;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command as Program;
use std::time::Instant;

use procstorm_exporter::bpf::TaskIterator;
use procstorm_exporter::bpf::helper::fetch;
use procstorm_exporter::census::{Census, Group};
use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Command;
use procstorm_testkit::race::meanwhile;
use procstorm_testkit::uids::claim_uids;
use procstorm_testkit::wait::until_so;
use procstorm_testkit::{in_a_world_apart, needs_root, programs};
use procstorm_tests::crowd::Crowd;
use procstorm_tests::opponent::Opponent;

/// More than the kernel gives at one reading.
const MANY: usize = 3000;

/// The number of pids that the kernel gives by default.
const ALL_PIDS: usize = 32_768;

/// So many pids are left to the rest of the machine.
const SPARE_PIDS: usize = 6_000;

/// How often something is counted that moves.
const ROUNDS: usize = 100;

/// An iterator, or else why this machine has none.
fn iterator() -> Result<TaskIterator, String> {
    let program = programs::ours("procstorm-exporter").map_err(|fault| fault.whole())?;
    fetch(&program).map_err(|error| error.to_string())
}

/// Skips a test only where the machine itself, and not the exporter, is the reason.
macro_rules! iterator {
    () => {
        match iterator() {
            Ok(iterator) => iterator,
            Err(why) if !Path::new("/sys/kernel/btf/vmlinux").exists() => {
                procstorm_testkit::skip!("{why}")
            }
            Err(why) => panic!("{why}"),
        }
    };
}

fn proc() -> ProcDir {
    ProcDir::open(Path::new("/proc")).unwrap()
}

/// The groups of these users.
fn of(census: &Census, uids: &[u32]) -> BTreeMap<Group, u64> {
    assert_eq!(census.groups.values().sum::<u64>(), census.processes, "the sum holds");
    let groups = census.groups.iter().map(|(&group, &n)| (group, n));
    groups.filter(|(group, _)| uids.contains(&group.uid)).collect()
}

fn group(uid: u32, name: &[u8]) -> Group {
    Group { uid, command: Command::new(name).unwrap() }
}

#[test]
fn every_kind_of_process_counts_as_in_proc() {
    needs_root!();
    let iterator = iterator!();
    let uids: [u32; 3] = claim_uids();
    let [a, b, c] = uids;
    let names: [&[u8]; 7] = [
        b"imapd",
        b"fifteen_letters",
        b"",
        b"two\nlines",
        b"k\xe4se \xff\x01",
        b"im apd) S 1 (",
        "(käse)\t\"".as_bytes(),
    ];
    let start = |role, uid, name, n| Opponent::start(role, uid, name, n, "").unwrap();
    let mut all: Vec<_> = names.iter().map(|name| start("sleepers", a, name, 3)).collect();
    all.push(start("sleepers", b, b"imapd", 5));
    all.push(start("zombies", b, b"dead", 4));
    all.push(start("leaderless", c, b"headless", 2));
    all.push(start("undumpable", c, b"closed", 2));
    all.push(start("nested", c, b"contained", 6));
    all.push(start("burrowers", c, b"burrowed", 6));
    let (mut last, mut proc) = ((BTreeMap::new(), BTreeMap::new()), proc());
    // Zombies may yet have to die.
    until_so("both count the same", || {
        let by_proc = of(&Census::take(&mut proc, false).unwrap(), &uids);
        last = (of(&iterator.census(None).unwrap(), &uids), by_proc);
        last.0 == last.1 && last.0.contains_key(&group(b, b"dead"))
    });
    let counts = last.0;
    for name in names {
        assert_eq!(counts.get(&group(a, name)), Some(&3), "{}", name.escape_ascii());
    }
    for (uid, name, n) in [
        (b, b"imapd".as_slice(), 5),
        (b, b"dead", 4),
        (c, b"headless", 2),
        (c, b"closed", 2),
        (c, b"contained", 6),
        (c, b"burrowed", 6),
    ] {
        assert_eq!(counts.get(&group(uid, name)), Some(&n), "{}", name.escape_ascii());
    }
}

#[test]
fn a_whole_pid_namespace_counts_as_in_its_proc() {
    in_a_world_apart!();
    let iterator = iterator!();
    let _storms = [
        Opponent::start("sleepers", 45_200, b"imapd", MANY, "").unwrap(),
        Opponent::start("nested", 45_200, b"imapd", 3, "").unwrap(),
        Opponent::start("zombies", 45_201, b"imapd", 3, "").unwrap(),
    ];
    let mut proc = proc();
    until_so("both count the same", || {
        let by_kernel = iterator.census(None).unwrap();
        let by_proc = Census::take(&mut proc, false).unwrap();
        let storm = group(45_200, b"imapd");
        assert_eq!(by_kernel.groups.get(&storm), by_proc.groups.get(&storm));
        by_kernel.groups == by_proc.groups
    });
    let counts = iterator.census(None).unwrap();
    assert_eq!(counts.groups[&group(45_200, b"imapd")], 3003);
    // Nobody outside of this namespace is in it: this test, the keepers, the two containers'.
    assert!(counts.processes < 3050, "{:?}", counts.groups);
}

/// How many processes may be started: nearly as many as the kernel has pids by default. Those of a pid
/// namespace have a pid outside of it, too, where the limit may be lower than `pid_max` says inside.
fn room() -> usize {
    // `running/tasks`, the fourth field: those of the whole machine, threads included.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let tasks: usize = load.split([' ', '/']).nth(4).unwrap().parse().unwrap();
    ALL_PIDS.saturating_sub(tasks + SPARE_PIDS)
}

#[test]
#[ignore = "takes nearly all pids that a machine has by default; for make field"]
fn nearly_as_many_processes_as_there_are_pids_count_as_in_proc() {
    in_a_world_apart!();
    let iterator = iterator!();
    let names: [&[u8]; 4] = [b"held-0", b"held-1", b"held-2", b"held-3"];
    let groups: Vec<_> =
        (45_300..45_308).flat_map(|uid| names.map(|name| group(uid, name))).collect();
    let each = room() / groups.len();
    assert!(each * groups.len() >= MANY, "the machine has no pids to spare");
    let _crowd = Crowd::gather(each * groups.len(), 45_300, 8, names.len()).unwrap();
    let timed = |census: &mut dyn FnMut() -> Census| {
        let begun = Instant::now();
        (census(), begun.elapsed())
    };
    let mut proc = proc();
    // The test's own processes may yet have to come to rest.
    until_so("both count the same", || {
        let (by_kernel, kernel_time) = timed(&mut || iterator.census(None).unwrap());
        let (by_proc, proc_time) = timed(&mut || Census::take(&mut proc, false).unwrap());
        eprintln!(
            "counting: {} processes: in the kernel in {kernel_time:.0?}, from /proc in {proc_time:.0?}",
            by_kernel.processes
        );
        by_kernel.groups == by_proc.groups && by_kernel.processes == by_proc.processes
    });
    let counts = iterator.census(None).unwrap().groups;
    for group in groups {
        assert_eq!(counts.get(&group), Some(&u64::try_from(each).unwrap()), "{group:?}");
    }
}

#[test]
fn the_kernel_s_threads_have_the_names_that_proc_shows() {
    needs_root!();
    let iterator = iterator!();
    let mut proc = proc();
    let kernel = |census: Census, others: &Census| -> HashMap<Group, u64> {
        let of_kernel = |(group, n): (Group, u64)| {
            let processes = others.groups.get(&group).copied().unwrap_or(0);
            (n > processes).then(|| (group, n.saturating_sub(processes)))
        };
        census.groups.into_iter().filter_map(of_kernel).collect()
    };
    let mut last = HashMap::new();
    // Workers come and go, and are renamed.
    until_so("both see the same threads", || {
        let without = iterator.census(None).unwrap();
        let by_kernel = kernel(iterator.census(Some(&proc)).unwrap(), &without);
        let without = Census::take(&mut proc, false).unwrap();
        let by_proc = kernel(Census::take(&mut proc, true).unwrap(), &without);
        last = by_kernel;
        last == by_proc
    });
    let kthreadd = group(0, b"kthreadd");
    if proc.stat(2).unwrap().is_some_and(|stat| stat.is_kernel_thread()) {
        assert_eq!(last.get(&kthreadd), Some(&1), "{last:?}");
    }
}

#[test]
fn processes_that_change_name_or_user_are_counted_once() {
    needs_root!();
    let iterator = iterator!();
    let uids: [u32; 3] = claim_uids();
    let [a, b, c] = uids;
    let _restless = [
        Opponent::start("renamers", a, b"tic", 2, "tac").unwrap(),
        Opponent::start("switchers", b, b"imapd", 2, &c.to_string()).unwrap(),
    ];
    // In the middle of a change a name may be a mixture of both; the process is still one.
    for _ in 0..ROUNDS {
        let counts = of(&iterator.census(None).unwrap(), &uids);
        let sum = |uids: &[u32]| -> u64 {
            counts.iter().filter(|(group, _)| uids.contains(&group.uid)).map(|(_, n)| n).sum()
        };
        assert_eq!((sum(&[a]), sum(&[b, c])), (2, 2), "{counts:?}");
    }
}

#[test]
fn processes_that_exec_are_counted_once() {
    needs_root!();
    let iterator = iterator!();
    let [uid] = claim_uids();
    let directory = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open.clone()).unwrap();
    let names = ["ping", "pong"].map(|name| format!("{name}{uid}"));
    for (name, next) in [(&names[0], &names[1]), (&names[1], &names[0])] {
        let next = directory.path().join(next);
        let written = directory.path().join("script");
        let file = directory.path().join(name);
        std::fs::write(&written, format!("#!/bin/sh\nexec {}\n", next.display())).unwrap();
        assert!(Program::new("cp").args([&written, &file]).status().unwrap().success());
        std::fs::set_permissions(file, open.clone()).unwrap();
    }
    let mut both: Vec<_> =
        (0..2).map(|_| Program::new(directory.path().join(&names[0])).spawn().unwrap()).collect();
    let count = || -> u64 {
        let counts = iterator.census(None).unwrap();
        names.iter().filter_map(|name| counts.groups.get(&group(0, name.as_bytes()))).sum()
    };
    until_so("both are up", || count() == 2);
    let counts: Vec<u64> = (0..ROUNDS).map(|_| count()).collect();
    for child in &mut both {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(counts, vec![2; ROUNDS]);
}

#[test]
fn who_stays_is_counted_while_others_come_and_go() {
    needs_root!();
    let iterator = iterator!();
    let [stays, comes] = claim_uids();
    let _sleepers = Opponent::start("sleepers", stays, b"imapd", MANY, "").unwrap();
    let births = || {
        let program = Program::new("setpriv")
            .args([format!("--reuid={comes}"), "--clear-groups".to_owned()])
            .args(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do true & done; wait"])
            .status();
        assert!(program.unwrap().success());
    };
    let expected = BTreeMap::from([(group(stays, b"imapd"), 3000)]);
    meanwhile(births, || {
        for _ in 0..ROUNDS {
            assert_eq!(of(&iterator.census(None).unwrap(), &[stays]), expected);
        }
    });
}
