//! The program from start to stop.
//!
//! SIGTERM and SIGINT: requests in flight finish, then it ends. SIGHUP: names are asked for again,
//! and the web configuration is read again.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::systemd::notice::Notifier;
use procstorm_toolkit::systemd::reload::Report;
use procstorm_toolkit::web;
use procstorm_toolkit::workers::Workers;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::Exporter;

/// Descriptors that connections must leave: three for a scan, two for each of the name service's
/// four threads, the rest for the web configuration's files and a connection that is refused.
const NOT_FOR_CONNECTIONS: u64 = 16;

/// Serves `exporter` on all of `listeners` until SIGTERM or SIGINT, with fewer connections than
/// `settings` say where the limit of descriptors has no room for them. Fails if signals or threads
/// cannot be had, or a server breaks.
pub async fn run(
    listeners: Vec<TcpListener>,
    exporter: Exporter,
    mut settings: web::Settings,
) -> io::Result<()> {
    // A file system that does not answer must not keep SIGTERM waiting for a reload.
    let reloads = Workers::start("reload", 1);
    reloads.check()?;
    exporter.check_threads()?;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = room_for_each(listeners.len(), limit, in_use()?);
    if room < settings.max_connections {
        tracing::warn!(limit, room, "the limit of descriptors leaves room for few connections");
        settings.max_connections = room;
    }
    let (stopping, _) = watch::channel(false);
    let mut servers = JoinSet::new();
    let mut addresses = Vec::new();
    for listener in listeners {
        addresses.push(listener.local_addr()?.to_string());
        tracing::info!(address = %listener.local_addr()?, "listening");
        let mut stop = stopping.subscribe();
        let shutdown = async move {
            // An error means that nobody can say "stop" any more, which is to stop.
            stop.wait_for(|stop| *stop).await.ok();
        };
        let handler = {
            let exporter = exporter.clone();
            move |request| exporter.answer(request)
        };
        servers.spawn(web::serve(listener, settings.clone(), handler, shutdown));
    }
    let manager = Manager {
        notifier: Notifier::start(),
        report: Report::new(),
        status: format!("serving on {}", addresses.join(", ")),
    };
    let notifier = manager.notifier.clone();
    until_told_to_stop(&exporter, &reloads, Arc::new(manager)).await?;
    notifier.stopping();
    tracing::info!("stopping");
    stopping.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

/// How many descriptors are open: the kernel gives the lowest number that is free.
fn in_use() -> io::Result<u64> {
    let next = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(u64::try_from(next.as_raw_fd()).unwrap_or_default())
}

/// How many connections each of so many listeners may hold, of `limit` descriptors of which some are
/// in use.
fn room_for_each(listeners: usize, limit: u64, in_use: u64) -> usize {
    let room = limit.saturating_sub(in_use).saturating_sub(NOT_FOR_CONNECTIONS);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    room.checked_div(listeners).unwrap_or(room).max(1)
}

/// What the service manager is told, and by what.
struct Manager {
    notifier: Notifier,
    report: Report,
    status: String,
}

async fn until_told_to_stop(
    exporter: &Exporter,
    reloads: &Workers,
    manager: Arc<Manager>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Only now would a signal not end the program.
    manager.notifier.ready(&manager.status);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                let (exporter, manager) = (exporter.clone(), Arc::clone(&manager));
                reloads.submit(move || reload(&exporter, &manager));
            }
        }
    }
}

fn reload(exporter: &Exporter, manager: &Manager) {
    let Manager { notifier, report, status } = manager;
    notifier.reloading();
    let fault = exporter.reload().err().map(|error| Chain(&error).to_string());
    match &fault {
        None => {
            tracing::info!("reloaded");
            notifier.ready(status);
        }
        Some(error) => {
            tracing::error!(
                error,
                "web configuration reload failed; still using the previous configuration"
            );
            notifier.ready(&format!("{status}; the last reload failed: {error}"));
        }
    }
    report.write(fault.as_deref());
}
