//! Pages of text on a free port, for a real Prometheus to scrape.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

type Pages = Arc<Mutex<BTreeMap<String, String>>>;

/// Serves pages by their paths until the test ends.
#[derive(Debug)]
pub struct ScrapeTarget {
    port: u16,
    pages: Pages,
}

impl ScrapeTarget {
    /// Serves `pages`, each a path (`/moscow`) and a text in the exposition format.
    pub fn serve(pages: impl IntoIterator<Item = (String, String)>) -> Result<Self, Fault> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fault("no free port")?;
        let port = listener.local_addr().or_fault("a listener without an address")?.port();
        let pages: Pages = Arc::new(Mutex::new(pages.into_iter().collect()));
        let shared = Arc::clone(&pages);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (stream, pages) = (Arc::new(stream), Arc::clone(&shared));
                let (again, same) = (Arc::clone(&stream), Arc::clone(&pages));
                // A client that breaks off comes again.
                let answering = thread::Builder::new().spawn(move || drop(answer(&stream, &pages)));
                // A busy machine may have no thread left.
                if answering.is_err() {
                    drop(answer(&again, &same));
                }
            }
        });
        Ok(Self { port, pages })
    }

    /// The port on the loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes one page: the next scrape sees it.
    pub fn set(&self, path: &str, text: String) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), text);
    }
}

/// Answers one request and closes: enough for Prometheus.
fn answer(mut stream: &TcpStream, pages: &Pages) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let page = pages.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let status = if page.is_some() { "200 OK" } else { "404 Not Found" };
    let page = page.unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}
