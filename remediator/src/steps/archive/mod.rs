//! Saves a user's mail file before the processes that may be rewriting it are killed.
//!
//! Nothing in the spool is trusted, nothing in the archive is ever overwritten, and an archive is
//! complete and on the disk before it has a name.
//!
//! - [`Archiver`] (here): the steps, in order.
//! - `form`: the two mail files of a user, and the names of their archives.
//! - [`mailroom`]: runs all that on threads that may hang.
//! - `place`: opens the two directories, and no user's mount.
//! - `spool`: opens a mail file, if it is one.
//! - `lock`: keeps mail programs that lock from writing meanwhile; [`Dotlock`]: a lock file of
//!   theirs.
//! - `version`: whether the file changed meanwhile; `certainty`: whether that would show.
//! - `copy`: the content.
//! - `attributes`: mode, access control list, times, owner.
//! - `mark`: on each archive, of what it is a copy.
//! - `vault`: the archive directory: nameless files that get their name at the end.
//! - `reserve`: what stays free on the disk.
//! - `retention`: what is kept for how long.
//! - [`Pulse`]: a sign of life of work that may hang.
//! - `pace`: deadline, order to stop, progress in the log.
//! - `restore`: the way back: appends an archive's messages that a mailbox lacks; `mbox` tells them,
//!   `interrupt` holds back what would end it in the middle.
//! - `step`: the step `archive_mail_file`; `run`: how it is taken; `facts`: its record on the status
//!   page.
//! - `left_lock`: the step `mail_file_lock`, which follows a kill.
//! - `failure`, `report`: what is returned; [`note`]: what becomes of it in journal and mail.

mod attributes;
mod certainty;
mod copy;
mod dotlock;
mod facts;
mod failure;
mod form;
mod interrupt;
mod left_lock;
mod lock;
pub mod mailroom;
mod mark;
mod mbox;
pub mod note;
mod pace;
mod place;
mod pulse;
mod report;
mod reserve;
mod restore;
mod retention;
mod run;
mod spool;
mod step;
mod vault;
mod version;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use procstorm_toolkit::chain::Chain;
use rustix::fs::fsync;

use crate::account::UserName;
use crate::policy::{Reserve, Retention};

pub use dotlock::Dotlock;
pub(crate) use dotlock::left_dotlock;
pub use failure::{Failure, OpenError};
pub use form::Form;
pub(crate) use left_lock::{LOCK_STEP, left_lock};
pub use pulse::Pulse;
pub use report::{Archived, Attribute, FormPlan, FormReport, Method, Planned, Pruned};
pub use restore::{RestoreError, Restored};
pub(crate) use run::recorded_archives;
pub(crate) use step::ArchiveMailFile;

use attributes::Attributes;
use certainty::{State, metadata_after, state_of};
use copy::{Copied, Copy};
use form::archive_name;
use lock::lock_shared;
use mark::Mark;
use pace::{Pace, pause};
use spool::{Mailbox, Spool};
use vault::{Staged, Stored, Vault, allocated};
use version::Version;

/// How often a mail file that changed during its copy is copied, in all.
const COPIES: u32 = 3;
/// How often a mail file is opened that is replaced again and again.
const OPENS: u32 = 5;
/// How long between two tries where something passing is in the way.
const RETRY: Duration = Duration::from_millis(20);

/// Where mail files are, where their archives go, and within which bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of mail files, as `/var/mail`.
    pub spool: PathBuf,
    /// The directory of archives, as `/var/mail/arc`: of root or the daemon, mode 0700; made if
    /// it is missing.
    pub archive: PathBuf,
    /// What stays free on the archive's disk.
    pub reserve: Reserve,
    /// What is kept of each user.
    pub retention: Retention,
    /// How long to wait for a mail program's lock or lease, or for descriptors and memory.
    pub lock_wait: Duration,
    /// How long one call of [`Archiver::archive`] may take, both forms together. Asked between
    /// chunks of 8 MiB; the disk's last sync comes on top.
    pub deadline: Duration,
}

impl Default for Settings {
    /// `/var/mail` to `/var/mail/arc`, 5 % reserve, everything kept, 2 s for a lock, 60 s in all
    /// (some 10 GiB on an ordinary disk; a storm goes on meanwhile).
    fn default() -> Self {
        Self {
            spool: "/var/mail".into(),
            archive: "/var/mail/arc".into(),
            reserve: Reserve::Percent(5),
            retention: Retention::default(),
            lock_wait: Duration::from_secs(2),
            deadline: Duration::from_secs(60),
        }
    }
}

