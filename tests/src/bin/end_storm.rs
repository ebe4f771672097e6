//! `end_storm UID COMMAND [--under SOMETHING]...`: runs the remediator's kill once, under
//! circumstances that a test cannot make for itself alone, and prints its report as JSON.

use std::ffi::{CString, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use procstorm_processes::process::Command;
use procstorm_remediator::sandbox::{Places, enter};
use procstorm_remediator::steps::kill::{Bounds, Target, end_storm};
use procstorm_testkit::fault::{Fault, OrFault as _};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// What is to end, and under which circumstances.
#[derive(Debug, Parser)]
struct Circumstances {
    uid: u32,
    command: OsString,
    /// Without the right to signal other users' processes.
    #[arg(long)]
    without_cap_kill: bool,
    /// Without the right to see processes that `hidepid` hides.
    #[arg(long)]
    without_cap_sys_ptrace: bool,
    /// With that many descriptors at most.
    #[arg(long)]
    descriptors: Option<u64>,
    /// With a /proc of these mount options, in a mount namespace of its own.
    #[arg(long)]
    proc_options: Option<CString>,
    /// As a member of this group.
    #[arg(long)]
    group: Option<u32>,
    /// With this as its first group. Root's own is the one that `hidepid` spares by default.
    #[arg(long)]
    first_group: Option<u32>,
    /// As an ordinary user.
    #[arg(long)]
    user: Option<u32>,
    /// With the own uid allowed as a target.
    #[arg(long)]
    allow_own_uid: bool,
    /// In the daemon's sandbox.
    #[arg(long)]
    sandboxed: bool,
    /// In that time.
    #[arg(long, default_value_t = 5_000)]
    deadline_ms: u64,
    /// With so long to exit after SIGTERM.
    #[arg(long, default_value_t = 0)]
    grace_ms: u64,
}

fn main() -> ExitCode {
    let circumstances = Circumstances::parse();
    let done = circumstances.arrange().and_then(|()| circumstances.end());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(io::stderr(), "end_storm: {}", fault.whole()));
            ExitCode::FAILURE
        }
    }
}

impl Circumstances {
    fn arrange(&self) -> Result<(), Fault> {
        if let Some(options) = &self.proc_options {
            hide(options)?;
        }
        if let Some(count) = self.descriptors {
            let limit = Rlimit { current: Some(count), maximum: Some(count) };
            setrlimit(Resource::Nofile, limit).or_fault("cannot limit descriptors")?;
        }
        let groups: Vec<Gid> = self.group.into_iter().map(Gid::from_raw).collect();
        if rustix::process::geteuid().is_root() {
            setgroups(&groups).or_fault("cannot change groups")?;
        }
        if let Some(group) = self.first_group.map(Gid::from_raw) {
            setresgid(group, group, group).or_fault("cannot change the first group")?;
        }
        if let Some(user) = self.user.map(Uid::from_raw) {
            setresuid(user, user, user).or_fault("cannot change user")?;
            // As one that its user has started: else 5.10 keeps our own /proc from us.
            set_dumpable_behavior(DumpableBehavior::Dumpable).or_fault("cannot be read")?;
        }
        let mut lost = CapabilitySet::empty();
        lost.set(CapabilitySet::KILL, self.without_cap_kill);
        lost.set(CapabilitySet::SYS_PTRACE, self.without_cap_sys_ptrace);
        give_up(lost)?;
        if self.sandboxed {
            let places = Places { read: vec!["/proc".into()], write: Vec::new() };
            let faults = enter(&places, Path::new("/proc")).faults();
            if !faults.is_empty() {
                return Err(Fault::new(faults.join("; ")));
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Fault> {
        let command = Command::new(self.command.as_bytes())
            .ok_or_else(|| Fault::new("a command too long"))?;
        let target = Target { uid: self.uid, command };
        let bounds = Bounds {
            grace: Duration::from_millis(self.grace_ms),
            deadline: Duration::from_millis(self.deadline_ms),
            allow_own_uid: self.allow_own_uid,
            ..Bounds::default()
        };
        let report = end_storm(Path::new("/proc"), &target, &bounds, &AtomicBool::new(false));
        let text = serde_json::to_string(&report).or_fault("cannot write the report")?;
        writeln!(io::stdout(), "{text}").or_fault("nobody listens")
    }
}

/// Mounts a /proc of its own that hides processes.
fn hide(options: &CString) -> Result<(), Fault> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).or_fault("no mount namespace")?;
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", all).or_fault("cannot make mounts private")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), options.as_c_str())
        .or_fault("cannot mount a /proc")
}

fn give_up(lost: CapabilitySet) -> Result<(), Fault> {
    let mut sets = capabilities(None).or_fault("cannot read capabilities")?;
    sets.effective &= !lost;
    sets.permitted &= !lost;
    sets.inheritable &= !lost;
    set_capabilities(None, sets).or_fault("cannot give up capabilities")
}
