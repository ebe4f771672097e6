//! Work that is done once for all who ask while it is under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The work under way, if any. Clones share it.
#[derive(Debug)]
pub struct SingleFlight<T> {
    current: Arc<Mutex<Option<watch::Receiver<Option<T>>>>>,
}

impl<T> Clone for SingleFlight<T> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { current: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// The result of the work under way, or of `work`, which is then begun on a thread that may
    /// block. It goes on if whoever asked for it has gone. `None` if it panicked.
    pub async fn run(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut result = self.join_or_begin(work);
        result.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn join_or_begin(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> watch::Receiver<Option<T>> {
        let mut current = self.lock();
        // A sender that is gone without a result has panicked.
        if let Some(flight) = current.as_ref()
            && flight.has_changed().is_ok()
        {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        *current = Some(receiver.clone());
        let flight = self.clone();
        tokio::task::spawn_blocking(move || {
            let result = work();
            // Off the list first: who asks from now on must not get a result of the past.
            *flight.lock() = None;
            sender.send_replace(Some(result));
        });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, Option<watch::Receiver<Option<T>>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn ten_who_ask_at_once_cost_one_run_and_the_next_costs_another() {
        let (flight, runs) = (SingleFlight::default(), Arc::new(AtomicU32::new(0)));
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
    async fn a_panic_is_no_result_and_stops_nothing() {
        let flight = SingleFlight::default();
        assert_eq!(flight.run(|| panic!("in the middle")).await, None);
        assert_eq!(flight.run(|| 7).await, Some(7));
    }
}
