//! Tells the service manager how the daemon is (`man 3 sd_notify`).

use std::env;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sd_notify::NotifyState;

/// How many notices wait for a service manager that does not take them. More are dropped.
const WAITING: usize = 16;

/// Sends notices from a thread of its own: a service manager that hangs holds up nothing. Clones
/// send through the same thread. Without a service manager there is no thread, and nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    notices: Option<SyncSender<Notice>>,
}

#[derive(Debug)]
enum Notice {
    Ready(String),
    Reloading,
    Stopping,
    Status(String),
}

impl Notifier {
    /// Starts the thread, if a service manager asks for notifications (`NOTIFY_SOCKET`). A socket
    /// that is not there is a warning in the log for each notice.
    #[must_use]
    pub fn start() -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
            return Self::default();
        }
        let (notices, sent) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("notify".to_owned());
        match thread.spawn(move || deliver(&sent)) {
            Ok(_) => Self { notices: Some(notices) },
            Err(error) => {
                tracing::warn!(%error, "cannot notify the service manager that startup has finished");
                Self::default()
            }
        }
    }

    /// The start, or a reload, is over.
    pub fn ready(&self, status: &str) {
        self.send(Notice::Ready(status.to_owned()));
    }

    /// The configuration is being read.
    pub fn reloading(&self) {
        self.send(Notice::Reloading);
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(Notice::Stopping);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(Notice::Status(status.to_owned()));
    }

    fn send(&self, notice: Notice) {
        if let Some(notices) = &self.notices
            && notices.try_send(notice).is_err()
        {
            tracing::debug!("the service manager does not accept notifications; dropped one");
        }
    }
}

fn deliver(sent: &Receiver<Notice>) {
    for notice in sent {
        let told = match &notice {
            Notice::Ready(status) => {
                sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&line(status))])
            }
            Notice::Reloading => NotifyState::monotonic_usec_now()
                .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
            Notice::Stopping => {
                sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("stopping")])
            }
            Notice::Status(status) => sd_notify::notify(&[NotifyState::Status(&line(status))]),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
        }
    }
}

/// A status is one line: what follows a newline would be another notice.
fn line(status: &str) -> String {
    status.replace(|c: char| c.is_control(), " ")
}
