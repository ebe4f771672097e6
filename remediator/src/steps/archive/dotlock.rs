//! A mail program's lock file, `USER.lock` beside the mail file: whether one is there, and who has
//! made it.
//!
//! Any program that may write to the spool may put anything at that name, so nothing about it is
//! trusted: it is pinned and opened as a mail file is ([`Spool`]), and read only if it is a regular
//! file with one name that belongs to the user or to mail programs. Its pid is a hint and nothing
//! is done to that process.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procstorm_processes::proc_dir::ProcDir;
use procstorm_toolkit::chain::Chain;
use serde::{Deserialize, Serialize};

use crate::account::{Account, UserName};

use super::failure::OpenError;
use super::pace::pause;
use super::pulse::Pulse;
use super::spool::{Spool, metadata, special_kind};

/// How long a lock whose holder runs is waited for: a delivery takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How much of the file is read: a pid, and the name of a host.
const READ_MAX: u64 = 80;
/// The uid of `mail` on Debian, Red Hat, SUSE and Arch.
const MAIL_UID: u32 = 8;

/// A lock file that is there, as far as it can be identified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dotlock {
    /// The lock file.
    pub path: PathBuf,
    /// Its age in seconds, by its time of last change; `None` if that is unknown.
    #[serde(default)]
    pub age_seconds: Option<u64>,
    /// The pid that it holds; `None` if it holds none or was not read.
    #[serde(default)]
    pub pid: Option<i32>,
    /// The host that it names beside the pid, if it names one.
    #[serde(default)]
    pub host: Option<String>,
    /// Whether a process of that pid runs: a hint, since pids are used again. `None` if that
    /// is unknown, as for a pid of another host.
    #[serde(default)]
    pub runs: Option<bool>,
    /// Why it was not read; `None` if it was.
    #[serde(default)]
    pub unread: Option<String>,
}

impl Dotlock {
    fn unread(path: PathBuf, why: String) -> Self {
        Self { path, age_seconds: None, pid: None, host: None, runs: None, unread: Some(why) }
    }
}

/// Its age and its holder, as the rest of a sentence about it.
impl Display for Dotlock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.age_seconds {
            Some(age) => write!(f, "{age} s old")?,
            None => f.write_str("of unknown age")?,
        }
        match (self.pid, &self.host, self.runs, &self.unread) {
            (_, _, _, Some(why)) => write!(f, ", not read: {why}"),
            (None, ..) => f.write_str(", holds no pid"),
            (Some(pid), _, Some(true), _) => {
                write!(f, ", holds pid {pid}; a process of that pid runs")
            }
            (Some(pid), _, Some(false), _) => {
                write!(f, ", holds pid {pid}, which no longer runs")
            }
            (Some(pid), Some(host), None, _) => {
                write!(f, ", holds pid {pid} of host {host}; whether it runs is unknown")
            }
            (Some(pid), None, None, _) => {
                write!(f, ", holds pid {pid}; whether it runs is unknown")
            }
        }
    }
}

/// The name of the user's lock file in the spool.
pub(super) fn dotlock_name(user: &UserName) -> String {
    format!("{user}.lock")
}

/// The lock file in `spool` that the account's mail programs have left there; `None` if there is
/// none, or no spool. One whose process runs, or may run, gets a second to go: a mail program is at
/// work. `procfs` says which processes run. Blocks for as long as the file systems do.
pub(crate) fn left_dotlock(
    spool: &Path,
    account: &Account,
    procfs: &Path,
    pulse: &Pulse,
) -> Result<Option<Dotlock>, OpenError> {
    let spool = match Spool::open(spool) {
        Err(OpenError::Io { source: rustix::io::Errno::NOENT, .. }) => return Ok(None),
        spool => spool?,
    };
    let started = Instant::now();
    loop {
        pulse.beat();
        let lock = spool.dotlock(&account.name, account.uid, procfs);
        let is_passing = lock.as_ref().is_some_and(|lock| {
            lock.runs != Some(false) && lock.unread.is_none() && started.elapsed() < PATIENCE
        });
        if !is_passing || pulse.is_given_up() {
            return Ok(lock);
        }
        pause(LOOK_AGAIN);
    }
}

impl Spool {
    /// The lock file of the user with `uid`, if there is anything at its name.
    pub(super) fn dotlock(&self, user: &UserName, uid: u32, procfs: &Path) -> Option<Dotlock> {
        let name = dotlock_name(user);
        let path = self.path_of(&name);
        let pinned = match self.pin(&name) {
            Ok(pinned) => pinned?,
            Err(failure) => return Some(Dotlock::unread(path, Chain(&failure).to_string())),
        };
        let mut lock = Dotlock::unread(path.clone(), String::new());
        match self.read_dotlock(&name, &pinned, uid, &mut lock) {
            Ok(Some(text)) => {
                lock.unread = None;
                (lock.pid, lock.host) = holder(&text);
                lock.runs = runs(&lock, procfs);
            }
            // It was removed meanwhile.
            Ok(None) => return None,
            Err(why) => lock.unread = Some(why),
        }
        Some(lock)
    }

