//! Real processes of a user and a command of our choice, by the program `storm`.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command as Program, Stdio};

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
    uid: u32,
    command: Command,
    pids: Vec<i32>,
}

impl Storm {
    /// Raises `count` processes named `command` (at most 15 bytes, any but NUL), and returns when
    /// all of them bear that name. Another uid than our own needs root.
    pub fn raise(uid: u32, command: &[u8], count: usize) -> Result<Self, Fault> {
        let name = Command::new(command).ok_or_else(|| Fault::new("the command is too long"))?;
        let mut child = Program::new(programs::ours("storm")?)
            .args([uid.to_string(), count.to_string()])
            .arg(OsStr::from_bytes(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .or_fault("cannot start the storm")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Fault::new("the storm is mute"))?;
        let mut storm = Self { child, stdin, uid, command: name, pids: Vec::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).or_fault("the storm is mute")?;
        storm.pids = line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if storm.pids.len() != count {
            return Err(Fault::new(format!("{} of {count} came up", storm.pids.len())));
        }
        Ok(storm)
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

    /// How many of them are stopped (SIGSTOP).
    pub fn stopped(&self) -> Result<usize, Fault> {
        self.count(|stat| stat.state == b'T')
    }

    /// How many of the raised processes are as wanted. A pid counts only while its process is of
    /// the storm's uid and command, so that a stranger under a reused pid is not taken for one.
    fn count(&self, wanted: impl Fn(&Stat) -> bool) -> Result<usize, Fault> {
        let proc = ProcDir::open(Path::new("/proc")).or_fault("cannot open /proc")?;
        let counts = |pid: &&i32| {
            let stat = proc.stat(**pid).ok().flatten();
            stat.is_some_and(|stat| stat.command == self.command && wanted(&stat))
                && proc.owner(**pid) == Some(self.uid)
        };
        Ok(self.pids.iter().filter(counts).count())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // The storm's own program kills and reaps its processes, then ends.
        drop(self.child.wait());
    }
}
