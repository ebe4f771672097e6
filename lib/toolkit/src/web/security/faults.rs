//! What is wrong with a web configuration, all of it at once.

use std::fmt;
use std::io;
use std::path::Path;

use crate::scarcity::is_shortage;

/// What is wrong with a file, each with the key it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<String>,
    /// Whether one of them is that the system was short of something.
    passing: bool,
}

impl Faults {
    /// One that belongs to no key.
    pub(super) fn of_file(problem: impl fmt::Display) -> Self {
        Self { list: vec![problem.to_string()], passing: false }
    }

    /// Whether one of them is that the system was short of something.
    pub(super) fn pass(&self) -> bool {
        self.passing
    }

    pub(super) fn add(&mut self, key: &str, problem: impl fmt::Display) {
        self.list.push(format!("{key}: {problem}"));
    }

    /// A file that cannot be read.
    pub(super) fn add_unreadable(&mut self, key: &str, path: &Path, error: &io::Error) {
        self.add(key, format_args!("{}: {error}", path.display()));
        self.passing |= is_shortage(error);
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever stands in the file: it goes to a log.
        f.write_str(&self.list.join("; ").replace(char::is_control, " "))
    }
}
