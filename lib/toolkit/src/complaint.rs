//! How the program says why it ended badly: plainly to a person, as log records to a log.

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};

use crate::chain::Chain;

/// Says why, a line for each fault, as a configuration can have many. `asked` says that a person
/// has asked for an answer, and that this is it.
pub fn complain(error: &dyn Error, asked: bool) {
    let mut stderr = std::io::stderr().lock();
    let plain = asked || stderr.is_terminal();
    for line in said(error) {
        if plain {
            // Who has closed it does not want to know.
            writeln!(stderr, "{line}").ok();
        } else {
            tracing::error!("{line}");
        }
    }
}

/// The lines of an error, with its causes after the last.
fn said(error: &dyn Error) -> Vec<String> {
    Chain(error).to_string().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a file")]
    struct Bare(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("a:1: missing\na:2: wrong")]
    struct Faults;

    #[test]
    fn each_fault_has_a_line_and_a_cause_is_said_once() {
        let cause = io::Error::other("no such file");
        assert_eq!(said(&Bare(cause)), ["cannot read a file: no such file"]);
        assert_eq!(said(&Faults), ["a:1: missing", "a:2: wrong"]);
    }
}
