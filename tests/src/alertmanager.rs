//! A real Alertmanager on a free port.

use std::path::Path;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fault::Fault;
use crate::http::Http;
use crate::{free_port, programs};

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    /// Its process.
    pub daemon: Daemon,
    url: String,
    http: Http,
}

impl Alertmanager {
    /// Starts it, alone (no cluster), with the configuration file `config`; its data and its log
    /// go to `dir`.
    pub fn start(config: &Path, dir: &Path) -> Result<Self, Fault> {
        let port = free_port()?;
        let mut command = programs::with_pages(&programs::other("alertmanager")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--cluster.listen-address=");
        let mut daemon = Daemon::start("alertmanager", &command, &dir.join("alertmanager.log"))?;
        let http = Http::new()?;
        let url = format!("http://127.0.0.1:{port}");
        daemon.ready(|| http.is_ok(&format!("{url}/-/ready")))?;
        Ok(Self { daemon, url, http })
    }

    /// Where it answers, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The alerts that it holds active, as its API shows them.
    pub fn alerts(&self) -> Result<Vec<Value>, Fault> {
        let alerts = self.http.json(&format!("{}/api/v2/alerts", self.url))?;
        Ok(alerts.as_array().cloned().unwrap_or_default())
    }
}
