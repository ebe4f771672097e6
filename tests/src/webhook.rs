//! What stands for a service that Alertmanager notifies: it takes every request, and keeps when it
//! came and what it said.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use serde_json::Value;

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes requests until the test ends.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    taken: Receiver<(Instant, Value)>,
}

impl Webhook {
    /// Listens on a free port.
    pub fn serve() -> Result<Self, Fault> {
        Self::serve_after(0)
    }

    /// Listens on a free port, and answers so many requests with 503 first: they are not kept.
    pub fn serve_after(refusals: usize) -> Result<Self, Fault> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fault("no free port")?;
        let address = listener.local_addr().or_fault("a listener without an address")?;
        let (give, taken) = channel();
        let left = Arc::new(AtomicUsize::new(refusals));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (give, left) = (give.clone(), Arc::clone(&left));
                // A client that breaks off comes again.
                thread::spawn(move || drop(take(stream, &give, &left)));
            }
        });
        Ok(Self { address, taken })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request: when it came, and its body, which must be JSON.
    pub fn next(&self, limit: Duration) -> Result<(Instant, Value), Fault> {
        self.taken.recv_timeout(limit).or_fault(format!("no request to {}", self.address))
    }
}

/// Takes one request, answers it, and closes: enough for Alertmanager.
fn take(
    mut stream: TcpStream,
    give: &Sender<(Instant, Value)>,
    refusals: &AtomicUsize,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let came = Instant::now();
    let one_less = |left: usize| left.checked_sub(1);
    if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
        let status = "503 Service Unavailable";
        return write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    if let Ok(body) = serde_json::from_slice(&body) {
        // Nobody listens any more when the test is over.
        give.send((came, body)).ok();
    }
    Ok(())
}
