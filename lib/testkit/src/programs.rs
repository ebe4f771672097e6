//! Where the programs are: our own beside the one that runs, others where `tests/tools.sh`
//! unpacked them, or on PATH. `PROCSTORM_STACK` names the generation of those that the stack runs
//! on.

use std::env;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, OrFault as _};

/// One of the workspace's own programs. Cargo builds it only if the workspace is built (`make
/// build`), and puts it beside us, or one directory up from a test.
pub fn ours(name: &str) -> Result<PathBuf, Fault> {
    let here = env::current_exe().or_fault("cannot tell where this program is")?;
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Fault::new(format!(
                "{name} is not built beside {}: cargo build --workspace",
                here.display()
            ))
        })
}

/// The programs of which `tests/tools.sh` brings several generations.
const STACK: [&str; 4] = ["prometheus", "promtool", "alertmanager", "amtool"];

/// The generation of them that is asked for, if one is: a release of Debian.
#[must_use]
pub fn generation() -> Option<String> {
    env::var("PROCSTORM_STACK").ok().filter(|name| !matches!(name.as_str(), "" | "path"))
}

/// A program that is not ours.
pub fn other(name: &str) -> Result<PathBuf, Fault> {
    let here = env::current_exe().or_fault("cannot tell where this program is")?;
    if let Some(generation) = generation().filter(|_| STACK.contains(&name)) {
        // No other generation stands in for it.
        return here
            .ancestors()
            .map(|dir| dir.join("tools").join(&generation).join("bin").join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let bring = format!("tests/tools.sh stack {generation}");
                Fault::new(format!("{name} of {generation} is not there: run {bring}"))
            });
    }
    let unpacked = here.ancestors().map(|dir| dir.join("tools/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    unpacked
        .chain(env::split_paths(&path))
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Fault::new(format!("{name} is not there: run tests/tools.sh")))
}

/// A file that `tests/tools.sh` brought that is not a program, by its path below `tools`.
#[must_use]
pub fn unpacked(path: &str) -> Option<PathBuf> {
    let here = env::current_exe().ok()?;
    here.ancestors().map(|dir| dir.join("tools").join(path)).find(|path| path.is_file())
}

/// The project's directory, with the rules and the configuration that are shipped.
#[must_use]
pub fn project() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
