//! `--web.config.file`: who may speak to a server, and how, as Prometheus' exporter-toolkit
//! defines it (<https://prometheus.io/docs/prometheus/latest/configuration/https/>).
//!
//! - [`Security`]: the file as it is now; read anew when it, or a file it names, changes.
//! - [`config`]: the file, validated, with every fault told at once.
//! - `tls`: its `tls_server_config`.
//! - `client_cert`: which client certificates are good.
//! - `basic_auth`: its `basic_auth_users`.

mod basic_auth;
mod client_cert;
pub mod config;
mod tls;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::HeaderMap;

use self::basic_auth::Gate;
use self::config::{ConfigError, WebConfig};
use super::Response;

/// The security of a server, as its file says now.
#[derive(Debug)]
pub struct Security {
    path: PathBuf,
    state: Mutex<State>,
    valid: AtomicBool,
    gate: Gate,
}

#[derive(Debug)]
struct State {
    config: Arc<WebConfig>,
    stamps: Vec<Stamp>,
}

/// By what a changed file is known: inode, size, and modification in seconds and nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Security {
    /// Reads the file. Fails with all its faults.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let config = WebConfig::read(path)?;
        let stamps = config.files.iter().map(|file| stamp(file)).collect();
        let state = State { config: Arc::new(config), stamps };
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            valid: AtomicBool::new(true),
            gate: Gate::default(),
        })
    }

    /// Whether the last reading found the file valid.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Relaxed)
    }

    /// Whether every request comes with a password.
    #[must_use]
    pub fn asks_for_password(&self) -> bool {
        !self.lock().config.users.is_empty()
    }

    /// Whether every client has shown a certificate that was verified.
    #[must_use]
    pub fn verifies_clients(&self) -> bool {
        self.lock().config.verifies_clients
    }

    /// Reads the file anew, changed or not. If it has faults they are logged, and what was last
    /// valid stays in force.
    pub fn reload(&self) {
        let mut state = self.lock();
        self.read_into(&mut state);
    }

    /// What is in force now.
    pub(super) fn current(&self) -> Arc<WebConfig> {
        let mut state = self.lock();
        let files = &state.config.files;
        if !files.iter().map(|file| stamp(file)).eq(state.stamps.iter().copied()) {
            self.read_into(&mut state);
        }
        Arc::clone(&state.config)
    }

    /// `None` if the request may pass, else the answer.
    pub(super) async fn refuse(&self, config: &WebConfig, headers: &HeaderMap) -> Option<Response> {
        self.gate.refuse(&config.users, headers).await
    }

    fn read_into(&self, state: &mut State) {
        // Taken before the reading: what changes during it is seen as a change the next time.
        let before: Vec<_> = state.config.files.iter().map(|file| stamp(file)).collect();
        match WebConfig::read(&self.path) {
            Ok(config) => {
                let same_files = config.files == state.config.files;
                state.stamps = match same_files {
                    true => before,
                    false => config.files.iter().map(|file| stamp(file)).collect(),
                };
                state.config = Arc::new(config);
                self.valid.store(true, Ordering::Relaxed);
                tracing::info!(file = %self.path.display(), "the web configuration was read anew");
            }
            Err(error) => {
                state.stamps = before;
                self.valid.store(false, Ordering::Relaxed);
                tracing::error!(%error, "the web configuration stays as it was");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}
