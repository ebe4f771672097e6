//! How long an archive of 1 GiB takes, against `cp -p` and then `sync`, in turns.
//!
//! `cargo bench -p procstorm-remediator --bench mailbox`, as root. The environment variable
//! `PROCSTORM_BENCH_DIR` chooses the disk (default: where temporary files are), and
//! `PROCSTORM_BENCH_ROUNDS` how often (default 5). Exit code 1 if ours takes longer.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it measures, and fails by panicking"
)]

#[path = "../tests/mailbox/world.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod world;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use procstorm_remediator::steps::archive::{Archived, Archiver};
use procstorm_testkit::mounts::{disk, with_own_mounts};
use procstorm_testkit::skip::{is_root, skipped};
use world::{NOW, World, archive_one, pattern};

const UID: u32 = 43_900;
const MIB: usize = 1 << 20;
const LENGTH_MIB: usize = 1024;

fn main() -> ExitCode {
    if !is_root() {
        skipped("mailbox bench", "needs root");
        return ExitCode::SUCCESS;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    with_own_mounts(move || sender.send(measure()).unwrap());
    if receiver.recv().unwrap() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure() -> bool {
    let base =
        std::env::var_os("PROCSTORM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let rounds = std::env::var("PROCSTORM_BENCH_ROUNDS").map_or(5, |text| text.parse().unwrap());
    let root = tempfile::Builder::new().prefix("procstorm-bench.").tempdir_in(&base).unwrap();
    println!("1 GiB, {rounds} rounds in turns, medians; {}", base.display());

    let world = World::below(root.path(), root.path());
    let full = write_full(&world);
    let fast = in_turns("full", &world, &full, rounds);
    fs::remove_file(&full).unwrap();
    let sparse = write_sparse(&world);
    in_turns("sparse, 3 MiB of data", &world, &sparse, rounds);
    drop(world);

    for kind in ["btrfs", "xfs"] {
        let Some(place) = disk(root.path(), kind, 3000) else { continue };
        let world = World::below(&place, &place);
        let full = write_full(&world);
        in_turns(&format!("full, loop {kind}"), &world, &full, rounds);
    }
    fast
}

fn write_full(world: &World) -> PathBuf {
    let path = world.mail("alice", UID, b"");
    let mut file = File::options().append(true).open(&path).unwrap();
    let block = pattern(MIB);
    for _ in 0..LENGTH_MIB {
        file.write_all(&block).unwrap();
    }
    path
}

fn write_sparse(world: &World) -> PathBuf {
    let path = world.mail("alice", UID, b"");
    let file = File::options().write(true).open(&path).unwrap();
    for place in [0, 300, 700] {
        file.write_all_at(&pattern(MIB), place << 20).unwrap();
    }
    file.set_len(u64::try_from(LENGTH_MIB * MIB).unwrap()).unwrap();
    path
}

/// Ours and theirs, in turns, each after a sync so that neither pays for what was before.
fn in_turns(what: &str, world: &World, source: &Path, rounds: u64) -> bool {
    let archiver = world.archiver();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut methods = Vec::new();
    for round in 0..rounds {
        run("sync", &[]);
        let started = Instant::now();
        let archived = archive_once(&archiver, round);
        ours.push(started.elapsed());
        methods.push(archived.method.label());
        same(source, &archived.path);
        fs::remove_file(archived.path).unwrap();

        run("sync", &[]);
        let copy = world.arc.join("cp");
        let started = Instant::now();
        run("cp", &["-p".as_ref(), source, copy.as_path()]);
        run("sync", &[]);
        theirs.push(started.elapsed());
        fs::remove_file(copy).unwrap();
    }
    methods.dedup();
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!(
        "{what}: ours {:.4} s ({}), cp -p; sync {:.4} s: {ratio:.3} x",
        ours.as_secs_f64(),
        methods.join(", "),
        theirs.as_secs_f64(),
    );
    if ratio > 1.0 {
        eprintln!("{what}: slower than cp -p; sync");
    }
    ratio <= 1.0
}

fn archive_once(archiver: &Archiver, round: u64) -> Archived {
    let archived = archive_one(archiver, "alice", UID, NOW + round);
    assert!(!archived.changed && archived.lost.is_empty(), "{archived:?}");
    archived
}

fn run(program: &str, arguments: &[&Path]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
}

fn same(one: &Path, other: &Path) {
    run("cmp", &[one, other]);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}
