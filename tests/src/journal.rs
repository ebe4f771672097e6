//! A remediator's journal, through SQLite's own program: also while the daemon writes to it.

use std::path::Path;
use std::process::Command;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

/// The rows of a query, with `|` between the columns. `state` is the directory of the journal.
pub fn read(state: &Path, query: &str) -> Result<Vec<String>, Fault> {
    run(state, &["-readonly"], query)
}

/// Changes the journal.
pub fn change(state: &Path, statements: &str) -> Result<(), Fault> {
    run(state, &[], statements).map(drop)
}

fn run(state: &Path, options: &[&str], statements: &str) -> Result<Vec<String>, Fault> {
    let journal = state.join("journal.sqlite");
    let output = Command::new(programs::other("sqlite3")?)
        .args(options)
        .args(["-cmd", ".timeout 20000"])
        .arg(&journal)
        .arg(statements)
        .output()
        .or_fault("cannot run sqlite3")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::new(format!("{}: {said}", journal.display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
