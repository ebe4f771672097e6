//! Uids for the processes and files that a test makes: no other test uses them at the same time,
//! and no user of the machine has them.
//!
//! A test that kills all processes of a user, or sets a limit for one, must not meet those of the
//! test beside it, nor of a second run of all tests. So a uid is claimed for as long as this
//! process runs.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{Uid, User};

use crate::claim::claim;

/// Above the users of a machine and those that tests in a world apart name by hand, below those that
/// systemd makes (from 60001 on) and the subordinate
/// ones (from 100000 on).
const UIDS: Range<u32> = 50_000..60_000;

/// A uid that is unused: no account, no process, no other test.
///
/// # Panics
/// If none is left.
#[must_use]
#[expect(clippy::panic, reason = "a test fails by panicking")]
pub fn claim_uid() -> u32 {
    claim("uid", &UIDS, |uid| !is_an_account(uid) && !has_processes(uid))
        .unwrap_or_else(|| panic!("none of the uids {UIDS:?} is free"))
}

/// As many uids as are asked for; see [`claim_uid`].
#[must_use]
pub fn claim_uids<const N: usize>() -> [u32; N] {
    std::array::from_fn(|_| claim_uid())
}

fn is_an_account(uid: u32) -> bool {
    // A name service that does not answer knows none of these.
    User::from_uid(Uid::from_raw(uid)).is_ok_and(|user| user.is_some())
}

/// Whether processes of that uid are left, by a run that was killed, say.
fn has_processes(uid: u32) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_pid = |name: &std::ffi::OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    entries
        .filter(|entry| is_pid(&entry.file_name()))
        .filter_map(|entry| entry.metadata().ok())
        .any(|process| process.uid() == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_uid_is_given_twice() {
        let mut uids = claim_uids::<50>().to_vec();
        uids.sort_unstable();
        uids.dedup();
        assert_eq!(uids.len(), 50);
        assert!(uids.iter().all(|uid| UIDS.contains(uid)));
    }

    #[test]
    fn a_uid_with_a_process_or_an_account_is_not_given() {
        assert!(has_processes(rustix::process::geteuid().as_raw()));
        assert!(is_an_account(0));
    }
}
