//! The program from start to stop.
//!
//! SIGTERM and SIGINT: requests in flight finish, then it ends. SIGHUP: names are asked for again,
//! and the web configuration is read again.

use std::io;

use procstorm_toolkit::lifecycle::{Lifecycle, orders};
use procstorm_toolkit::scarcity::room_for_connections;
use procstorm_toolkit::systemd::notice::Notifier;
use procstorm_toolkit::web;
use tokio::net::TcpListener;

use crate::scan::DESCRIPTORS;
use crate::server::Exporter;

/// Descriptors that connections must leave: those of a scan, two for each of the name service's four
/// threads, and five for the web configuration's files and a connection that is refused.
const NOT_FOR_CONNECTIONS: usize = DESCRIPTORS + 2 * 4 + 5;

/// Serves `exporter` on all of `listeners` until SIGTERM or SIGINT, with fewer connections than
/// `settings` say where the limit of descriptors has no room for them. Fails if signals or threads
/// cannot be had, or the server breaks.
pub async fn run(
    listeners: Vec<TcpListener>,
    exporter: Exporter,
    mut settings: web::Settings,
) -> io::Result<()> {
    exporter.check_threads()?;
    let room = room_for_connections(NOT_FOR_CONNECTIONS)?;
    if room < settings.max_connections {
        tracing::warn!(
            room,
            "the descriptor limit (RLIMIT_NOFILE) leaves room for few connections"
        );
        settings.max_connections = room;
    }
    let mut orders = orders()?;
    let answering = exporter.clone();
    let handler = move |request| answering.answer(request);
    let mut lifecycle = Lifecycle::start(listeners, settings, handler, Notifier::start())?;
    lifecycle.ready();
    lifecycle.obey(&mut orders, move || exporter.reload()).await?;
    lifecycle.drain().await
}
