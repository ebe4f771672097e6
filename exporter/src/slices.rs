//! How near each user is to the limit of tasks that systemd sets for the user's slice.
//!
//! It is in `user.slice/user-UID.slice/pids.*` of the control groups of version 2, which anybody may
//! read (the kernel's `Documentation/admin-guide/cgroup-v2.rst`). A task is a process or a thread. In
//! the slice is what the user's logins started (`pam_systemd(8)`), and not what a service runs for
//! the user. A user whose slice is full cannot start a process, which no other alert shows.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::io::Errno;

/// More than a line of these files; what `pids.events` has after its first line is not read.
const FILE_MAX: usize = 128;

/// The slice of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// Whose it is.
    pub uid: u32,
    /// How many tasks are in it.
    pub tasks: u64,
    /// How many there may be, if there is a limit.
    pub max: Option<u64>,
    /// How often a task could not be started because of the limit, or of one below. Only where the
    /// kernel counts that where the limit is (Linux 6.11); before it counts it where the task is, in
    /// a control group that ends with the login.
    pub hits: Option<u64>,
}

impl Slice {
    /// Whether a larger part of its limit is in use than of the other's.
    #[must_use]
    pub fn is_nearer_to_its_limit(&self, other: &Self) -> bool {
        // a / b > c / d, without a fraction.
        match (self.max, other.max) {
            (Some(max), Some(other_max)) => {
                let product = |tasks, max| u128::from(tasks).saturating_mul(u128::from(max));
                product(self.tasks, other_max) > product(other.tasks, max)
            }
            (max, other_max) => max.is_some() && other_max.is_none(),
        }
    }
}

/// The slices of all users who have one, in no order; none where there is no such thing. Fails where
/// they cannot be read: a slice that vanishes meanwhile is none.
pub fn slices(cgroupfs: &Path) -> io::Result<Vec<Slice>> {
    let directory = match cgroupfs.join("user.slice").read_dir() {
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut slices = Vec::new();
    for entry in directory {
        let entry = entry?;
        if let Some(uid) = entry.file_name().to_str().and_then(uid) {
            slices.extend(slice(uid, &entry.path())?);
        }
    }
    Ok(slices)
}

fn slice(uid: u32, directory: &Path) -> io::Result<Option<Slice>> {
    let Some(tasks) = read(&directory.join("pids.current"), number)? else { return Ok(None) };
    let max = read(&directory.join("pids.max"), number)?;
    let hits = match read(&directory.join("pids.events.local"), events)? {
        // The kernel counts where the limit is, and adds up what is below.
        Some(_) => read(&directory.join("pids.events"), events)?,
        None => None,
    };
    Ok(Some(Slice { uid, tasks, max, hits }))
}

/// What `parse` finds in the file; `None` if there is no such file.
fn read<T>(path: &Path, parse: fn(&str) -> Option<T>) -> io::Result<Option<T>> {
    let mut text = [0; FILE_MAX];
    let length = match File::open(path).and_then(|mut file| file.read(&mut text)) {
        Err(error) if is_absence(&error) => return Ok(None),
        length => length?,
    };
    let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
    Ok(text.and_then(parse))
}

/// Whether there is no such file, or no longer: a file of a control group that has been removed gives
/// ENODEV.
fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || Errno::from_io_error(error).is_some_and(|errno| errno == Errno::NODEV)
}

/// The uid in the name of a user's slice. Other slices are below `user.slice`, too.
fn uid(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("user-")?.strip_suffix(".slice")?;
    let uid = digits.parse().ok()?;
    // Not "user-+1.slice" or "user-01.slice", which an administrator could make.
    (digits == format!("{uid}")).then_some(uid)
}

/// A number on a line of its own; "max" is none.
fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

/// The number after "max".
fn events(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("max ")).and_then(number)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_slices_of_users_have_a_uid() {
        assert_eq!(uid("user-0.slice"), Some(0));
        assert_eq!(uid("user-4294967295.slice"), Some(u32::MAX));
        for name in ["user-.slice", "user-01.slice", "user-+1.slice", "user-1.scope", "user.slice"]
        {
            assert_eq!(uid(name), None, "{name}");
        }
        assert_eq!(uid("user-4294967296.slice"), None);
    }

    #[test]
    fn files_of_every_form_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(slices(directory.path()).unwrap(), []);
        let write = |slice: &str, files: &[(&str, &str)]| {
            let directory = directory.path().join("user.slice").join(slice);
            fs::create_dir_all(&directory).unwrap();
            for (file, text) in files {
                fs::write(directory.join(file), text).unwrap();
            }
        };
        write("user-1.slice", &[("pids.current", "7\n"), ("pids.max", "10813\n")]);
        write("user-2.slice", &[("pids.current", "1\n"), ("pids.max", "max\n")]);
        let events = [("pids.events", "max 3\n"), ("pids.events.local", "max 0\n")];
        write(
            "user-3.slice",
            &[events[0], events[1], ("pids.current", "9\n"), ("pids.max", "9\n")],
        );
        // An older kernel: the number is that of the slice alone, in which there is no task.
        write("user-4.slice", &[("pids.events", "max 0\n"), ("pids.current", "9\n")]);
        // The pids controller is off.
        write("user-5.slice", &[("cgroup.procs", "")]);
        write("session.slice", &[("pids.current", "1\n")]);
        let mut found = slices(directory.path()).unwrap();
        found.sort();
        let slice = |uid, tasks, max, hits| Slice { uid, tasks, max, hits };
        let expected = [
            slice(1, 7, Some(10813), None),
            slice(2, 1, None, None),
            slice(3, 9, Some(9), Some(3)),
            slice(4, 9, None, None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_fuller_slice_is_nearer_to_its_limit() {
        let slice = |tasks, max| Slice { uid: 1, tasks, max, hits: None };
        assert!(slice(9, Some(10)).is_nearer_to_its_limit(&slice(80, Some(100))));
        assert!(!slice(80, Some(100)).is_nearer_to_its_limit(&slice(9, Some(10))));
        assert!(slice(1, Some(u64::MAX)).is_nearer_to_its_limit(&slice(1000, None)));
        assert!(!slice(1000, None).is_nearer_to_its_limit(&slice(1, Some(u64::MAX))));
        assert!(!slice(1, None).is_nearer_to_its_limit(&slice(1, None)));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("user.slice"), "").unwrap();
        assert!(slices(directory.path()).is_err());
    }
}
