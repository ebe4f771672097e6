//! What an archive keeps of its mail file beside the content: permission bits, the POSIX access
//! control list, times to the nanosecond, owner and group.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, fremovexattr,
    fsetxattr, futimens,
};
use rustix::io::Errno;

use super::report::Attribute;

/// Where the kernel keeps the access control list.
const ACL: &str = "system.posix_acl_access";
/// The most that an extended attribute holds.
const XATTR_MAX: usize = 65_536;
/// No set-uid, set-gid or sticky bit: a mailbox is not executed.
const MODE_KEPT: u32 = 0o777;
/// The bits that an access control list shows its mask in.
const MODE_GROUP: u32 = 0o070;

/// The attributes of a mail file, taken before it was read.
#[derive(Debug)]
pub(super) struct Attributes {
    mode: u32,
    owner: (u32, u32),
    times: Timestamps,
    acl: Result<Option<Vec<u8>>, Errno>,
}

impl Attributes {
    /// Those of `file`, whose inode says `meta`.
    pub(super) fn of(file: &File, meta: &Metadata) -> Self {
        Self {
            mode: meta.mode() & MODE_KEPT,
            owner: (meta.uid(), meta.gid()),
            times: Timestamps {
                last_access: timespec(meta.atime(), meta.atime_nsec()),
                last_modification: timespec(meta.mtime(), meta.mtime_nsec()),
            },
            acl: read_acl(file),
        }
    }

    /// Gives them to `file` (`path` is for the log), the owner last, since the right to change
    /// the rest may go with it. Returns what could not be given: an archive without its owner is
    /// better than none.
    pub(super) fn give_to(&self, file: &File, path: &Path) -> Vec<Attribute> {
        let mut lost = Vec::new();
        let mut note = |attribute: Attribute, given: Result<(), Errno>| {
            if let Err(error) = given {
                tracing::warn!(path = %path.display(), ?attribute, %error, "not kept");
                lost.push(attribute);
            }
        };
        let acl = self.give_acl(file);
        let mode = if acl.is_ok() { self.mode } else { self.mode & !MODE_GROUP };
        note(Attribute::Acl, acl);
        note(Attribute::Mode, fchmod(file, Mode::from_raw_mode(mode)));
        note(Attribute::Times, futimens(file, &self.times));
        let (uid, gid) = self.owner;
        note(Attribute::Owner, fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))));
        lost
    }

    fn give_acl(&self, file: &File) -> Result<(), Errno> {
        match &self.acl {
            Ok(Some(acl)) => fsetxattr(file, ACL, acl, XattrFlags::empty()),
            // The archive directory may have a default list, which the new file then has.
            Ok(None) => match fremovexattr(file, ACL) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                Err(errno) => Err(errno),
            },
            Err(errno) => Err(*errno),
        }
    }
}

fn read_acl(file: &File) -> Result<Option<Vec<u8>>, Errno> {
    let mut acl = vec![0; XATTR_MAX];
    match fgetxattr(file, ACL, acl.as_mut_slice()) {
        Ok(length) => {
            acl.truncate(length);
            Ok(Some(acl))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn timespec(seconds: i64, nanos: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos }
}
