//! What a running program takes of the machine: memory and descriptors.

use std::fmt;
use std::fs;

use procstorm_testkit::fault::{Fault, OrFault as _};

/// What a program takes at one moment, and whether it is still the same program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toll {
    /// Resident memory, in KiB.
    pub memory: u64,
    /// The most that this ever was, in KiB.
    pub peak: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Toll {
    /// What the program `pid` takes now.
    pub fn of(pid: u32) -> Result<Self, Fault> {
        let status = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&status).or_fault(status)?;
        let kib = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        };
        let field = |key| kib(key).ok_or_else(|| Fault::new(format!("no {key} of {pid}")));
        let open = format!("/proc/{pid}/fd");
        let descriptors = fs::read_dir(&open).or_fault(open)?.count();
        Ok(Self { memory: field("VmRSS:")?, peak: field("VmHWM:")?, descriptors })
    }
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, peak, descriptors } = self;
        write!(f, "{memory} KiB resident (peak {peak}), {descriptors} descriptors")
    }
}
