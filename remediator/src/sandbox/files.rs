//! Landlock (`man 7 landlock`): which files the daemon may touch, whatever its capabilities say.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};

use super::{Layer, Places};

/// The newest rights that we ask for: those of Linux 6.10. An older kernel gives what it has.
const RIGHTS: ABI = ABI::V5;

/// What the C library reads to turn a name into a uid: its databases, the modules that it loads
/// for them, and what those keep. Whole directories, since `useradd` and package upgrades replace
/// files by renaming, and a rule holds on to the file that it was made for.
const NAME_SERVICE: [&str; 8] =
    ["/etc", "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/run", "/var/lib/sss", "/var/yp"];

/// What the C library and the runtime read for themselves.
const RUNTIME: [&str; 3] = ["/usr/share/zoneinfo", "/dev/urandom", "/sys/fs/cgroup"];

/// Closes every file outside `places`, for this thread and those it starts.
#[must_use]
pub fn restrict(places: &Places) -> Layer {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // No running of files, no devices, sockets, pipes or symlinks: a directory of ours holds
    // plain files.
    let write: BitFlags<AccessFs> = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        // SQLite and the archive rename and link within one directory only; `Refer` is needed
        // all the same for linkat(2) from an unnamed file.
        | AccessFs::Refer;
    let system = NAME_SERVICE.into_iter().chain(RUNTIME).map(Path::new);
    let outcome = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))
        .and_then(Ruleset::create)
        .and_then(|set| set.add_rules(path_beneath_rules(system, read)))
        .and_then(|set| set.add_rules(path_beneath_rules(&places.read, read)))
        .and_then(|set| set.add_rules(path_beneath_rules(&places.write, write)))
        .and_then(|set| {
            set.add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))
        })
        .and_then(landlock::RulesetCreated::restrict_self);
    match outcome {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Layer::Enforced,
            RulesetStatus::PartiallyEnforced => Layer::Partial(format!(
                "the kernel has {:?}, not all of {RIGHTS:?}",
                status.landlock
            )),
            RulesetStatus::NotEnforced => {
                Layer::Off(format!("the kernel says {:?}", status.landlock))
            }
        },
        Err(error) => Layer::Off(error.to_string()),
    }
}
