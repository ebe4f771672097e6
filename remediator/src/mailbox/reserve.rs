//! How much of the archive's disk stays free: a full disk helps nobody.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs};
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// What an archive must leave free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reserve {
    /// This share of the file system, in percent.
    Percent(u8),
    /// This many bytes.
    Bytes(u64),
}

impl Reserve {
    /// In bytes, of a file system of `total` bytes.
    #[must_use]
    pub fn bytes_of(self, total: u64) -> u64 {
        match self {
            // Divided first: no file system is so small that the rounding tells.
            Self::Percent(share) => (total / 100).saturating_mul(u64::from(share)),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Fails unless `needed` bytes fit on the file system of `directory` beside the reserve.
    pub(super) fn check(
        self,
        directory: impl AsFd,
        path: &Path,
        needed: u64,
    ) -> Result<(), Failure> {
        let disk = fstatvfs(directory)
            .map_err(|errno| Failure::of("ask for the free space of", path, errno))?;
        let (total, available) = sizes(&disk);
        if total == 0 {
            // It keeps no count (ramfs, some network file systems): it will say when it is full.
            return Ok(());
        }
        let reserve = self.bytes_of(total);
        if needed.saturating_add(reserve) <= available {
            return Ok(());
        }
        Err(Failure::Reserve { path: path.to_owned(), needed, reserve, available })
    }
}

/// Size and free space in bytes. What the file system keeps for root counts as used: it is root's
/// reserve, not ours.
fn sizes(disk: &StatVfs) -> (u64, u64) {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    (bytes(disk.f_blocks), bytes(disk.f_bavail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_bytes() {
        assert_eq!(Reserve::Percent(5).bytes_of(1000), 50);
        assert_eq!(Reserve::Percent(100).bytes_of(u64::MAX) / 100, u64::MAX / 100);
        assert_eq!(Reserve::Bytes(7).bytes_of(1000), 7);
    }
}
