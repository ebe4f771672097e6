//! The seeds of the fuzz targets and a few thousand mutations of each kind, on the stable
//! compiler. The long runs are libFuzzer's: `make fuzz`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;

use procstorm_tests::fuzzing::TARGETS;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// How many mutations of each kind.
const MUTATIONS: usize = 20_000;

/// What hostile input is made of.
const SCRAPS: [&[u8]; 12] =
    [b"(", b")", b") S 1 ", b"\n", b"\0", b"\"", b"\\", b"{", b"[", b": ", b"\xff\xfe", b"../"];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// A number below `bound`, which is not 0.
fn below(rng: &mut TestRng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % u64::try_from(bound).expect("fits")).expect("fits")
}

/// Changes a few bytes at random: flips, cuts, doubles, and puts in what tends to hurt.
fn mutate(rng: &mut TestRng, bytes: &mut Vec<u8>) {
    for _ in 0..=below(rng, 4) {
        let at = below(rng, bytes.len() + 1);
        let end = at + below(rng, bytes.len() - at + 1);
        match below(rng, 5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => drop(bytes.splice(at..at, SCRAPS[below(rng, SCRAPS.len())].iter().copied())),
        }
    }
}

#[test]
fn what_must_hold_for_any_input_holds() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.check)(seed));
        // The same bytes at every run: a failure can be had again.
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for _ in 0..MUTATIONS {
            let mut bytes = seeds[below(&mut rng, seeds.len())].clone();
            mutate(&mut rng, &mut bytes);
            (target.check)(&bytes);
        }
        println!("{}: {} seeds, {MUTATIONS} mutations", target.name, seeds.len());
    }
}

#[test]
fn each_target_is_one_of_libfuzzers_too() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
