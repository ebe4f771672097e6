//! A /proc directory, opened once: the pids in it, and what it says of each.
//!
//! A process that has vanished between two reads is ordinary: it is `None`, never an error.
//!
//! This is the hot loop of both programs: a scan looks at each process of the machine, and a kill races
//! with processes that fork. So it stands on rustix and on [`Stat`], which allocate nothing and read the
//! name as bytes; the crate procfs builds paths and strings for each process and takes 52 fields apart.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, RawDirEntry, SeekFrom, fstat, openat, seek, statat, tell,
};
use rustix::io::{Errno, pread};

use crate::pidfd;
use crate::process::{Command, Stat};

/// The longest line of `/proc/PID/stat`: 52 fields of at most 20 digits, and the command.
const STAT_LINE_MAX: usize = 2048;

/// The longest `/proc/PID/comm`: a command and a newline.
const COMM_MAX: usize = 64;

/// The kernel's default for a uid that a user namespace does not map.
const OVERFLOW_UID: u32 = 65534;

/// What one look at a pid tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// A process, dead or alive.
    Process {
        /// Its effective uid.
        uid: u32,
        /// Its name.
        command: Command,
    },
    /// A thread of the kernel.
    KernelThread,
    /// It was gone, or went while it was looked at.
    Vanished,
    /// We have no right to see it.
    Denied,
}

/// A place among the entries of a directory, as the kernel gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// Before the first entry.
    pub const START: Self = Self(0);
}

/// A /proc directory (or a fixture that looks like one), held open.
#[derive(Debug)]
pub struct ProcDir {
    pub(crate) fd: OwnedFd,
    path: PathBuf,
}

