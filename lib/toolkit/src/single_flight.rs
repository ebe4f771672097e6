//! Work that is done once for all callers that ask for it while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::workers::{Missing, Workers};

/// The work under way, if any, and the threads that do it. Clones share both.
#[derive(Debug)]
pub struct SingleFlight<T> {
    threads: Workers,
    current: Current<T>,
}

/// Where the result of the work under way will be seen.
type Current<T> = Arc<Mutex<Option<watch::Receiver<Option<T>>>>>;

impl<T> Clone for SingleFlight<T> {
    fn clone(&self) -> Self {
        Self { threads: self.threads.clone(), current: Arc::clone(&self.current) }
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// Has its work done by `threads`, which should do nothing else that may hang.
    #[must_use]
    pub fn on(threads: Workers) -> Self {
        Self { threads, current: Arc::default() }
    }

    /// Fails if its threads could not all be had.
    pub fn check(&self) -> Result<(), Missing> {
        self.threads.check()
    }

    /// The result of the work under way, or of `work`, which then begins. The work goes on if the
    /// caller stops waiting. `None` if it panicked.
    pub async fn run(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut result = self.join_or_begin(work);
        result.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn join_or_begin(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> watch::Receiver<Option<T>> {
        // Where not all threads could be had at the start, each caller tries again.
        self.threads.muster();
        let mut current = lock(&self.current);
        if let Some(flight) = current.as_ref() {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        *current = Some(receiver.clone());
        drop(current);
        let landing = Landing { current: Arc::clone(&self.current), sender, result: None };
        self.threads.submit(move || {
            let mut landing = landing;
            landing.result = Some(work());
        });
        receiver
    }
}

/// The end of the work, however it comes: with a result, by a panic, or because it was never begun.
struct Landing<T> {
    current: Current<T>,
    sender: watch::Sender<Option<T>>,
    result: Option<T>,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        // Off the list first: a caller that asks from now on must not get a result of the past.
        *lock(&self.current) = None;
        if let Some(result) = self.result.take() {
            self.sender.send_replace(Some(result));
        }
        // Without a result, the sender's end wakes the callers.
    }
}

fn lock<T>(current: &Current<T>) -> MutexGuard<'_, Option<watch::Receiver<Option<T>>>> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn flight<T: Clone + Send + Sync + 'static>() -> SingleFlight<T> {
        SingleFlight::on(Workers::start("test-flight", 1))
    }

    #[tokio::test]
    async fn ten_who_ask_at_once_cost_one_run_and_the_next_costs_another() {
        let (flight, runs) = (flight(), Arc::new(AtomicU32::new(0)));
        let (go, wait) = channel::<()>();
        let count = Arc::clone(&runs);
        let first = flight.join_or_begin(move || {
            wait.recv().expect("told to go");
            count.fetch_add(1, Ordering::SeqCst)
        });
        let others: Vec<_> = (0..9).map(|_| flight.join_or_begin(|| 99)).collect();
        go.send(()).expect("it waits");
        for mut result in others.into_iter().chain([first]) {
            assert_eq!(*result.wait_for(Option::is_some).await.expect("a result"), Some(0));
        }
        assert_eq!(flight.run(|| 7).await, Some(7));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_ends_the_flight_for_all_who_wait_and_stops_nothing() {
        let flight = flight();
        let (go, wait) = channel::<()>();
        let first = flight.join_or_begin(move || {
            wait.recv().expect("told to go");
            panic!("in the middle")
        });
        let second = flight.join_or_begin(|| 99);
        go.send(()).expect("it waits");
        for mut result in [first, second] {
            assert!(result.wait_for(Option::is_some).await.is_err());
        }
        assert_eq!(flight.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_caller_that_stops_waiting_strands_nobody() {
        let flight = flight();
        let (go, wait) = channel::<()>();
        let first = flight.run(move || {
            wait.recv().expect("told to go");
            7
        });
        let gave_up = timeout(Duration::from_millis(20), first).await;
        assert!(gave_up.is_err());
        let second = flight.join_or_begin(|| 99);
        go.send(()).expect("it waits");
        let mut second = second;
        assert_eq!(*second.wait_for(Option::is_some).await.expect("a result"), Some(7));
        assert_eq!(flight.run(|| 8).await, Some(8));
    }

    #[tokio::test]
    async fn work_that_is_never_begun_ends_the_flight() {
        let threads = Workers::start("test-flight", 1);
        let flight: SingleFlight<u8> = SingleFlight::on(threads.clone());
        let (sender, receiver) = watch::channel(None);
        *lock(&flight.current) = Some(receiver.clone());
        // As the queue of a pool that ends drops it.
        drop(Landing { current: Arc::clone(&flight.current), sender, result: None });
        let mut receiver = receiver;
        assert!(receiver.wait_for(Option::is_some).await.is_err());
        assert_eq!(flight.run(|| 7).await, Some(7));
    }
}
