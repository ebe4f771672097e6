//! What is never touched, and which processes are a target. Pure, but for [`Untouchables::of`],
//! which asks /proc for the caller's ancestors.

use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Stat;

use super::target::{Bounds, Target};

/// The longest name a user's process can bear: `TASK_COMM_LEN` of the kernel, less the NUL.
pub const COMMAND_MAX: usize = 15;

/// More ancestors than any process has; a bound against a /proc that lies in circles.
const ANCESTORS_MAX: usize = 256;

/// Why a target is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Root's processes are the machine's.
    #[error("uid 0 is never a target")]
    Root,
    /// The number that means no user at all.
    #[error("uid 4294967295 is not a user")]
    NoUser,
    /// The daemon's own uid, real or effective.
    #[error("uid {0} is the daemon's own, and allow_own_uid is not set")]
    OwnUid(u32),
    /// In a user namespace, many users share this number.
    #[error("uid {0} stands for every user that this user namespace does not know")]
    UnknownUid(u32),
    /// An empty command would match processes that have erased their name.
    #[error("the command is empty")]
    EmptyCommand,
    /// No process of a user can bear such a name.
    #[error("the command is {0} bytes long; process names are at most 15 bytes")]
    LongCommand(usize),
}

/// The caller of the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its real uid.
    pub uid: u32,
    /// Its effective uid.
    pub euid: u32,
    /// The uid that stands for all that its user namespace does not know, if there are any.
    pub unknown_uid: Option<u32>,
}

/// Why this caller may not have this target at all, or `None` if it may.
#[must_use]
pub fn refusal(target: &Target, bounds: &Bounds, caller: Caller) -> Option<Refusal> {
    let length = target.command.as_bytes().len();
    match target.uid {
        0 => Some(Refusal::Root),
        u32::MAX => Some(Refusal::NoUser),
        uid if Some(uid) == caller.unknown_uid => Some(Refusal::UnknownUid(uid)),
        uid if !bounds.allow_own_uid && (uid == caller.uid || uid == caller.euid) => {
            Some(Refusal::OwnUid(uid))
        }
        _ if length == 0 => Some(Refusal::EmptyCommand),
        _ if length > COMMAND_MAX => Some(Refusal::LongCommand(length)),
        _ => None,
    }
}

/// The processes that no target can include: pid 1, the caller, its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untouchables(Vec<i32>);

impl Untouchables {
    /// Those of a caller whose pid in this /proc is `own_pid`.
    #[must_use]
    pub fn of(proc_dir: &ProcDir, own_pid: i32) -> Self {
        let mut pids = vec![1, own_pid];
        let mut pid = own_pid;
        while pids.len() < ANCESTORS_MAX
            && let Ok(Some(stat)) = proc_dir.stat(pid)
            && !pids.contains(&stat.parent)
        {
            pid = stat.parent;
            pids.push(pid);
        }
        Self(pids)
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn include(&self, pid: i32) -> bool {
        self.0.contains(&pid)
    }
}

/// What a process is to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// One of the storm, and alive.
    Living,
    /// One of the storm, dead and not reaped.
    Zombie,
    /// It bears the name and the uid, and yet is not to be touched.
    Untouchable,
    /// None of the target.
    Other,
}

/// What the process `stat` of user `owner` is to `target`. Whether it belongs to a nested pid
/// namespace is another question.
pub fn standing(target: &Target, untouchables: &Untouchables, owner: u32, stat: &Stat) -> Standing {
    if owner != target.uid || stat.command != target.command {
        Standing::Other
    } else if untouchables.include(stat.pid) || stat.is_kernel_thread() {
        Standing::Untouchable
    } else if stat.is_dead() {
        Standing::Zombie
    } else {
        Standing::Living
    }
}

#[cfg(test)]
mod tests {
    use procstorm_processes::process::Command;
    use procstorm_testkit::procfs::Fixture;

    use super::*;

    const CALLER: Caller = Caller { uid: 990, euid: 991, unknown_uid: None };

    fn target(uid: u32, command: &[u8]) -> Target {
        Target { uid, command: Command::new(command).expect("short enough") }
    }

