//! The helper: this program once more, in a short-lived process, which loads the BPF program and hands
//! its link over.
//!
//! To load it takes 50 MB, of which a daemon would keep half. The helper needs no more rights than the
//! daemon has at its start, and the daemon can give them up.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use procstorm_toolkit::chain::Chain;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::{TaskIterator, load};

/// The flag by which this program becomes the helper.
pub const FLAG: &str = "--load-bpf";

/// It takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest text of an error. The verifier's log would be longer, and nobody reads it in the log.
const TEXT_MAX: usize = 500;

/// Why there is no iterator.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It cannot be started or talked to.
    #[error("cannot run the helper that loads the BPF program")]
    Run(#[source] io::Error),
    /// It did not answer.
    #[error("the helper that loads the BPF program did not answer within {PATIENCE:?}")]
    Late,
    /// It ended without an answer.
    #[error("the helper that loads the BPF program ended without an answer")]
    Silent,
    /// It could not load the program.
    #[error("{0}")]
    Load(String),
}

impl From<rustix::io::Errno> for HelperError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Run(error.into())
    }
}

/// Has the helper, which is the exporter's `program`, load the BPF program. Blocks, for half a minute at
/// most.
pub fn fetch(program: &Path) -> Result<TaskIterator, HelperError> {
    let (ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let helper = Command::new(program)
        .arg(FLAG)
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Ended)
        .map_err(HelperError::Run)?;
    let link = receive(&ours);
    drop(helper);
    Ok(TaskIterator::from(link?))
}

/// A child that is ended and reaped when dropped, whatever it does.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

fn receive(socket: &OwnedFd) -> Result<OwnedFd, HelperError> {
    let patience =
        Timespec::try_from(PATIENCE).map_err(|error| HelperError::Run(io::Error::other(error)))?;
    let answered = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&patience))?;
    if answered == 0 {
        return Err(HelperError::Late);
    }
    let mut text = [0; TEXT_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut descriptors = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut text)];
    let length = recvmsg(socket, into, &mut descriptors, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let link = descriptors.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut descriptors) = message else { return None };
        descriptors.next()
    });
    match (link, text.get(..length).unwrap_or_default()) {
        (Some(link), _) => Ok(link),
        (None, b"") => Err(HelperError::Silent),
        (None, text) => Err(HelperError::Load(String::from_utf8_lossy(text).into_owned())),
    }
}

/// What the helper does. Its standard input is a socket to the daemon.
#[must_use]
pub fn run() -> ExitCode {
    let socket = stdin();
    let sent = match load::load() {
        Ok(link) => send(&socket, b"loaded", Some(&link)),
        Err(error) => send(&socket, text(&Chain(&error)).as_bytes(), None),
    };
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot hand over the BPF program: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(socket: impl AsFd, text: &[u8], link: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut descriptors = SendAncillaryBuffer::new(&mut space);
    let link = link.map(AsFd::as_fd);
    descriptors.push(SendAncillaryMessage::ScmRights(link.as_slice()));
    sendmsg(socket, &[IoSlice::new(text)], &mut descriptors, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One line of an error.
fn text(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = (0..=TEXT_MAX).rev().find(|&end| line.is_char_boundary(end.min(line.len())));
    line.get(..end.unwrap_or(0).min(line.len())).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_descriptor_is_handed_over() {
        let (ours, its) = pair();
        let file = OwnedFd::from(std::fs::File::open("/proc/self/comm").unwrap());
        send(&its, b"loaded", Some(&file)).unwrap();
        let mut name = [0; 4];
        assert!(rustix::io::read(receive(&ours).unwrap(), &mut name).unwrap() > 0);
    }

    #[test]
    fn an_error_comes_as_one_line() {
        let (ours, its) = pair();
        send(&its, text(&format!("a\n b\t{}", "ä".repeat(TEXT_MAX))).as_bytes(), None).unwrap();
        let error = receive(&ours).unwrap_err().to_string();
        assert!(error.starts_with("a b ää") && error.len() <= TEXT_MAX, "{error}");
    }

    #[test]
    fn a_helper_that_ends_is_no_answer() {
        let (ours, its) = pair();
        drop(its);
        assert!(matches!(receive(&ours), Err(HelperError::Silent)));
    }
}
