//! The sockets that a socket unit passes (`man 3 sd_listen_fds`). pid 1 keeps them through
//! restarts, so that no local user can take the port in between.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The environment names none.
    #[error(
        "--web.systemd-socket: systemd has passed no socket (LISTEN_FDS); start the socket unit, or \
         leave out the flag"
    )]
    None,
    /// Addresses are given twice over.
    #[error(
        "--web.listen-address has no effect with --web.systemd-socket: remove it, and set \
         ListenStream= in the socket unit (systemctl edit NAME.socket)"
    )]
    Both,
    /// One of them is something else.
    #[error("--web.systemd-socket: socket {number} does not listen on TCP")]
    Unfit {
        /// Which, from 1 on.
        number: usize,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// The sockets that were passed to this process, at least one.
pub(crate) fn passed() -> Result<Vec<TcpListener>, SocketError> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let number = index.saturating_add(1);
        let unfit = |source| SocketError::Unfit { number, source };
        let taken = passed.take_tcp_listener(index).map_err(unfit)?;
        let listener = taken.ok_or(SocketError::None)?;
        if !socket_acceptconn(&listener).map_err(|errno| unfit(errno.into()))? {
            return Err(unfit(io::ErrorKind::NotConnected.into()));
        }
        listener.set_nonblocking(true).map_err(unfit)?;
        listeners.push(listener);
    }
    if listeners.is_empty() { Err(SocketError::None) } else { Ok(listeners) }
}
