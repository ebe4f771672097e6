//! How a demo that stays up is asked for a storm, by `demo --storm`: through a socket in the abstract
//! name space, which ends with the demo. Only the same user is heard.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

/// What the last line of an answer begins with; the fault follows, if there is one.
const END: &str = "= ";

/// How long a demo may be silent: as long as a storm may take, and some more.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// How long somebody who asks may take to read a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes requests.
#[derive(Debug)]
pub(super) struct Requests(UnixListener);

impl Requests {
    /// From now on requests are taken; `None` if another demo of this user takes them.
    pub(super) fn listen() -> Result<Option<Self>, Fault> {
        let Ok(listener) = UnixListener::bind_addr(&address()?) else { return Ok(None) };
        listener.set_nonblocking(true).or_fault("cannot listen")?;
        Ok(Some(Self(listener)))
    }

    /// The next request, if there is one.
    pub(super) fn next(&self) -> Option<Request> {
        let (stream, _) = self.0.accept().ok()?;
        let peer = socket_peercred(&stream).ok()?;
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .ok()?;
        (peer.uid == geteuid()).then_some(Request(stream))
    }
}

/// Somebody who wants a storm, and to see what becomes of it.
#[derive(Debug)]
pub(super) struct Request(UnixStream);

impl Request {
    /// Says a line. A listener that has gone does not hear it.
    pub(super) fn say(&mut self, line: &str) {
        drop(writeln!(self.0, "{line}"));
    }

    /// Says how it ended.
    pub(super) fn end(mut self, done: &Result<(), Fault>) {
        let end = done.as_ref().err().map(Fault::whole).unwrap_or_default();
        self.say(&format!("{END}{}", end.replace('\n', " ")));
    }
}

/// Asks the demo of this user for a storm, and hands each line of what it says to `say`. Fails as the
/// demo does.
pub(super) fn ask(mut say: impl FnMut(&str) -> Result<(), Fault>) -> Result<(), Fault> {
    let none = "no demo of yours is running: start one with `make run`, in another terminal";
    let stream = UnixStream::connect_addr(&address()?).map_err(|_error| Fault::new(none))?;
    stream.set_read_timeout(Some(SILENCE_MAX)).or_fault("cannot wait for the demo")?;
    for line in BufReader::new(stream).lines() {
        let line = line.or_fault("the demo says nothing")?;
        match line.strip_prefix(END) {
            Some("") => return Ok(()),
            Some(fault) => return Err(Fault::new(fault)),
            None => say(&line)?,
        }
    }
    Err(Fault::new("the demo has ended"))
}

fn address() -> Result<SocketAddr, Fault> {
    let name = format!("procstorm-demo-storm-{}", geteuid().as_raw());
    SocketAddr::from_abstract_name(name).or_fault("no address")
}
