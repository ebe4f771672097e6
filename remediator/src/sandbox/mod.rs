//! What the daemon gives up for good once it has started, so that whoever takes it over gains
//! little.
//!
//! - [`files`]: Landlock. Reads /proc, the spool and its own configuration; writes the archive
//!   and the state directory; runs nothing.
//! - [`calls`]: a seccomp filter. No kill(2) by number, no exec, no tracing, mounting or module
//!   loading.
//!
//! A layer that the kernel does not have is left out, and says so: see [`Layer`]. Neither layer
//! limits whom pidfd_send_signal(2) reaches, since that is the daemon's work: Landlock's
//! `Scope::Signal` would forbid every target.

use std::fmt;
use std::path::PathBuf;

pub mod calls;
pub mod files;

/// The places that the daemon needs; everything else is closed.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Directories (or files) that it reads: the spool, the configuration's and token's
    /// directories, /proc. A directory, not the file, where a file may be replaced by a rename.
    pub read: Vec<PathBuf>,
    /// Directories in which it makes, changes and removes files: archive and state.
    pub write: Vec<PathBuf>,
}

/// How far one layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// All of it.
    Enforced,
    /// The kernel has only a part of it; the text says which.
    Partial(String),
    /// Nothing of it; the text says why.
    Off(String),
}

impl Layer {
    /// Whether anything is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Enforced
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => f.write_str("enforced"),
            Self::Partial(why) => write!(f, "partly enforced: {why}"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}

/// What holds, for `/-/ready`, the metric and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The files that may be touched.
    pub landlock: Layer,
    /// The system calls that may be made.
    pub seccomp: Layer,
}

impl Sandbox {
    /// The state of a daemon that was told not to enter one.
    #[must_use]
    pub fn disabled() -> Self {
        let off = || Layer::Off("disabled by flag".to_owned());
        Self { landlock: off(), seccomp: off() }
    }
}

/// Closes what is not needed, for this thread and all that it starts afterwards: call it before
/// the runtime starts its threads. There is no way back.
#[must_use]
pub fn enter(places: &Places) -> Sandbox {
    // Landlock first: the filter forbids none of its calls, but the order costs nothing and the
    // file layer is the one that names what it could not do.
    Sandbox { landlock: files::restrict(places), seccomp: calls::restrict() }
}
