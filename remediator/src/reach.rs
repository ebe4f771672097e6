//! Whether the name service answers in the sandbox as it did outside of it.
//!
//! A module of the name service (NSS) reads what it likes, anywhere. Where the sandbox keeps that
//! closed, the module's accounts are strangers to the daemon, and their storms go on. So a few
//! questions are asked before the sandbox is entered, and again in it.
//!
//! - [`Sample::take`]: asks outside. [`Sample::compare`]: asks again inside, without end while
//!   something differs.
//! - [`Reach`]: the result, for `/-/ready` and for each lookup that gets the answer "not found".
//! - `services`: whom /etc/nsswitch.conf asks.

mod sample;
mod services;

use std::fmt::{self, Display, Formatter};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Group, Uid, User};

use crate::account::Listed;
use crate::policy::Identity;
pub use sample::Sample;
use services::Services;

/// How long after a difference the question is asked again.
const AGAIN: Duration = Duration::from_secs(15);

/// After how long without an answer a question counts as not answered.
const SILENT: Duration = Duration::from_secs(10);

/// How many differences are listed.
const TOLD: usize = 3;

/// A question to the name service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    /// Which uid has the account of this name?
    Account(String),
    /// Is there an account with this uid?
    Uid(u32),
    /// Which gid has the group of this name?
    Group(String),
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The uid or gid.
    Known(u32),
    Unknown,
    Failed(Errno),
}

/// A question whose answer was another in the sandbox than outside.
#[derive(Clone, Debug)]
struct Difference {
    question: Question,
    outside: Answer,
    inside: Answer,
}

/// How far the name service reaches in the sandbox. Clones share what is found out.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    services: Services,
    different: Vec<Difference>,
    /// What is being asked in the sandbox, and since when.
    asking: Option<(Question, Instant)>,
    /// Whether an account was found in the sandbox that is not in /etc/passwd.
    reaches_beyond_files: bool,
}