/// Archives mail files: the two directories, opened for one piece of work. To be opened again for
/// the next: something else may be mounted there by then.
#[derive(Debug)]
pub struct Archiver {
    spool: Spool,
    vault: Vault,
    settings: Settings,
    pulse: Pulse,
}

/// A mail file that is open, and locked if that could be had.
#[derive(Debug)]
struct Held {
    mailbox: Mailbox,
    locked: bool,
}

/// A complete copy that has no name yet.
#[derive(Debug)]
struct Draft<'a> {
    staged: Staged<'a>,
    copied: Copied,
    before: Version,
    attributes: Attributes,
    locked: bool,
    changed: bool,
    /// Whether any change would have shown.
    certain: bool,
}

/// Whose which file, and when.
#[derive(Clone, Copy, Debug)]
struct Errand<'a> {
    form: Form,
    user: &'a UserName,
    uid: u32,
    now_epoch: u64,
}

impl Archiver {
    /// Opens the spool and the archive directory, and removes what a predecessor left half-made.
    /// Fails if one of them cannot be used safely.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let spool = Spool::open(&settings.spool)?;
        let vault = Vault::open(&settings.archive, &spool)?;
        Ok(Self { spool, vault, settings, pulse: Pulse::default() })
    }

    /// The same, which gives its signs of life to `pulse`.
    #[must_use]
    pub fn with_pulse(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// Whether the archive directory exists: [`Self::open`] would make it.
    #[must_use]
    pub fn is_made(settings: &Settings) -> bool {
        place::is_directory(&settings.archive)
    }

    /// Whether a mail file could be archived now. Opens in the spool as [`Self::archive`] does, and
    /// makes a file in the archive directory, without a name where that can be had, and lets it go.
    /// Blocks for as long as the file systems do.
    pub fn probe(&self) -> Result<(), Failure> {
        self.spool.probe()?;
        self.vault.probe()
    }

    /// Archives both forms of the user's mail file, each to `U.SECOND` with the first second from
    /// `now_epoch` on (POP: the one after it) that is free; then removes what retention no longer
    /// keeps of this user. Blocks, for [`Settings::deadline`] at most; `abort` ends it sooner.
    ///
    /// One report for each form whose file exists. A failure leaves no trace in the archive, and
    /// the spool is never written to.
    pub fn archive(
        &self,
        user: &UserName,
        uid: u32,
        now_epoch: u64,
        abort: &AtomicBool,
    ) -> Vec<FormReport> {
        let mut pace = Pace::new(self.settings.deadline, abort, &self.pulse);
        let mut reports = Vec::new();
        for form in Form::ALL {
            let errand = Errand { form, user, uid, now_epoch };
            let source = self.spool.path_of(&form.source_name(user));
            if let Some(result) = self.archive_in_time(errand, &mut pace).transpose() {
                reports.push(FormReport { form, source, result });
            }
        }
        if reports.iter().any(|report| report.result.is_ok()) {
            self.prune(user, now_epoch);
        }
        reports
    }

    /// What [`Self::archive`] would do, without a lock, a write or a copy. That the disk is too
    /// full shows only for an archive on another file system than the spool's: on the same one, a
    /// copy may take no space.
    #[must_use]
    pub fn plan(&self, user: &UserName, uid: u32, now_epoch: u64) -> Vec<FormPlan> {
        let mut plans = Vec::new();
        for form in Form::ALL {
            let errand = Errand { form, user, uid, now_epoch };
            let source = self.spool.path_of(&form.source_name(user));
            if let Some(action) = self.plan_form(errand).transpose() {
                plans.push(FormPlan { form, source, action });
            }
        }
        plans
    }

    /// Removes what retention no longer keeps of this user. Touches nothing but archives of our
    /// own making, and never the newest of a form.
    pub fn prune(&self, user: &UserName, now_epoch: u64) -> Pruned {
        let mut pruned = Pruned::default();
        match self.vault.archives_of(user) {
            Ok(archives) => self.prune_these(&archives, now_epoch, &mut pruned),
            Err(failure) => pruned.failed.push(failure),
        }
        pruned
    }

    /// [`Self::prune`] for every user with an archive. Ends early if it is aborted.
    pub fn prune_all(&self, now_epoch: u64) -> Pruned {
        let mut pruned = Pruned::default();
        match self.vault.by_user() {
            Ok(users) => {
                for names in users.into_values() {
                    self.pulse.beat();
                    if self.pulse.is_given_up() {
                        break;
                    }
                    self.prune_these(&self.vault.look_at(names), now_epoch, &mut pruned);
                }
            }
            Err(failure) => pruned.failed.push(failure),
        }
        pruned
    }

    /// Those of one user's archives that retention no longer keeps.
    fn prune_these(&self, archives: &[Stored], now_epoch: u64, pruned: &mut Pruned) {
        let retention = &self.settings.retention;
        for stored in retention::surplus(archives, retention, now_epoch, self.vault.has_marks()) {
            let path = self.vault.path_of(&stored.name);
            self.pulse.beat();
            match self.vault.remove(&stored.name) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed an old archive");
                    pruned.removed.push(path);
                }
                Err(failure) => {
                    let error = Chain(&failure).to_string();
                    tracing::warn!(path = %path.display(), error, "could not remove an old archive");
                    pruned.failed.push(failure);
                }
            }
        }
    }

    /// [`Self::archive_form`], tried again for a while where what is in its way may pass.
    fn archive_in_time(
        &self,
        errand: Errand<'_>,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Archived>, Failure> {
        let started = Instant::now();
        loop {
            match self.archive_form(errand, pace) {
                Err(failure)
                    if failure.is_passing() && started.elapsed() < self.settings.lock_wait =>
                {
                    pace.check(&self.spool.path_of(&errand.form.source_name(errand.user)))?;
                    pause(RETRY);
                }
                result => return result,
            }
        }
    }

    /// The story of one form. `Ok(None)` if its file does not exist.
    fn archive_form(
        &self,
        errand: Errand<'_>,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Archived>, Failure> {
        let started = Instant::now();
        let Some(held) = self.hold(errand, pace)? else { return Ok(None) };
        let dotlock = self.spool.has_fresh_dotlock(errand.user, errand.now_epoch);
        let state = state_of(&held.mailbox, &self.pulse)?;
        if let Some(stored) = self.identical(errand, &held.mailbox, &state)? {
            return Ok(Some(Archived {
                path: self.vault.path_of(&stored.name),
                bytes: stored.bytes,
                locked: held.locked,
                changed: false,
                uncertain: false,
                method: Method::Identical,
                dotlock,
                lost: Vec::new(),
                elapsed: started.elapsed(),
            }));
        }
        let draft = self.steadiest(held, errand, pace)?;
        let lost = self.finish(&draft, errand)?;
        let Draft { staged, copied, locked, changed, certain, .. } = draft;
        let second = errand.form.first_second(errand.now_epoch);
        pace.check_before_sync(self.vault.path())?;
        let path = self.vault.place(staged, errand.user, second)?;
        let Copied { bytes, method } = copied;
        let elapsed = started.elapsed();
        let uncertain = !changed && !certain;
        Ok(Some(Archived {
            path,
            bytes,
            locked,
            changed,
            uncertain,
            method,
            dotlock,
            lost,
            elapsed,
        }))
    }

    /// Opens the mail file and locks it. A mail program may have put another file in its place
    /// while we waited for the lock.
    fn hold(&self, errand: Errand<'_>, pace: &Pace<'_>) -> Result<Option<Held>, Failure> {
        let name = errand.form.source_name(errand.user);
        let mut held = None;
        for _ in 0..OPENS {
            let mailbox = match (self.spool.find(&name, errand.uid), &held) {
                (Ok(Some(mailbox)), _) => mailbox,
                // What has come in its place is not a mail file: the one that we have still is.
                (Ok(None) | Err(_), Some(_)) => break,
                (Ok(None), None) => return Ok(None),
                (Err(failure), None) => return Err(failure),
            };
            let wait = self.settings.lock_wait;
            let locked = lock_shared(&mailbox.file, &mailbox.path, wait, pace)?;
            let current = self.spool.still_names(&mailbox);
            held = Some(Held { mailbox, locked });
            if current {
                break;
            }
        }
        Ok(held)
    }

    /// Copies until the mail file did not change during the copy, as often as the bounds allow;
    /// then the longest copy is taken.
    fn steadiest<'a>(
        &'a self,
        held: Held,
        errand: Errand<'_>,
        pace: &mut Pace<'_>,
    ) -> Result<Draft<'a>, Failure> {
        let started = Instant::now();
        let mut best = self.draft(held, pace)?;
        for copies in 1..COPIES {
            let each = started.elapsed() / copies;
            if !best.changed || pace.left() < each * 2 {
                break;
            }
            // A second copy that fails takes nothing away from the first.
            let Ok(Some(held)) = self.hold(errand, pace) else { break };
            let Ok(next) = self.draft(held, pace) else { break };
            if !next.changed || next.copied.bytes >= best.copied.bytes {
                best = next;
            }
        }
        Ok(best)
    }

    fn draft(&self, held: Held, pace: &mut Pace<'_>) -> Result<Draft<'_>, Failure> {
        let Held { mailbox, locked } = held;
        let State { meta, is_certain: certain, .. } = state_of(&mailbox, &self.pulse)?;
        let before = Version::of(&meta);
        let attributes = Attributes::of(&mailbox.file, &meta);
        let staged = self.vault.stage()?;
        pace.check(&mailbox.path)?;
        let copy = Copy {
            source: &mailbox,
            target: &staged.file,
            vault: &self.vault,
            reserve: self.settings.reserve,
        };
        let copied = match copy.reflink()? {
            Some(copied) => copied,
            None => copy.transfer(before.size, allocated(&meta), pace)?,
        };
        let after = Version::of(&metadata_after(&mailbox, &self.pulse)?);
        let changed =
            after != before || copied.bytes != before.size || !self.spool.still_names(&mailbox);
        Ok(Draft { staged, copied, before, attributes, locked, changed, certain })
    }

    /// Marks the copy, gives it the mail file's attributes, and sees it onto the disk. The mark
    /// first: to write it takes the right to write to the file.
    fn finish(&self, draft: &Draft<'_>, errand: Errand<'_>) -> Result<Vec<Attribute>, Failure> {
        let path = self.vault.path_of(&archive_name(errand.user, errand.now_epoch));
        let steady = draft.certain && !draft.changed;
        let mark = Mark { form: errand.form, steady, version: draft.before };
        if let Err(error) = mark.write(&draft.staged.file) {
            tracing::warn!(path = %path.display(), %error, "cannot mark the archive");
        }
        let lost = draft.attributes.give_to(&draft.staged.file, &path);
        self.pulse.beat_before_sync();
        fsync(&draft.staged.file).map_err(|errno| Failure::of("sync", &path, errno))?;
        Ok(lost)
    }

    fn plan_form(&self, errand: Errand<'_>) -> Result<Option<Planned>, Failure> {
        let name = errand.form.source_name(errand.user);
        let Some(mailbox) = self.spool.find(&name, errand.uid)? else { return Ok(None) };
        let state = state_of(&mailbox, &self.pulse)?;
        if let Some(stored) = self.identical(errand, &mailbox, &state)? {
            return Ok(Some(Planned::Identical { path: self.vault.path_of(&stored.name) }));
        }
        let State { meta, .. } = state;
        let version = Version::of(&meta);
        let elsewhere = rustix::fs::fstat(&self.vault).is_ok_and(|stat| stat.st_dev != version.dev);
        let needed = if elsewhere { allocated(&meta).min(version.size) } else { 0 };
        self.settings.reserve.check(&self.vault, self.vault.path(), needed)?;
        let second = errand.form.first_second(errand.now_epoch);
        let path = self.vault.path_of(&archive_name(errand.user, second));
        Ok(Some(Planned::Copy { path, bytes: version.size }))
    }

    /// The newest archive of this form, if it is a copy of exactly this state. Where changes may not
    /// show, only the content can tell.
    fn identical(
        &self,
        errand: Errand<'_>,
        mailbox: &Mailbox,
        state: &State,
    ) -> Result<Option<Stored>, Failure> {
        let version = Version::of(&state.meta);
        let archives = self.vault.archives_of(errand.user)?;
        let newest = archives
            .into_iter()
            .find(|stored| stored.mark.is_some_and(|mark| mark.form == errand.form));
        let Some(newest) = newest else { return Ok(None) };
        let is_copy = if state.is_certain {
            newest.is_copy_of(&version)
        } else {
            state.is_blind_to_maps
                && newest.may_be_copy_of(&version)
                && self.vault.holds(&newest, &mailbox.file, &self.pulse)
        };
        Ok(is_copy.then_some(newest))
    }
}
