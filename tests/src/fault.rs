//! What went wrong, in a sentence that names its object, with what it came from.

use std::error::Error;
use std::fmt;

/// A failure of the stack or of something that it is made with.
#[derive(Debug, thiserror::Error)]
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
