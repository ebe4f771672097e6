//! A program that runs as long as its guard lives, and not longer than we do.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::port::free_port;
use procstorm_testkit::{programs, wait};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::http::Http;

/// How long a program may take to be ready, on a machine that has much else to do.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How many of the log's last lines a fault shows.
const LOG_TAIL: usize = 15;

/// A running program. Killed when this is dropped. If this thread dies first, the kernel kills
/// it: so start it from a thread that stays.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` under `name`, with both its outputs going to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self, Fault> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .or_fault(format!("cannot write {}", log.display()))?;
        let both = file.try_clone().or_fault("cannot share the log")?;
        let mut guarded = Command::new(programs::other("setpriv")?);
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        guarded.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            guarded.current_dir(dir);
        }
        let child = guarded
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(both)
            // Ctrl-C is for us; we end our programs ourselves.
            .process_group(0)
            .spawn()
            .or_fault(format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Starts `command` under `name` on a free port (`--web.listen-address`), with both its outputs
    /// going to `NAME.log` in `dir`, and waits until `/-/ready` says so. Returns it and where it
    /// answers, without a slash at the end.
    pub fn serve(
        name: &str,
        mut command: Command,
        dir: &Path,
        http: &Http,
    ) -> Result<(Self, String), Fault> {
        let address = format!("127.0.0.1:{}", free_port()?);
        command.arg(format!("--web.listen-address={address}"));
        let mut daemon = Self::start(name, &command, &dir.join(format!("{name}.log")))?;
        let url = format!("http://{address}");
        daemon.ready(|| http.is_ok(&format!("{url}/-/ready")))?;
        Ok((daemon, url))
    }

    /// Waits until `look` says that it is ready; a program that ends before is a fault, with the
    /// end of its log.
    pub fn ready(&mut self, mut look: impl FnMut() -> bool) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            if look() {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                let tail = self.log_tail();
                return Err(Fault::new(format!("{} ended with {status}:\n{tail}", self.name)));
            }
            if start.elapsed() > START_LIMIT {
                let tail = self.log_tail();
                return Err(Fault::new(format!("{} does not get ready:\n{tail}", self.name)));
            }
            wait::pause();
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, Fault> {
        self.child.try_wait().or_fault(format!("cannot wait for {}", self.name))
    }

    /// All that it has written.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default().join("\n")
    }

    /// Sends it a signal, as an operator would.
    pub fn signal(&self, signal: Signal) -> Result<(), Fault> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Fault::new(format!("{} has no pid", self.name)))?;
        // Our own child that we have not waited for keeps its pid, so this finds no stranger.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).or_fault("cannot pin our child")?;
        pidfd_send_signal(pidfd, signal).or_fault(format!("cannot signal {}", self.name))
    }

    /// Stops it (SIGSTOP), and returns when none of its threads does anything any more.
    pub fn halt(&self) -> Result<(), Fault> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.child.id());
        wait::until(&format!("{} stops", self.name), START_LIMIT, || {
            let mut threads = fs::read_dir(&tasks).ok()?.flatten();
            threads.all(|thread| is_stopped(&thread.path())).then_some(())
        })
    }

    /// Kills it (SIGKILL), and waits for its end.
    pub fn kill(&mut self) -> Result<(), Fault> {
        self.child.kill().or_fault(format!("cannot kill {}", self.name))?;
        self.child.wait().or_fault(format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> Result<(), Fault> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM), and waits for that. Returns its exit status.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, Fault> {
        if self.exited()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        let what = format!("{} ends after SIGTERM", self.name);
        wait::until(&what, limit, || self.exited().ok().flatten())
    }
}

/// Whether the thread of that directory in /proc is stopped. One that has ended is, too.
fn is_stopped(thread: &Path) -> bool {
    let Ok(status) = fs::read_to_string(thread.join("status")) else { return true };
    status.lines().any(|line| line.starts_with("State:\tT"))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
