//! The remediator's program: reads command line and policy, binds the sockets, runs the library.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use procstorm_remediator::args::{Args, LISTEN};
use procstorm_remediator::commands::answer;
use procstorm_remediator::daemon::run;
use procstorm_remediator::startup::{exit_status, prepare};
use procstorm_toolkit::complaint::complain;
use procstorm_toolkit::lifecycle::orders;
use procstorm_toolkit::logging;
use procstorm_toolkit::systemd::reload;
use procstorm_toolkit::web::listen::listeners;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(args.log_level, args.log_format);
    let ended = match (answer(&args), args.reload) {
        (Some(answer), _) => answer.and_then(|text| print(&text)),
        (None, Some(pid)) => reload::request(pid).map_err(Into::into),
        (None, None) => serve(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error, args.task.is_some() || args.check);
            ExitCode::from(exit_status(&*error))
        }
    }
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

fn serve(args: &Args) -> Result<(), Box<dyn Error>> {
    // Before the runtime starts its threads: a sandbox holds for those that are started in it.
    let start = prepare(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let listeners = listeners(args.systemd_socket, &args.listen, LISTEN)?;
        Ok(run(listeners, start, orders()?).await?)
    });
    // What still hangs, on a file system that does not answer, must not hold up the end: the
    // journal knows how far it came.
    runtime.shutdown_background();
    ended
}
