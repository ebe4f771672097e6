//! Real storms of processes and the library that ends them.
//!
//! - `basics`: exactly the storm ends, and it is proven.
//! - `circumstances`: stuck, frozen and hidden processes, missing rights.
//! - `grace`: SIGTERM, time to exit, then SIGKILL.
//! - `opponents`: storms that fight back.
//! - `reuse`: pids that go to strangers.
//! - `told`: what people hear of storms in containers.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod basics;
mod circumstances;
mod grace;
mod opponents;
mod reuse;
mod told;

/// Held by a test whose storm takes the whole machine: two at once would leave neither kill enough
/// time.
fn whole_machine() -> MutexGuard<'static, ()> {
    static TAKEN: Mutex<()> = Mutex::new(());
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
