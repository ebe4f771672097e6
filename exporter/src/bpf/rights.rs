//! The capabilities that counting in the kernel needs.
//!
//! To load the program, CAP_BPF and CAP_PERFMON (capabilities(7)). To open its iterator for a scan,
//! nothing, or CAP_BPF before Linux 6.0, where each call of bpf(2) needs it.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::TaskIterator;

/// What may be given up once the program is loaded. CAP_SYS_ADMIN includes the two others.
const LOADING: CapabilitySet =
    CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::SYS_ADMIN);

/// Whether this thread may load the program.
#[must_use]
pub fn suffice() -> bool {
    let both = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
    capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(both) || sets.effective.contains(CapabilitySet::SYS_ADMIN)
    })
}

/// Gives up what counting by `iterator` does not need. Only of this thread and of those that it
/// starts afterwards.
pub fn give_up(iterator: Option<&TaskIterator>) -> Result<(), Errno> {
    let mut lost = LOADING;
    if iterator.is_some_and(|iterator| !works_without(iterator)) {
        lost.remove(CapabilitySet::BPF);
    }
    lose(lost)
}

/// Whether the iterator can be opened without any of these rights, as a thread of its own finds out.
fn works_without(iterator: &TaskIterator) -> bool {
    let attempt = || lose(LOADING).is_ok() && iterator.opens();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rights".to_owned());
        thread.spawn_scoped(scope, attempt).is_ok_and(|thread| thread.join().unwrap_or(false))
    })
}

fn lose(lost: CapabilitySet) -> Result<(), Errno> {
    let mut sets = capabilities(None)?;
    // Where there is nothing to lose, the unit's sandbox refuses the call.
    if !(sets.permitted | sets.inheritable).intersects(lost) {
        return Ok(());
    }
    sets.effective.remove(lost);
    sets.permitted.remove(lost);
    sets.inheritable.remove(lost);
    set_capabilities(None, sets)
}
