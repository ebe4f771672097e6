//! Processes that are hard to end, by the program `opponent`.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use crate::ledger::Ledger;

/// Opponents at work. Whatever is left of them ends with this value.
#[derive(Debug)]
pub struct Opponent {
    keeper: Child,
    /// Closing it ends them.
    stdin: Option<ChildStdin>,
    /// Held open by each of them, and by no other.
    stdout: ChildStdout,
    ledger: Ledger,
    _dir: TempDir,
}

impl Opponent {
    /// Starts `count` of that role under `uid` and `command`, and returns when all are up.
    /// `extra` is what the role needs besides. Needs root.
    pub fn start(
        role: &str,
        uid: u32,
        command: &[u8],
        count: usize,
        extra: &str,
    ) -> Result<Self, Fault> {
        let dir = tempfile::tempdir().or_fault("no directory")?;
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path)?;
        let mut keeper = Program::new(programs::ours("opponent")?)
            .args([role, &uid.to_string()])
            .arg(OsStr::from_bytes(command))
            .arg(count.to_string())
            .args([path.as_os_str(), extra.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fault("cannot start the opponents")?;
        let stdin = keeper.stdin.take();
        let stdout = keeper.stdout.take().ok_or_else(|| Fault::new("the opponents are mute"))?;
        let mut opponent = Self { keeper, stdin, stdout, ledger, _dir: dir };
        let mut ready = [0; 6];
        opponent.stdout.read_exact(&mut ready).or_fault("the opponents did not come up")?;
        Ok(opponent)
    }

    /// How many processes they have ever forked.
    #[must_use]
    pub fn forks(&self) -> u64 {
        self.ledger.forks.get()
    }

    /// The memory that they share.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// The pid of the program that started them.
    #[must_use]
    pub fn keeper(&self) -> i32 {
        i32::try_from(self.keeper.id()).unwrap_or_default()
    }

    /// Whether the last of them is gone, by the end of what they all hold open; waits for it at
    /// most so long. Not for roles whose respawner holds it too.
    #[must_use]
    pub fn are_gone_within(&self, wait: Duration) -> bool {
        let timeout = Timespec::try_from(wait).ok();
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
        poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Whether none is forked for so long.
    #[must_use]
    pub fn fork_none_for(&self, time: Duration) -> bool {
        let (begun, before) = (Instant::now(), self.forks());
        while begun.elapsed() < time && self.forks() == before {
            procstorm_testkit::wait::pause();
        }
        self.forks() == before
    }
}

impl Drop for Opponent {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.keeper.wait());
    }
}