impl ProcDir {
    /// Opens the directory at `path`. Fails as `open(2)` does.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(CWD, path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// Opens the same directory once more, for a reading position of its own.
    pub fn reopen(&self) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat(&self.fd, ".", flags, Mode::empty())?, path: self.path.clone() })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many processes there are, more or less: in all of the machine's pid namespaces, and a
    /// few of the directory's other entries with them. As the links of the directory tell, so
    /// without reading it (`proc_root_getattr` in the kernel's `fs/proc/root.c`).
    pub fn processes(&self) -> io::Result<u64> {
        #[allow(clippy::useless_conversion, reason = "it is a u32 on some architectures")]
        Ok(fstat(&self.fd)?.st_nlink.into())
    }

    /// Calls `visit` with every pid, as the directory is read in bites of `buffer`'s size: a
    /// small buffer meets short-lived processes while they live, a large one needs fewer calls.
    /// The first error of `visit` ends the walk. Not for two threads at once on one `ProcDir`,
    /// since a directory has one reading position.
    pub fn pids<E: From<Errno>>(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        mut visit: impl FnMut(&Self, i32) -> Result<(), E>,
    ) -> Result<(), E> {
        self.go_to(Place::START)?;
        let mut pids = Vec::new();
        while self.bite(buffer, &mut pids)? {
            pids.drain(..).try_for_each(|pid| visit(self, pid))?;
        }
        Ok(())
    }

    /// Where [`bite`](Self::bite) goes on.
    pub fn place(&self) -> Result<Place, Errno> {
        tell(&self.fd).map(Place)
    }

    /// Has [`bite`](Self::bite) go on from there.
    pub fn go_to(&mut self, place: Place) -> Result<(), Errno> {
        seek(&self.fd, SeekFrom::Start(place.0)).map(drop)
    }

    /// Adds the next pids of the directory to `pids`, one read of `buffer`'s size of them: it may
    /// be none, where other entries stand. False at the end of the directory.
    pub fn bite(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        pids: &mut Vec<i32>,
    ) -> Result<bool, Errno> {
        let mut entries = RawDir::new(&self.fd, buffer);
        while let Some(entry) = entries.next() {
            pids.extend(pid_of(&entry?));
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The effective uid of a process: the owner of its directory, which stays right for a
    /// process that is not dumpable, whose files inside then show root.
    #[must_use]
    pub fn owner(&self, pid: i32) -> Option<u32> {
        let mut path = [0; PID_PATH_MAX];
        let path = pid_path(pid, c"", &mut path);
        statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_uid)
    }

    /// What counting needs of a process, with as few system calls as there can be and without an
    /// allocation: its uid, and its name from `comm`, or from the costlier `stat` where
    /// `may_be_kernel` says that a process of that uid could be a thread of the kernel. An error
    /// (no descriptor left, say) is none of the process: it must not look as if that had vanished.
    pub fn glance(&self, pid: i32, may_be_kernel: impl FnOnce(u32) -> bool) -> io::Result<Glance> {
        self.try_glance(pid, may_be_kernel).or_else(|error| match error {
            Errno::NOENT | Errno::SRCH => Ok(Glance::Vanished),
            Errno::PERM | Errno::ACCESS => Ok(Glance::Denied),
            _ => Err(error.into()),
        })
    }

    fn try_glance(
        &self,
        pid: i32,
        may_be_kernel: impl FnOnce(u32) -> bool,
    ) -> Result<Glance, Errno> {
        let mut path = [0; PID_PATH_MAX];
        let uid =
            statat(&self.fd, pid_path(pid, c"", &mut path), AtFlags::SYMLINK_NOFOLLOW)?.st_uid;
        if may_be_kernel(uid) {
            let mut line = [0; STAT_LINE_MAX];
            let line = self.read(pid_path(pid, c"/stat", &mut path), &mut line)?;
            let stat = Stat::parse(line).ok_or(Errno::SRCH)?;
            if stat.is_kernel_thread() {
                return Ok(Glance::KernelThread);
            }
            return Ok(Glance::Process { uid, command: stat.command });
        }
        let mut name = [0; COMM_MAX];
        let name = self.read(pid_path(pid, c"/comm", &mut path), &mut name)?;
        // The kernel ends the name with a newline; the name itself may hold others.
        let command = Command::new(name.strip_suffix(b"\n").unwrap_or(name)).ok_or(Errno::SRCH)?;
        Ok(Glance::Process { uid, command })
    }

    /// What one read of the file gives.
    pub(crate) fn read<'b>(&self, path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let file = openat(&self.fd, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let length = rustix::io::read(&file, &mut *buffer)?;
        buffer.get(..length).ok_or(Errno::IO)
    }

    /// The uid that stands for those that are not known here, in a user namespace.
    #[must_use]
    pub fn overflow_uid(&self) -> u32 {
        let mut text = [0; 16];
        self.read(c"sys/kernel/overflowuid", &mut text)
            .ok()
            .and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok())
            .unwrap_or(OVERFLOW_UID)
    }

    /// What `/proc/PID/stat` says of a process. An error is one of rights or of the file system;
    /// a process that is gone is `Ok(None)`.
    pub fn stat(&self, pid: i32) -> io::Result<Option<Stat>> {
        let Some(file) = self.open_stat(pid)? else { return Ok(None) };
        Ok(gone_is_none(file.read())?)
    }

    /// Opens `/proc/PID/stat`, to be read more than once. An error is one of rights, of the file
    /// system, or for lack of descriptors; a process that is gone is `Ok(None)`.
    pub fn open_stat(&self, pid: i32) -> io::Result<Option<StatFile>> {
        let mut path = [0; PID_PATH_MAX];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(&self.fd, pid_path(pid, c"/stat", &mut path), flags, Mode::empty());
        Ok(gone_is_none(opened.map(|fd| Some(StatFile { fd, pid })))?)
    }

    /// The pid of the process that traces this one (a debugger, strace), if any does and it is of
    /// this /proc's pid namespace.
    #[must_use]
    pub fn tracer(&self, pid: i32) -> Option<i32> {
        let mut text = [0; STATUS_MAX];
        let mut path = [0; PID_PATH_MAX];
        let text = self.read(pid_path(pid, c"/status", &mut path), &mut text).ok()?;
        tracer(text)
    }

    /// Whose a process is (its effective uid), and then what its `stat` says.
    pub fn owned_stat(&self, pid: i32) -> io::Result<Option<(u32, Stat)>> {
        let Some(file) = self.open_stat(pid)? else { return Ok(None) };
        file.owned(self)
    }
}

/// `/proc/PID/stat` of one process, held open. It stays that process's, and reads as gone once the
/// process is reaped, even if its pid is reused. Reading it again costs half as much as opening it
/// again.
#[derive(Debug)]
pub struct StatFile {
    fd: OwnedFd,
    pid: i32,
}

impl StatFile {
    /// Whose the process is by now (its effective uid), and what its `stat` says then: all of one
    /// process. `dir` is the directory that it was opened in. The uid is that of the process's
    /// directory: the file's own owner is another where the process is not dumpable (root, or the
    /// user whose namespace it is in). `Ok(None)` where the process is gone.
    pub fn owned(&self, dir: &ProcDir) -> io::Result<Option<(u32, Stat)>> {
        // In this order: as long as the file can be read, the pid is this process's.
        let Some(owner) = dir.owner(self.pid) else { return Ok(None) };
        Ok(gone_is_none(self.read())?.map(|stat| (owner, stat)))
    }

    /// The same of a process that `pidfd` holds, where that was opened first: in less time if the
    /// kernel says whose that process is.
    pub fn owned_and_held(
        &self,
        dir: &ProcDir,
        pidfd: impl AsFd,
    ) -> io::Result<Option<(u32, Stat)>> {
        if pidfd::is_owner_known() {
            let Some(stat) = gone_is_none(self.read())? else { return Ok(None) };
            // In this order: as long as the pidfd's process is not reaped, the pid is that
            // process's, and so is the file. And of a process that was stopped when the file was
            // read, the owner is the one that it keeps.
            if let Some(owner) = pidfd::owner(pidfd) {
                return Ok(Some((owner, stat)));
            }
        }
        self.owned(dir)
    }

