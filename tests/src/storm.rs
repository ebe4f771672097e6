//! Real processes of a user and a command of our choice, by the program `storm`.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};

use jiff::Timestamp;
use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::{Command, Stat};
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

/// Sleeping processes of one uid and one command. Their parent waits for each that ends, as init
/// would, so no zombie stays. All of them end with this value.
#[derive(Debug)]
pub struct Storm {
    child: Child,
    /// Closing it ends the storm.
    stdin: Option<ChildStdin>,
    /// Where it says the pids; until it has.
    stdout: Option<ChildStdout>,
    uid: u32,
    command: Command,
    count: usize,
    onset: Timestamp,
    pids: Vec<i32>,
    /// Of the machine that they are on.
    proc: PathBuf,
}

impl Storm {
    /// Raises `count` processes named `command` (at most 15 bytes, any but NUL), and returns when
    /// all of them bear that name. Another uid than our own needs root.
    pub fn raise(uid: u32, command: &[u8], count: usize) -> Result<Self, Fault> {
        Self::begin(uid, command, count, Path::new("/proc"), Ok)?.await_names()
    }

    /// Begins to raise them on the machine whose /proc we reach at `proc`, where `inside` makes a
    /// program run. [`await_names`](Self::await_names) waits until they are there.
    pub fn begin(
        uid: u32,
        command: &[u8],
        count: usize,
        proc: &Path,
        inside: impl FnOnce(Program) -> Result<Program, Fault>,
    ) -> Result<Self, Fault> {
        let name = Command::new(command).ok_or_else(|| Fault::new("the command is too long"))?;
        let mut program = Program::new(programs::ours("storm")?);
        program.args([uid.to_string(), count.to_string()]).arg(OsStr::from_bytes(command));
        let mut child = inside(program)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .or_fault("cannot start the storm")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (onset, pids, proc) = (Timestamp::UNIX_EPOCH, Vec::new(), proc.to_owned());
        Ok(Self { child, stdin, stdout, uid, command: name, count, onset, pids, proc })
    }

    /// Waits until all of them bear their name.
    pub fn await_names(mut self) -> Result<Self, Fault> {
        let Some(stdout) = self.stdout.take() else { return Ok(self) };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).or_fault("the storm is mute")?;
        let mut words = line.split_whitespace();
        let onset = words.next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
        self.onset = Timestamp::from_millisecond(onset).or_fault("the storm's onset")?;
        self.pids = words.filter_map(|pid| pid.parse().ok()).collect();
        if self.pids.len() != self.count {
            return Err(Fault::new(format!("{} of {} came up", self.pids.len(), self.count)));
        }
        Ok(self)
    }

    /// When its processes began to take their user and name, all at the same time.
    #[must_use]
    pub fn onset(&self) -> Timestamp {
        self.onset
    }

    /// The pids that were raised.
    #[must_use]
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }

    /// How many of the raised processes live.
    pub fn living(&self) -> Result<usize, Fault> {
        self.count(|stat| !stat.is_dead())
    }

    /// Whether any of them lives; it looks no further than the first that does.
    pub fn lives(&self) -> Result<bool, Fault> {
        let proc = self.proc()?;
        Ok(self.pids.iter().any(|&pid| self.is_ours(&proc, pid, |stat| !stat.is_dead())))
    }

    /// How many of them are stopped (SIGSTOP).
    pub fn stopped(&self) -> Result<usize, Fault> {
        self.count(|stat| stat.state == b'T')
    }

    /// How many of the raised processes are as wanted.
    fn count(&self, wanted: impl Fn(&Stat) -> bool) -> Result<usize, Fault> {
        let proc = self.proc()?;
        Ok(self.pids.iter().filter(|pid| self.is_ours(&proc, **pid, &wanted)).count())
    }

    /// Whether that process is as wanted. A pid counts only while its process is of the storm's uid and
    /// command, so that a stranger under a reused pid is not taken for one.
    fn is_ours(&self, proc: &ProcDir, pid: i32, wanted: impl Fn(&Stat) -> bool) -> bool {
        let stat = proc.stat(pid).ok().flatten();
        stat.is_some_and(|stat| stat.command == self.command && wanted(&stat))
            && proc.owner(pid) == Some(self.uid)
    }

    fn proc(&self) -> Result<ProcDir, Fault> {
        ProcDir::open(&self.proc).or_fault(format!("cannot open {}", self.proc.display()))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // The storm's own program kills and reaps its processes, then ends.
        drop(self.child.wait());
    }
}
