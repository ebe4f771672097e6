//! From the command line to what the daemon starts with.
//!
//! - [`prepare`]: reads policy and web configuration, and enters the sandbox.
//! - [`machine`]: the host's name, for a policy that gives none.

use std::error::Error;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

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
        sandbox::enter(&places(&config, &args.procfs, &files), &args.procfs)
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
        if let Err(error) = make_in_time(directory) {
            let directory = directory.display();
            tracing::warn!(%directory, error, "cannot be made; the sandbox keeps it closed");
        }
    }
    // The directories of files, since an editor or a deployment replaces the file.
    let files = files.iter().copied().chain(config.token_file.as_deref());
    let of_files = files.filter_map(Path::parent).map(|parent| match parent {
        here if here.as_os_str().is_empty() => PathBuf::from("."),
        parent => parent.to_owned(),
    });
    let spool = config.mail.spool.clone();
    // A rule for the spool holds on to the directory that is there now: what is mounted over it
    // later is found by the rule for the directory above (a rule below a mount does not count).
    let above = spool.parent().filter(|above| above.parent().is_some()).map(Path::to_owned);
    let read = [procfs.to_owned(), spool].into_iter().chain(above).chain(of_files);
    Places { read: read.collect(), write: write.map(PathBuf::clone).to_vec() }
}

/// How long a file system may take to make a directory. One that hangs must not keep the daemon
/// from listening.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes a directory and those above it, on a thread that may be lost. One that is there already is
/// not touched: on a frozen file system even mkdir(2) for nothing waits.
fn make_in_time(directory: &Path) -> Result<(), String> {
    let (give, made) = mpsc::channel();
    let own = directory.to_owned();
    let thread = thread::Builder::new().name("mkdir".to_owned()).spawn(move || {
        let made = match own.is_dir() {
            true => Ok(()),
            false => DirBuilder::new().recursive(true).mode(0o700).create(&own),
        };
        // Nobody may wait any more.
        give.send(made).ok();
    });
    thread.map_err(|error| format!("no thread could be started: {error}"))?;
    match made.recv_timeout(PATIENCE) {
        Ok(made) => made.map_err(|error| error.to_string()),
        Err(_) => Err(format!("its file system does not answer within {PATIENCE:?}")),
    }
}
