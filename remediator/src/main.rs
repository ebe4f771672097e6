//! The remediator's program: reads command line and policy, binds the sockets, runs the library.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use procstorm_exporter::logging;
use procstorm_exporter::web::listen::listen;
use procstorm_exporter::web::{Settings, security::Security};
use procstorm_remediator::args::Args;
use procstorm_remediator::config::Config;
use procstorm_remediator::daemon::{Start, orders, places, run};
use procstorm_remediator::kill::Bounds;
use procstorm_remediator::sandbox::{self, Sandbox};
use procstorm_remediator::web::CONNECTIONS_MAX;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(args.log_level, args.log_format);
    let ended = if args.check { check(&args) } else { serve(&args) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A line for each, as a configuration can have many faults.
            for line in error.to_string().lines() {
                let cause = error.source().map(ToString::to_string);
                tracing::error!(cause, "{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check(args: &Args) -> Result<(), Box<dyn Error>> {
    let config = Config::read(&args.config_file, &machine()?)?;
    Ok(std::io::stdout().lock().write_all(config.explain().as_bytes())?)
}

fn serve(args: &Args) -> Result<(), Box<dyn Error>> {
    let machine = machine()?;
    let security = args.web_config.as_deref().map(Security::open).transpose()?.map(Arc::new);
    let config = Config::read(&args.config_file, &machine)?;
    // Before the runtime starts its threads: a sandbox holds for those that are started in it.
    let sandbox = if args.no_sandbox {
        Sandbox::disabled()
    } else {
        let files = [Some(&args.config_file), args.web_config.as_ref()];
        let files: Vec<_> = files.into_iter().flatten().map(PathBuf::as_path).collect();
        sandbox::enter(&places(&config, &args.procfs, &files))
    };
    let start = Start {
        config_file: args.config_file.clone(),
        config,
        machine,
        procfs: args.procfs.clone(),
        bounds: Bounds::default(),
        web: Settings { security, max_connections: CONNECTIONS_MAX, ..Settings::default() },
        sandbox,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listeners = Vec::new();
        for address in &args.listen {
            listeners.push(listen(address).await?);
        }
        Ok(run(listeners, start, orders()?).await?)
    })
}

/// This machine's name, for a configuration that gives none.
fn machine() -> Result<String, Box<dyn Error>> {
    let name = nix::unistd::gethostname()?;
    name.into_string().map_err(|name| format!("the host's name is no text: {name:?}").into())
}
