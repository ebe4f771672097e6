//! IMAP sessions.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait::nap;

use super::mbox;

/// How long an answer may take: the server waits for locks.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long at a time an idle client looks whether its session has ended.
const GLANCE: Duration = Duration::from_millis(200);

/// Every user's.
pub const PASSWORD: &str = "secret";

/// A session that has selected its user's mailbox.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Logs in as `user`.
    pub fn open(server: SocketAddr, user: &str) -> Result<Self, Fault> {
        let stream = TcpStream::connect(server).or_fault("no connection")?;
        stream.set_read_timeout(Some(PATIENCE)).or_fault("no time-out")?;
        let mut session = Self { stream: BufReader::new(stream) };
        session.line()?;
        session.ask(&format!("LOGIN {user} {PASSWORD}"))?;
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
        // Never what was delivered meanwhile: a test wants to find all of that again.
        let kept = mbox::DELIVERED / 1_000;
        let found = self.ask(&format!("SEARCH NOT SUBJECT n{kept}"))?;
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
    pub fn start(server: SocketAddr, user: &str, first: u32) -> Result<Self, Fault> {
        let mut session = Session::open(server, user)?;
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

/// A client that waits for mail and, whenever its session ends, opens another.
#[derive(Debug)]
pub struct Reconnecter {
    thread: JoinHandle<()>,
    sessions: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Reconnecter {
    /// Starts one that reconnects after `pause`. Its first session waits for mail when this
    /// returns.
    pub fn start(server: SocketAddr, user: &str, pause: Duration) -> Result<Self, Fault> {
        let mut session = Session::open(server, user)?;
        session.idle()?;
        let (sessions, stop) = (Arc::new(AtomicU32::new(1)), Arc::<AtomicBool>::default());
        let (count, stopped, user) = (Arc::clone(&sessions), Arc::clone(&stop), user.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !session.is_ended(GLANCE) {
                    continue;
                }
                nap(pause);
                // A session that ends before it has logged in is followed by another, too.
                if let Ok(mut next) = Session::open(server, &user)
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
        self.end();
        self.thread.join().map_err(|_panic| Fault::new("the client has panicked"))
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Many of them, all of one user: a storm that comes back.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Reconnecter>,
}

impl Crowd {
    /// Starts `count` clients that reconnect after `pause`.
    pub fn start(
        server: SocketAddr,
        user: &str,
        count: u32,
        pause: Duration,
    ) -> Result<Self, Fault> {
        let clients = (0..count).map(|_| Reconnecter::start(server, user, pause));
        Ok(Self { clients: clients.collect::<Result<_, _>>()? })
    }

    /// How many sessions they have tried to open, all together.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.clients.iter().map(Reconnecter::sessions).sum()
    }

    /// Ends them, and waits for that.
    pub fn stop(self) -> Result<(), Fault> {
        self.clients.iter().for_each(Reconnecter::end);
        self.clients.into_iter().try_for_each(Reconnecter::stop)
    }
}
