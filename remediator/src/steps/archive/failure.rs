//! Why a mail file was not archived, and why the archive could not be opened.

use std::path::PathBuf;

use rustix::io::Errno;

/// Why a mail file was not archived. The spool is as it was, and nothing of the attempt is
/// visible in the archive.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name is a symbolic link: following it would hand out another's file.
    #[error("{path} is a symbolic link, not followed")]
    Symlink {
        /// The mail file.
        path: PathBuf,
    },
    /// The name is a directory: a maildir is not walked.
    #[error(
        "{path} is a directory; a Maildir needs no archive, as each message is a file of its own"
    )]
    MaildirUnsupported {
        /// The mail file.
        path: PathBuf,
    },
    /// The name is a FIFO, a device or a socket.
    #[error("{path} is a {kind}, not a regular file")]
    NotRegular {
        /// The mail file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Something is mounted on the name: its file system may be the user's own program.
    #[error("{path} is a mount point")]
    MountPoint {
        /// The mail file.
        path: PathBuf,
    },
    /// The file has other names: it may be another's.
    #[error("{path} has {links} hard links instead of one")]
    HardLinked {
        /// The mail file.
        path: PathBuf,
        /// How many.
        links: u64,
    },
    /// The file belongs to another user.
    #[error("{path} belongs to uid {found} instead of {expected}")]
    WrongOwner {
        /// The mail file.
        path: PathBuf,
        /// The file's uid.
        found: u32,
        /// The user's uid.
        expected: u32,
    },
    /// The copy would eat into the reserve.
    #[error(
        "{path}: {needed} bytes needed and {reserve} to be kept free, only {available} available"
    )]
    Reserve {
        /// The archive directory.
        path: PathBuf,
        /// Bytes that the copy takes (or still takes).
        needed: u64,
        /// Bytes that are to stay free.
        reserve: u64,
        /// Bytes free for us.
        available: u64,
    },
    /// The disk (or a quota) filled up in mid-copy.
    #[error("{path}: no space left for the copy")]
    Full {
        /// The archive directory.
        path: PathBuf,
        /// `ENOSPC` or `EDQUOT`.
        source: Errno,
    },
    /// The time allowed was over.
    #[error("{path}: not copied within {allowed_ms} ms")]
    Deadline {
        /// The mail file.
        path: PathBuf,
        /// The time allowed, in milliseconds.
        allowed_ms: u128,
    },
    /// The daemon is stopping.
    #[error("{path}: stopped during the copy")]
    Aborted {
        /// The mail file.
        path: PathBuf,
    },
    /// Another program has a lease on the file, and did not give it up in time.
    #[error("cannot open {path}: another program holds a lease on it")]
    Leased {
        /// The mail file.
        path: PathBuf,
        /// `EWOULDBLOCK`.
        source: Errno,
    },
    /// Every name that was tried is taken.
    #[error("{path} and the {more} names after it are taken")]
    Collisions {
        /// The first name tried.
        path: PathBuf,
        /// How many more were tried.
        more: u64,
    },
    /// The archive directory belongs to another user, and only root could write to it.
    #[error("cannot make a file in {path}: it belongs to uid {owner}, the daemon is uid {uid}")]
    NotOurs {
        /// The archive directory.
        path: PathBuf,
        /// Its uid.
        owner: u32,
        /// The daemon's.
        uid: u32,
        /// `EACCES` or `EPERM`.
        source: Errno,
    },
    /// The archive directory is the daemon's own, and something else forbids to write in it.
    #[error(
        "cannot make a file in {path}: the daemon's sandbox or a security module forbids it; if it \
         was mounted or made after the daemon's start, restart the daemon"
    )]
    Closed {
        /// The archive directory.
        path: PathBuf,
        /// `EACCES`.
        source: Errno,
    },
    /// Rights are missing.
    #[error("cannot {action} {path}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// `EACCES` or `EPERM`.
        source: Errno,
    },
    /// A call failed for another reason.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// Why it failed.
        source: Errno,
    },
}

impl Failure {
    /// A failed call: what was tried on what, sorted by the error's number.
    pub(super) fn of(action: &'static str, path: impl Into<PathBuf>, source: Errno) -> Self {
        let path = path.into();
        match source {
            Errno::NOSPC | Errno::DQUOT => Self::Full { path, source },
            Errno::ACCESS | Errno::PERM => Self::Denied { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether it may be over in a moment: a lease that is being given up, or descriptors or memory
    /// that others need less of.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Leased { .. } => true,
            &Self::Io { source, .. } => {
                [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN].contains(&source)
            }
            Self::Symlink { .. }
            | Self::MaildirUnsupported { .. }
            | Self::NotRegular { .. }
            | Self::MountPoint { .. }
            | Self::HardLinked { .. }
            | Self::WrongOwner { .. }
            | Self::Reserve { .. }
            | Self::Full { .. }
            | Self::Deadline { .. }
            | Self::Aborted { .. }
            | Self::Collisions { .. }
            | Self::NotOurs { .. }
            | Self::Closed { .. }
            | Self::Denied { .. } => false,
        }
    }

    /// A word for metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Symlink { .. } => "symlink",
            Self::MaildirUnsupported { .. } => "maildir_unsupported",
            Self::NotRegular { .. } => "not_regular",
            Self::MountPoint { .. } => "mount_point",
            Self::HardLinked { .. } => "hard_linked",
            Self::WrongOwner { .. } => "wrong_owner",
            Self::Reserve { .. } => "reserve",
            Self::Full { .. } => "full",
            Self::Deadline { .. } => "deadline",
            Self::Aborted { .. } => "aborted",
            Self::Leased { .. } => "leased",
            Self::Collisions { .. } => "collisions",
            Self::NotOurs { .. } | Self::Closed { .. } | Self::Denied { .. } => "denied",
            Self::Io { .. } => "io",
        }
    }
}

/// Why the spool or the archive directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be opened or made.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// Why it failed.
        source: Errno,
    },
    /// The archive belongs to another user, who could replace what is in it.
    #[error("archive directory {path} belongs to uid {owner}, neither root nor the daemon")]
    Owner {
        /// The archive directory.
        path: PathBuf,
        /// Its uid.
        owner: u32,
    },
    /// A user's own program serves what is mounted there, and might never answer.
    #[error("{path} is a mount of uid {uid}, an ordinary user; unmount it")]
    UsersMount {
        /// The directory.
        path: PathBuf,
        /// Whose mount it is.
        uid: u32,
    },
    /// The archive is open to others.
    #[error("archive directory {path} has mode {mode:04o}, 0700 is needed")]
    Mode {
        /// The archive directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Archives in the spool would be mail files of other users.
    #[error("archive directory {path} is the spool itself")]
    Same {
        /// The archive directory.
        path: PathBuf,
    },
}
