//! What systemd hands over to a daemon, and what a daemon reports to it.
//!
//! - [`notice`]: ready, reloading, stopping, and a status line (`man 3 sd_notify`).
//! - [`sockets`]: the sockets of a socket unit (`--web.systemd-socket`).
//! - [`reload`]: `systemctl reload` waits for the daemon's answer, and fails if the daemon refuses.
//!
//! Without systemd none of it does anything.

use std::error::Error;
use std::io;

use crate::chain::Chain;
use crate::web::listen::ListenersError;
use crate::web::security::config::ConfigError;

pub mod notice;
pub mod reload;
pub mod sockets;

/// The exit status of a daemon whose configuration has a fault, `EX_CONFIG` of `sysexits.h`. A
/// restart would not help, so the units do not restart it (`RestartPreventExitStatus=`).
pub const FAULTY_CONFIGURATION: u8 = 78;

/// The exit status of any other fault: it may pass, so the units start the daemon again.
const FAULT: u8 = 1;

/// An error that came from another thread, which only its text can leave.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Carried {
    text: String,
    status: u8,
}

impl Carried {
    /// The text of `error` and its causes, and its [`exit_status`].
    #[must_use]
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        Self { text: Chain(error).to_string(), status: exit_status(error) }
    }
}

/// With which status a program ends because of `error`: [`FAULTY_CONFIGURATION`] if only a person
/// can mend it, else 1.
#[must_use]
pub fn exit_status(error: &(dyn Error + 'static)) -> u8 {
    if let Some(carried) = error.downcast_ref::<Carried>() {
        return carried.status;
    }
    let lasts = match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Unreadable { source, .. }) => is_not_there(source),
        Some(_) => true,
        None => error.downcast_ref::<ListenersError>().is_some_and(ListenersError::lasts),
    };
    if lasts { FAULTY_CONFIGURATION } else { FAULT }
}

/// Whether a file is missing or closed, which does not pass, rather than on a disk that fails.
#[must_use]
pub fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
