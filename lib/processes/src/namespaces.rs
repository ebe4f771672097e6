//! What /proc says of the namespaces that the caller and other processes are in.
//!
//! The lines `NSpid:` and `TracerPid:` are read by hand, and not by the crate procfs: its `Status` is an
//! error as a whole where a process's name is not UTF-8 (which the process chooses) and where any of the
//! kernel's fifty lines is missing; and it has nothing for `fdinfo`, where the line of a pidfd has the
//! same form. Nor has it a parser of `uid_map`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use procfs::process::Process;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat, readlinkat};
use rustix::io::{DupFlags, Errno, dup3, pread};

use crate::proc_dir::ProcDir;

/// More than what stands before `NSpid:` in `/proc/PID/status`; of it only the supplementary
/// groups (up to 65,536) have no small bound: where they leave no room, nothing is said.
const STATUS_MAX: usize = 16 * 1024;

/// The longest `/proc/self/fdinfo/FD` of a pidfd: five short lines, and 32 nested pids at most.
const FDINFO_MAX: usize = 1024;

/// One line of three numbers; of a longer `/proc/self/uid_map` the beginning is enough.
const UID_MAP_MAX: usize = 128;

impl ProcDir {
    /// The pid that this /proc gives to the caller. `None` where it is the /proc of a pid
    /// namespace that the caller is not in, or no /proc at all.
    #[must_use]
    pub fn own_pid(&self) -> Option<i32> {
        let link = readlinkat(&self.fd, "self", Vec::new()).ok()?;
        link.to_str().ok()?.parse().ok()
    }

    /// Whether this is a proc file system that shows the caller's own pid namespace, with the uids
    /// that the kernel itself uses. Then whatever else the kernel says of its processes has the same
    /// pids and uids.
    #[must_use]
    pub fn shows_own_namespaces(&self) -> bool {
        let is_proc = fstatfs(&self.fd).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC);
        let own = self.own_pid().and_then(|pid| self.nesting(pid).ok().flatten());
        is_proc && own == Some(1) && self.unknown_uid().is_none()
    }

    /// How many descriptors the caller has open, a few that counting takes among them.
    pub fn own_descriptors(&self) -> io::Result<u64> {
        let count = Process::new_with_root(self.path().join("self")).and_then(|own| own.fd_count());
        Ok(u64::try_from(count.map_err(io::Error::other)?).unwrap_or(u64::MAX))
    }

    /// The uid by which the kernel shows every user that the caller's user namespace does not
    /// know, or `None` where it knows all.
    #[must_use]
    pub fn unknown_uid(&self) -> Option<u32> {
        let mut map = [0; UID_MAP_MAX];
        let whole = |map: &[u8]| {
            let fields = map.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
            fields.eq([b"0".as_slice(), b"0", b"4294967295"])
        };
        let known = self.read(c"self/uid_map", &mut map).is_ok_and(whole);
        (!known).then(|| self.overflow_uid())
    }

    /// In how many pid namespaces a process has a pid, counted from the one of this /proc: 1 for
    /// a process of our own, more for one of a container. `None` where it is not said: the
    /// process is gone, the kernel is older than 4.1, or the /proc is a fixture.
    pub fn nesting(&self, pid: i32) -> io::Result<Option<usize>> {
        self.in_status(pid, nesting)
    }

    /// The pids of a process in each of the pid namespaces that it has one in: first that in the
    /// one of this /proc, last that in its own. `None` where it is not said, as by
    /// [`nesting`](Self::nesting).
    pub fn namespace_pids(&self, pid: i32) -> io::Result<Option<Vec<i32>>> {
        self.in_status(pid, namespace_pids)
    }

    /// What `find` finds in the `status` file of a process. `None` if the process is gone.
    fn in_status<T>(
        &self,
        pid: i32,
        find: impl FnOnce(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut text = [0; STATUS_MAX];
        match self.read(&CString::new(format!("{pid}/status"))?, &mut text) {
            Ok(text) => Ok(find(text)),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The uid, as this process's own user namespace calls it, of the only user that the user
    /// namespace of `pid` knows. `None` where it knows several, or none, or the process is gone.
    /// Anybody may ask that of any process that can be seen.
    #[must_use]
    pub fn only_uid(&self, pid: i32) -> Option<u32> {
        let mut map = [0; UID_MAP_MAX];
        let path = CString::new(format!("{pid}/uid_map")).ok()?;
        only_uid(self.read(&path, &mut map).ok()?)
    }

    /// A namespace that a process is in, `kind` being a file's name in `/proc/PID/ns`; the
    /// caller's own without a pid. Needs the right to trace the process: to the daemon it is
    /// mostly EACCES.
    pub fn namespace(&self, pid: Option<i32>, kind: &str) -> Result<OwnedFd, Errno> {
        let whose = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        openat(&self.fd, format!("{whose}/ns/{kind}"), flags, Mode::empty())
    }

    /// A view of the processes that the caller's own pidfds hold.
    pub fn pidfd_view(&self) -> io::Result<PidfdView> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // Any descriptor will do, until there is a pidfd to be seen.
        let slot = self.fd.try_clone()?;
        let path = format!("self/fdinfo/{}", slot.as_raw_fd());
        let fdinfo = openat(&self.fd, path, flags, Mode::empty())?;
        Ok(PidfdView { slot, fdinfo })
    }
}

/// What `/proc/self/fdinfo` says of pidfds. One file of it is held open, and each pidfd is put
/// where that one looks: to open a file for each takes three times as long.
#[derive(Debug)]
pub struct PidfdView {
    /// The descriptor that `fdinfo` tells of.
    slot: OwnedFd,
    fdinfo: OwnedFd,
}

impl PidfdView {
    /// In how many pid namespaces the process has a pid that `pidfd` holds, counted as by
    /// [`ProcDir::nesting`]: that process and no other, even if its pid has been reused. `None`
    /// for one that is reaped.
    pub fn nesting(&mut self, pidfd: impl AsFd) -> io::Result<Option<usize>> {
        let mut text = [0; FDINFO_MAX];
        dup3(pidfd, &mut self.slot, DupFlags::CLOEXEC)?;
        let length = pread(&self.fdinfo, &mut text, 0)?;
        Ok(text.get(..length).and_then(nesting))
    }
}

/// The number of pids in the `NSpid:` line of a `status` or `fdinfo` file.
fn nesting(text: &[u8]) -> Option<usize> {
    let pids = namespace_pid_fields(text)?;
    // A pid of 0 or -1 is that of a process which is reaped or outside this /proc's namespace.
    let seen = pids.clone().all(|pid| pid != b"0" && pid != b"-1");
    seen.then(|| pids.count())
}

/// The pids themselves.
fn namespace_pids(text: &[u8]) -> Option<Vec<i32>> {
    let pid = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok().filter(|pid| *pid > 0);
    namespace_pid_fields(text)?.map(pid).collect()
}

/// The fields of the `NSpid:` line.
fn namespace_pid_fields(text: &[u8]) -> Option<impl Iterator<Item = &[u8]> + Clone> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    Some(line.split(u8::is_ascii_whitespace).filter(|pid| !pid.is_empty()))
}

