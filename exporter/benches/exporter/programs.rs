//! What is measured: programs in C built here, the exporter, and its peers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cpu;

/// The first of the uids that are used here.
pub(crate) const UID: &str = "41900";

const PATIENCE: Duration = Duration::from_secs(60);

/// Builds one of the C programs beside this file.
pub(crate) fn build(name: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/exporter/{name}.c"));
    let program = directory.join(name);
    let status =
        Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status().expect("cc");
    assert!(status.success(), "cc cannot build {name}");
    program
}

/// Processes that are there until this is dropped.
pub(crate) struct Held(Child);

impl Held {
    /// So many, of so many users with so many commands each.
    pub(crate) fn new(holder: &Path, processes: usize, groups: (usize, usize)) -> Self {
        let mut child = Command::new(holder)
            .args([&processes.to_string(), UID, &groups.0.to_string(), &groups.1.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the holder cannot hold {processes} processes");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The end of its input tells it to end them.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A program that is scraped.
pub(crate) struct Scraped {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Scraped {
    /// The exporter, by that source of its counts.
    pub(crate) fn exporter(source: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_procstorm-exporter"));
        let flags = ["--log.level=warn".to_owned(), format!("--collector.source={source}")];
        Self::start(program, |_| flags.to_vec(), "--web.listen-address=")
    }

    pub(crate) fn node_exporter() -> Option<Self> {
        let program = peer("prometheus-node-exporter")?;
        let flags = ["--collector.disable-defaults", "--collector.processes", "--log.level=error"];
        Some(Self::start(&program, |_| flags.map(str::to_owned).into(), "--web.listen-address="))
    }

    pub(crate) fn process_exporter() -> Option<Self> {
        let program = peer("prometheus-process-exporter")?;
        let config = |directory: &Path| {
            let file = directory.join("process.yml");
            let text =
                "process_names:\n  - name: \"{{.Username}}:{{.Comm}}\"\n    cmdline: ['.*']\n";
            fs::write(&file, text).unwrap();
            vec!["-config.path".to_owned(), file.display().to_string()]
        };
        Some(Self::start(&program, config, "-web.listen-address="))
    }

    fn start(program: &Path, flags: impl Fn(&Path) -> Vec<String>, listen: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free.to_string();
        let child = Command::new(program)
            .args(flags(directory.path()))
            .arg(format!("{listen}{address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let scraped = Self { child, address, _directory: directory };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&scraped.address).is_err() {
            assert!(Instant::now() < end, "{} does not listen", program.display());
            std::thread::yield_now();
        }
        scraped
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        // One of the peers closes the connection if it took too long, when all the work is done.
        stream.read_to_string(&mut answer).unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// CPU seconds of one scrape, by `n`.
    pub(crate) fn cost(&self, n: usize) -> f64 {
        let before = cpu::of(self.pid());
        for _ in 0..n {
            self.scrape();
        }
        (cpu::of(self.pid()) - before) / n as f64
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    pub(crate) fn peak_kib(&self) -> u64 {
        self.kib("VmHWM:")
    }

    fn kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

impl Drop for Scraped {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// One of Debian's programs: on the path, in `target/tools`, or downloaded into it, where nothing
/// is installed.
fn peer(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_procstorm-exporter")).ancestors().nth(2).unwrap();
    let tools = target.join("tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([tools.join("usr/bin")]);
    let there = places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()));
    there.or_else(|| download(name, &tools))
}

fn download(name: &str, tools: &Path) -> Option<PathBuf> {
    fs::create_dir_all(tools).unwrap();
    let script = "set -e; directory=$(mktemp -d); trap 'rm -rf \"$directory\"' EXIT; \
                  cd \"$directory\"; apt-get -qq -o APT::Sandbox::User= download \"$0\"; dpkg-deb -x ./*.deb \"$1\"";
    let done = Command::new("sh").args(["-c", script, name]).arg(tools).status();
    let file = tools.join("usr/bin").join(name);
    if done.is_ok_and(|status| status.success()) && file.is_file() {
        return Some(file);
    }
    println!("SKIPPED: {name}: it is not there, and apt-get cannot download it");
    None
}
