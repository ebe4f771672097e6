//! Puts an archive's messages back into a mailbox that a kill (or anything else) has harmed.
//!
//! Only appends: what is in the mailbox stays, byte for byte, so that no newer mail can be lost.
//! A message that the mailbox has already is not appended again. The mailbox is locked meanwhile
//! as mail programs lock it, by a dotlock and by fcntl(2); it is never waited for longer than
//! [`LOCK_WAIT`]. What was appended is taken back if the whole cannot be.

use std::collections::HashSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, unlinkat};
use rustix::io::Errno;

use crate::account::UserName;

use super::Archiver;
use super::dotlock::{self, dotlock_name};
use super::failure::Failure;
use super::form::{Form, archive_second};
use super::interrupt::Interrupts;
use super::lock::lock_exclusive;
use super::mbox::{self, Headers, Message, NUMBERING_HEADERS, is_empty};
use super::pace::pause;
use super::spool::Spool;

/// How long a mail program's lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How long between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// Permission bits that a new mailbox takes from its archive.
const MODE_KEPT: u32 = 0o777;

/// What a mailbox lacks of an archive, or has been given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The archive.
    pub archive: PathBuf,
    /// The mailbox.
    pub mailbox: PathBuf,
    /// How many messages the archive has.
    pub archived: u64,
    /// How many messages the mailbox had.
    pub present: u64,
    /// How many messages of the archive the mailbox lacked.
    pub missing: u64,
    /// How many bytes were appended; 0 where that was not asked for.
    pub appended: u64,
}

/// Why nothing was restored. The mailbox is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The user has no archive.
    #[error("no archive of {user} in {directory}")]
    NoArchive {
        /// The user.
        user: UserName,
        /// The archive directory.
        directory: PathBuf,
    },
    /// The name is not one of the user's archives.
    #[error("{name:?} is not an archive of {user} in {directory}")]
    NotAnArchive {
        /// The name given.
        name: String,
        /// The user.
        user: UserName,
        /// The archive directory.
        directory: PathBuf,
    },
    /// A mail program holds the mailbox, or one that died has left its lock.
    #[error(
        "lock file {path} is there ({0}); a mail program uses the mailbox, or has left its lock \
         behind: if that process no longer runs, remove the file and try again",
        path = .0.path.display()
    )]
    Dotlock(Box<dotlock::Dotlock>),
    /// Another program holds an fcntl lock on the mailbox.
    #[error("{path} stayed locked by another program for {0} s; try again later", LOCK_WAIT.as_secs())]
    Locked {
        /// The mailbox.
        path: PathBuf,
    },
    /// The mailbox was replaced by another while its lock was waited for.
    #[error("{path} was replaced by another file meanwhile; try again")]
    Replaced {
        /// The mailbox.
        path: PathBuf,
    },
    /// A signal told the program to end.
    #[error("aborted by a signal; nothing was added to {path}")]
    CalledOff {
        /// The mailbox.
        path: PathBuf,
    },
    /// The mailbox or the archive cannot be used.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// A read or write failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What restoring works with.
struct Restore<'a> {
    spool: &'a Spool,
    user: &'a UserName,
    uid: u32,
    archive: File,
    report: Restored,
}

impl Archiver {
    /// Appends to the user's mailbox each message of an archive that it lacks, if `apply`; else
    /// only says how many there are. The archive is the one called `name`, or the user's newest.
    /// Makes the mailbox where there is none. `uid` is the user's.
    ///
    /// Blocks for [`LOCK_WAIT`] twice, and as long as reading and writing take.
    pub fn restore(
        &self,
        user: &UserName,
        uid: u32,
        name: Option<&str>,
        apply: bool,
    ) -> Result<Restored, RestoreError> {
        let directory = self.vault.path().to_owned();
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let newest = self.vault.archives_of(user)?.into_iter().next();
                let directory = directory.clone();
                let none = || RestoreError::NoArchive { user: user.clone(), directory };
                newest.ok_or_else(none)?.name
            }
        };
        if archive_second(user, &name).is_none() {
            return Err(RestoreError::NotAnArchive { name, user: user.clone(), directory });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let archive = openat(&self.vault, name.as_str(), flags, Mode::empty())
            .map_err(|errno| Failure::of("open", self.vault.path_of(&name), errno))?;
        let archive = File::from(archive);
        let mailbox = self.spool.path_of(&Form::Mbox.source_name(user));
        let report = Restored {
            archive: self.vault.path_of(&name),
            mailbox,
            archived: 0,
            present: 0,
            missing: 0,
            appended: 0,
        };
        let restore = Restore { spool: &self.spool, user, uid, archive, report };
        if apply { restore.apply() } else { restore.compare() }
    }
}

