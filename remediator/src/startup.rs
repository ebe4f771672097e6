//! From the command line to what the daemon starts with.
//!
//! - [`prepare`]: reads policy and web configuration, and enters the sandbox.
//! - [`machine`]: the host's name, for a policy that gives none.

use std::error::Error;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procstorm_exporter::web::{Settings, security::Security};

use crate::args::Args;
use crate::config::Config;
use crate::daemon::Start;
use crate::kill::Bounds;
use crate::sandbox::{self, Places, Sandbox};
use crate::web::CONNECTIONS_MAX;

/// What the daemon starts with. Enters the sandbox for this thread and those that it starts
/// afterwards, so that it must be called before the runtime starts its own.
pub fn prepare(args: &Args) -> Result<Start, Box<dyn Error>> {
    let machine = machine()?;
    let security = args.web_config.as_deref().map(Security::open).transpose()?.map(Arc::new);
    let config = Config::read(&args.config_file, &machine)?;
    let sandbox = if args.no_sandbox {
        Sandbox::disabled()
    } else {
        let files = [Some(&args.config_file), args.web_config.as_ref()];
        let files: Vec<_> = files.into_iter().flatten().map(PathBuf::as_path).collect();
        sandbox::enter(&places(&config, &args.procfs, &files))
    };
    Ok(Start {
        config_file: args.config_file.clone(),
        config,
        machine,
        procfs: args.procfs.clone(),
        bounds: Bounds::default(),
        web: Settings { security, max_connections: CONNECTIONS_MAX, ..Settings::default() },
        sandbox,
    })
}

/// This machine's name, for a policy that gives none.
pub fn machine() -> Result<String, Box<dyn Error>> {
    let name = nix::unistd::gethostname()?;
    name.into_string().map_err(|name| format!("the host's name is no text: {name:?}").into())
}

/// What the daemon reads and writes, for the sandbox. Makes the two directories that it writes
/// where they are missing: afterwards it could not.
fn places(config: &Config, procfs: &Path, files: &[&Path]) -> Places {
    let write = [&config.state, &config.mail.archive];
    for directory in write {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        if let Err(error) = made {
            let directory = directory.display();
            tracing::warn!(%directory, %error, "cannot be made; the sandbox keeps it closed");
        }
    }
    // The directories of files, since an editor or a deployment replaces the file.
    let files = files.iter().copied().chain(config.token_file.as_deref());
    let of_files = files.filter_map(Path::parent).map(|parent| match parent {
        here if here.as_os_str().is_empty() => PathBuf::from("."),
        parent => parent.to_owned(),
    });
    let read = [procfs.to_owned(), config.mail.spool.clone()].into_iter().chain(of_files);
    Places { read: read.collect(), write: write.map(PathBuf::clone).to_vec() }
}
