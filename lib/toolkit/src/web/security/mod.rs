//! `--web.config.file`: which clients may use a server, and how, as Prometheus' exporter-toolkit
//! defines it (<https://prometheus.io/docs/prometheus/latest/configuration/https/>).
//!
//! - [`Security`]: the file as it is now; read again when it, or a file it names, changes.
//! - [`config`]: the file, validated, with every fault told at once.
//! - [`faults`]: what is wrong with it.
//! - `tls`: its `tls_server_config`.
//! - `client_cert`: which client certificates are good.
//! - `basic_auth`: its `basic_auth_users`.
//! - `rate_limit`: its `rate_limit`.

mod basic_auth;
mod client_cert;
pub mod config;
pub mod faults;
mod rate_limit;
mod tls;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use self::basic_auth::Gate;
use self::config::{ConfigError, WebConfig};
use self::rate_limit::Limiter;
use super::Response;
use super::seldom::Seldom;
use crate::certificate::Validity;
use crate::chain::Chain;
use crate::single_flight::SingleFlight;
use crate::workers::{Missing, Workers};

/// How long a connection or a request waits for the file system to say whether a file has changed.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// How long after a reading that failed for want of descriptors or memory it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The security of a server, as its file says now.
#[derive(Debug)]
pub struct Security {
    path: PathBuf,
    state: Mutex<State>,
    valid: AtomicBool,
    gate: Gate,
    limiter: Limiter,
    /// The look at the files that is under way, on a thread of its own.
    look: OnceLock<SingleFlight<()>>,
    told: Seldom,
}

#[derive(Debug)]
struct State {
    config: Arc<WebConfig>,
    stamps: Vec<Stamp>,
    /// When a reading failed for a reason that passes.
    failed: Option<Instant>,
    /// The number of the reading that is in force: of two at once the later one stays.
    reading: u64,
    readings: u64,
}

/// By what a changed file is known: inode, size, and modification in seconds and nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A valid configuration that is not in force yet: see [`Security::adopt`].
#[derive(Debug)]
pub struct Reading {
    config: WebConfig,
    stamps: Vec<Stamp>,
    number: u64,
}

impl Reading {
    /// Whether every request would come with a password, or every client would have shown a
    /// certificate that was verified.
    #[must_use]
    pub fn asks_who_speaks(&self) -> bool {
        self.config.asks_who_speaks()
    }
}

