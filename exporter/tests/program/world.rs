//! Fixtures of /proc, the running program, processes of our own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_procstorm-exporter");

#[path = "../../../tests/src/aloud.rs"]
mod aloud;

pub(crate) use aloud::skipped;

/// Whether we are root; if not, says that the test is skipped.
pub(crate) fn root_for(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(test, "needs root");
    }
    root
}

/// Tries until `what` gives something, or panics at the deadline.
pub(crate) fn until<T>(wanted: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "never came: {wanted}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A port of the loopback for a program that we start, and what keeps it from all other tests: its
/// number's name in the abstract name space. Below the ports that the kernel gives to whoever asks
/// for any, so that nobody else is given it before the program listens on it.
pub(crate) fn free_port() -> (u16, UnixListener) {
    let reserved = |port: &u16| {
        let name = format!("procstorm-tests-port-{port}");
        let name = UnixAddr::from_abstract_name(name).unwrap();
        let reserved = UnixListener::bind_addr(&name).ok()?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err().then_some(reserved)
    };
    let ports = 10_000..32_000;
    ports.into_iter().find_map(|port| Some((port, reserved(&port)?))).unwrap()
}

/// A directory that looks like /proc.
pub(crate) struct ProcFixture {
    directory: TempDir,
}

impl ProcFixture {
    /// With pid 1, which always exists.
    pub(crate) fn new() -> Self {
        // In memory, where there is such a place: a fixture can have many thousand files.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let fixture = Self { directory: directory.unwrap() };
        fixture.process(1, 0, b"init");
        fixture
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn process(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'S', 0x0040_0000);
    }

    pub(crate) fn zombie(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'Z', 0x0040_0000);
    }

    pub(crate) fn kernel_thread(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'I', 0x0020_0000);
    }

    fn entry(&self, pid: u32, uid: u32, command: &[u8], state: char, flags: u32) {
        let directory = self.path().join(pid.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("comm"), [command, b"\n"].concat()).unwrap();
        fs::write(directory.join("stat"), stat_line(pid, command, state, flags)).unwrap();
        // Without root all are ours: enough for the tests that do not look at users.
        if rustix::process::geteuid().is_root() {
            chown(&directory, Some(uid), Some(uid)).unwrap();
        }
    }

    /// A process that stops whoever scans it until [`Barrier::pass`]: its `stat` is a FIFO.
    pub(crate) fn barrier(&self, pid: u32) -> Barrier {
        self.process(pid, 0, b"barrier");
        let path = self.path().join(format!("{pid}/stat"));
        let line = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Barrier { path, line }
    }
}

fn stat_line(pid: u32, command: &[u8], state: char, flags: u32) -> Vec<u8> {
    let head = format!("{pid} (");
    let tail = format!(
        ") {state} 1 {pid} {pid} 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 42 0 0 0 0 0 0 0 0 0 0 0 0 \
         0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    [head.as_bytes(), command, tail.as_bytes()].concat()
}

pub(crate) struct Barrier {
    path: PathBuf,
    line: Vec<u8>,
}

impl Barrier {
    /// Lets the scan that waits, or the next one, go on.
    pub(crate) fn pass(&self) {
        let mut fifo = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        fifo.write_all(&self.line).unwrap();
    }
}

/// The exporter, running.
pub(crate) struct Program {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
}

impl Program {
    pub(crate) fn start(procfs: &Path, flags: &[&str]) -> Self {
        Self::spawn(Command::new(BINARY).arg("--path.procfs").arg(procfs).args(flags))
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
        let mut program = Self { child, address: ([0; 4], 0).into(), log };
        let line = program.logged("listening");
        let address = line.split("address=").nth(1).unwrap();
        program.address = address.split_whitespace().next().unwrap().parse().unwrap();
        program
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
        until("the end of the program", || self.child.try_wait().unwrap()).success()
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

/// What the tests have of the programs that `make tools` installs: in `PROCSTORM_TOOLS`, in
/// `target/tools`, or on the path. None is said to be skipped.
pub(crate) fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let target = Path::new(BINARY).ancestors().nth(2).unwrap().join("tools");
    let tools = std::env::var_os("PROCSTORM_TOOLS").map(PathBuf::from).into_iter().chain([target]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = tools
        .flat_map(|root| [root.join("usr/bin"), root.join("bin"), root])
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skipped(test, &format!("needs {name}"));
    }
    found
}