impl Reach {
    /// What the name service does not say in the sandbox though it said it outside, and what to do
    /// about it; `None` if it answers as it did.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.lock().fault()
    }

    /// Why an identity may be owed to the sandbox alone: nobody was found, and somebody might be
    /// outside.
    #[must_use]
    pub fn doubt(&self, identity: &Identity) -> Option<String> {
        let state = self.lock();
        match identity {
            Identity::Unknown => state.fault().or_else(|| state.untried()),
            // A protected account may be behind it.
            Identity::Nameless(_) => state.fault(),
            Identity::Named(_)
            | Identity::Alias(_)
            | Identity::Unusable(_)
            | Identity::Unresolved(_) => None,
        }
    }

    /// Which of `list` protects a uid by what was known outside of it alone. Fails for a group that
    /// the sandbox hides: who is in it cannot be told.
    pub fn protected_by(&self, list: &[Listed], uid: u32) -> Result<Option<Listed>, String> {
        let state = self.lock();
        for Difference { question, outside, .. } in &state.different {
            let Answer::Known(id) = outside else { continue };
            let is_meant = |entry: &&Listed| match (entry, question) {
                (Listed::Name(name), Question::Account(asked)) => name.as_str() == asked,
                (Listed::Group(name), Question::Group(asked)) => name == asked,
                (Listed::Name(_) | Listed::Uid(_) | Listed::Group(_), _) => false,
            };
            match list.iter().find(is_meant) {
                Some(Listed::Group(_)) => {
                    return Err(format!("the sandbox hides who is in {question}"));
                }
                Some(entry) if *id == uid => return Ok(Some(entry.clone())),
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks in the sandbox what was asked outside; those that differ again and again, since a
    /// service may only have been away for a moment.
    fn compare(&self, early: Vec<(Question, Answer)>, later: &Receiver<(Question, Answer)>) {
        for (question, outside) in early {
            self.ask(question, outside);
        }
        loop {
            match later.recv_timeout(AGAIN) {
                Ok((question, outside)) => {
                    self.ask(question, outside);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.lock().different.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => pause(),
            }
            let different = self.lock().different.clone();
            for Difference { question, outside, .. } in different {
                self.ask(question, outside);
            }
        }
    }

    fn ask(&self, question: Question, outside: Answer) {
        self.lock().asking = Some((question.clone(), Instant::now()));
        let inside = question.ask();
        // It reads files: not while others wait for the state.
        let beyond = matches!(inside, Answer::Known(_)) && question.is_beyond_files();
        let mut state = self.lock();
        state.asking = None;
        state.different.retain(|known| known.question != question);
        if inside != outside {
            state.different.push(Difference { question, outside, inside });
        } else if beyond {
            state.reaches_beyond_files = true;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when a name service is mended")]
fn pause() {
    thread::sleep(AGAIN);
}

impl State {
    fn fault(&self) -> Option<String> {
        let told: Vec<_> = self.different.iter().take(TOLD).map(ToString::to_string).collect();
        let silent = self.asking.as_ref().filter(|(_, since)| since.elapsed() >= SILENT);
        let silent = silent.map(|(question, _)| format!("{question}: no answer"));
        let told: Vec<_> = told.into_iter().chain(silent).collect();
        if told.is_empty() {
            return None;
        }
        let more = match self.different.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!(
            "in the sandbox the name service does not answer as it did outside of it: {}{more}; \
             /etc/nsswitch.conf asks {}: write the directories that it reads into sandbox.read of \
             the policy, and restart the daemon",
            told.join(", "),
            self.services.suspects(),
        ))
    }

    /// Why "there is none" is not reliable, though no difference was found.
    fn untried(&self) -> Option<String> {
        let strangers = self.services.strangers().filter(|_| !self.reaches_beyond_files)?;
        Some(format!(
            "the name service knows no such account, but /etc/nsswitch.conf asks {strangers}, and \
             whether it can answer in the sandbox is not known, as it showed no account at the start"
        ))
    }
}

impl Question {
    fn ask(&self) -> Answer {
        let account = |user: User| user.uid.as_raw();
        let answer = match self {
            Self::Account(name) => User::from_name(name).map(|user| user.map(account)),
            Self::Uid(uid) => User::from_uid(Uid::from_raw(*uid)).map(|user| user.map(account)),
            Self::Group(name) => {
                Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw()))
            }
        };
        match answer {
            Ok(Some(id)) => Answer::Known(id),
            Ok(None) => Answer::Unknown,
            Err(errno) => Answer::Failed(errno),
        }
    }

    fn is_beyond_files(&self) -> bool {
        matches!(self, Self::Account(name) if !sample::local().contains(name))
    }
}

impl Display for Question {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(name) => write!(f, "account {name:?}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Group(name) => write!(f, "group {name:?}"),
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(id) => write!(f, "{id}"),
            Self::Unknown => f.write_str("not found"),
            Self::Failed(errno) => f.write_str(errno.desc()),
        }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { question, outside, inside } = self;
        write!(f, "{question}: {inside} (outside: {outside})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(nsswitch: &str) -> Reach {
        let reach = Reach::default();
        reach.lock().services = Services::parse(nsswitch);
        reach
    }

    #[test]
    fn what_was_known_outside_and_is_not_inside_is_a_fault_with_its_service() {
        let reach = reach("passwd: files far\n");
        reach.ask(Question::Uid(0), Answer::Known(0));
        assert_eq!(reach.fault(), None);
        for number in 0..5 {
            reach.ask(Question::Account(format!("no-such-{number}")), Answer::Known(4711));
        }
        let fault = reach.fault().expect("a fault");
        for part in [
            "account \"no-such-0\": not found (outside: 4711)",
            "and 2 more",
            "far (libnss_far.so.2)",
            "sandbox.read",
        ] {
            assert!(fault.contains(part), "{part}: {fault}");
        }
        assert_eq!(reach.doubt(&Identity::Unknown), Some(fault.clone()));
        assert_eq!(reach.doubt(&Identity::Nameless(4711)), Some(fault));
    }

    #[test]
    fn a_difference_that_has_gone_is_none() {
        let reach = reach("passwd: files far\n");
        let question = Question::Uid(0);
        let outside = Answer::Known(0);
        let inside = Answer::Failed(Errno::EACCES);
        reach.lock().different.push(Difference { question: question.clone(), outside, inside });
        assert!(reach.fault().expect("a fault").contains("uid 0: Permission denied (outside: 0)"));
        reach.ask(question, outside);
        assert_eq!(reach.fault(), None);
    }

    #[test]
    fn nobody_is_called_unknown_where_a_service_could_not_be_tried() {
        for (nsswitch, doubts) in [
            ("passwd: files systemd sss\n", false),
            ("passwd: files far\n", true),
            ("passwd: files\ngroup: files far\n", false),
        ] {
            let doubt = reach(nsswitch).doubt(&Identity::Unknown);
            assert_eq!(doubt.is_some(), doubts, "{nsswitch}: {doubt:?}");
        }
        let tried = reach("passwd: files far\n");
        tried.lock().reaches_beyond_files = true;
        assert_eq!(tried.doubt(&Identity::Unknown), None);
        assert_eq!(reach("passwd: files far\n").doubt(&Identity::Nameless(4711)), None);
    }

    #[test]
    fn an_account_that_the_sandbox_hides_stays_protected() {
        let reach = reach("passwd: files far\n");
        let list = ["far-alias", "@far-staff"].map(|text| Listed::parse(text).expect("an entry"));
        assert_eq!(reach.protected_by(&list, 4711), Ok(None));
        reach.ask(Question::Account("far-alias".to_owned()), Answer::Known(4711));
        assert_eq!(reach.protected_by(&list, 4711), Ok(list.first().cloned()));
        assert_eq!(reach.protected_by(&list, 4712), Ok(None));
        reach.ask(Question::Group("far-staff".to_owned()), Answer::Known(4711));
        let hidden = "the sandbox hides who is in group \"far-staff\"".to_owned();
        assert_eq!(reach.protected_by(&list, 4712), Err(hidden));
    }

    #[test]
    fn a_question_that_hangs_in_the_sandbox_is_told() {
        let reach = reach("passwd: files far\n");
        let since = Instant::now().checked_sub(SILENT).expect("a machine that is up for long");
        reach.lock().asking = Some((Question::Account("far".to_owned()), since));
        assert!(reach.fault().expect("a fault").contains("account \"far\": no answer"));
    }
}
