//! Capabilities (`man 7 capabilities`): what the daemon may do to others' processes and files.
//!
//! The systemd unit gives it [`KEPT`] and nothing else. Started as root without the unit it has
//! all of them, and drops the others here.

use std::path::Path;

use procstorm_processes::visibility::obstacle;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use super::Layer;

/// To signal other users' processes; to read their mail files whatever their mode; to give the
/// archive its owner, mode and times.
pub const KEPT: CapabilitySet = CapabilitySet::KILL
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER);

/// Drops all but [`KEPT`], for this thread and those it starts. Where `procfs`, a /proc, hides
/// processes from those who cannot trace them, the capability that shows them stays.
#[must_use]
pub fn restrict(procfs: Option<&Path>) -> Layer {
    match drop_others(procfs) {
        Ok(()) => Layer::Enforced,
        Err(Fault { step, errno }) => {
            let why = format!("cannot {step}: {errno}");
            // Whatever could not be dropped besides, this is the set that counts.
            let few = capabilities(None)
                .is_ok_and(|held| (held.permitted - KEPT - CapabilitySet::SYS_PTRACE).is_empty());
            if few { Layer::Faulty(why) } else { Layer::Off(why) }
        }
    }
}

struct Fault {
    step: &'static str,
    errno: Errno,
}

fn drop_others(procfs: Option<&Path>) -> Result<(), Fault> {
    let or = |step| move |errno| Fault { step, errno };
    set_no_new_privs(true).map_err(or("set no_new_privs"))?;
    let held = capabilities(None).map_err(or("read the capabilities"))?;
    let mut kept = held.permitted & KEPT;
    if procfs.is_some_and(|procfs| tracing_shows_processes(held, procfs)) {
        kept |= CapabilitySet::SYS_PTRACE;
    }
    // What an exec could give is none in any case (no_new_privs). Without the right to shrink the
    // bounding set, which the unit does not give, the kernel refuses: then that is enough.
    for capability in CapabilitySet::all().difference(kept).iter() {
        if capability_is_in_bounding_set(capability) != Ok(true) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(Fault { step: "shrink the bounding set", errno }),
        }
    }
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(Fault { step: "clear the ambient set", errno }),
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    set_capabilities(None, sets).map_err(or("drop the capabilities that are not needed"))
}

/// Whether /proc shows other users' processes only as long as this process may trace them
/// (`hidepid`).
fn tracing_shows_processes(held: CapabilitySets, procfs: &Path) -> bool {
    let ptrace = CapabilitySet::SYS_PTRACE;
    if !held.effective.contains(ptrace) {
        return false;
    }
    // Looks at /proc once without it; what is permitted can be taken up again.
    let without = CapabilitySets { effective: held.effective - ptrace, ..held };
    if set_capabilities(None, without).is_err() {
        return true;
    }
    let hidden = obstacle(procfs).is_some();
    set_capabilities(None, held).is_err() || hidden
}
