//! A daemon from its first connection to its last answer.
//!
//! - [`orders`]: the system's signals as orders: SIGHUP is to reload, SIGTERM and SIGINT are to stop.
//! - [`Lifecycle`]: serves on all sockets, tells systemd when the daemon is ready, reloads and stops
//!   on order, and lets requests in flight finish.
//!
//! A program calls, in this order, [`listeners`](crate::web::listen::listeners),
//! [`Lifecycle::start`], [`Lifecycle::ready`], [`Lifecycle::obey`] and [`Lifecycle::drain`]. What it
//! has to prepare or finish besides stands between those calls.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::chain::Chain;
use crate::systemd::notice::Notifier;
use crate::systemd::reload::Report;
use crate::web::{self, Request, Response, Settings};
use crate::workers::Workers;

/// So many orders wait at most: systemd sends one and waits for its result.
const ORDERS_WAITING: usize = 8;

/// What a daemon is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Finish what has begun, and end.
    Stop,
}

/// The system's signals as orders, from now on: until this is called, each of them ends the program.
/// To be called within a runtime.
pub fn orders() -> io::Result<mpsc::Receiver<Order>> {
    let (give, orders) = mpsc::channel(ORDERS_WAITING);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let order = tokio::select! {
                _ = hangup.recv() => Order::Reload,
                _ = terminate.recv() => Order::Stop,
                _ = interrupt.recv() => Order::Stop,
            };
            if give.send(order).await.is_err() {
                return;
            }
        }
    });
    Ok(orders)
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Lifecycle {
    manager: Arc<Manager>,
    /// Reloads, one after the other, on a thread of its own: a file system that does not answer
    /// must not keep an order to stop waiting.
    reloads: Workers,
    stop: watch::Sender<bool>,
    /// `None` once its end has been reported.
    server: Option<JoinHandle<io::Result<()>>>,
}

/// The service manager, and what it is shown.
#[derive(Debug)]
struct Manager {
    notifier: Notifier,
    report: Report,
    status: String,
}

impl Lifecycle {
    /// Serves on all of `listeners`, as [`web::serve`] does. Fails if the thread for reloads cannot be
    /// started. To be called within a runtime.
    pub fn start<H, F>(
        listeners: Vec<TcpListener>,
        settings: Settings,
        handler: H,
        notifier: Notifier,
    ) -> io::Result<Self>
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let reloads = Workers::start("reload", 1);
        reloads.check()?;
        let mut addresses = Vec::new();
        for listener in &listeners {
            let address = listener.local_addr()?;
            tracing::info!(%address, "listening");
            addresses.push(address.to_string());
        }
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(web::serve(listeners, settings, handler, is_set(stopped)));
        let status = format!("serving on {}", addresses.join(", "));
        let manager = Arc::new(Manager { notifier, report: Report::new(), status });
        Ok(Self { manager, reloads, stop, server: Some(server) })
    }

    /// Tells the service manager that the start is over. To be called when signals are orders already.
    pub fn ready(&self) {
        self.manager.notifier.ready(&self.manager.status);
    }

    /// Follows `orders` until one is to stop, or no sender is left. At each reload it calls
    /// `reload`, which may block, and reports the result to the log, to the service manager and to
    /// `systemctl reload`; after an error the daemon goes on with what it had. Fails if the server
    /// ends by itself.
    pub async fn obey<E: Error>(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let reload = Arc::new(reload);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reload) => {
                        let (manager, reload) = (Arc::clone(&self.manager), Arc::clone(&reload));
                        self.reloads.submit(move || manager.reload(&*reload));
                    }
                    Some(Order::Stop) | None => return Ok(()),
                },
                ended = end_of(&mut self.server) => {
                    ended?;
                    return Err(io::Error::other("the server ended by itself"));
                }
            }
        }
    }

    /// Tells the service manager that the end has begun, takes no more connections, and returns when
    /// the requests in flight have been answered or the drain deadline of the settings is over.
    pub async fn drain(mut self) -> io::Result<()> {
        self.manager.notifier.stopping();
        tracing::info!("stopping");
        self.stop.send_replace(true);
        if self.server.is_some() { end_of(&mut self.server).await } else { Ok(()) }
    }
}

/// Waits until the server has ended; never done if that was reported before.
async fn end_of(server: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let Some(running) = server else { return std::future::pending().await };
    let ended: Result<io::Result<()>, JoinError> = running.await;
    *server = None;
    ended?
}

/// Waits for the order to stop; its sender's end is one, too.
async fn is_set(mut flag: watch::Receiver<bool>) {
    flag.wait_for(|set| *set).await.ok();
}

impl Manager {
    fn reload<E: Error>(&self, reload: &dyn Fn() -> Result<(), E>) {
        let Self { notifier, report, status } = self;
        notifier.reloading();
        let fault = reload().err().map(|error| Chain(&error).to_string());
        match &fault {
            None => {
                tracing::info!("configuration reloaded");
                notifier.ready(status);
            }
            Some(error) => {
                tracing::error!(
                    error,
                    "configuration reload failed; still using the previous configuration"
                );
                notifier.ready(&format!("{status}; the last reload failed: {error}"));
            }
        }
        report.write(fault.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_server_that_ends_by_itself_ends_the_daemon_with_an_error() {
        let manager = Manager {
            notifier: Notifier::default(),
            report: Report::default(),
            status: String::new(),
        };
        let (stop, _stopped) = watch::channel(false);
        let mut lifecycle = Lifecycle {
            manager: Arc::new(manager),
            reloads: Workers::start("t-reload", 1),
            stop,
            server: Some(tokio::spawn(async { Ok(()) })),
        };
        let (_give, mut orders) = mpsc::channel(1);
        let reload = || Ok::<(), io::Error>(());
        let obeyed = timeout(Duration::from_secs(60), lifecycle.obey(&mut orders, reload)).await;
        assert!(obeyed.expect("in time").is_err());
        assert!(lifecycle.drain().await.is_ok(), "its end is reported once");
    }
}
