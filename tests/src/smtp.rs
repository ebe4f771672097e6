//! A mail server that keeps what it is sent, for one machine's tests: the real protocol on a free
//! port, one thread a connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mailin::{Action, Handler, Response, SessionBuilder, response};
use mailparse::{MailHeaderMap as _, ParsedMail, parse_mail};
use procstorm_testkit::fault::{Fault, OrFault as _};

/// A line longer than this ends its connection.
const LINE_MAX: u64 = 64 * 1024;

/// A silent client is dropped after this.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A mail as it was received.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Who sent it (`MAIL FROM`).
    pub from: String,
    /// Who gets it (`RCPT TO`).
    pub to: Vec<String>,
    /// Headers and body, byte for byte.
    pub raw: Vec<u8>,
    /// When it was complete.
    pub received: Instant,
}

impl Mail {
    /// Its subject, decoded; empty if it has none.
    #[must_use]
    pub fn subject(&self) -> String {
        self.header("Subject").unwrap_or_default()
    }

    /// A header, decoded.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        parse_mail(&self.raw).ok()?.headers.get_first_value(name)
    }

    /// The names of all its headers.
    #[must_use]
    pub fn header_names(&self) -> Vec<String> {
        let mail = parse_mail(&self.raw).ok();
        mail.map(|m| m.headers.iter().map(|h| h.get_key()).collect()).unwrap_or_default()
    }

    /// Its plain text, decoded; empty if it has none.
    #[must_use]
    pub fn text(&self) -> String {
        self.part("text/plain")
    }

    /// Its HTML, decoded; empty if it has none.
    #[must_use]
    pub fn html(&self) -> String {
        self.part("text/html")
    }

    fn part(&self, kind: &str) -> String {
        fn find(mail: &ParsedMail<'_>, kind: &str) -> Option<String> {
            if mail.subparts.is_empty() && mail.ctype.mimetype == kind {
                return mail.get_body().ok();
            }
            mail.subparts.iter().find_map(|part| find(part, kind))
        }
        parse_mail(&self.raw).ok().and_then(|mail| find(&mail, kind)).unwrap_or_default()
    }
}

/// The server. It ends with this value.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    stop: Arc<AtomicBool>,
}

impl Sink {
    /// Listens on a free port of the loopback. Mails are kept in memory and, if `keep` names a
    /// directory, written there as `1.eml`, `2.eml`, ….
    pub fn start(keep: Option<PathBuf>) -> Result<Self, Fault> {
        Self::start_at(Ipv4Addr::LOCALHOST, keep)
    }

    /// The same, on another address of this machine.
    pub fn start_at(address: Ipv4Addr, keep: Option<PathBuf>) -> Result<Self, Fault> {
        let listener = TcpListener::bind((address, 0)).or_fault("no SMTP port")?;
        let address = listener.local_addr().or_fault("no SMTP port")?;
        let mails = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let sink = Self { address, mails: Arc::clone(&mails), stop: Arc::clone(&stop) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let receiver =
                    Receiver { mails: Arc::clone(&mails), keep: keep.clone(), mail: None };
                // A client that breaks off is the client's affair.
                thread::spawn(move || drop(converse(&stream, receiver)));
            }
        });
        Ok(sink)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All mails so far, in the order in which they were complete.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first mail for which `wanted` holds.
    pub fn find(&self, wanted: impl Fn(&Mail) -> bool) -> Option<Mail> {
        self.mails().into_iter().find(wanted)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if that fails it has ended already.
        drop(TcpStream::connect(self.address));
    }
}

/// One connection, from greeting to goodbye.
fn converse(stream: &TcpStream, receiver: Receiver) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let peer = stream.peer_addr().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |peer| peer.ip());
    let mut session = SessionBuilder::new("localhost").build(peer, receiver);
    let mut out = stream;
    out.write_all(&session.greeting().buffer()?)?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)? > 0 {
        let answer = session.process(&line);
        line.clear();
        match answer.action {
            Action::NoReply => {}
            Action::Reply => out.write_all(&answer.buffer()?)?,
            // TLS is not offered, so nobody may ask for it.
            Action::Close | Action::UpgradeTls => return out.write_all(&answer.buffer()?),
        }
    }
    Ok(())
}

/// What becomes of the mails of one connection.
#[derive(Debug)]
struct Receiver {
    mails: Arc<Mutex<Vec<Mail>>>,
    keep: Option<PathBuf>,
    mail: Option<Mail>,
}

impl Handler for Receiver {
    fn data_start(&mut self, _: &str, from: &str, _: bool, to: &[String]) -> Response {
        self.mail = Some(Mail {
            from: from.to_owned(),
            to: to.to_vec(),
            raw: Vec::new(),
            received: Instant::now(),
        });
        response::OK
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(mail) = &mut self.mail {
            mail.raw.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let Some(mut mail) = self.mail.take() else { return response::INTERNAL_ERROR };
        mail.received = Instant::now();
        let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &self.keep {
            let file = dir.join(format!("{}.eml", mails.len() + 1));
            if std::fs::write(file, &mail.raw).is_err() {
                return response::OUT_OF_SPACE;
            }
        }
        mails.push(mail);
        response::OK
    }
}
