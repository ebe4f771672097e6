//! `demo`: a real storm is seen, archived, killed and mailed on the whole stack, and the time line
//! is printed. `demo --stay`: the same stack without a storm, until Ctrl-C; `demo --storm` raises one
//! there.
//!
//! Everything is in a directory of its own, which is removed; after a failure it stays, for its
//! logs. Exits with 0 only if each stage was really observed.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_tests::demo;
use procstorm_tests::interrupt::Interrupt;

#[derive(Parser)]
#[command(about = "Shows the whole way of procstorm on real parts")]
struct Args {
    /// Keep the stack up, without a storm, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Raise a storm on the demo that `--stay` keeps up, and show what becomes of it
    #[arg(long, conflicts_with = "stay")]
    storm: bool,
    /// Keep the directory with all files and logs
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(io::stderr(), "demo: {}", fault.whole()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Fault> {
    if args.storm {
        return demo::ask();
    }
    let interrupt = Interrupt::listen()?;
    let mut dir = tempfile::Builder::new()
        .prefix("procstorm-demo-")
        .tempdir()
        .or_fault("cannot make a directory")?;
    let done = if args.stay {
        demo::stay(dir.path(), &interrupt)
    } else {
        demo::show(dir.path(), &interrupt)
    };
    if args.keep || (done.is_err() && !interrupt.came()) {
        dir.disable_cleanup(true);
        let line = format!("demo: logs and files are kept in {}", dir.path().display());
        writeln!(io::stderr(), "{line}").or_fault("nobody listens")?;
    }
    done
}
