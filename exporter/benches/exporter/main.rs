//! What the exporter costs, beside the least that is possible and beside its peers.
//!
//! - `cargo bench -p procstorm-exporter --bench exporter -- cost`: the table of ratios and the
//!   curve; `--save` also writes both into `exporter/benches/results/`.
//! - `cargo bench -p procstorm-exporter --bench exporter -- soak`: a million processes born and
//!   gone during an hour's worth of scrapes; memory and descriptors stay.
//!
//! Modules: `programs` (what is measured), `cpu` (how), `cost`, `plot`, `soak`.
//! Needs root, for processes of several users (uids 41900-41999), and a C compiler. A peer that is
//! not there and cannot be downloaded is skipped, and said to be.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "a program for developers: it fails by panicking, and counts within small bounds"
)]

mod cost;
mod cpu;
mod plot;
mod programs;
mod soak;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| args.iter().any(|arg| arg == word);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: bench: needs root");
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` comes here too, and has no time for it.
    if !asked("--bench") {
        return ExitCode::SUCCESS;
    }
    let both = !asked("cost") && !asked("soak");
    let mut held = true;
    if asked("cost") || both {
        held &= cost::run(asked("--save"));
    }
    if asked("soak") || both {
        held &= soak::run();
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
