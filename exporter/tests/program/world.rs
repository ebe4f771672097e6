//! The running program, processes of our own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use procstorm_testkit::wait::{LIMIT as PATIENCE, for_value};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_procstorm-exporter");

/// The exporter, running.
pub(crate) struct Program {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
    first_lines: String,
}

impl Program {
    pub(crate) fn start(procfs: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("--path.procfs").arg(procfs).arg("--path.cgroupfs").arg(cgroupfs(procfs));
        Self::spawn(command.args(flags))
    }

    /// Runs `command`, which must at last be the exporter, and waits until it listens.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.args(["--web.listen-address", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                // The test may have seen enough.
                sender.send(line).unwrap_or_default();
            }
        });
        let first_lines = String::new();
        let mut program = Self { child, address: ([0; 4], 0).into(), log, first_lines };
        while !program.first_lines.contains("listening") {
            program.first_lines += &program.log.recv_timeout(PATIENCE).unwrap();
            program.first_lines += "\n";
        }
        let address = program.first_lines.split("address=").nth(1).unwrap();
        program.address = address.split_whitespace().next().unwrap().parse().unwrap();
        program
    }

    /// Its log until it listened.
    pub(crate) fn first_lines(&self) -> &str {
        &self.first_lines
    }

    /// The next line of its log that holds `text`.
    pub(crate) fn logged(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(pidfd, signal).unwrap();
    }

    /// Its standard input, where that is a pipe.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A connection that the program has certainly taken, on which nothing has been asked for yet.
    pub(crate) fn ask_later(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"healthy\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        stream
    }

    /// The same connection, on which `path` has been asked for as the last thing.
    pub(crate) fn finish(&self, mut stream: TcpStream, path: &str) -> TcpStream {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Status and body of an answer; `None` if the connection is closed without one.
    pub(crate) fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some((text.get(9..12)?.parse().ok()?, text))
    }

    /// Waits until it has ended, and says whether in success.
    pub(crate) fn ended_well(mut self) -> bool {
        for_value("the end of the program", || self.child.try_wait().unwrap()).success()
    }

    /// A connection on which `path` has been asked for.
    pub(crate) fn ask(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// The answer to a request: status, head, body.
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
        answer(self.ask(path, headers))
    }

    /// The body of an answer that must be 200.
    pub(crate) fn get(&self, path: &str) -> String {
        let (status, _, body) = self.get_with(path, "");
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The value of one series.
    pub(crate) fn value(&self, series: &str) -> u64 {
        value(&self.get("/metrics"), series).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Status, head and body of what comes.
pub(crate) fn answer(mut stream: TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, bytes[end + 4..].to_vec())
}

/// The control groups of a made-up /proc: none, if nothing makes them.
pub(crate) fn cgroupfs(procfs: &Path) -> PathBuf {
    procfs.join("cgroup")
}

/// Copies a program that is to be run, by another program: a file that we had open for writing
/// cannot be run ("text file busy") as long as whatever another test starts meanwhile has not let
/// go of it.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

/// The value of one series in an exposition.
pub(crate) fn value(exposition: &str, series: &str) -> Option<u64> {
    let line = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Processes of our own, killed when dropped.
#[derive(Default)]
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    pub(crate) fn spawn(&mut self, command: &mut Command) -> u32 {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.0.push(child);
        pid
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
            child.wait().unwrap();
        }
    }
}
