//! Looks host names up on threads that exist from the start.
//!
//! The C library's look-up blocks, and hyper would start a thread of tokio's for each: none can be
//! had when a storm has taken every pid, and tokio panics then.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::dns::Name;
use procstorm_toolkit::workers::Workers;
use tower_service::Service;

/// Looks names up. Clones share the threads.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    threads: Workers,
}

impl Resolver {
    /// One that looks up so many names at once; one that hangs does so for some seconds.
    pub(super) fn of(threads: usize) -> Self {
        Self { threads: Workers::start("resolve", threads) }
    }
}

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let threads = self.threads.clone();
        Box::pin(async move {
            // The port is the connector's to set.
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            threads.run(look_up).await.map_err(io::Error::other)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let name: Name = "localhost".parse().expect("a name");
        let mut resolver = Resolver::of(2);
        let found = runtime.block_on(resolver.call(name)).expect("addresses");
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }
}