/// The uid outside of the only line of a `uid_map`, if that maps one uid.
fn only_uid(map: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(map).ok()?;
    let mut fields = text.split_whitespace();
    let (_inside, outside, count) = (fields.next()?, fields.next()?, fields.next()?);
    (count == "1" && fields.next().is_none()).then(|| outside.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;
    use procfs::process::Status;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_namespace_of_one_user_is_told_from_others() {
        assert_eq!(only_uid(b"         0       1000          1\n"), Some(1000));
        assert_eq!(only_uid(b"         0          0 4294967295\n"), None, "our own");
        assert_eq!(only_uid(b"0 1000 1\n1 100000 65536\n"), None, "several");
        assert_eq!(only_uid(b"0 100000 65536\n"), None, "a container's");
        assert_eq!(only_uid(b""), None, "none yet");
    }

    #[test]
    fn the_pids_in_each_namespace_are_told() {
        assert_eq!(namespace_pids(b"Name:\tx\nNSpid:\t12\t3\t1\n"), Some(vec![12, 3, 1]));
        assert_eq!(namespace_pids(b"NSpid:\t0\n"), None, "outside");
        assert_eq!(namespace_pids(b"Name:\tx\n"), None);
    }

    #[test]
    fn the_depth_of_pid_namespaces_is_the_number_of_pids() {
        assert_eq!(nesting(b"Name:\tx\nNSpid:\t12\nNSpgid:\t12 1\n"), Some(1));
        assert_eq!(nesting(b"Pid:\t12\nNSpid:\t12\t3\t1\n"), Some(3));
        assert_eq!(nesting(b"Pid:\t-1\nNSpid:\t-1\n"), None, "reaped");
        assert_eq!(nesting(b"Pid:\t0\nNSpid:\t0\n"), None, "outside");
        assert_eq!(nesting(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_name_that_is_not_utf_8_hides_no_pids() {
        let status = std::fs::read("/proc/self/status").expect("this process's own");
        let (_, rest) = status.split_at(status.iter().position(|&b| b == b'\n').expect("a line"));
        let status = [b"Name:\t\xff".as_slice(), rest].concat();
        assert!(Status::from_buf_read(rest).is_err(), "procfs can do without a line");
        assert!(Status::from_buf_read(&*status).is_err(), "procfs itself could be used");
        assert!(nesting(&status).is_some());
    }

    #[test]
    fn a_directory_that_is_no_proc_shows_no_namespaces() {
        let open = |path| ProcDir::open(std::path::Path::new(path)).expect("a directory");
        assert!(!open("/sys").shows_own_namespaces());
        assert!(!open("/proc/sys").shows_own_namespaces());
    }

    #[test]
    fn the_descriptors_of_this_process_are_counted() {
        let proc = ProcDir::open(std::path::Path::new("/proc")).expect("a /proc");
        let before = proc.own_descriptors().expect("counted");
        let held: Vec<_> = (0..100).map(|_| proc.reopen().expect("opened")).collect();
        // Other tests of this program open and close a few meanwhile.
        assert!((before + 50..before + 200).contains(&proc.own_descriptors().expect("counted")));
        drop(held);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let line = [b"NSpid:".as_slice(), &bytes].concat();
            for text in [&bytes, &line] {
                prop_assert!(namespace_pids(text).is_none() || nesting(text).is_some());
                let known = only_uid(text);
                prop_assert!(known.is_none() || text.contains(&b'1'));
            }
        }
    }
}
