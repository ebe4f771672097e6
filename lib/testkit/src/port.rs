//! Ports of the loopback for the programs that a test starts.
//!
//! A port that was free a moment ago may be another program's by the time ours listens on it, and
//! then a test speaks to a stranger: to the daemon of the test beside it, say, while its own
//! restarts. So a port is claimed for as long as this process runs.

use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;

use crate::claim::claim;
use crate::fault::Fault;

/// Below the ports that the kernel gives to outgoing connections and to a program that asks for any
/// port (`ip_local_port_range`, from 32768 on).
const PORTS: Range<u32> = 10_000..32_000;

/// A port of the loopback that no program listens on, and that no other caller gets while this
/// process runs.
pub fn free_port() -> Result<u16, Fault> {
    claim("port", &PORTS, |port| u16::try_from(port).is_ok_and(is_free))
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| Fault::new("no free port"))
}

/// Not by listening on it: a program that another thread starts just then would hold our listener
/// until it is begun, and stand in the way of the one that the port is for.
fn is_free(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|&port| PORTS.contains(&port.into())));
    }
}
