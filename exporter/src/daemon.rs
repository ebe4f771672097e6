//! The program from start to stop.
//!
//! SIGTERM and SIGINT: requests in flight finish, then it ends. SIGHUP: names are asked for anew.

use std::io;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::Exporter;
use crate::web;

/// Serves `exporter` on all of `listeners` until SIGTERM or SIGINT. Fails if signals cannot be
/// had, or a server breaks.
pub async fn run(
    listeners: Vec<TcpListener>,
    exporter: Exporter,
    settings: web::Settings,
) -> io::Result<()> {
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
