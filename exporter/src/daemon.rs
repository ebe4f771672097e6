//! The program from start to stop.
//!
//! SIGTERM and SIGINT: requests in flight finish, then it ends. SIGHUP: names are asked for anew.

use std::io;

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::Exporter;
use crate::web;

/// Descriptors that connections must leave: for listeners, a scan, the name service's threads, and
/// the files of the web configuration.
const NOT_FOR_CONNECTIONS: u64 = 32;

/// Serves `exporter` on all of `listeners` until SIGTERM or SIGINT, with fewer connections than
/// `settings` say where the limit of descriptors has no room for them. Fails if signals cannot be
/// had, or a server breaks.
pub async fn run(
    listeners: Vec<TcpListener>,
    exporter: Exporter,
    mut settings: web::Settings,
) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    settings.max_connections = settings.max_connections.min(room_for_each(&listeners, limit));
    let (stopping, _) = watch::channel(false);
    let mut servers = JoinSet::new();
    for listener in listeners {
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
    until_told_to_stop(&exporter).await?;
    tracing::info!("stopping");
    stopping.send_replace(true);
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

/// How many connections each listener may hold, of `limit` descriptors.
fn room_for_each(listeners: &[TcpListener], limit: u64) -> usize {
    let room = limit.saturating_sub(NOT_FOR_CONNECTIONS.min(limit / 2));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    room.checked_div(listeners.len()).unwrap_or(room).max(1)
}

async fn until_told_to_stop(exporter: &Exporter) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                exporter.reload();
                tracing::info!("reloaded");
            }
        }
    }
}
