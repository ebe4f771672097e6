//! Ctrl-C and SIGTERM as something that can be looked at, so that what was started is cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use procstorm_testkit::fault::{Fault, OrFault as _};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants us to end.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the two signals no longer kill us.
    pub fn listen() -> Result<Self, Fault> {
        let flag = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&flag);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .or_fault("cannot start an asynchronous runtime")?;
        let (mut int, mut term) = {
            let _context = runtime.enter();
            let int = signal(SignalKind::interrupt()).or_fault("cannot wait for SIGINT")?;
            let term = signal(SignalKind::terminate()).or_fault("cannot wait for SIGTERM")?;
            (int, term)
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
            });
            told.store(true, Ordering::Relaxed);
        });
        Ok(Self(flag))
    }

    /// Whether one of the signals has come.
    #[must_use]
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
