//! Whose pid namespace does a process live in: this host's, its user's own, or a container's?
//!
//! A user can make a pid namespace without anybody's help (`unshare -Urpf`, bwrap, apptainer), and
//! a storm in it is that user's storm. A container that root has made is another world: its uids
//! are not the host's, and its processes are left alone unless the policy says otherwise.
//!
//! - [`realm`]: which of the three it is.
//! - `owned`: asks the kernel who owns the namespaces (`man 2 ioctl_ns`). Exact, but needs the right
//!   to trace the process, which the daemon under its unit and its sandbox has not.
//! - `evident`: what everybody may read proves it, or it is not proven: then it is a container.
//!
//! For both, *every* pid namespace between the process and the host must be the user's own: what
//! a user makes inside of a container is part of that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use procstorm_processes::proc_dir::ProcDir;
use rustix::fs::fstat;
use rustix::io::Errno;

/// The kernel nests no deeper (`MAX_PID_NS_LEVEL`, and the same for user namespaces).
const DEPTH_MAX: usize = 33;

/// More ancestors than any process has.
const ANCESTORS_MAX: usize = 256;

/// Where a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Realm {
    /// In the pid namespace of this /proc.
    Host,
    /// In one below it that its user has made.
    Own,
    /// In one below it that is another user's, or that cannot be proven to be the user's.
    Container,
}

/// Where the process `pid` of user `uid` lives. Where nothing is said of namespaces (an old
/// kernel, a fixture, a process that has just gone), it is taken for one of the host's: a count
/// that misses some is the worse mistake, and the kill asks its pidfd.
pub(super) fn realm(dir: &ProcDir, pid: i32, uid: u32) -> Realm {
    match dir.nesting(pid) {
        Ok(Some(depth)) if depth > 1 => below(dir, pid, uid),
        Ok(_) | Err(_) => Realm::Host,
    }
}

/// The same of a process that is known to live in a nested pid namespace.
pub(super) fn below(dir: &ProcDir, pid: i32, uid: u32) -> Realm {
    let is_own = match owned(dir, pid, uid) {
        Ok(is_own) => is_own,
        Err(_) => evident(dir, pid, uid),
    };
    if is_own { Realm::Own } else { Realm::Container }
}

/// Whether the user owns every pid namespace from that of `pid` up to the caller's. Fails where
/// the kernel does not say.
fn owned(dir: &ProcDir, pid: i32, uid: u32) -> Result<bool, Errno> {
    let our_pids = identity(&dir.namespace(None, "pid")?)?;
    let our_users = identity(&dir.namespace(None, "user")?)?;
    let mut pids = dir.namespace(Some(pid), "pid")?;
    for _ in 0..DEPTH_MAX {
        if identity(&pids)? == our_pids {
            return Ok(true);
        }
        if !belongs(nsfs::user_namespace(&pids)?, our_users, uid)? {
            return Ok(false);
        }
        pids = nsfs::parent(&pids)?;
    }
    Ok(false)
}

/// Whether a user namespace, or one above it and below ours, was made by that user.
fn belongs(mut users: OwnedFd, ours: (u64, u64), uid: u32) -> Result<bool, Errno> {
    for _ in 0..DEPTH_MAX {
        if identity(&users)? == ours {
            return Ok(false);
        }
        if nsfs::owner(&users)? == uid {
            return Ok(true);
        }
        users = match nsfs::parent(&users) {
            Ok(parent) => parent,
            // It has none, or none that concerns us.
            Err(Errno::PERM) => return Ok(false),
            Err(error) => return Err(error),
        };
    }
    Ok(false)
}

fn identity(namespace: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// One process on the way up from a process to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ancestor {
    pid: i32,
    /// Its pid in each pid namespace, the host's first.
    pids: Vec<i32>,
    /// Its effective uid.
    uid: u32,
    /// The only uid that its user namespace knows, if that is one.
    only_uid: Option<u32>,
}

/// Whether what everybody may read proves that the user made the namespaces.
fn evident(dir: &ProcDir, pid: i32, uid: u32) -> bool {
    ancestry(dir, pid).is_ok_and(|line| line.is_some_and(|line| proves(&line, uid)))
}

/// The process, its parent, and so on up to the first that lives in the host's namespace. `None`
/// where one of them has gone.
fn ancestry(dir: &ProcDir, pid: i32) -> io::Result<Option<Vec<Ancestor>>> {
    let mut line = Vec::new();
    let mut pid = pid;
    while line.len() < ANCESTORS_MAX {
        let Some((uid, stat)) = dir.owned_stat(pid)? else { return Ok(None) };
        let Some(pids) = dir.namespace_pids(pid)? else { return Ok(None) };
        let is_top = pids.len() <= 1;
        line.push(Ancestor { pid, pids, uid, only_uid: dir.only_uid(pid) });
        if is_top {
            return Ok(Some(line));
        }
        pid = stat.parent;
    }
    Ok(None)
}

