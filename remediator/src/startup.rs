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

use procstorm_toolkit::scarcity::allocator::{self, WithReserve};
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::{self as server, OwnNames};

use procstorm_toolkit::systemd::{self, is_not_there, notice::Notifier, reload};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::args::Args;
use crate::daemon::{Start, StartError};
use crate::policy::{Config, LoadError};
use crate::reach::{Reach, Sample};
use crate::sandbox::{self, Places, Sandbox};
use crate::steps;
use crate::steps::kill::Bounds;
use crate::web::CONNECTIONS_MAX;

/// Where no memory can be had, new requests get 503 and Alertmanager tries again; what is under way
/// goes on.
#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve;

/// What the daemon starts with. Enters the sandbox for this thread and those that it starts
/// afterwards, so that it must be called before the runtime starts its own.
pub fn prepare(args: &Args) -> Result<Start, Box<dyn Error>> {
    kernel()?;
    if !allocator::hold() {
        tracing::warn!("little address space is left: see RLIMIT_AS");
    }
    let machine = machine()?;
    let security = args.web_config.as_deref().map(Security::open).transpose()?.map(Arc::new);
    let config = Config::read(&args.config_file, &machine)?;
    let own_names = OwnNames::of_this_machine();
    let (sandbox, reach) = if args.no_sandbox {
        (Sandbox::disabled(), Reach::default())
    } else {
        let mut files = security.as_ref().map(|security| security.files()).unwrap_or_default();
        files.push(args.config_file.clone());
        files.extend(config.alertmanager_http.files().map(Path::to_owned));
        // A certificate is often a symlink to what was issued last, in another directory.
        let ends: Vec<_> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        let files: Vec<_> = files.iter().chain(&ends).map(PathBuf::as_path).collect();
        let places = places(&config, &args.procfs, &files);
        let sample = Sample::take(&config);
        let sandbox = sandbox::enter(&places, &args.procfs);
        (sandbox, sample.compare())
    };
    Ok(Start {
        config_file: args.config_file.clone(),
        config,
        machine,
        procfs: args.procfs.clone(),
        bounds: Bounds::default(),
        web: server::Settings {
            security,
            own_names,
            max_connections: CONNECTIONS_MAX,
            ..server::Settings::default()
        },
        sandbox,
        reach,
        // Their thread is in the sandbox, too.
        notifier: Notifier::start(),
    })
}

/// The oldest kernel that the daemon is tested on.
const KERNEL: &str = "5.10";

/// This kernel cannot do what the daemon is for.
#[derive(Debug, thiserror::Error)]
#[error("Linux {KERNEL} or newer is needed: pidfd_open(2) fails here ({0})")]
pub struct UnfitKernel(Errno);

/// Whether processes can be held by pidfds, without which none is signalled.
fn kernel() -> Result<(), UnfitKernel> {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => Err(UnfitKernel(errno)),
        // Without a descriptor to spare, say: that passes.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// With which status the program ends because of `error`: one of `procstorm_toolkit::systemd`.
#[must_use]
pub fn exit_status(error: &(dyn Error + 'static)) -> u8 {
    let lasts = match (error.downcast_ref::<LoadError>(), error.downcast_ref::<StartError>()) {
        (Some(LoadError::Read { source, .. }), _) => is_not_there(source),
        (Some(LoadError::Faults { .. }), _) => true,
        (None, Some(StartError::Unguarded(_) | StartError::Token(_))) => true,
        (None, Some(StartError::Io(_) | StartError::Metrics(_))) => false,
        (None, None) => error.is::<UnfitKernel>(),
    };
    if lasts { systemd::FAULTY_CONFIGURATION } else { systemd::exit_status(error) }
}

/// This machine's name, for a policy that gives none.
pub fn machine() -> Result<String, Box<dyn Error>> {
    let name = nix::unistd::gethostname()?;
    name.into_string().map_err(|name| format!("the host's name is not text: {name:?}").into())
}

/// What the daemon reads and writes, for the sandbox: its own places and those of the steps. Makes the
/// directories that it writes where they are missing: afterwards it could not.
fn places(config: &Config, procfs: &Path, files: &[&Path]) -> Places {
    if let Err(error) = make_in_time(&config.state) {
        let directory = config.state.display();
        tracing::warn!(%directory, error, "cannot be made; the sandbox keeps it closed");
    }
    let of_steps: Vec<_> = steps::all().map(|step| step.places(config)).collect();
    // The directories of files, since an editor or a deployment replaces the file.
    let files = files.iter().copied().chain(config.token_file.as_deref());
    let of_files = files.filter_map(Path::parent).map(|parent| match parent {
        here if here.as_os_str().is_empty() => PathBuf::from("."),
        parent => parent.to_owned(),
    });
    let read = std::iter::once(procfs.to_owned());
    let read = read.chain(of_steps.iter().flat_map(|of| of.read.iter().cloned())).chain(of_files);
    let read = read.chain(config.sandbox.read.iter().cloned());
    // The last is where the results of reloads are written.
    let write = std::iter::once(config.state.clone());
    let write = write.chain(of_steps.iter().flat_map(|of| of.write.iter().cloned()));
    let write = write.chain(reload::directory());
    Places { read: read.collect(), write: write.collect() }
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