impl Restore<'_> {
    /// Says what the mailbox lacks, without a lock or a write.
    fn compare(mut self) -> Result<Restored, RestoreError> {
        let name = Form::Mbox.source_name(self.user);
        let mailbox = self.spool.find(&name, self.uid)?;
        self.missing(mailbox.as_ref().map(|mailbox| &mailbox.file))?;
        Ok(self.report)
    }

    fn apply(mut self) -> Result<Restored, RestoreError> {
        let interrupts = Interrupts::hold();
        let called_off = || RestoreError::CalledOff { path: self.report.mailbox.clone() };
        let Some(_dotlock) = Dotlock::take(self.spool, self.user, self.uid, &interrupts)? else {
            return Err(called_off());
        };
        let Some(mailbox) = self.open_mailbox(&interrupts)? else { return Err(called_off()) };
        let missing = self.missing(Some(&mailbox))?;
        if missing.is_empty() {
            return Ok(self.report);
        }
        let path = self.report.mailbox.clone();
        let failed = |action| move |source| RestoreError::Io { action, path, source };
        let before = mailbox.metadata().map_err(failed("stat"))?.len();
        let done = self.append(&mailbox, before, &missing, &interrupts);
        let done = done.and_then(|whole| mailbox.sync_all().map(|()| whole));
        let path = self.report.mailbox.clone();
        if !matches!(done, Ok(true)) {
            // Back to what it was: a message's half would be taken for mail.
            mailbox.set_len(before).map_err(|error| RestoreError::Io {
                action: "take back what was appended to",
                path: path.clone(),
                source: error,
            })?;
            return Err(match done {
                Ok(_) => RestoreError::CalledOff { path },
                Err(source) => RestoreError::Io { action: "append to", path, source },
            });
        }
        let failed = |source| RestoreError::Io { action: "stat", path, source };
        let after = mailbox.metadata().map_err(failed)?.len();
        self.report.appended = after.saturating_sub(before);
        Ok(self.report)
    }

    /// The messages of the archive that `mailbox` lacks, each once.
    fn missing(&mut self, mailbox: Option<&File>) -> Result<Vec<Message>, RestoreError> {
        let present = match mailbox {
            Some(file) => read(file, &self.report.mailbox)?,
            None => Vec::new(),
        };
        let archived = read(&self.archive, &self.report.archive)?;
        let is_mail = |message: &&Message| !message.is_folder_data;
        self.report.present = count(present.iter().filter(is_mail).count());
        self.report.archived = count(archived.iter().filter(is_mail).count());
        let mut known: HashSet<_> = present.iter().map(|message| message.identity).collect();
        let missing: Vec<_> = archived
            .into_iter()
            .filter(|message| !message.is_folder_data && known.insert(message.identity))
            .collect();
        self.report.missing = count(missing.len());
        Ok(missing)
    }

    /// Opens the mailbox for writing, locked; makes it where there is none. `None` if it is called
    /// off.
    fn open_mailbox(&self, interrupts: &Interrupts) -> Result<Option<File>, RestoreError> {
        let name = Form::Mbox.source_name(self.user);
        let path = &self.report.mailbox;
        let mailbox = match self.spool.find(&name, self.uid)? {
            Some(mailbox) => mailbox,
            None => {
                self.make_mailbox(&name)?;
                // Locked like any other: it may be delivered to as soon as it is there.
                let gone = || RestoreError::Replaced { path: path.clone() };
                self.spool.find(&name, self.uid)?.ok_or_else(gone)?
            }
        };
        // The file that was checked, and no other that has its name by now.
        let pinned = format!("/proc/self/fd/{}", mailbox.file.as_raw_fd());
        let file = OpenOptions::new().read(true).write(true).open(pinned).map_err(|source| {
            RestoreError::Io { action: "open for writing", path: path.clone(), source }
        })?;
        let started = Instant::now();
        while lock_exclusive(&file).is_err() {
            if started.elapsed() >= LOCK_WAIT {
                return Err(RestoreError::Locked { path: path.clone() });
            }
            if interrupts.any() {
                return Ok(None);
            }
            pause(LOCK_RETRY);
        }
        if !self.spool.still_names(&mailbox) {
            return Err(RestoreError::Replaced { path: path.clone() });
        }
        Ok(Some(file))
    }

    /// Makes a new mailbox, with the archive's owner, group and mode, or none.
    fn make_mailbox(&self, name: &str) -> Result<(), RestoreError> {
        let path = self.report.mailbox.clone();
        let failed = |action| {
            let path = path.clone();
            move |errno| Failure::of(action, path, errno)
        };
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(self.spool.dir(), name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("make"))?;
        let given = stat(&self.archive, &self.report.archive).and_then(|meta| {
            let (owner, group) = (Uid::from_raw(self.uid), Gid::from_raw(meta.gid()));
            fchown(&file, Some(owner), Some(group)).map_err(failed("change the owner of"))?;
            let mode = Mode::from_raw_mode(meta.mode() & MODE_KEPT);
            Ok(fchmod(&file, mode).map_err(failed("change the mode of"))?)
        });
        if given.is_err() {
            // A mailbox that is not the user's would stop the user's mail.
            unlinkat(self.spool.dir(), name, AtFlags::empty()).map_err(failed("remove"))?;
        }
        given
    }

    /// Writes the messages to the end of `mailbox`, which is `at` bytes long. False if it is called
    /// off in the middle.
    fn append(
        &self,
        mut mailbox: &File,
        at: u64,
        missing: &[Message],
        interrupts: &Interrupts,
    ) -> io::Result<bool> {
        let ending = ending(mailbox, at)?;
        mailbox.seek(SeekFrom::Start(at))?;
        let mut output = BufWriter::new(mailbox);
        output.write_all(ending)?;
        for message in missing {
            if interrupts.any() {
                return Ok(false);
            }
            self.copy(message, &mut output)?;
        }
        output.flush().map(|()| true)
    }

    /// Copies a message, but for the headers that number it in the mailbox that it was in.
    fn copy(&self, message: &Message, output: &mut impl Write) -> io::Result<()> {
        let mut archive = &self.archive;
        archive.seek(SeekFrom::Start(message.start))?;
        let mut input = BufReader::new(archive.take(message.end.saturating_sub(message.start)));
        let mut last = Vec::new();
        let mut lines = mbox::Lines::new(&mut input);
        let (mut headers, mut ended) = (Headers::new(&NUMBERING_HEADERS), [true, false]);
        while let Some(is_start) = lines.next(&mut last)? {
            if !headers.is_named(&last, is_start) {
                output.write_all(&last)?;
                ended = [last.ends_with(b"\n"), is_start && is_empty(&last)];
            }
        }
        // The next message's envelope line stands after an empty one.
        match ended {
            [true, true] => Ok(()),
            [true, false] => output.write_all(b"\n"),
            [false, _] => output.write_all(b"\n\n"),
        }
    }
}