    /// The beginning of what the lock file holds, or why it is not read; its age in `lock`.
    fn read_dotlock(
        &self,
        name: &str,
        pinned: &File,
        uid: u32,
        lock: &mut Dotlock,
    ) -> Result<Option<Vec<u8>>, String> {
        let path = &lock.path;
        let meta = metadata(pinned, path).map_err(|failure| Chain(&failure).to_string())?;
        let now = jiff::Timestamp::now().as_second();
        let age = u64::try_from(now.saturating_sub(meta.mtime()));
        lock.age_seconds = Some(age.unwrap_or_default());
        let path = &lock.path;
        self.check_dotlock(&meta, uid)?;
        let Some(file) =
            self.open_pinned(name, pinned).map_err(|failure| Chain(&failure).to_string())?
        else {
            return Ok(None);
        };
        // Its name may lead to another file by now.
        let meta = metadata(&file, path).map_err(|failure| Chain(&failure).to_string())?;
        self.check_dotlock(&meta, uid)?;
        let mut text = Vec::new();
        match file.take(READ_MAX).read_to_end(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Refuses what mail programs do not make.
    fn check_dotlock(&self, meta: &std::fs::Metadata, uid: u32) -> Result<(), String> {
        let owner = meta.uid();
        let kind = meta.file_type();
        if !kind.is_file() {
            let kind = match kind {
                kind if kind.is_symlink() => "symbolic link",
                kind if kind.is_dir() => "directory",
                kind => special_kind(kind),
            };
            return Err(format!("it is a {kind}"));
        }
        if meta.nlink() != 1 {
            return Err(format!("it has {} names", meta.nlink()));
        }
        let spools = rustix::fs::fstat(self.dir()).map(|stat| stat.st_uid).unwrap_or_default();
        if ![uid, 0, MAIL_UID, spools].contains(&owner) {
            return Err(format!("it belongs to uid {owner}"));
        }
        Ok(())
    }
}

/// The pid and the host in a lock file: `PID`, or `PID:HOST` as Dovecot writes it.
fn holder(text: &[u8]) -> (Option<i32>, Option<String>) {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let (pid, host) = match text.split_once(':') {
        Some((pid, host)) => (pid, Some(host)),
        None => (text, None),
    };
    let is_name = |host: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.chars().all(is_part)
    };
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    match pid.parse() {
        Ok(pid) if is_number && pid > 0 => (Some(pid), host.filter(is_name).map(str::to_owned)),
        _ => (None, None),
    }
}

/// Whether a process of the lock's pid runs on this host; `None` if `procfs` does not say so.
fn runs(lock: &Dotlock, procfs: &Path) -> Option<bool> {
    let pid = lock.pid?;
    if let Some(host) = &lock.host
        && *host != *nix::sys::utsname::uname().ok()?.nodename().to_string_lossy()
    {
        return None;
    }
    let dir = ProcDir::open(procfs).ok()?;
    // Where other users' processes are hidden, that of init is, too.
    dir.stat(1).ok().flatten()?;
    let stat = dir.stat(pid).ok()?;
    Some(stat.is_some_and(|stat| !stat.is_dead()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_read_as_mail_programs_write_it_and_nothing_else() {
        let pid = |text: &str| holder(text.as_bytes());
        assert_eq!(pid("4242\n"), (Some(4242), None));
        assert_eq!(pid("  4242\0"), (Some(4242), None));
        assert_eq!(pid("4242:moscow"), (Some(4242), Some("moscow".to_owned())));
        assert_eq!(pid("4242:<b>\n"), (Some(4242), None));
        for none in ["", "0", "-1", "+7", "99999999999", "pid 4", "4 2", "4242\n17", ":moscow"] {
            assert_eq!(pid(none), (None, None), "{none:?}");
        }
        assert_eq!(holder(&[0xff, 0xfe]), (None, None));
    }

    #[test]
    fn whether_a_process_of_another_host_runs_is_unknown() {
        let mut lock = Dotlock::unread("/var/mail/alice.lock".into(), String::new());
        (lock.pid, lock.unread) = (i32::try_from(std::process::id()).ok(), None);
        assert_eq!(runs(&lock, Path::new("/proc")), Some(true));
        assert_eq!(runs(&lock, Path::new("/nonexistent")), None);
        lock.host = Some("not-this-host.invalid".to_owned());
        assert_eq!(runs(&lock, Path::new("/proc")), None);
        lock.age_seconds = Some(9);
        assert!(lock.to_string().contains("of host not-this-host.invalid"), "{lock}");
    }
}