impl Security {
    /// Reads the file. Fails with all its faults. Starts no thread yet: see [`start`](Self::start).
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let config = WebConfig::read(path)?;
        let stamps = stamps(&config.files);
        let config = Arc::new(config);
        let state = State { config, stamps, failed: None, reading: 0, readings: 0 };
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            valid: AtomicBool::new(true),
            gate: Gate::default(),
            limiter: Limiter::default(),
            look: OnceLock::new(),
            told: Seldom::default(),
        })
    }

    /// Starts the threads that compare passwords and look at the files, if they do not run. A server
    /// does this before it takes its first connection, and in a sandbox if that is in one. Fails if
    /// they cannot be had.
    pub fn start(&self) -> Result<(), Missing> {
        self.gate.thread().check()?;
        self.look().check()
    }

    fn look(&self) -> &SingleFlight<()> {
        self.look.get_or_init(|| SingleFlight::on(Workers::start("web-config", 1)))
    }

    /// The file and those that it names, as of the last valid reading.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().config.files.clone()
    }

    /// Whether the last reading found the file valid.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Relaxed)
    }

    /// How long the certificate that is served now is valid; `None` without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<Validity> {
        self.lock().config.certificate
    }

    /// Whether every request comes with a password.
    #[must_use]
    pub fn asks_for_password(&self) -> bool {
        self.lock().config.asks_for_password()
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.lock().config.tls.is_some()
    }

    /// Whether every client has shown a certificate that was verified.
    #[must_use]
    pub fn verifies_clients(&self) -> bool {
        self.lock().config.verifies_clients
    }

    /// Whether every request comes with a password, or every client has shown a certificate that
    /// was verified.
    #[must_use]
    pub fn asks_who_speaks(&self) -> bool {
        self.lock().config.asks_who_speaks()
    }

    /// Reads the file again, changed or not, and puts it in force. Fails with all its faults; then
    /// what was last valid stays in force.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let reading = self.read()?;
        self.adopt(reading);
        Ok(())
    }

    /// Reads the file again, changed or not, without putting it in force. Fails with all its faults.
    /// Either way [`is_valid`](Self::is_valid) tells of it.
    pub fn read(&self) -> Result<Reading, ConfigError> {
        let (files, number) = {
            let mut state = self.lock();
            state.readings += 1;
            (state.config.files.clone(), state.readings)
        };
        // Taken before the reading: what changes during it is seen as a change the next time.
        let before = stamps(&files);
        let read = WebConfig::read(&self.path);
        self.valid.store(read.is_ok(), Ordering::Relaxed);
        match read {
            Ok(config) => {
                let stamps = if config.files == files { before } else { stamps(&config.files) };
                Ok(Reading { config, stamps, number })
            }
            Err(error) => {
                let mut state = self.lock();
                state.failed = error.passes().then(Instant::now);
                state.stamps = before;
                Err(error)
            }
        }
    }

    /// Puts in force what was read, unless something that was read later is.
    pub fn adopt(&self, Reading { config, stamps, number }: Reading) {
        let mut state = self.lock();
        if number > state.reading {
            state.config = Arc::new(config);
            (state.stamps, state.failed, state.reading) = (stamps, None, number);
        }
    }

    /// What is in force now, after a look whether its files have changed.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<WebConfig> {
        let security = Arc::clone(self);
        let look = self.look().run(move || security.follow_changes());
        if timeout(LOOK_PATIENCE, look).await.is_err()
            && let Some(unsaid) = self.told.may_say("silent")
        {
            let file = self.path.display();
            tracing::error!(
                %file,
                unsaid,
                "the file system of the web configuration does not answer; still using the \
                 previous configuration"
            );
        }
        Arc::clone(&self.lock().config)
    }

    /// `None` if the request may pass, else the answer.
    pub(super) async fn refuse(&self, config: &WebConfig, headers: &HeaderMap) -> Option<Response> {
        self.gate.refuse(&config.users, headers).await
    }

    /// `None` if there is room for the request in `rate_limit`, else the answer.
    pub(super) fn limit(&self, config: &WebConfig, method: &Method) -> Option<Response> {
        let mut refusal = self.limiter.refuse(config.rate)?;
        // Alertmanager posts again after a 503, and not after a 429.
        if *method == Method::POST {
            *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Some(refusal)
    }

    fn follow_changes(&self) {
        let (files, known, failed) = {
            let state = self.lock();
            (state.config.files.clone(), state.stamps.clone(), state.failed)
        };
        let retry = failed.is_some_and(|failed| failed.elapsed() >= RETRY);
        if !retry && stamps(&files) == known {
            return;
        }
        let file = self.path.display();
        match self.reload() {
            Ok(()) => tracing::info!(%file, "web configuration reloaded"),
            Err(error) => {
                if let Some(unsaid) = self.told.may_say(&error.to_string()) {
                    tracing::error!(
                        error = %Chain(&error),
                        unsaid,
                        "web configuration reload failed; still using the previous configuration"
                    );
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a handshake failed, for the administrator of the server.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    // By their names in webpki, which are all that reaches us of them.
    let known = [
        (
            "CaUsedAsEndEntity",
            "the client's certificate is that of an authority (CA:TRUE); issue it one with CA:FALSE",
        ),
        (
            "UnsupportedCertVersion",
            "the client's certificate is X.509 v1; issue it one of version 3",
        ),
    ];
    match known.iter().find(|(name, _)| text.contains(name)) {
        Some((_, reason)) => (*reason).to_owned(),
        None => text,
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}
