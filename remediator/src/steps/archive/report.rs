//! What was done with each form of a user's mail file, or would be.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::form::Form;

/// What became of one form. A form whose file does not exist has no report.
#[derive(Debug)]
pub struct FormReport {
    /// Which form.
    pub form: Form,
    /// The mail file.
    pub source: PathBuf,
    /// Its archive, or why there is none.
    pub result: Result<Archived, Failure>,
}

/// An archive that is complete, visible under its name, and on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Whether we held a shared lock on the mail file during the copy.
    pub locked: bool,
    /// Whether the mail file changed during the copy. Unless the method is
    /// [`Method::Reflink`], the archive may then hold parts of two states.
    pub changed: bool,
    /// Whether a change during the copy may not have shown: the file was changed just before, or
    /// its file system shows not every change (see `certainty`). Such an archive is never taken
    /// for a copy of the same, unchanged file later.
    #[serde(default)]
    pub uncertain: bool,
    /// How it was copied.
    pub method: Method,
    /// Whether a fresh dotlock (`SPOOL/U.lock`) said that a mail program was at work.
    pub dotlock: bool,
    /// What could not be kept (and was logged); empty as a rule.
    pub lost: Vec<Attribute>,
    /// From the first look at the mail file to the last fsync.
    pub elapsed: Duration,
}

#[cfg(test)]
impl Archived {
    /// One like any other, for tests.
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.into(),
            bytes: 12,
            locked: true,
            changed: false,
            uncertain: false,
            method: Method::ReadWrite,
            dotlock: false,
            lost: Vec::new(),
            elapsed: Duration::from_micros(1500),
        }
    }
}

/// How an archive came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The file system shares the blocks: one state, at once.
    Reflink,
    /// The kernel copied the data, holes left out.
    CopyFileRange,
    /// We read and wrote the data, holes left out.
    ReadWrite,
    /// The newest archive is of the same, unchanged file; no copy was made.
    Identical,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Reflink, Self::CopyFileRange, Self::ReadWrite, Self::Identical];

    /// A word for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::CopyFileRange => "copy_file_range",
            Self::ReadWrite => "read_write",
            Self::Identical => "identical",
        }
    }
}

/// An attribute of the mail file that its archive should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Permission bits.
    Mode,
    /// The POSIX access control list. Without it, the archive's group bits are cleared: they
    /// would be the list's mask, given to the group.
    Acl,
    /// Access and modification time.
    Times,
    /// Owner and group.
    Owner,
}

impl Attribute {
    /// A word for logs and pages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Acl => "acl",
            Self::Times => "times",
            Self::Owner => "owner",
        }
    }
}

/// What [`archive`](super::Archiver::archive) would do with one form.
#[derive(Debug)]
pub struct FormPlan {
    /// Which form.
    pub form: Form,
    /// The mail file.
    pub source: PathBuf,
    /// What would be done, or why it would be refused.
    pub action: Result<Planned, Failure>,
}

/// A copy that would be made, or be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planned {
    /// A copy to the first of these names that is free.
    Copy {
        /// The first name that would be tried.
        path: PathBuf,
        /// The mail file's length.
        bytes: u64,
    },
    /// None, since this archive is of the same, unchanged file.
    Identical {
        /// The archive.
        path: PathBuf,
    },
}

/// What retention removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The archives removed.
    pub removed: Vec<PathBuf>,
    /// Those that should have been, and why they were not.
    pub failed: Vec<Failure>,
}
