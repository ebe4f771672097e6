//! One remediation at a time for one user and command, whatever the alert called the user and
//! whichever playbook it named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use procstorm_processes::process::Command;
use tokio::sync::OwnedMutexGuard;

type Lane = Arc<tokio::sync::Mutex<()>>;

/// The lanes that somebody is in or waits for.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<(u32, Command), Lane>>,
}

impl Lanes {
    /// Waits until no other task acts on these processes. None does until the guard is dropped.
    pub(super) async fn enter(&self, uid: u32, command: Command) -> OwnedMutexGuard<()> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            Arc::clone(lanes.entry((uid, command)).or_default())
        };
        lane.lock_owned().await
    }
}
