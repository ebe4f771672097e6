//! How much of the archive's disk stays free: a full disk makes everything worse.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs};

use super::failure::Failure;
use crate::policy::Reserve;

impl Reserve {
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
