//! Threads that exist from the start, for work that blocks.
//!
//! A thread that is started when it is needed cannot be had in the very emergency that needs it: a
//! machine that is overloaded may have no pid or no memory left. Those of a [`Workers`] are started with it and
//! stay. Work that finds none idle waits its turn; work that panics costs neither its thread nor
//! the work behind it.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// A fixed number of threads. Clones share them; they end, once idle, with the last clone.
#[derive(Clone)]
pub struct Workers {
    handle: Arc<Handle>,
}

/// The work panicked. The text is what it said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

/// Not all threads could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only {threads} of {wanted} threads \"{name}\" could be started")]
pub struct Missing {
    name: &'static str,
    threads: usize,
    wanted: usize,
}

impl From<Missing> for std::io::Error {
    fn from(missing: Missing) -> Self {
        Self::new(std::io::ErrorKind::WouldBlock, missing)
    }
}

struct Handle {
    pool: Arc<Pool>,
}

struct Pool {
    name: &'static str,
    wanted: usize,
    state: Mutex<State>,
    arrival: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    busy: usize,
    closed: bool,
}

impl Workers {
    /// Starts `count` threads called `name` (at most 15 bytes, as the kernel shows no more), at
    /// least one. Those that cannot be had now are tried again whenever work is submitted, until
    /// all exist.
    #[must_use]
    pub fn start(name: &'static str, count: usize) -> Self {
        let pool =
            Pool { name, wanted: count.max(1), state: Mutex::default(), arrival: Condvar::new() };
        let pool = Arc::new(pool);
        Pool::fill(&pool, &mut pool.lock());
        Self { handle: Arc::new(Handle { pool }) }
    }

    /// Has `work` done by the next thread that is free. Returns at once.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        let pool = &self.handle.pool;
        let mut state = pool.lock();
        state.waiting.push_back(Box::new(work));
        Pool::fill(pool, &mut state);
        drop(state);
        pool.arrival.notify_one();
    }

    /// Has `work` done, and returns what it returns. The work goes on, and its result is lost, if
    /// the caller stops waiting. Fails if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (answer, answered) = oneshot::channel();
        self.submit(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            // The caller may no longer wait.
            drop(answer.send(result.map_err(|panic| Panicked(message(panic.as_ref())))));
        });
        let dropped = |_closed| Panicked("the work was dropped".to_owned());
        answered.await.map_err(dropped)?
    }

    /// Tries again to start the threads that could not be had so far, as [`submit`](Self::submit)
    /// does: for a caller that waits for work submitted before.
    pub fn muster(&self) {
        Pool::fill(&self.handle.pool, &mut self.handle.pool.lock());
    }

    /// Fails if not all threads could be had: for a program that must not start without them.
    pub fn check(&self) -> Result<(), Missing> {
        let (name, wanted) = (self.handle.pool.name, self.handle.pool.wanted);
        let threads = self.threads();
        if threads >= wanted { Ok(()) } else { Err(Missing { name, threads, wanted }) }
    }

    /// How many threads exist.
    fn threads(&self) -> usize {
        self.handle.pool.lock().threads
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the threads that are missing, as far as the system has any.
    fn fill(pool: &Arc<Self>, state: &mut State) {
        while state.threads < pool.wanted {
            let worker = Arc::clone(pool);
            let thread = std::thread::Builder::new().name(pool.name.to_owned());
            match thread.spawn(move || worker.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    let (name, threads, wanted) = (pool.name, state.threads, pool.wanted);
                    tracing::warn!(name, threads, wanted, %error, "cannot start a worker thread");
                    return;
                }
            }
        }
    }

    /// What a thread does: one piece of work after another, until no more can be submitted.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                state.busy += 1;
                drop(state);
                // What has panicked has said so on stderr, by the panic hook.
                drop(catch_unwind(AssertUnwindSafe(work)));
                state = self.lock();
                state.busy -= 1;
            } else if state.closed {
                state.threads -= 1;
                return;
            } else {
                state = self.arrival.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pool.lock().closed = true;
        self.pool.arrival.notify_all();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.handle.pool.lock();
        f.debug_struct("Workers")
            .field("name", &self.handle.pool.name)
            .field("threads", &state.threads)
            .field("busy", &state.busy)
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn the_threads_exist_before_there_is_work_and_after_it() {
        let workers = Workers::start("t-exist", 3);
        assert_eq!(workers.threads(), 3);
        let (say, said) = channel();
        workers.submit(move || say.send(std::thread::current().name().map(str::to_owned)).unwrap());
        assert_eq!(said.recv_timeout(LIMIT).unwrap().as_deref(), Some("t-exist"));
        assert_eq!(workers.threads(), 3);
    }

    #[tokio::test]
    async fn a_panic_costs_neither_the_thread_nor_the_work_behind_it() {
        let workers = Workers::start("t-panic", 1);
        let fault = workers.run::<()>(|| panic!("in {}", "the middle")).await;
        assert_eq!(fault, Err(Panicked("in the middle".to_owned())));
        workers.submit(|| panic!("unasked"));
        assert_eq!(workers.run(|| 7).await, Ok(7));
        assert_eq!(workers.threads(), 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_done_all_the_same() {
        let workers = Workers::start("t-alone", 1);
        let (go, wait) = channel::<()>();
        let (say, said) = channel();
        let work = workers.run(move || {
            wait.recv().unwrap();
            say.send(7).unwrap();
        });
        tokio::time::timeout(Duration::from_millis(50), work).await.unwrap_err();
        go.send(()).unwrap();
        assert_eq!(said.recv_timeout(LIMIT), Ok(7));
    }

    #[test]
    fn work_that_hangs_holds_up_its_own_thread_alone() {
        let workers = Workers::start("t-hang", 2);
        let (release, hold) = channel::<()>();
        workers.submit(move || hold.recv().unwrap_or_default());
        let (say, said) = channel();
        for number in 0..3 {
            let say = say.clone();
            workers.submit(move || say.send(number).unwrap());
        }
        let said: Vec<i32> = (0..3).map(|_| said.recv_timeout(LIMIT).unwrap()).collect();
        assert_eq!(said, [0, 1, 2]);
        drop(release);
    }

    #[test]
    fn the_threads_end_with_the_last_handle_and_after_the_last_work() {
        let workers = Workers::start("t-end", 2);
        let (say, said) = channel();
        for number in 0..10 {
            let say = say.clone();
            workers.submit(move || say.send(number).unwrap());
        }
        drop(say);
        let pool = Arc::downgrade(&workers.handle.pool);
        drop(workers);
        assert_eq!(said.iter().count(), 10);
        let begun = std::time::Instant::now();
        while pool.upgrade().is_some() {
            assert!(begun.elapsed() < LIMIT, "the threads stay");
            std::thread::yield_now();
        }
    }
}
