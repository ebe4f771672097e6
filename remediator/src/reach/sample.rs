//! Asks the name service a few questions before the sandbox is entered.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, Question, Reach, Services};
use crate::account::Listed;
use crate::policy::Config;

/// How long the start waits for the answers. Those that come later count as well.
const PATIENCE: Duration = Duration::from_secs(1);

/// For how long accounts are listed, and how many: a directory may have a million.
const LISTING: Duration = Duration::from_secs(2);
const LISTED_MAX: usize = 100_000;

/// How many accounts that are not in /etc/passwd are taken from a list.
const FROM_A_LIST: usize = 8;

/// How many entries of the lists of accounts are asked for.
const LISTS_MAX: usize = 64;

/// Nobody's name. A service that cannot read its accounts does not say "not found" but fails.
const NOBODY: &str = "procstorm-no-such-account";

/// A few questions, and what the name service answers outside of the sandbox.
#[derive(Debug)]
pub struct Sample {
    services: Services,
    early: Vec<(Question, Answer)>,
    later: Receiver<(Question, Answer)>,
}

impl Sample {
    /// Asks, and waits a second at most: for root, for nobody, for those whom the policy lists,
    /// and for some accounts that are not in /etc/passwd. A name service that hangs keeps the
    /// threads that ask it, which then stay outside of the sandbox; they do nothing else.
    #[must_use]
    pub fn take(config: &Config) -> Self {
        let (give, later) = channel();
        let only = config.accounts.only.iter().flatten();
        let listed: Vec<_> = config.accounts.protected.iter().chain(only).cloned().collect();
        let spool = config.mail.spool.clone();
        // Apart, since a mail file system may hang as well.
        let owners = give.clone();
        start("sample-spool", move || ask_for_owners(&spool, &owners));
        start("sample-names", move || ask_for_others(&listed, &give));
        let mut early = Vec::new();
        let end = Instant::now() + PATIENCE;
        loop {
            match later.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(answered) => early.push(answered),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("the name service does not answer within {PATIENCE:?}");
                    break;
                }
            }
        }
        Self { services: Services::of_this_machine(), early, later }
    }

    /// Asks again, on a thread that this one starts: call it in the sandbox. Returns at once.
    #[must_use]
    pub fn compare(self) -> Reach {
        let reach = Reach::default();
        reach.lock().services = self.services;
        let own = reach.clone();
        start("compare-names", move || own.compare(self.early, &self.later));
        reach
    }
}

/// The names in /etc/passwd.
pub(super) fn local() -> BTreeSet<String> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    passwd.lines().filter_map(|line| line.split(':').next()).map(str::to_owned).collect()
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!(
            %error,
            "whether the name service answers in the sandbox as outside cannot be found out"
        );
    }
}

fn ask_for_others(listed: &[Listed], give: &Sender<(Question, Answer)>) {
    let listed = listed.iter().take(LISTS_MAX).map(|entry| match entry {
        Listed::Name(name) => Question::Account(name.to_string()),
        Listed::Uid(uid) => Question::Uid(*uid),
        Listed::Group(group) => Question::Group(group.clone()),
    });
    let nobody = [Question::Account(NOBODY.to_owned()), Question::Group(NOBODY.to_owned())];
    for question in [Question::Uid(0)].into_iter().chain(nobody).chain(listed) {
        put(question, give);
    }
    for name in accounts_beyond(&local()) {
        put(Question::Account(name), give);
    }
}

/// The mail files bear the names of those whom the daemon is there for, also where the name service
/// lists nobody.
fn ask_for_owners(spool: &Path, give: &Sender<(Question, Answer)>) {
    let local = local();
    let Ok(files) = fs::read_dir(spool) else { return };
    let names = files.take(LISTED_MAX).filter_map(|file| file.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| !local.contains(name)).take(FROM_A_LIST) {
        put(Question::Account(name), give);
    }
}

/// Asks, and gives the answer on. A name service that fails out here says nothing of the sandbox.
fn put(question: Question, give: &Sender<(Question, Answer)>) {
    let answer = question.ask();
    if !matches!(answer, Answer::Failed(_)) {
        // Nobody may wait any more.
        give.send((question, answer)).ok();
    }
}

/// Some of the accounts that are not in /etc/passwd, as far as the name service lists any.
#[expect(unsafe_code, reason = "no crate of ours lists accounts")]
fn accounts_beyond(local: &BTreeSet<String>) -> Vec<String> {
    let end = Instant::now() + LISTING;
    let mut names = Vec::new();
    // SAFETY: nothing else in this program lists accounts, so that the list's place is ours.
    unsafe { libc::setpwent() };
    for _ in 0..LISTED_MAX {
        // SAFETY: as above; what is returned is valid until the next call.
        let entry = unsafe { libc::getpwent().as_ref() };
        let Some(entry) = entry.filter(|entry| !entry.pw_name.is_null()) else { break };
        // SAFETY: the C library ends the name with a null, and keeps it until the next call.
        let name = unsafe { CStr::from_ptr(entry.pw_name) };
        if let Ok(name) = name.to_str()
            && !local.contains(name)
        {
            names.push(name.to_owned());
        }
        if names.len() >= FROM_A_LIST || Instant::now() >= end {
            break;
        }
    }
    // SAFETY: as above.
    unsafe { libc::endpwent() };
    names
}
