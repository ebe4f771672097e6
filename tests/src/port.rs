//! Ports of the loopback for the programs that we start.
//!
//! A port that was free a moment ago may be another's by the time a program listens on it, and
//! then a test speaks to a stranger: to the daemon of the test beside it, say, while its own is
//! being restarted. So that does not happen, a port is reserved for as long as this process runs.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;

/// Below what the kernel gives to outgoing connections and to whoever asks for any port
/// (`ip_local_port_range`, from 32768 on).
const PORTS: Range<u16> = 10_000..32_000;

/// The reservations: sockets in the abstract name space, which end with the process that holds
/// them, and which are as wide as ports: they belong to the network namespace.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port of the loopback that nobody listens on, and that no other caller is given while this
/// process runs.
pub fn free_port() -> Result<u16, Fault> {
    let count = PORTS.end - PORTS.start;
    // A random beginning, so that those who ask at once do not try the same ports.
    let random = RandomState::new().build_hasher().finish() % u64::from(count);
    let random = u16::try_from(random).unwrap_or_default();
    (0..count)
        .map(|step| PORTS.start + (random + step) % count)
        .find(|&port| reserve(port))
        .ok_or_else(|| Fault::new("no free port"))
}

fn reserve(port: u16) -> bool {
    let name = format!("procstorm-tests-port-{port}");
    let reserved = SocketAddr::from_abstract_name(name).and_then(|a| UnixListener::bind_addr(&a));
    let Ok(reserved) = reserved else { return false };
    // Not by listening on it: a program that another thread starts just then would hold our listener
    // until it is begun, and stand in the way of the one that the port is for.
    let is_free = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
    if is_free {
        RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reserved);
    }
    is_free
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..200).map(|_| free_port().expect("a port")).collect();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
