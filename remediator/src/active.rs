//! What is in force: the configuration, and what was opened for it. A reload replaces it whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::alertmanager::Members;
use crate::policy::{Config, Mail};
use crate::steps::archive::Settings;
use crate::steps::archive::mailroom::Mailroom;

/// The configuration in force, and its companions.
#[derive(Debug)]
pub struct Force {
    /// The host's policy.
    pub config: Config,
    /// Where outcomes go, if anywhere.
    pub alertmanager: Option<Members>,
    /// Where mail files are saved.
    pub mailroom: Mailroom,
}

/// Who looks at what is in force; it may be another the next time.
pub type InForce = watch::Receiver<Arc<Force>>;

impl Force {
    /// What a configuration puts in force. Takes over the threads of what was in force before.
    #[must_use]
    pub fn new(config: Config, before: Option<&Self>) -> Self {
        let settings = Settings::from(&config.mail);
        let mailroom = match before {
            Some(before) => before.mailroom.with_settings(settings),
            None => Mailroom::new(settings, config.parallel),
        };
        let alertmanager = Members::new(&config.alertmanager, &config.alertmanager_http);
        Self { config, alertmanager, mailroom }
    }
}

impl From<&Mail> for Settings {
    fn from(mail: &Mail) -> Self {
        Self {
            spool: mail.spool.clone(),
            archive: mail.archive.clone(),
            reserve: mail.reserve,
            retention: mail.retention(),
            ..Self::default()
        }
    }
}

/// How long after a fault something is tried again.
pub const RETRY: Duration = Duration::from_secs(1);
