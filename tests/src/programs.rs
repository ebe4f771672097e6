//! Where the programs are: our own beside the one that runs, others where `tests/tools.sh`
//! unpacked them, or on PATH.

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

/// A program that is not ours.
pub fn other(name: &str) -> Result<PathBuf, Fault> {
    let here = env::current_exe().or_fault("cannot tell where this program is")?;
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

/// The project's directory, with the rules and the configuration that are shipped.
#[must_use]
pub fn project() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}
