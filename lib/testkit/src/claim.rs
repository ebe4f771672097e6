//! Claims on a number, such as a port or a uid, that hold while this process runs.
//!
//! A claim is a socket in the abstract name space: it ends with the process that holds it, however
//! that ends, and leaves no file behind. It is as wide as a network namespace.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// What this process has claimed.
static CLAIMED: Mutex<BTreeMap<String, UnixListener>> = Mutex::new(BTreeMap::new());

/// Claims a number of `range` for this process; `None` if all are claimed. `is_free` looks at a
/// number that no other test has claimed, and may refuse it.
pub(crate) fn claim(kind: &str, range: &Range<u32>, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let count = range.end.saturating_sub(range.start).max(1);
    // A random beginning, so that those who ask at once do not try the same numbers.
    let random = RandomState::new().build_hasher().finish() % u64::from(count);
    let random = u32::try_from(random).unwrap_or_default();
    (0..count)
        .map(|step| range.start + (random + step) % count)
        .find(|&number| is_claimed_now(kind, number, &is_free))
}

fn is_claimed_now(kind: &str, number: u32, is_free: impl Fn(u32) -> bool) -> bool {
    let name = format!("procstorm-tests-{kind}-{number}");
    let socket = SocketAddr::from_abstract_name(&name).and_then(|at| UnixListener::bind_addr(&at));
    let Ok(socket) = socket else { return false };
    let free = is_free(number);
    if free {
        CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).insert(name, socket);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_claimed_once_and_the_end_of_the_range_is_said() {
        let range = 7..10;
        let mut all: Vec<_> = (0..3).map(|_| claim("test", &range, |_| true)).collect();
        all.sort();
        assert_eq!(all, [Some(7), Some(8), Some(9)]);
        assert_eq!(claim("test", &range, |_| true), None);
        assert_eq!(claim("other", &(7..8), |_| true), Some(7), "each kind has its own numbers");
    }

    #[test]
    fn what_is_refused_is_not_kept() {
        assert_eq!(claim("refused", &(1..3), |number| number == 2), Some(2));
        assert_eq!(claim("refused", &(1..3), |_| true), Some(1));
    }
}