/// What must be written first, so that an envelope line can follow: a mailbox that was cut off
/// ends in the middle of a line.
fn ending(mailbox: &File, length: u64) -> io::Result<&'static [u8]> {
    let mut last = [0; 2];
    let tail = length.min(2);
    let part = last.get_mut(..usize::try_from(tail).unwrap_or_default()).unwrap_or_default();
    mailbox.read_exact_at(part, length.saturating_sub(tail))?;
    Ok(match part {
        [] | [b'\n', b'\n'] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

fn read(mut file: &File, path: &Path) -> Result<Vec<Message>, RestoreError> {
    let failed = |source| RestoreError::Io { action: "read", path: path.to_owned(), source };
    file.rewind().map_err(failed)?;
    mbox::messages(BufReader::new(file)).map_err(failed)
}

fn stat(file: &File, path: &Path) -> Result<Metadata, RestoreError> {
    file.metadata().map_err(|source| RestoreError::Io {
        action: "stat",
        path: path.to_owned(),
        source,
    })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The mailbox's lock file, as mail programs make it; removed with its value.
struct Dotlock<'a> {
    spool: &'a Spool,
    name: String,
}

impl<'a> Dotlock<'a> {
    /// `None` if it is aborted.
    fn take(
        spool: &'a Spool,
        user: &UserName,
        uid: u32,
        interrupts: &Interrupts,
    ) -> Result<Option<Self>, RestoreError> {
        let name = dotlock_name(user);
        let path = spool.path_of(&name);
        let started = Instant::now();
        loop {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(spool.dir(), name.as_str(), flags, Mode::RUSR | Mode::RGRP | Mode::ROTH) {
                Ok(file) => {
                    let lock = Self { spool, name };
                    let pid = format!("{}\n", std::process::id());
                    File::from(file)
                        .write_all(pid.as_bytes())
                        .map_err(|source| RestoreError::Io { action: "write", path, source })?;
                    return Ok(Some(lock));
                }
                Err(Errno::EXIST) if interrupts.any() => return Ok(None),
                Err(Errno::EXIST) if started.elapsed() < LOCK_WAIT => pause(LOCK_RETRY),
                Err(Errno::EXIST) => match spool.dotlock(user, uid, Path::new("/proc")) {
                    Some(lock) => return Err(RestoreError::Dotlock(Box::new(lock))),
                    // It has gone just now, as it does again and again.
                    None => return Err(RestoreError::Locked { path }),
                },
                Err(errno) => return Err(Failure::of("make", path, errno).into()),
            }
        }
    }
}

impl Drop for Dotlock<'_> {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(self.spool.dir(), self.name.as_str(), AtFlags::empty()) {
            let path = self.spool.path_of(&self.name);
            tracing::error!(path = %path.display(), %error, "cannot remove the lock; remove it");
        }
    }
}