/// The proof: on the way up each process lives in a user namespace in which there is nobody but the
/// user, as an ordinary user makes it and no container of root's is; the last one below a
/// namespace is its first process, so that none has entered it from outside; and the one
/// outside is the user's, or has left its child to init.
fn proves(line: &[Ancestor], uid: u32) -> bool {
    let Some((top, below)) = line.split_last() else { return false };
    let are_the_users =
        below.iter().all(|one| one.uid == uid && one.only_uid == Some(uid) && one.pids.len() > 1);
    let are_born_there = line.windows(2).all(|pair| match pair {
        [child, parent] => match child.pids.len().checked_sub(parent.pids.len()) {
            Some(0) => true,
            Some(1) => child.pids.last() == Some(&1),
            Some(_) | None => false,
        },
        _ => false,
    });
    let is_outside = top.pids.len() == 1 && (top.uid == uid || top.pid == 1);
    !below.is_empty() && are_the_users && are_born_there && is_outside
}

/// `ioctl(2)` on the files in `/proc/PID/ns`.
#[expect(unsafe_code, reason = "no crate of ours has these calls, man 2 ioctl_ns")]
mod nsfs {
    use std::ffi::c_void;
    use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};

    use rustix::io::Errno;
    use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, ioctl, opcode};

    /// `NSIO` of the kernel's `include/uapi/linux/nsfs.h`.
    const NSIO: u8 = 0xb7;
    const NS_GET_USERNS: Opcode = opcode::none(NSIO, 1);
    const NS_GET_PARENT: Opcode = opcode::none(NSIO, 2);
    const NS_GET_OWNER_UID: Opcode = opcode::none(NSIO, 4);

    /// A call that takes nothing and returns a new descriptor.
    struct NewDescriptor(Opcode);

    // SAFETY: the two calls that are made so take no argument, and change nothing of ours; what
    // they return where they do not fail is a descriptor that nothing else uses.
    unsafe impl Ioctl for NewDescriptor {
        type Output = OwnedFd;

        const IS_MUTATING: bool = false;

        fn opcode(&self) -> Opcode {
            self.0
        }

        fn as_ptr(&mut self) -> *mut c_void {
            std::ptr::null_mut()
        }

        unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
            // SAFETY: as above.
            Ok(unsafe { OwnedFd::from_raw_fd(out) })
        }
    }

    /// The user namespace that owns a namespace.
    pub(super) fn user_namespace(namespace: impl AsFd) -> Result<OwnedFd, Errno> {
        // SAFETY: the call is one of those that `NewDescriptor` is for.
        unsafe { ioctl(namespace, NewDescriptor(NS_GET_USERNS)) }
    }

    /// The namespace above; EPERM where there is none, or none in the caller's sight.
    pub(super) fn parent(namespace: impl AsFd) -> Result<OwnedFd, Errno> {
        // SAFETY: as in `user_namespace`.
        unsafe { ioctl(namespace, NewDescriptor(NS_GET_PARENT)) }
    }

    /// The uid that made a user namespace.
    pub(super) fn owner(users: impl AsFd) -> Result<u32, Errno> {
        // SAFETY: the call writes one uid to where its argument points.
        unsafe { ioctl(users, Getter::<NS_GET_OWNER_UID, u32>::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pids: &[i32], uid: u32, only_uid: Option<u32>) -> Ancestor {
        let pid = pids.first().copied().unwrap_or_default();
        Ancestor { pid, pids: pids.to_vec(), uid, only_uid }
    }

    const ALICE: u32 = 1000;

    /// `unshare -Urpf` of alice's, its child, and that one's.
    fn own() -> Vec<Ancestor> {
        vec![
            of(&[52, 3], ALICE, Some(ALICE)),
            of(&[51, 1], ALICE, Some(ALICE)),
            of(&[50], ALICE, Some(ALICE)),
        ]
    }

    fn but(change: impl FnOnce(&mut Vec<Ancestor>)) -> Vec<Ancestor> {
        let mut line = own();
        change(&mut line);
        line
    }

    #[test]
    fn a_namespace_of_the_users_own_is_proven() {
        assert!(proves(&own(), ALICE));
        let orphan = but(|line| line[2] = of(&[1], 0, None));
        assert!(proves(&orphan, ALICE), "its maker has gone");
        let deeper = but(|line| line.insert(0, of(&[53, 4, 1], ALICE, Some(ALICE))));
        assert!(proves(&deeper, ALICE));
    }

    #[test]
    fn what_is_not_proven_is_a_container() {
        for (why, line) in [
            ("nobody", Vec::new()),
            ("on the host", vec![of(&[50], ALICE, None)]),
            ("all uids of the host", but(|line| line[0].only_uid = None)),
            ("a container's first process", but(|line| line[1].only_uid = None)),
            ("one within root's container", but(|line| line[1].only_uid = Some(0))),
            ("another user's", but(|line| line[1].uid = 1001)),
            ("entered from outside", but(|line| line.remove(1).pids.clear())),
            ("two steps at once", but(|line| line[0].pids = vec![52, 3, 2, 1])),
            ("made by a program of root's", but(|line| line[2] = of(&[50], 0, None))),
            ("nobody outside", but(|line| drop(line.pop()))),
        ] {
            assert!(!proves(&line, ALICE), "{why}: {line:?}");
        }
        assert!(!proves(&own(), 1001));
    }

    #[test]
    fn the_hosts_own_processes_live_on_the_host() {
        let dir = ProcDir::open(std::path::Path::new("/proc")).expect("/proc");
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert_eq!(realm(&dir, own, 0), Realm::Host);
        assert_eq!(owned(&dir, own, 0), Ok(true), "nothing lies between");
    }
}
