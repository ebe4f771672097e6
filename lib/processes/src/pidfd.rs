//! The owner of the process that a pidfd holds, from the kernel and without /proc: from Linux 6.13 on
//! (`PIDFD_GET_INFO`), in a third of the time that the directory in /proc takes.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// Whether this kernel reports the owner. Asked once, so that an older one is not asked in vain for
/// each process; again while there is no descriptor to ask with.
#[must_use]
pub fn is_owner_known() -> bool {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(&is_known) = IS_KNOWN.get() {
        return is_known;
    }
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return false };
    *IS_KNOWN.get_or_init(|| owner(own).is_some())
}

/// The effective uid of the process that `pidfd` holds, dead or alive: the same that owns its
/// directory in /proc. `None` if it is reaped, and where the kernel does not say.
#[must_use]
pub fn owner(pidfd: impl AsFd) -> Option<u32> {
    let info = info::of(pidfd).ok()?;
    info.has_ids().then_some(info.effective_uid)
}

/// The call `PIDFD_GET_INFO` of the kernel's `fs/pidfs.c`.
#[expect(unsafe_code, reason = "no dependency has this call")]
mod info {
    use std::os::fd::AsFd;

    use rustix::io::Errno;
    use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

    /// `PIDFS_IOCTL_MAGIC`, and the call's number.
    const GET_INFO: Opcode = opcode::read_write::<Info>(0xff, 11);

    /// `PIDFD_INFO_CREDS`: the ids are filled in.
    const IDS: u64 = 1 << 1;

    /// The first form of `struct pidfd_info` (`include/uapi/linux/pidfd.h`), which every later kernel
    /// takes too: the call's number holds its size.
    #[repr(C)]
    #[derive(Debug, Default)]
    pub(super) struct Info {
        /// What is asked for, and then what is there.
        mask: u64,
        cgroup: u64,
        pid: u32,
        process: u32,
        parent: u32,
        real_uid: u32,
        real_gid: u32,
        pub(super) effective_uid: u32,
        effective_gid: u32,
        saved_uid: u32,
        saved_gid: u32,
        file_system_uid: u32,
        file_system_gid: u32,
        exit_code: i32,
    }

    impl Info {
        pub(super) fn has_ids(&self) -> bool {
            self.mask & IDS != 0
        }
    }

    /// What the kernel says of the process. Fails with ESRCH if it is reaped, and with ENOTTY or
    /// EINVAL where the kernel is older.
    pub(super) fn of(pidfd: impl AsFd) -> Result<Info, Errno> {
        let mut info = Info { mask: IDS, ..Info::default() };
        // SAFETY: the call's number and the structure are the kernel's, and no more is written than
        // the size that is part of the number.
        unsafe { ioctl(pidfd, Updater::<GET_INFO, Info>::new(&mut info))? };
        Ok(info)
    }

    const _: () = assert!(size_of::<Info>() == 64, "PIDFD_INFO_SIZE_VER0");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, Signal, pidfd_send_signal};

    use super::*;

    #[test]
    fn the_owner_is_known_until_the_process_is_reaped() {
        if !is_owner_known() {
            println!("SKIPPED the_owner_is_known_until_the_process_is_reaped: needs Linux 6.13");
            return;
        }
        let mut child = Command::new("sleep").arg("60").spawn().expect("a sleeper");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not zero");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
        let own = Some(rustix::process::geteuid().as_raw());
        assert_eq!(owner(&pidfd), own);
        pidfd_send_signal(&pidfd, Signal::KILL).expect("it is ours");
        assert_eq!(owner(&pidfd), own, "it is dead or dying, and not reaped");
        child.wait().expect("it is dead");
        assert_eq!(owner(&pidfd), None, "it is reaped");
    }

    #[test]
    fn of_what_is_not_a_pidfd_no_owner_is_known() {
        let file = std::fs::File::open("/proc/self/stat").expect("this process's own");
        assert_eq!(owner(&file), None);
    }
}
