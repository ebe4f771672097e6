//! A /proc that holds exactly what a test says, for a program that takes its place as a parameter.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::fault::{Fault, OrFail as _, OrFault as _};
use crate::skip::is_root;

/// A user's program (`PF_RANDOMIZE`).
const PROGRAM: u32 = 0x0040_0000;

/// The kernel's mark of its own threads (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A directory that looks like /proc. Removed with the value.
///
/// Without root all processes in it are our own: enough for a test that does not look at users.
/// Where something cannot be made, the test fails.
///
/// ```
/// use procstorm_testkit::procfs::Fixture;
///
/// let proc = Fixture::new();
/// proc.process(2, 1000, b"imapd");
/// assert!(proc.path().join("2/stat").exists());
/// ```
#[derive(Debug)]
pub struct Fixture {
    directory: TempDir,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// With pid 1, which always exists.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        // In memory, where there is such a place: a fixture can have many thousand files.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let fixture = Self { directory: directory.or_fault("cannot make a directory").or_fail() };
        fixture.process(1, 0, b"init");
        fixture
    }

    /// The directory to give to `--path.procfs`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A sleeping process.
    #[track_caller]
    pub fn process(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'S', PROGRAM, 1).or_fail();
    }

    /// A sleeping process of root's that `parent` has begun.
    #[track_caller]
    pub fn child(&self, pid: u32, parent: u32, command: &[u8]) {
        self.entry(pid, 0, command, 'S', PROGRAM, parent).or_fail();
    }

    /// A process that is dead and not reaped.
    #[track_caller]
    pub fn zombie(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'Z', PROGRAM, 1).or_fail();
    }

    /// A thread of the kernel, which is not a user's process.
    #[track_caller]
    pub fn kernel_thread(&self, pid: u32, uid: u32, command: &[u8]) {
        self.entry(pid, uid, command, 'I', KERNEL_THREAD, 1).or_fail();
    }

    /// A process that stops a program which scans it until [`Barrier::pass`]: its `stat` is a FIFO.
    #[track_caller]
    #[must_use]
    pub fn barrier(&self, pid: u32) -> Barrier {
        self.process(pid, 0, b"barrier");
        self.make_barrier(pid).or_fail()
    }

    fn make_barrier(&self, pid: u32) -> Result<Barrier, Fault> {
        let path = self.path().join(format!("{pid}/stat"));
        let what = || format!("cannot make the barrier {}", path.display());
        let line = fs::read(&path).or_fault(what())?;
        fs::remove_file(&path).or_fault(what())?;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .or_fault(what())?;
        Ok(Barrier { path, line })
    }

    fn entry(
        &self,
        pid: u32,
        uid: u32,
        command: &[u8],
        state: char,
        flags: u32,
        parent: u32,
    ) -> Result<(), Fault> {
        let directory = self.path().join(pid.to_string());
        let what = || format!("cannot make {}", directory.display());
        fs::create_dir(&directory).or_fault(what())?;
        let status = format!("State:\t{state}\nTgid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        let parent = if pid == 1 { 0 } else { parent };
        let stat = stat_line(pid, parent, command, state, flags);
        let comm = [command, b"\n"].concat();
        for (name, content) in [("stat", stat), ("comm", comm), ("status", status.into())] {
            fs::write(directory.join(name), content).or_fault(what())?;
        }
        if is_root() {
            chown(&directory, Some(uid), Some(uid)).or_fault(what())?;
        }
        Ok(())
    }
}

/// 52 fields, as proc_pid_stat(5) counts them; fields that are not read are 0.
fn stat_line(pid: u32, parent: u32, command: &[u8], state: char, flags: u32) -> Vec<u8> {
    let head = format!("{pid} (");
    let tail = format!(
        ") {state} {parent} {pid} {pid} 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0{}\n",
        " 0".repeat(28)
    );
    [head.as_bytes(), command, tail.as_bytes()].concat()
}

/// What a scan waits for; see [`Fixture::barrier`].
#[derive(Debug)]
pub struct Barrier {
    path: PathBuf,
    line: Vec<u8>,
}

impl Barrier {
    /// Lets the scan that waits, or the next one, go on.
    #[track_caller]
    pub fn pass(&self) {
        let fifo = fs::OpenOptions::new().write(true).open(&self.path);
        let passed = fifo.and_then(|mut fifo| fifo.write_all(&self.line));
        passed.or_fault("cannot let the scan pass").or_fail();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_as_many_fields_as_the_kernels() {
        let proc = Fixture::new();
        proc.process(77, 0, b"a) b");
        let line = fs::read_to_string(proc.path().join("77/stat")).unwrap();
        let ours = fs::read_to_string("/proc/self/stat").unwrap();
        let after = |line: &str| line.rsplit_once(')').unwrap().1.split_whitespace().count();
        assert_eq!(after(&line), after(&ours));
        assert!(line.starts_with("77 (a) b) S 1 77 "), "{line}");
    }
}
