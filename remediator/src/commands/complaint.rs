//! How the program says why it ended badly: plainly to a person, as log records to a log.

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};

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

/// The lines of an error, with the cause where it does not name that itself.
fn said(error: &dyn Error) -> Vec<String> {
    let text = error.to_string();
    let cause = error.source().map(ToString::to_string).filter(|cause| !text.contains(cause));
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    text.lines().map(|line| format!("{line}{cause}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a file")]
    struct Bare(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("a:1: {0}\na:2: wrong")]
    struct Whole(#[source] io::Error);

    #[test]
    fn a_cause_is_said_once() {
        let cause = || io::Error::other("no such file");
        assert_eq!(said(&Bare(cause())), ["cannot read a file: no such file"]);
        assert_eq!(said(&Whole(cause())), ["a:1: no such file", "a:2: wrong"]);
    }
}
