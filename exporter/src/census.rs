//! How many processes each user has of each command.
//!
//! [`Census::take`] counts them all, the dead included, as cheaply as /proc allows;
//! [`TaskIterator::census`](crate::bpf::TaskIterator::census) counts the same in the kernel.
//!
//! A user is the effective uid, a command the kernel's name of the process (see
//! [`process`](procstorm_processes::process)): `ps -eo user,comm` shows the same. Threads are not processes.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;

use procstorm_processes::proc_dir::{Glance, ProcDir};
use procstorm_processes::process::Command;

/// How much of the directory is read at once. What a scan costs is the reading of each process,
/// not of the directory, so that a larger one gains nothing.
const DIRECTORY_BITE: usize = 32 * 1024;

/// What a scan counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// The effective uid.
    pub uid: u32,
    /// The kernel's name of the process.
    pub command: Command,
}

/// How many processes there were of each group, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Each group that has a process, and how many; together they are `processes`.
    pub groups: HashMap<Group, u64>,
    /// How many were counted.
    pub processes: u64,
    /// How many were in the directory, but gone when looked at.
    pub vanished: u64,
    /// How many may not be looked at (`hidepid`).
    pub denied: u64,
}

impl Census {
    /// Counts all processes in `proc`: the kernel's own threads only if asked for, zombies always.
    /// Fails if the directory cannot be read, or a process for another reason than that it has
    /// gone or may not be looked at: no count is better than a wrong one.
    pub fn take(proc: &mut ProcDir, kernel_threads: bool) -> io::Result<Self> {
        let mut census = Self::default();
        let mut buffer = [MaybeUninit::uninit(); DIRECTORY_BITE];
        let overflow_uid = proc.overflow_uid();
        proc.pids(&mut buffer, |proc, pid| {
            // Only root owns a thread of the kernel, or the overflow uid where root is not
            // known (a user namespace): for all others the cheaper file says enough.
            let of_kernel = |uid| !kernel_threads && (uid == 0 || uid == overflow_uid);
            census.add(proc.glance(pid, of_kernel)?);
            Ok::<(), io::Error>(())
        })?;
        Ok(census)
    }

    pub(crate) fn add(&mut self, glance: Glance) {
        match glance {
            Glance::Process { uid, command } => self.add_many(Group { uid, command }, 1),
            Glance::KernelThread => {}
            Glance::Vanished => self.vanished += 1,
            Glance::Denied => self.denied += 1,
        }
    }

    pub(crate) fn add_many(&mut self, group: Group, n: u64) {
        *self.groups.entry(group).or_default() += n;
        self.processes += n;
    }
}
