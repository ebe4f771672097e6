//! Asks the system's name service (NSS), which may hang, on threads apart.
//!
//! The original was written while NIS was failing. A question to a name service that does not
//! answer holds its thread for as long as it likes; the caller goes on at its deadline.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Uid, User};
use procstorm_toolkit::workers::Workers;

/// So many questions can hang before others must wait behind them: a directory service that is
/// down should not keep the accounts in local files without a name.
const THREADS: usize = 4;

/// The threads that ask, which exist from the start: a storm that has taken every pid must not keep
/// its own user without a name. Clones share them.
#[derive(Clone, Debug)]
pub struct NameService {
    threads: Workers,
}

impl Default for NameService {
    fn default() -> Self {
        Self { threads: Workers::start("names", THREADS) }
    }
}

/// The name service gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NameServiceError {
    /// Not within the deadline.
    #[error("the name service did not resolve {who} within {} ms", .deadline.as_millis())]
    Silent {
        /// The account asked for.
        who: String,
        /// How long we waited.
        deadline: Duration,
    },
    /// It reported an error.
    #[error("the name service cannot resolve {who}")]
    Failed {
        /// The account asked for.
        who: String,
        /// What it reported.
        #[source]
        source: io::Error,
    },
}

impl NameService {
    /// Has `question` run on a thread apart. Its answer comes through the receiver, if ever.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Receiver<T> {
        let (answer, receiver) = channel();
        self.run(move || {
            // The caller may have stopped waiting.
            answer.send(question()).unwrap_or_default();
        });
        receiver
    }

    /// The same for a question that sees to its answer itself: a channel for each of many thousand
    /// would take more memory than all their names.
    pub fn run(&self, question: impl FnOnce() + Send + 'static) {
        self.threads.submit(question);
    }

    /// The name of `uid`, or `None` if it has none. Waits for the name service, so is to be called
    /// within [`ask`](Self::ask).
    pub fn name_of(uid: u32) -> Result<Option<String>, io::Error> {
        known(User::from_uid(Uid::from_raw(uid))).map(|user| user.map(|user| user.name))
    }

    /// The uid of the account `name`, or `None` if there is no such account. Waits until the
    /// deadline at most. Fails if the name service does not answer or reports an error.
    pub fn uid_of(&self, name: &str, deadline: Duration) -> Result<Option<u32>, NameServiceError> {
        let who = name.to_owned();
        let answer = self.ask(move || known(User::from_name(&who))).recv_timeout(deadline);
        let who = || format!("\"{}\"", name.escape_debug());
        match answer {
            Ok(Ok(user)) => Ok(user.map(|user| user.uid.as_raw())),
            Ok(Err(source)) => Err(NameServiceError::Failed { who: who(), source }),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(NameServiceError::Silent { who: who(), deadline })
            }
        }
    }
}

/// "There is none" as `None`: besides success without a result, `getpwuid_r(3)` lists these
/// errors as what implementations give for it.
fn known(answer: Result<Option<User>, Errno>) -> Result<Option<User>, io::Error> {
    match answer {
        Ok(user) => Ok(user),
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_hangs_holds_up_no_other() {
        let service = NameService::default();
        let (release, hold) = channel::<()>();
        let hanging = service.ask(move || hold.recv());
        let other = service.ask(|| 42).recv_timeout(Duration::from_secs(60));
        assert_eq!(other, Ok(42));
        drop(release);
        assert!(hanging.recv_timeout(Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn root_is_known_and_nobody_is_not() {
        let service = NameService::default();
        let deadline = Duration::from_secs(60);
        assert_eq!(NameService::name_of(0).expect("an answer").as_deref(), Some("root"));
        assert_eq!(service.uid_of("root", deadline).expect("an answer"), Some(0));
        assert_eq!(service.uid_of("no such account", deadline).expect("an answer"), None);
    }
}
