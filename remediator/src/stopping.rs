//! How what acts waits: until the journal answers, or the daemon stops.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::active::RETRY;
use crate::journal::Fault;

/// The daemon stops. The journal knows how far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopping;

/// Asks the journal until it answers: nothing goes on without its record.
pub(crate) async fn persist<T, F>(
    stop: &watch::Receiver<bool>,
    ask: impl Fn() -> F,
) -> Result<T, Stopping>
where
    F: Future<Output = Result<T, Fault>>,
{
    loop {
        // The journal logs its faults itself.
        if let Ok(value) = ask().await {
            return Ok(value);
        }
        pause(stop, RETRY).await?;
    }
}

/// Waits, unless the daemon stops.
pub(crate) async fn pause(stop: &watch::Receiver<bool>, time: Duration) -> Result<(), Stopping> {
    let mut stop = stop.clone();
    match timeout(time, stop.wait_for(|stop| *stop)).await {
        Ok(_) => Err(Stopping),
        Err(_) => Ok(()),
    }
}
