//! IMAP sessions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};

use super::mbox;

/// How long an answer may take: the server waits for locks.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an idle client looks whether its session has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// A session that has selected its user's mailbox.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Logs in as the user with `uid`.
    pub fn open(server: SocketAddr, uid: u32) -> Result<Self, Fault> {
        let stream = TcpStream::connect(server).or_fault("no connection")?;
        stream.set_read_timeout(Some(PATIENCE)).or_fault("no time-out")?;
        let mut session = Self { stream: BufReader::new(stream) };
        session.line()?;
        session.ask(&format!("LOGIN {uid} secret"))?;
        session.ask("SELECT INBOX")?;
        Ok(session)
    }

    /// Waits for mail from now on, as a mail program does that nobody looks at.
    pub fn idle(&mut self) -> Result<(), Fault> {
        self.send("a IDLE\r\n")?;
        while !self.line()?.starts_with('+') {}
        Ok(())
    }

    /// Whether the server has ended it; waits up to `patience` for that.
    #[must_use]
    pub fn is_ended(&mut self, patience: Duration) -> bool {
        if self.stream.get_ref().set_read_timeout(Some(patience)).is_err() {
            return false;
        }
        let mut line = String::new();
        loop {
            line.clear();
            match self.stream.read_line(&mut line) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Deletes some messages and appends one, so that the server rewrites the mailbox.
    fn churn(&mut self, step: u32, number: u32) -> Result<(), Fault> {
        let found = self.ask("SEARCH ALL")?;
        let listed = found.iter().find_map(|line| line.strip_prefix("* SEARCH "));
        let all: Vec<&str> = listed.unwrap_or_default().split_whitespace().collect();
        // Every seventh of those in the front half, where there are many.
        let first = usize::try_from(step).unwrap_or_default() % 7;
        let some: Vec<&str> =
            all.iter().copied().take(all.len() / 2).skip(first).step_by(7).collect();
        if !some.is_empty() {
            self.ask(&format!("STORE {} +FLAGS (\\Deleted)", some.join(",")))?;
        }
        self.ask("EXPUNGE")?;
        let message = mbox::message(number).replace('\n', "\r\n");
        self.send(&format!("a APPEND INBOX {{{}}}\r\n", message.len()))?;
        while !self.line()?.starts_with('+') {}
        self.send(&format!("{message}\r\n"))?;
        self.answer().map(drop)
    }

    fn ask(&mut self, command: &str) -> Result<Vec<String>, Fault> {
        self.send(&format!("a {command}\r\n"))?;
        self.answer()
    }

    /// The lines up to the tagged one, which must say OK.
    fn answer(&mut self) -> Result<Vec<String>, Fault> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            match line.strip_prefix("a ") {
                Some(end) if end.starts_with("OK") => return Ok(lines),
                Some(end) => return Err(Fault::new(format!("the mail server says {end}"))),
                None => lines.push(line),
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Fault> {
        self.stream.get_mut().write_all(text.as_bytes()).or_fault("the session is over")
    }

    fn line(&mut self) -> Result<String, Fault> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).or_fault("no answer")? {
            0 => Err(Fault::new("the session is over")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// A client that rewrites its user's mailbox until its session is ended.
#[derive(Debug)]
pub struct Expunger {
    thread: JoinHandle<()>,
    rewrites: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Expunger {
    /// Starts one; its messages get numbers from `first` on.
    pub fn start(server: SocketAddr, uid: u32, first: u32) -> Result<Self, Fault> {
        let mut session = Session::open(server, uid)?;
        let (rewrites, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (count, told) = (Arc::clone(&rewrites), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut step = 0;
            while !told.load(Ordering::Relaxed) && session.churn(step, first + step).is_ok() {
                step += 1;
                count.store(step, Ordering::Relaxed);
            }
        });
        Ok(Self { thread, rewrites, stop })
    }

    /// How often it has rewritten the mailbox.
    #[must_use]
    pub fn rewrites(&self) -> u32 {
        self.rewrites.load(Ordering::Relaxed)
    }

    /// Ends it, and waits for that.
    pub fn stop(self) -> Result<(), Fault> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| Fault::new("the client has panicked"))
    }
}

/// A client that waits for mail and, whenever its session ends, opens another at once.
#[derive(Debug)]
pub struct Reconnecter {
    thread: JoinHandle<()>,
    sessions: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Reconnecter {
    /// Starts one; its first session waits for mail when this returns.
    pub fn start(server: SocketAddr, uid: u32) -> Result<Self, Fault> {
        let mut session = Session::open(server, uid)?;
        session.idle()?;
        let (sessions, stop) = (Arc::new(AtomicU32::new(1)), Arc::<AtomicBool>::default());
        let (count, told) = (Arc::clone(&sessions), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if !session.is_ended(GLANCE) {
                    continue;
                }
                // One that is ended before it has logged in is followed by another, too.
                if let Ok(mut next) = Session::open(server, uid)
                    && next.idle().is_ok()
                {
                    session = next;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { thread, sessions, stop })
    }

    /// How many sessions it has tried to open.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Ends it, and waits for that.
    pub fn stop(self) -> Result<(), Fault> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| Fault::new("the client has panicked"))
    }
}
