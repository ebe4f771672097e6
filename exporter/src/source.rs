//! Where a scan's counts come from: the kernel itself, or /proc.
//!
//! Both give the same counts. Which of them it is, [`Source::open`] decides once, at the start; where
//! the kernel fails later, that scan reads /proc.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::visibility::{Blindness, look};
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::logging::UnknownWord;

use crate::bpf::helper::{HelperError, fetch};
use crate::bpf::{TaskIterator, rights};
use crate::census::Census;

/// It stays this program even where an upgrade has replaced the file.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is asked for: `--collector.source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The kernel where it can, else /proc.
    #[default]
    Auto,
    /// The kernel, or the program does not start.
    Bpf,
    /// /proc.
    Procfs,
}

impl FromStr for Choice {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "auto" => Ok(Self::Auto),
            "bpf" => Ok(Self::Bpf),
            "procfs" => Ok(Self::Procfs),
            _ => Err(UnknownWord::new(word, "auto, bpf, procfs")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Bpf => "bpf",
            Self::Procfs => "procfs",
        })
    }
}

/// Where the counts of one scan came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, by BPF.
    Bpf,
    /// /proc.
    #[default]
    Procfs,
}

impl Origin {
    /// As the label `source` has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Procfs => "procfs",
        }
    }
}

/// Why the kernel cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// One scan costs less than the loading of the program.
    #[error("with --once, one scan of /proc costs less")]
    Once,
    /// It would count other processes than are asked for.
    #[error("{procfs} does not show the pid namespace of the exporter with all user ids")]
    OtherProcfs {
        /// What `--path.procfs` names.
        procfs: String,
    },
    /// The program has no right to.
    #[error("CAP_BPF and CAP_PERFMON are missing")]
    NoRights,
    /// The BPF program is not there.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// The iterator does not do what it should.
    #[error("the BPF program does not count")]
    Scan(#[source] io::Error),
}

/// `--collector.source=bpf` cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--collector.source=bpf: cannot count in the kernel")]
pub struct Unavailable(#[from] Obstacle);

/// What one scan counted.
#[derive(Debug)]
pub struct Taken {
    /// The counts.
    pub census: Census,
    /// What hides processes from the scan, but for those that are counted as denied.
    pub hidden: Option<Blindness>,
    /// Where the counts are from.
    pub origin: Origin,
}

/// Takes a census: by default from /proc.
#[derive(Debug, Default)]
pub struct Source {
    iterator: Option<TaskIterator>,
    /// Whether the last scan by it failed.
    fails: bool,
}

impl Source {
    /// Loads the BPF program if that is chosen and possible, says in the log what became of it, and
    /// gives up the rights to load it: of this thread, so call it before others are started. `once`
    /// says that there will be one scan. Fails if the kernel cannot be asked though it is chosen.
    pub fn open(choice: Choice, procfs: &Path, once: bool) -> Result<Self, Unavailable> {
        let iterator = match choice {
            Choice::Procfs => None,
            Choice::Auto if once => Some(Err(Obstacle::Once)),
            Choice::Auto | Choice::Bpf => Some(iterator(procfs)),
        };
        let iterator = iterator.transpose();
        if let Err(error) = rights::give_up(iterator.as_ref().ok().and_then(Option::as_ref)) {
            tracing::warn!(%error, "cannot give up the rights to load BPF programs; keeping them");
        }
        match iterator {
            Ok(iterator) => {
                let source = if iterator.is_some() { "bpf" } else { "procfs" };
                tracing::info!(source, "counting processes");
                Ok(Self { iterator, fails: false })
            }
            Err(reason) if choice == Choice::Auto => {
                tracing::info!(source = "procfs", reason = %Chain(&reason), "counting processes");
                Ok(Self::default())
            }
            Err(reason) => Err(reason.into()),
        }
    }

    /// Whether the kernel is asked, which hides no process from anybody.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.iterator.is_some()
    }

    /// Counts all processes: also the kernel's threads if asked for. Fails where /proc cannot be read.
    pub fn take(&mut self, procfs: &Path, kernel_threads: bool) -> io::Result<Taken> {
        if let Some(census) = self.ask_kernel(procfs, kernel_threads) {
            return Ok(Taken { census, hidden: None, origin: Origin::Bpf });
        }
        let mut proc = ProcDir::open(procfs)?;
        let census = Census::take(&mut proc, kernel_threads)?;
        let hidden = look(&proc)?;
        Ok(Taken { census, hidden, origin: Origin::Procfs })
    }

    /// What the kernel counts; `None` if it is not asked, or fails. Each scan asks again.
    fn ask_kernel(&mut self, procfs: &Path, kernel_threads: bool) -> Option<Census> {
        let iterator = self.iterator.as_ref()?;
        let census = match kernel_threads {
            true => ProcDir::open(procfs).and_then(|proc| iterator.census(Some(&proc))),
            false => iterator.census(None),
        };
        match (&census, self.fails) {
            (Err(error), false) => {
                tracing::error!(%error, "cannot count in the kernel; reading /proc instead");
            }
            (Ok(_), true) => tracing::info!("counting in the kernel again"),
            _ => {}
        }
        self.fails = census.is_err();
        census.ok()
    }
}

impl From<TaskIterator> for Source {
    /// The kernel, asked by this iterator.
    fn from(iterator: TaskIterator) -> Self {
        Self { iterator: Some(iterator), fails: false }
    }
}

fn iterator(procfs: &Path) -> Result<TaskIterator, Obstacle> {
    if !rights::suffice() {
        return Err(Obstacle::NoRights);
    }
    let is_own = ProcDir::open(procfs).is_ok_and(|proc| proc.shows_own_namespaces());
    if !is_own {
        return Err(Obstacle::OtherProcfs { procfs: procfs.display().to_string() });
    }
    let iterator = fetch(Path::new(THIS_PROGRAM))?;
    iterator.census(None).map_err(Obstacle::Scan)?;
    Ok(iterator)
}
