//! Writes what is made from the daemons' code: `cargo xtask docs` writes the tables of the
//! documents, `xtask completions` the shell completions that packages install.
//!
//! - `docs`: finds the generated parts of the documents, and compares or replaces them.
//! - `completions`: files for bash, zsh and fish.

mod completions;
mod docs;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use procstorm_toolkit::chain::Chain;

/// Writes what is made from the daemons' code.
#[derive(Debug, Parser)]
#[command(name = "xtask", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the tables of the documents: flags, metrics, keys of the policy, verdicts, pages.
    Docs {
        /// Write nothing; fail if a table differs from the code.
        #[arg(long)]
        check: bool,
    },
    /// Write the daemons' shell completions: DIR/bash, DIR/zsh and DIR/fish.
    Completions {
        /// The directory to write them to.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let done: Result<(), Box<dyn Error>> = match Args::parse().task {
        Task::Docs { check } => docs::run(check).map_err(Into::into),
        Task::Completions { directory } => completions::write(&directory).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program of the build reports on its standard error")]
fn complain(error: &dyn Error) {
    eprintln!("xtask: {}", Chain(error));
}
