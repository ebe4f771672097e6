//! Asks the system's name service (NSS), which may hang, on threads apart.
//!
//! The original was written while NIS was failing. A question to a name service that does not
//! answer holds its thread for as long as it likes; whoever asked goes on at its deadline.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Uid, User};

/// So many questions can hang before others must wait behind them: a directory service that is
/// down should not keep the accounts in local files without a name.
const MAX_THREADS: usize = 4;

/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(10);

type Question = Box<dyn FnOnce() + Send>;

/// The threads that ask. Clones share them.
#[derive(Clone, Default)]
pub struct NameService {
    desk: Arc<Desk>,
}

#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    arrival: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Question>,
    threads: usize,
    idle: usize,
}

/// The name service gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NameServiceError {
    /// Not within the deadline.
    #[error("the name service did not say within {} ms who {who} is", .deadline.as_millis())]
    Silent {
        /// The account asked for.
        who: String,
        /// How long we waited.
        deadline: Duration,
    },
    /// It reported an error.
    #[error("the name service cannot say who {who} is")]
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
            // Whoever asked may have gone.
            answer.send(question()).unwrap_or_default();
        });
        receiver
    }

    /// The same for a question that sees to its answer itself: a channel for each of many thousand
    /// would take more memory than all their names.
    pub(crate) fn run(&self, question: impl FnOnce() + Send + 'static) {
        self.submit(Box::new(question));
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

    fn submit(&self, question: Question) {
        let mut state = self.desk.lock();
        state.waiting.push_back(question);
        if state.idle >= state.waiting.len() || state.threads >= MAX_THREADS {
            self.desk.arrival.notify_one();
            return;
        }
        let desk = Arc::clone(&self.desk);
        let thread = std::thread::Builder::new().name("names".to_owned());
        match thread.spawn(move || desk.work()) {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::warn!(%error, "cannot start a thread for the name service"),
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does: answers until there was nothing to do for a while.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            while let Some(question) = state.waiting.pop_front() {
                drop(state);
                question();
                state = self.lock();
            }
            state.idle += 1;
            let (next, wait) = self
                .arrival
                .wait_timeout_while(state, LINGER, |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if wait.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl fmt::Debug for NameService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.desk.lock();
        f.debug_struct("NameService")
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("waiting", &state.waiting.len())
            .finish()
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
