//! A test that cannot run here says so, where it is not overlooked.
//!
//! ```
//! fn only_root_can_do_this() {
//!     procstorm_testkit::needs_root!();
//!     // ...
//! }
//! # only_root_can_do_this();
//! ```

use std::fs::File;
use std::io::Write as _;

/// The name of the function that this stands in, or of the one that is given, as the test harness
/// writes it: without the crate, with the modules. A test's name is so written once.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::skip::name_of(here)
    }};
    ($function:path) => {
        $crate::skip::name_of($function)
    };
}

/// Ends the test that this stands in, and says that it is skipped and why.
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => {{
        $crate::skip::skipped($crate::test_name!(), &format!($($why)+));
        return $crate::skip::Passed::passed();
    }};
}

/// Skips the test that this stands in unless it runs as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::skip::is_root() {
            $crate::skip!("needs root");
        }
    };
}

/// What a test returns when nothing failed.
pub trait Passed {
    /// Nothing failed.
    fn passed() -> Self;
}

impl Passed for () {
    fn passed() {}
}

impl<E> Passed for Result<(), E> {
    fn passed() -> Self {
        Ok(())
    }
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that `test` is skipped, and why: on the real standard error, since the test harness
/// swallows what `eprintln!` says in a test that passes, and in the file that `PROCSTORM_SKIPPED`
/// names, if it does. `tests/totals.sh` prints that file at the end.
///
/// Each is one write(2), the first on a line of its own, so that no other test's output tears it.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}\n");
    // Nothing can be done about a standard error that is closed, or a file that is gone.
    drop(std::io::stderr().write_all(format!("\n{line}").as_bytes()));
    if let Some(path) = std::env::var_os("PROCSTORM_SKIPPED") {
        let file = File::options().append(true).open(path);
        drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }
}

/// For [`test_name!`](crate::test_name): the path of function `F`, or of the one around it where
/// `F` is called `here`.
#[must_use]
pub fn name_of<F>(_: F) -> &'static str {
    let path = std::any::type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_, within_crate)| within_crate);
    // A closure in a function is part of that function.
    let path = path.strip_suffix("::here").unwrap_or(path);
    path.split("::{{closure}}").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_test_knows_the_name_that_the_harness_gives_it() {
        let given = std::thread::current().name().map(str::to_owned);
        assert_eq!(Some(test_name!()), given.as_deref());
        let in_a_closure = || test_name!();
        assert_eq!(Some(in_a_closure()), given.as_deref());
        let function = test_name!(a_test_knows_the_name_that_the_harness_gives_it);
        assert_eq!(Some(function), given.as_deref());
    }
}