    fn read(&self) -> Result<Option<Stat>, Errno> {
        let mut line = [0; STAT_LINE_MAX];
        let length = pread(&self.fd, &mut line, 0)?;
        Ok(line.get(..length).and_then(Stat::parse))
    }
}

/// A process that has vanished is not an error.
fn gone_is_none<T>(seen: Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    match seen {
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        seen => seen,
    }
}

/// The pid whose directory the entry is.
fn pid_of(entry: &RawDirEntry<'_>) -> Option<i32> {
    entry.file_name().to_str().ok()?.parse().ok()
}

/// The longest path made by [`pid_path`]: ten digits, "/status", and the NUL.
const PID_PATH_MAX: usize = 18;

/// More than what stands before and in the line `TracerPid:` of `/proc/PID/status`.
const STATUS_MAX: usize = 512;

/// The pid in the line `TracerPid:` of a `status` file; 0 there is none.
fn tracer(text: &[u8]) -> Option<i32> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// `pid` in digits and the `file` in its directory, without an allocation. Empty, which names no
/// file, where it does not fit.
fn pid_path<'b>(pid: i32, file: &CStr, buffer: &'b mut [u8; PID_PATH_MAX]) -> &'b CStr {
    let file = file.to_bytes_with_nul();
    let mut rest = pid.unsigned_abs();
    let mut start = PID_PATH_MAX.saturating_sub(file.len());
    if let Some(end) = buffer.get_mut(start..) {
        end.copy_from_slice(file);
    }
    for digit in buffer.iter_mut().take(start).rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        start -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    buffer.get(start..).and_then(|path| CStr::from_bytes_with_nul(path).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_kept_open_stays_its_processs() {
        let dir = ProcDir::open(Path::new("/proc")).expect("/proc");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a sleeper");
        let pid = i32::try_from(child.id()).expect("a pid");
        let file = dir.open_stat(pid).expect("readable").expect("it lives");
        let seen = || file.owned(&dir).expect("readable");
        let (uid, stat) = seen().expect("it lives");
        assert_eq!((Some(uid), stat.pid), (dir.owner(pid), pid));
        child.kill().expect("it is ours");
        let is_dead = || seen().is_some_and(|(_, stat)| stat.is_dead());
        while !is_dead() {
            std::thread::yield_now();
        }
        child.wait().expect("it is dead");
        assert_eq!(seen(), None, "it is reaped");
        assert!(dir.open_stat(pid).expect("readable").is_none(), "nor is there another");
    }

    #[test]
    fn a_process_that_is_held_is_seen_as_by_its_directory() {
        let dir = ProcDir::open(Path::new("/proc")).expect("/proc");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a sleeper");
        let pid = i32::try_from(child.id()).expect("a pid");
        let raw = rustix::process::Pid::from_raw(pid).expect("not zero");
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty());
        let pidfd = pidfd.expect("it lives");
        let file = dir.open_stat(pid).expect("readable").expect("it lives");
        let seen = || file.owned_and_held(&dir, &pidfd).expect("readable");
        let (uid, stat) = seen().expect("it lives");
        assert_eq!((Some(uid), stat.pid), (dir.owner(pid), pid));
        child.kill().expect("it is ours");
        while !seen().is_some_and(|(_, stat)| stat.is_dead()) {
            std::thread::yield_now();
        }
        assert_eq!(seen().map(|(uid, _)| Some(uid)), Some(dir.owner(pid)), "it is a zombie");
        child.wait().expect("it is dead");
        assert_eq!(seen(), None, "it is reaped");
        // A pidfd of another process, or of a reaped one, says nothing about this one.
        let own = dir.own_pid().expect("it is this namespace's");
        let file = dir.open_stat(own).expect("readable").expect("this process");
        let seen = file.owned_and_held(&dir, &pidfd).expect("readable");
        assert_eq!(seen.map(|(uid, stat)| (Some(uid), stat.pid)), Some((dir.owner(own), own)));
    }

    #[test]
    fn the_tracer_is_found() {
        assert_eq!(tracer(b"Name:\tx\nTracerPid:\t77\nUid:\t0\n"), Some(77));
        assert_eq!(tracer(b"Name:\tx\nTracerPid:\t0\n"), None);
        assert_eq!(tracer(b"Name:\tx\n"), None);
    }

    #[test]
    fn paths_of_pids_are_written_without_an_allocation() {
        let mut buffer = [0; PID_PATH_MAX];
        assert_eq!(pid_path(0, c"", &mut buffer), c"0");
        assert_eq!(pid_path(1, c"/comm", &mut buffer), c"1/comm");
        assert_eq!(pid_path(i32::MAX, c"/stat", &mut buffer), c"2147483647/stat");
        assert_eq!(pid_path(42, c"", &mut buffer), c"42");
        assert_eq!(pid_path(i32::MAX, c"/status", &mut buffer), c"2147483647/status");
    }
}