    fn stat(pid: i32, command: &[u8], state: u8, threads: i64) -> Stat {
        let command = Command::new(command).expect("short enough");
        Stat { pid, command, state, parent: 1, flags: 0, threads, start_time: 1 }
    }

    #[test]
    fn targets_that_nobody_may_have_are_refused() {
        let bounds = Bounds::default();
        for (uid, command, refused) in [
            (1000, b"imapd".as_slice(), None),
            (1000, b"fifteen-bytes-x", None),
            (0, b"imapd", Some(Refusal::Root)),
            (u32::MAX, b"imapd", Some(Refusal::NoUser)),
            (990, b"imapd", Some(Refusal::OwnUid(990))),
            (991, b"imapd", Some(Refusal::OwnUid(991))),
            (1000, b"", Some(Refusal::EmptyCommand)),
            (1000, b"sixteen-bytes-xx", Some(Refusal::LongCommand(16))),
            (65_534, b"imapd", None),
        ] {
            assert_eq!(refusal(&target(uid, command), &bounds, CALLER), refused, "{uid}");
        }
        let stranger = Caller { unknown_uid: Some(65_534), ..CALLER };
        let nobody = target(65_534, b"imapd");
        assert_eq!(refusal(&nobody, &bounds, stranger), Some(Refusal::UnknownUid(65_534)));
    }

    #[test]
    fn the_own_uid_may_be_allowed_and_root_may_not() {
        let bounds = Bounds { allow_own_uid: true, ..Bounds::default() };
        assert_eq!(refusal(&target(990, b"imapd"), &bounds, CALLER), None);
        let root = Caller { uid: 0, euid: 0, ..CALLER };
        assert_eq!(refusal(&target(0, b"imapd"), &bounds, root), Some(Refusal::Root));
    }

    fn untouchables(proc: &Fixture, own_pid: i32) -> Vec<i32> {
        let kin = Untouchables::of(&ProcDir::open(proc.path()).expect("a directory"), own_pid);
        (0..1000).filter(|&pid| kin.include(pid)).collect()
    }

    #[test]
    fn the_caller_and_all_its_ancestors_are_untouchable() {
        let proc = Fixture::new();
        for (pid, parent) in [(20, 1), (21, 20), (22, 21), (30, 20)] {
            proc.child(pid, parent, b"sh");
        }
        assert_eq!(untouchables(&proc, 22), [1, 20, 21, 22]);
        // Pid 0 is the parent of pid 1, and not a process.
        assert_eq!(untouchables(&proc, 1), [0, 1]);
        assert_eq!(untouchables(&proc, 99), [1, 99], "a caller that this /proc does not show");
    }

    #[test]
    fn a_proc_in_which_ancestors_go_in_circles_or_on_and_on_comes_to_an_end() {
        let proc = Fixture::new();
        proc.child(40, 41, b"sh");
        proc.child(41, 40, b"sh");
        assert_eq!(untouchables(&proc, 40), [1, 40, 41]);
        (100..500).for_each(|pid| proc.child(pid, pid + 1, b"sh"));
        assert_eq!(untouchables(&proc, 100).len(), ANCESTORS_MAX);
    }

    #[test]
    fn a_process_is_judged_by_owner_name_life_and_kin() {
        let (target, kin) = (target(1000, b"imapd"), Untouchables(vec![1, 50]));
        let of = |owner, stat: Stat| standing(&target, &kin, owner, &stat);
        assert_eq!(of(1000, stat(9, b"imapd", b'S', 1)), Standing::Living);
        assert_eq!(of(1000, stat(9, b"imapd", b'Z', 1)), Standing::Zombie);
        assert_eq!(of(1000, stat(9, b"imapd", b'Z', 2)), Standing::Living);
        assert_eq!(of(1001, stat(9, b"imapd", b'S', 1)), Standing::Other);
        assert_eq!(of(1000, stat(9, b"imapd2", b'S', 1)), Standing::Other);
        assert_eq!(of(1000, stat(50, b"imapd", b'S', 1)), Standing::Untouchable);
        assert_eq!(of(1000, stat(1, b"imapd", b'S', 1)), Standing::Untouchable);
        let kernel = Stat { flags: 0x0020_0000, ..stat(9, b"imapd", b'S', 1) };
        assert_eq!(of(1000, kernel), Standing::Untouchable);
    }
}
