//! Sockets from addresses as Prometheus and its exporters write them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use tokio::net::TcpListener;

use crate::systemd::sockets::{self, SocketError};

/// How many connections may wait to be accepted. Where the queue is full the kernel drops who
/// comes, and a good client in the crowd tries again only after a second, then after two more, and
/// so on.
const QUEUE: i32 = 1024;

/// An address on which we cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    address: String,
    #[source]
    source: io::Error,
}

impl ListenError {
    /// Whether the address is not one, rather than one that is taken.
    #[must_use]
    pub fn is_no_address(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidInput
    }
}

/// Why there is nothing to serve on.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// systemd has passed no socket that can be used, or addresses are given as well.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// An address on which we cannot listen.
    #[error(transparent)]
    Address(#[from] ListenError),
    /// The system refused a socket that systemd has passed, which may pass.
    #[error("--web.systemd-socket: cannot serve on socket {number}")]
    Passed {
        /// Which, from 1 on.
        number: usize,
        /// Why.
        source: io::Error,
    },
}

impl ListenersError {
    /// Whether only a person can mend it, on the command line or in a unit.
    #[must_use]
    pub fn lasts(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Address(error) => error.is_no_address(),
            Self::Passed { .. } => false,
        }
    }
}

/// The sockets to serve on: those that systemd passed, with `--web.systemd-socket`; else one for
/// each of `addresses` (`--web.listen-address`), or for `default` where none is given. To be called
/// within a runtime.
pub fn listeners(
    systemd_socket: bool,
    addresses: &[String],
    default: &str,
) -> Result<Vec<TcpListener>, ListenersError> {
    if systemd_socket && !addresses.is_empty() {
        return Err(SocketError::Both.into());
    }
    let mut listeners = Vec::new();
    if systemd_socket {
        for (number, passed) in (1..).zip(sockets::passed()?) {
            let listener = TcpListener::from_std(passed).and_then(with_queue);
            let failed = |source| ListenersError::Passed { number, source };
            listeners.push(listener.map_err(failed)?);
        }
    } else if addresses.is_empty() {
        listeners.push(listen(default)?);
    }
    for address in addresses {
        listeners.push(listen(address)?);
    }
    Ok(listeners)
}

/// A socket that listens on `address`: `host:port`, `[host]:port`, or `:port` for all addresses
/// of this machine, IPv6 and IPv4.
/// Waits for the name service where `host` is a name. To be called within a runtime.
fn listen(address: &str) -> Result<TcpListener, ListenError> {
    let bound = match address.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => match bind(&[(Ipv6Addr::UNSPECIFIED, port).into()]) {
            Ok(listener) => Ok(listener),
            // A kernel without IPv6.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind(&[(Ipv4Addr::UNSPECIFIED, port).into()])
            }
            Err(error) => Err(error),
        },
        Some(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
        // Here and not by tokio, which would need a further thread for it, and panic without one.
        None => address.to_socket_addrs().and_then(|all| bind(&all.collect::<Vec<_>>())),
    };
    let queued = bound.and_then(with_queue);
    queued.map_err(|source| ListenError { address: address.to_owned(), source })
}

/// The same socket with our queue: `listen` on one that listens already changes its length
/// (`man 2 listen`).
fn with_queue(listener: TcpListener) -> io::Result<TcpListener> {
    rustix::net::listen(&listener, QUEUE)?;
    Ok(listener)
}

/// A socket on the first of these addresses on which there can be one.
fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addresses)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::{FAULTY_CONFIGURATION, exit_status};

    #[tokio::test]
    async fn an_address_that_is_not_one_lasts_and_one_that_is_taken_may_pass() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = holder.local_addr().expect("its address").to_string();
        for (address, lasts) in [("nowhere".to_owned(), true), (taken, false)] {
            let error = listeners(false, std::slice::from_ref(&address), ":0").expect_err(&address);
            assert_eq!(error.to_string(), format!("cannot listen on {address}"));
            assert_eq!(error.lasts(), lasts, "{error}");
            assert_eq!(exit_status(&error) == FAULTY_CONFIGURATION, lasts, "{error}");
        }
    }
}
