//! The exporter's program: reads the command line, binds the sockets, runs the library.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use procstorm_exporter::args::{Args, LISTEN};
use procstorm_exporter::bpf::helper;
use procstorm_exporter::daemon;
use procstorm_exporter::server::Exporter;
use procstorm_exporter::source::Source;
use procstorm_toolkit::complaint::complain;
use procstorm_toolkit::scarcity::allocator::{self, WithReserve};
use procstorm_toolkit::systemd::{Carried, exit_status, reload};
use procstorm_toolkit::web::listen::listeners;
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::{logging, web};

#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(args.log_level, args.log_format);
    if args.load_bpf {
        return helper::run();
    }
    if !allocator::hold() {
        tracing::warn!("little address space is left: see RLIMIT_AS");
    }
    let ended = match args.reload {
        Some(pid) => reload::request(pid).map_err(Into::into),
        None if args.once => print_once(&args),
        None => serve(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error, args.once);
            ExitCode::from(exit_status(error.as_ref()))
        }
    }
}

fn print_once(args: &Args) -> Result<(), Box<dyn Error>> {
    let source = Source::open(args.source, &args.procfs, true)?;
    let text = Exporter::new(args, source, None).render()?;
    // Not through std's own stdout, which takes one that is not open for writing for written.
    let mut stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(&text).map_err(|error| format!("cannot write the metrics: {error}"))?;
    Ok(())
}

/// Serves on a thread of its own, whose stack is there from the start: the first thread's grows as it
/// is used, and where no more memory can be had that ends the program.
fn serve(args: &Args) -> Result<(), Box<dyn Error>> {
    let source = Source::open(args.source, &args.procfs, false)?;
    let serve = move || serve_here(args, source).map_err(|error| Carried::new(&*error));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("serve".to_owned());
        let thread = thread.spawn_scoped(scope, serve)?;
        Ok(thread.join().map_err(|_panic| "the server panicked")??)
    })
}

/// This thread serves; what takes time has threads of its own, which exist from the start.
fn serve_here(args: &Args, source: Source) -> Result<(), Box<dyn Error>> {
    let security = args.web_config.as_deref().map(Security::open).transpose()?.map(Arc::new);
    let settings = web::Settings {
        security: security.clone(),
        own_names: web::OwnNames::of_this_machine(),
        ..web::Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let listeners = listeners(args.systemd_socket, &args.listen, LISTEN)?;
        Ok(daemon::run(listeners, Exporter::new(args, source, security), settings).await?)
    });
    // A scan that hangs, on a /proc that does not answer, must not hold up the end.
    runtime.shutdown_background();
    ended
}
