//! A million processes born and gone during an hour's worth of scrapes: memory and descriptors
//! of the exporter stay what they were.

use std::process::Command;
use std::time::Instant;

use crate::programs::{Scraped, UID, build};

const PROCESSES: u64 = 1_000_000;

/// An hour's, one each 5 s.
const SCRAPES: u32 = 720;

/// The first scrapes fill what is then reused.
const WARM_UP: u32 = 20;

/// How much the resident memory may grow, in KiB.
const GROWTH_KIB: u64 = 1024;

/// Prints what was seen. Whether it stayed within bounds.
pub(crate) fn run() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let churn = build("churn", directory.path());
    let exporter = Scraped::exporter("auto");
    let start = Instant::now();
    let mut born = Command::new(churn).args([&PROCESSES.to_string(), UID]).spawn().unwrap();
    let mut scrapes = 0;
    let mut before = (0, 0);
    // At least an hour's worth, and as long as processes come and go.
    while scrapes < SCRAPES || born.try_wait().unwrap().is_none() {
        exporter.scrape();
        scrapes += 1;
        if scrapes == WARM_UP {
            before = (exporter.resident_kib(), exporter.descriptors());
        }
    }
    assert!(born.wait().unwrap().success());
    let after = (exporter.resident_kib(), exporter.descriptors());
    let exposition = exporter.scrape();
    let vanished =
        exposition.lines().find(|line| line.starts_with("procstorm_scan_vanished_total"));
    println!(
        "{PROCESSES} processes born and gone in {:.0} s, {scrapes} scrapes: resident memory {} KiB \
         before, {} KiB after; descriptors {} and {}; {}",
        start.elapsed().as_secs_f64(),
        before.0,
        after.0,
        before.1,
        after.1,
        vanished.unwrap_or_default(),
    );
    after.0 <= before.0 + GROWTH_KIB && after.1 <= before.1 + 1
}
