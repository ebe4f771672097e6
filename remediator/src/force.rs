//! What is in force: the configuration, and what was opened for it. A reload replaces it whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::alertmanager::Alertmanager;
use crate::config::{Config, Mail};
use crate::mailbox::{Archiver, OpenError, Settings};

/// The configuration in force, and its companions.
#[derive(Debug)]
pub struct Force {
    /// The host's policy.
    pub config: Config,
    /// Where outcomes go, if anywhere.
    pub alertmanager: Option<Alertmanager>,
    archive: Arc<Archive>,
}

/// Who looks at what is in force; it may be another the next time.
pub type InForce = watch::Receiver<Arc<Force>>;

/// The spool and its archive: opened once, and tried again where that failed, since a mail file
/// system that was not mounted at the start must not stop the killing of storms.
#[derive(Debug)]
struct Archive {
    mail: Mail,
    open: Mutex<Option<Arc<Archiver>>>,
}

impl Force {
    /// What a configuration puts in force; what it has in common with `before` stays open.
    #[must_use]
    pub fn new(config: Config, before: Option<&Self>) -> Self {
        let archive = match before {
            Some(before) if before.archive.mail == config.mail => Arc::clone(&before.archive),
            Some(_) | None => {
                Arc::new(Archive { mail: config.mail.clone(), open: Mutex::default() })
            }
        };
        let alertmanager = config.alertmanager.clone().map(Alertmanager::new);
        Self { config, alertmanager, archive }
    }

    /// The archiver. Blocks for as long as the file system does.
    pub fn archiver(&self) -> Result<Arc<Archiver>, OpenError> {
        let mut open = self.archive.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(archiver) = &*open {
            return Ok(Arc::clone(archiver));
        }
        let archiver = Arc::new(Archiver::open(settings(&self.archive.mail))?);
        *open = Some(Arc::clone(&archiver));
        Ok(archiver)
    }
}

fn settings(mail: &Mail) -> Settings {
    Settings {
        spool: mail.spool.clone(),
        archive: mail.archive.clone(),
        reserve: mail.reserve,
        retention: mail.retention,
        ..Settings::default()
    }
}

/// How long after a fault something is tried again.
pub const RETRY: Duration = Duration::from_secs(1);
