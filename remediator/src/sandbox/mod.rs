//! What the daemon gives up for good once it has started, so that an attacker who takes it over gains
//! little. Three layers, each of which holds whatever becomes of the others:
//!
//! - [`rights`]: capabilities. Keeps the four that the work needs, gains none.
//! - [`files`]: Landlock. Reads /proc, the spool and its own configuration; writes the archive
//!   and the state directory; runs nothing.
//! - [`calls`]: a seccomp filter. No kill(2) by number, no exec, no tracing, mounting or module
//!   loading.
//!
//! A layer that is not whole says why: see [`Layer`]. No layer limits which processes
//! pidfd_send_signal(2) reaches, since that is the daemon's work: Landlock's `Scope::Signal` would
//! forbid every target.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub mod calls;
pub mod files;
pub mod rights;

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
    /// As much as this kernel, which is older than the newest part of the layer, has of it: this
    /// ABI of [`files::ABI_WANTED`], 0 if the kernel has nothing of it.
    Older(u8),
    /// A part is missing that this kernel could enforce; the text says which, and why.
    Faulty(String),
    /// Nothing of it; the text says why.
    Off(String),
    /// Nothing of it, as `--no-sandbox` asked.
    Disabled,
}

impl Layer {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Enforced
    }

    /// Whether it restricts anything.
    #[must_use]
    pub fn restricts(&self) -> bool {
        match self {
            Self::Enforced | Self::Faulty(_) => true,
            Self::Older(abi) => *abi > 0,
            Self::Off(_) | Self::Disabled => false,
        }
    }

    /// What is wrong with it; `None` if it is as whole as this kernel can make it, or as
    /// `--no-sandbox` asked.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Faulty(why) | Self::Off(why) => Some(why),
            Self::Enforced | Self::Older(_) | Self::Disabled => None,
        }
    }

    /// The value of `procstorm_sandbox_enforced`: 1 if all of it holds, a fifth for each ABI that
    /// an older kernel has, 0.1 if a part failed, 0 if nothing holds.
    #[must_use]
    pub fn value(&self) -> f64 {
        match self {
            Self::Enforced => 1.0,
            Self::Older(abi) => f64::from(*abi) / f64::from(files::ABI_WANTED),
            Self::Faulty(_) => 0.1,
            Self::Off(_) | Self::Disabled => 0.0,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => f.write_str("enforced"),
            Self::Older(0) => f.write_str("off: this kernel does not have it (Linux 5.13 has)"),
            Self::Older(abi) => write!(
                f,
                "as far as this kernel has it: ABI {abi} of {} (Linux 6.10)",
                files::ABI_WANTED
            ),
            Self::Faulty(why) => write!(f, "partly: {why}"),
            Self::Off(why) => write!(f, "off: {why}"),
            Self::Disabled => f.write_str("off: disabled by --no-sandbox"),
        }
    }
}

/// What holds, for `/-/ready`, the metric and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The rights of the process.
    pub capabilities: Layer,
    /// The files that may be touched.
    pub landlock: Layer,
    /// The system calls that may be made.
    pub seccomp: Layer,
}

impl Sandbox {
    /// The state of a daemon that was told not to enter one.
    #[must_use]
    pub fn disabled() -> Self {
        let off = || Layer::Disabled;
        Self { capabilities: off(), landlock: off(), seccomp: off() }
    }

    /// The layers by their names, as metric, log and status page show them.
    #[must_use]
    pub fn layers(&self) -> [(&'static str, &Layer); 3] {
        [
            ("capabilities", &self.capabilities),
            ("landlock", &self.landlock),
            ("seccomp", &self.seccomp),
        ]
    }

    /// What is wrong with it, a sentence for each layer.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let faulty = self.layers().into_iter().filter(|(_, layer)| layer.fault().is_some());
        faulty.map(|(name, layer)| format!("sandbox layer {name} is {layer}")).collect()
    }
}

/// Closes what is not needed, for this thread and all that it starts afterwards: call it before
/// the runtime starts its threads. There is no way back. `procfs` is where /proc is mounted.
#[must_use]
pub fn enter(places: &Places, procfs: &Path) -> Sandbox {
    // The filter last: it forbids what the others need.
    let landlock = files::restrict(places);
    // Landlock lets nobody trace a process outside, whatever the capabilities.
    let capabilities = rights::restrict((!landlock.restricts()).then_some(procfs));
    Sandbox { capabilities, landlock, seccomp: calls::restrict() }
}

/// Why the kernel or a filter refused `call`, which sets up a layer. The two are told apart: under
/// systemd a refused call is mostly the unit's doing.
fn refusal(call: &str, error: Option<i32>) -> String {
    match error.map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "a system call filter refuses {call} (EPERM): allow it in SystemCallFilter= of the unit"
        ),
        Some(Errno::NOSYS) => format!(
            "{call} is not available (ENOSYS): the kernel is built without it, or a system call \
             filter hides it"
        ),
        Some(Errno::OPNOTSUPP) => format!(
            "the kernel has {call} but it is not enabled (EOPNOTSUPP): add it to lsm= on the \
             kernel's command line"
        ),
        Some(errno) => format!("{call} failed: {errno}"),
        None => format!("{call} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partly_is_told_from_off_and_the_kernels_age_from_a_fault() {
        let layers = [
            Layer::Enforced,
            Layer::Older(4),
            Layer::Older(1),
            Layer::Faulty(String::new()),
            Layer::Off(String::new()),
        ];
        let values: Vec<f64> = layers.iter().map(Layer::value).collect();
        assert_eq!(values, [1.0, 0.8, 0.2, 0.1, 0.0]);
        let faulty: Vec<bool> = layers.iter().map(|layer| layer.fault().is_some()).collect();
        assert_eq!(faulty, [false, false, false, true, true]);
        assert!(Sandbox::disabled().faults().is_empty());
    }

    #[test]
    fn a_filter_is_not_taken_for_the_kernel() {
        let told = |errno: Errno| refusal("seccomp(2)", Some(errno.raw_os_error()));
        assert!(told(Errno::PERM).contains("SystemCallFilter="), "{}", told(Errno::PERM));
        assert!(told(Errno::NOSYS).contains("the kernel is built without it, or"));
        assert!(told(Errno::OPNOTSUPP).contains("lsm="));
    }
}
