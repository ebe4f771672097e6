//! Writes the daemons' completions for bash, zsh and fish into a directory, each file under the
//! name that its shell looks for. `make install` runs it, so that the daemons need not carry what
//! only a package's build uses.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _, Parser};
use clap_complete::Shell;
use clap_complete::generate_to;

/// Writes the daemons' shell completions.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The directory to write them to: DIR/bash, DIR/zsh and DIR/fish.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let daemons =
        [procstorm_exporter::args::Args::command, procstorm_remediator::args::Args::command];
    for daemon in daemons {
        for (shell, directory) in
            [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")]
        {
            let directory = args.directory.join(directory);
            if let Err(error) = write(daemon(), shell, &directory) {
                complain(&format!("cannot write to {}: {error}", directory.display()));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Writes one daemon's completions for one shell.
fn write(mut daemon: Command, shell: Shell, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let name = daemon.get_name().to_owned();
    let written = generate_to(shell, &mut daemon, &name, directory)?;
    if shell == Shell::Bash {
        // bash-completion loads the file that is named like the command.
        std::fs::rename(written, directory.join(name))?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program of the build speaks on its standard error")]
fn complain(text: &str) {
    eprintln!("procstorm-completions: {text}");
}
