//! Copies the content of a mail file: shared blocks if the file system can, else the data without
//! the holes, in the kernel if it can, else by reading and writing.
//!
//! Bounded by the length at the start, so that a mailbox which grows as fast as we copy ends; in
//! chunks, between which the deadline, the order to stop and the disk's reserve are asked.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, SeekFrom, copy_file_range, fadvise, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::failure::Failure;
use super::pace::Pace;
use super::report::Method;
use super::spool::{Mailbox, metadata};
use super::vault::Vault;
use crate::policy::Reserve;

/// What is copied between two looks at the clock: some 10 ms of a disk's work.
const CHUNK: u64 = 8 << 20;
/// The buffer of the last resort.
const BUFFER: usize = 256 << 10;

/// A copy to be made.
#[derive(Debug)]
pub(super) struct Copy<'a> {
    pub(super) source: &'a Mailbox,
    pub(super) target: &'a File,
    pub(super) vault: &'a Vault,
    pub(super) reserve: Reserve,
}

/// A copy that was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) method: Method,
}

/// How one chunk fared.
enum Step {
    Copied(u64),
    /// The source ends here.
    End,
    /// This method does not work for these files.
    Unable,
}

impl Copy<'_> {
    /// Shares the source's blocks: at once, and of one single state. `Ok(None)` if that cannot be
    /// done between these files.
    pub(super) fn reflink(&self) -> Result<Option<Copied>, Failure> {
        self.reserve.check(self.vault, self.vault.path(), 0)?;
        if ioctl_ficlone(self.target, &self.source.file).is_err() {
            return Ok(None);
        }
        let bytes = metadata(self.target, self.vault.path())?.len();
        Ok(Some(Copied { bytes, method: Method::Reflink }))
    }

    /// Copies the first `size` bytes, which take `allocated` bytes on their disk; fewer if the
    /// source shrinks meanwhile.
    pub(super) fn transfer(
        &self,
        size: u64,
        allocated: u64,
        pace: &mut Pace<'_>,
    ) -> Result<Copied, Failure> {
        self.reserve.check(self.vault, self.vault.path(), allocated.min(size))?;
        // The length first: a file system that allocates ahead of a growing file (XFS) would fill
        // the beginning of each hole.
        self.target.set_len(size).map_err(|error| self.write_failed(&error))?;
        let mut method = Method::CopyFileRange;
        let mut buffer = Vec::new();
        let mut offset = 0;
        let mut copied_to = 0;
        let whole = loop {
            let length = metadata(&self.source.file, &self.source.path)?.len();
            let Some((start, end)) = self.next_data(offset, size)? else { break length };
            offset = start;
            while offset < end {
                let chunk = CHUNK.min(end - offset);
                pace.check(&self.source.path)?;
                self.reserve.check(self.vault, self.vault.path(), chunk)?;
                let step = if method == Method::CopyFileRange {
                    self.step_in_kernel(offset, chunk)?
                } else {
                    self.step_by_hand(offset, chunk, &mut buffer)?
                };
                match step {
                    Step::Copied(bytes) => offset += bytes,
                    Step::Unable => method = Method::ReadWrite,
                    Step::End => break,
                }
                copied_to = offset;
                pace.progress(&self.source.path, offset, size);
            }
            if offset < end {
                break 0;
            }
        };
        // Behind the last data there may be a hole, as far as the source still goes: never one
        // where it was cut off, which would leave NULs that it never had.
        let bytes = self.clip(copied_to, whole.min(size))?;
        Ok(Copied { bytes, method })
    }

    fn clip(&self, copied_to: u64, whole: u64) -> Result<u64, Failure> {
        let length = metadata(&self.source.file, &self.source.path)?.len();
        let copied = copied_to.max(whole.min(length));
        let bytes = self.first_nul(length, copied)?;
        self.target.set_len(bytes).map_err(|error| self.write_failed(&error))?;
        Ok(bytes)
    }

    /// Where the first NUL is in the copy between `start` and `end`; `end` if there is none. What
    /// lies behind the source's new end was read before that was cut off, and is kept as far as it
    /// is mail: the kernel clears the rest of a page through which it cuts, so that a page which is
    /// read at that moment comes with NULs from the cut on.
    fn first_nul(&self, start: u64, end: u64) -> Result<u64, Failure> {
        let mut buffer = Vec::new();
        let mut offset = start;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(BUFFER).min(BUFFER);
            buffer.resize(wanted, 0);
            self.target
                .read_exact_at(&mut buffer, offset)
                .map_err(|error| failed("read back in", self.vault.path(), &error))?;
            let found = buffer.iter().position(|&byte| byte == 0);
            offset += u64::try_from(found.unwrap_or(wanted)).unwrap_or_default();
            if found.is_some() {
                break;
            }
        }
        Ok(offset.min(end))
    }

    /// The next stretch of data at or after `offset` and before `size`.
    fn next_data(&self, offset: u64, size: u64) -> Result<Option<(u64, u64)>, Failure> {
        if offset >= size {
            return Ok(None);
        }
        let file = &self.source.file;
        let start = match seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // No data from here on.
            Err(Errno::NXIO) => return Ok(None),
            // No knowledge of holes: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, size))),
            Err(errno) => return Err(Failure::of("look for data in", &self.source.path, errno)),
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        Ok((start < size).then_some((start, end)))
    }

    fn step_in_kernel(&self, offset: u64, chunk: u64) -> Result<Step, Failure> {
        let (mut from, mut to) = (offset, offset);
        let length = usize::try_from(chunk).unwrap_or(BUFFER);
        let source = &self.source.file;
        match copy_file_range(source, Some(&mut from), self.target, Some(&mut to), length) {
            // Some file systems say "end" where they mean "cannot".
            Ok(0) if metadata(source, &self.source.path)?.len() > offset => Ok(Step::Unable),
            Ok(0) => Ok(Step::End),
            Ok(bytes) => Ok(self.stepped(offset, bytes)),
            Err(Errno::INTR) => Ok(Step::Copied(0)),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => {
                Err(Failure::of("write in", self.vault.path(), errno))
            }
            // Whatever it is: if it stands in the way of reading or writing too, that will tell.
            Err(_) => Ok(Step::Unable),
        }
    }

    fn step_by_hand(&self, offset: u64, chunk: u64, buffer: &mut Vec<u8>) -> Result<Step, Failure> {
        buffer.resize(BUFFER.min(usize::try_from(chunk).unwrap_or(BUFFER)), 0);
        match self.source.file.read_at(buffer, offset) {
            Ok(0) => Ok(Step::End),
            Ok(bytes) => {
                let data = buffer.get(..bytes).unwrap_or_default();
                self.target.write_all_at(data, offset).map_err(|e| self.write_failed(&e))?;
                Ok(self.stepped(offset, bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Copied(0)),
            Err(error) => Err(failed("read", &self.source.path, &error)),
        }
    }

    /// Lets the disk begin with what was just written while we copy on: the fsync at the end then
    /// has little left to wait for, and a big archive does not push other things out of memory.
    fn stepped(&self, offset: u64, bytes: usize) -> Step {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        if let Err(error) = fadvise(self.target, offset, NonZeroU64::new(bytes), Advice::DontNeed) {
            tracing::trace!(%error, "no early write-back");
        }
        Step::Copied(bytes)
    }

    fn write_failed(&self, error: &io::Error) -> Failure {
        failed("write in", self.vault.path(), error)
    }
}

fn failed(action: &'static str, path: &Path, error: &io::Error) -> Failure {
    Failure::of(action, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
