//! Errors with their causes, as one line.
//!
//! An error's `Display` says what failed and names its object; it never prints its source, which is
//! what [`source`](Error::source) is for. Where an error leaves the program (a log record, an HTTP
//! answer, stderr), [`Chain`] prints it with all its sources.
//!
//! ```
//! use procstorm_toolkit::chain::Chain;
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("cannot read web.yml")]
//! struct ReadError(#[source] std::io::Error);
//!
//! let error = ReadError(std::io::Error::other("permission denied"));
//! assert_eq!(error.to_string(), "cannot read web.yml");
//! assert_eq!(Chain(&error).to_string(), "cannot read web.yml: permission denied");
//! ```

use std::error::Error;
use std::fmt;

/// Displays an error and its sources, each after a colon.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let cause = error.to_string();
            // Some errors of other crates do print their source.
            if !said.ends_with(&cause) {
                write!(f, ": {cause}")?;
                said = cause;
            }
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn link(text: &'static str, source: Option<Box<Link>>) -> Link {
        Link { text, source }
    }

    #[test]
    fn all_sources_are_printed_in_order() {
        let inner = link("inner", None);
        let middle = link("middle", Some(Box::new(inner)));
        let outer = link("outer", Some(Box::new(middle)));
        assert_eq!(Chain(&outer).to_string(), "outer: middle: inner");
        assert_eq!(Chain(&link("alone", None)).to_string(), "alone");
    }

    #[test]
    fn a_source_that_the_error_itself_prints_is_not_printed_twice() {
        let inner = link("no such file", None);
        let outer = link("cannot read f: no such file", Some(Box::new(inner)));
        assert_eq!(Chain(&outer).to_string(), "cannot read f: no such file");
        let wrapped = io::Error::other(link("outer", Some(Box::new(link("inner", None)))));
        assert_eq!(Chain(&wrapped).to_string(), "outer: inner");
    }
}
