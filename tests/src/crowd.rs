//! Processes that only exist, thousands of them, at little cost: by the C program of the exporter's
//! bench.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

/// Sleeping processes of several users and commands. All of them end with this value.
#[derive(Debug)]
pub struct Crowd {
    child: Child,
    /// Closing it ends them.
    stdin: Option<ChildStdin>,
}

impl Crowd {
    /// So many processes, of `users` uids from `uid` on, which run `commands` commands each, named
    /// `held-0` and so on. Returns when all are there. Needs root and a C compiler.
    pub fn gather(processes: usize, uid: u32, users: u32, commands: usize) -> Result<Self, Fault> {
        let dir = tempfile::tempdir().or_fault("no directory")?;
        let program = dir.path().join("holder");
        let source = programs::project().join("exporter/benches/exporter/holder.c");
        let built = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
        if !built.or_fault("cannot run cc")?.success() {
            return Err(Fault::new("cc cannot build the holder of processes"));
        }
        let mut child = Command::new(&program)
            .args([processes.to_string(), uid.to_string(), users.to_string()])
            .arg(commands.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fault("cannot start the holder of processes")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Fault::new("the holder is mute"))?;
        let crowd = Self { child, stdin };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).or_fault("the holder is mute")?;
        match line.as_str() {
            "ready\n" => Ok(crowd),
            _ => Err(Fault::new(format!("{processes} processes cannot be held"))),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}
