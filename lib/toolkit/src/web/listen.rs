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

/// The sockets to serve on: those that systemd passed, with `--web.systemd-socket`; else one for
/// each of `addresses` (`--web.listen-address`), or for `default` where none is given. To be called
/// within a runtime.
pub fn listeners(
    systemd_socket: bool,
    addresses: &[String],
    default: &str,
) -> Result<Vec<TcpListener>, Box<dyn std::error::Error>> {
    if systemd_socket && !addresses.is_empty() {
        return Err(SocketError::Both.into());
    }
    let mut listeners = Vec::new();
    if systemd_socket {
        for passed in sockets::passed()? {
            let listener = TcpListener::from_std(passed)?;
            rustix::net::listen(&listener, QUEUE)?;
            listeners.push(listener);
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
pub fn listen(address: &str) -> Result<TcpListener, ListenError> {
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
    let queued = bound.and_then(|listener| {
        // On a socket that listens already this changes the length of its queue (`man 2 listen`).
        rustix::net::listen(&listener, QUEUE)?;
        Ok(listener)
    });
    queued.map_err(|source| ListenError { address: address.to_owned(), source })
}

/// A socket on the first of these addresses on which there can be one.
fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(addresses)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
