//! The daemons' completions for bash, zsh and fish, each file under the name that its shell looks
//! for. The daemons do not carry what only the build of a package uses.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {}", .directory.display())]
pub(crate) struct WriteError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes the completions of both daemons into `root`/bash, `root`/zsh and `root`/fish.
pub(crate) fn write(root: &Path) -> Result<(), WriteError> {
    let daemons =
        [procstorm_exporter::args::Args::command, procstorm_remediator::args::Args::command];
    for daemon in daemons {
        for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            let directory = root.join(name);
            write_one(daemon(), shell, &directory)
                .map_err(|source| WriteError { directory, source })?;
        }
    }
    Ok(())
}

fn write_one(mut daemon: Command, shell: Shell, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let name = daemon.get_name().to_owned();
    let written = generate_to(shell, &mut daemon, &name, directory)?;
    if shell == Shell::Bash {
        // bash-completion loads the file that is named like the command.
        std::fs::rename(written, directory.join(name))?;
    }
    Ok(())
}
