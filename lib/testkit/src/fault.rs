//! What went wrong, in a sentence that names its object, with what it came from.

use std::error::Error;
use std::fmt;

/// A failure of a test's surroundings, or of what it expects.
///
/// Its `Debug` form, which is what a test that fails with it prints, is the whole sentence.
#[derive(thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A failure that came from nothing else.
    #[must_use]
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), source: None }
    }

    /// The sentence, and those of all its sources, in one line.
    #[must_use]
    pub fn whole(&self) -> String {
        let mut text = self.what.clone();
        let mut next: Option<&(dyn Error + 'static)> = self.source();
        while let Some(error) = next {
            text = format!("{text}: {error}");
            next = error.source();
        }
        text
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole())
    }
}

/// Says of any error what was being tried.
pub trait OrFault<T> {
    /// The value, or a [`Fault`] that says `what` was tried and keeps the error as its source.
    fn or_fault(self, what: impl fmt::Display) -> Result<T, Fault>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrFault<T> for Result<T, E> {
    fn or_fault(self, what: impl fmt::Display) -> Result<T, Fault> {
        self.map_err(|error| Fault { what: what.to_string(), source: Some(error.into()) })
    }
}

/// Fails the test that cannot go on.
pub trait OrFail<T> {
    /// The value.
    ///
    /// # Panics
    /// If it is a fault, with its whole sentence, at the place of the caller.
    #[track_caller]
    fn or_fail(self) -> T;
}

impl<T> OrFail<T> for Result<T, Fault> {
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    fn or_fail(self) -> T {
        match self {
            Ok(value) => value,
            Err(fault) => panic!("{fault:?}"),
        }
    }
}

/// Shows a failed test what it needs to be understood.
pub trait Beside<T> {
    /// The value, or the same [`Fault`] with what `shown` says below it, such as a daemon's log.
    fn beside<D: fmt::Display>(self, shown: impl FnOnce() -> D) -> Result<T, Fault>;
}

impl<T> Beside<T> for Result<T, Fault> {
    fn beside<D: fmt::Display>(self, shown: impl FnOnce() -> D) -> Result<T, Fault> {
        self.map_err(|fault| Fault::new(format!("{}\n{}", fault.whole(), shown())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_prints_is_the_whole_sentence_and_what_is_shown_beside_it() {
        let none: Result<(), _> = Err(std::io::Error::other("no space"));
        let fault = none.or_fault("cannot write the mail").beside(|| "the log").unwrap_err();
        assert_eq!(format!("{fault:?}"), "cannot write the mail: no space\nthe log");
    }
}
