//! The mark on an archive: of which state of which file it is a copy.
//!
//! An extended attribute of the archive itself, so that it can neither get lost nor belong to
//! another file. It tells our archives from what others put beside them (retention removes
//! nothing without a mark), which of two forms an archive holds, and whether the mail file is
//! still the one last archived. Where the file system has no such attributes, archives are told
//! by their names alone and every copy is made.

use std::fmt;
use std::str::FromStr;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::form::Form;
use super::version::Version;

/// The attribute. (A `trusted.` one would need `CAP_SYS_ADMIN`.)
const MARK: &str = "user.procstorm.source";
/// Longer than the longest mark.
const MARK_MAX: usize = 256;
/// The first word: the layout of the others.
const LAYOUT: &str = "1";

/// What an archive is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Which of the user's two files.
    pub(super) form: Form,
    /// Whether it did not change during the copy.
    pub(super) steady: bool,
    /// Its state.
    pub(super) version: Version,
}

impl Mark {
    /// The mark on an archive; `None` if it has none that we understand.
    pub(super) fn read(file: impl AsFd) -> Option<Self> {
        let mut text = [0; MARK_MAX];
        let length = fgetxattr(file, MARK, text.as_mut_slice()).ok()?;
        std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
    }

    /// Puts it on an archive. `Ok(false)` where the file system takes none.
    pub(super) fn write(&self, file: impl AsFd) -> Result<bool, Errno> {
        match fsetxattr(file, MARK, self.to_string().as_bytes(), XattrFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether files beside `directory`'s can have marks.
    pub(super) fn is_supported(directory: impl AsFd) -> bool {
        fgetxattr(directory, MARK, [0; MARK_MAX].as_mut_slice()) != Err(Errno::OPNOTSUPP)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { form, steady, version: v } = self;
        let steady = if *steady { "steady" } else { "changed" };
        write!(
            f,
            "{LAYOUT} {form} {steady} {} {} {} {} {} {} {}",
            v.dev, v.ino, v.size, v.mtime.0, v.mtime.1, v.ctime.0, v.ctime.1
        )
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let &[LAYOUT, form, steady, dev, ino, size, mtime, mtime_nsec, ctime, ctime_nsec] =
            words.as_slice()
        else {
            return Err(());
        };
        let steady = match steady {
            "steady" => true,
            "changed" => false,
            _ => return Err(()),
        };
        let version = Version {
            dev: number(dev)?,
            ino: number(ino)?,
            size: number(size)?,
            mtime: (number(mtime)?, number(mtime_nsec)?),
            ctime: (number(ctime)?, number(ctime_nsec)?),
        };
        Ok(Self { form: Form::from_label(form).ok_or(())?, steady, version })
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, ()> {
    word.parse().map_err(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_survives_its_text(
            pop: bool, steady: bool, dev: u64, ino: u64, size: u64,
            mtime: (i64, i64), ctime: (i64, i64),
        ) {
            let form = if pop { Form::Pop } else { Form::Mbox };
            let mark = Mark { form, steady, version: Version { dev, ino, size, mtime, ctime } };
            prop_assert!(mark.to_string().len() <= MARK_MAX);
            prop_assert_eq!(mark.to_string().parse(), Ok(mark));
        }

        #[test]
        fn any_text_is_a_mark_or_not_without_a_panic(text in "\\PC{0,80}") {
            prop_assert!(text.parse::<Mark>().is_err());
        }
    }
}
