//! The daemon from start to stop.
//!
//! - [`run`]: serves on given sockets, under a given configuration, until told to stop.
//! - [`StartError`]: why it does not even begin.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::lifecycle::{Lifecycle, Order};
use procstorm_toolkit::systemd::notice::Notifier;
use procstorm_toolkit::web::security::config::ConfigError;
use procstorm_toolkit::web::security::{Reading, Security};
use procstorm_toolkit::web::{Knows, Settings};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::active::{Force, InForce};
use crate::alertmanager::Members;
use crate::delivery::{CONFIRM, Outbox, SETTLED};
use crate::engine::{self, Engine};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::policy::{Config, LoadError};
use crate::reach::Reach;
use crate::sandbox::{Layer, Sandbox};
use crate::steps::kill::Bounds;
use crate::web::token::{Token, TokenError};
use crate::web::{self, Site};

/// How long steps may take after the order to stop, before they are aborted; and once more
/// until they are undone.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long the start waits for the journal.
const OPENING: Duration = Duration::from_secs(5);

/// How often the journal forgets what is too old, and old archives are removed.
const PRUNE: Duration = Duration::from_secs(3600);

/// What the daemon starts with.
#[derive(Debug)]
pub struct Start {
    /// The file of the configuration, read again at each reload.
    pub config_file: PathBuf,
    /// What it says now.
    pub config: Config,
    /// The host's name where the file does not give one.
    pub machine: String,
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// The bounds of a kill.
    pub bounds: Bounds,
    /// The bounds of the server.
    pub web: Settings,
    /// How the sandbox is.
    pub sandbox: Sandbox,
    /// What the name service answers in it.
    pub reach: Reach,
    /// Tells the service manager.
    pub notifier: Notifier,
}

/// Why the daemon does not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody beyond this machine could ask, and nobody would be asked who they are.
    #[error(
        "{0} can be reached from elsewhere: set token_file, give --web.config.file users or client \
         certificates, or listen on 127.0.0.1 or [::1]"
    )]
    Unguarded(SocketAddr),
    /// The token cannot be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A socket, a thread or a signal cannot be had.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A metric has no good name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Web(#[from] ConfigError),
    #[error("{0} can only be changed by a restart")]
    Fixed(&'static str),
    #[error("without token_file, the daemon must not be reached from elsewhere")]
    Unguarded,
}

/// The parts of a running daemon.
struct Daemon {
    file: PathBuf,
    machine: String,
    exposed: bool,
    security: Option<Arc<Security>>,
    force: watch::Sender<Arc<Force>>,
    journal: Journal,
    engine: Engine,
    site: Arc<Site>,
    metrics: Metrics,
    letters: Arc<Notify>,
}

/// Serves until it is asked to stop, or nothing is left that could ask.
pub async fn run(
    listeners: Vec<TcpListener>,
    start: Start,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), StartError> {
    let (settings, notifier) = (start.web.clone(), start.notifier.clone());
    let daemon = Arc::new(Daemon::new(&listeners, start)?);
    let mut lifecycle = daemon.serve(listeners, settings, notifier)?;
    let (end, ended) = watch::channel(false);
    let mut others = JoinSet::new();
    others.spawn(daemon.outbox().run(ended.clone()));
    others.spawn(prune(daemon.journal.clone(), daemon.force.subscribe(), ended.clone()));
    others.spawn(retain(daemon.force.subscribe(), ended));
    // Apart, since a file system that does not answer must not keep an order waiting.
    tokio::spawn(say_obstacles(Arc::clone(&daemon.site)));
    daemon.await_journal().await;
    lifecycle.ready();
    let reloaded = Arc::clone(&daemon);
    let runtime = Handle::current();
    let served = lifecycle.obey(&mut orders, move || reloaded.reload(&runtime)).await;
    // First the server stops, then the remediations that have begun end, then their outcomes are delivered.
    report(lifecycle.drain().await);
    daemon.engine.finish(PATIENCE).await;
    end.send_replace(true);
    while let Some(ended) = others.join_next().await {
        report(ended.map_err(io::Error::other));
    }
    daemon.journal.close().await;
    tracing::info!("stopped");
    Ok(served?)
}

impl Daemon {
    fn new(listeners: &[TcpListener], start: Start) -> Result<Self, StartError> {
        let exposed = exposed(listeners)?;
        let token = read_token(start.config.token_file.as_deref())?;
        let security = start.web.security;
        let web_asks = security.as_deref().is_some_and(Security::asks_who_speaks);
        let guarded = token.is_some() || web_asks;
        if let (Some(address), false) = (exposed, guarded) {
            return Err(StartError::Unguarded(address));
        }
        announce(&start.config, token.is_some(), web_asks);
        let metrics = Metrics::new()?;
        metrics.prepare(&start.config);
        metrics.sandbox(&start.sandbox);
        announce_sandbox(&start.sandbox);
        metrics.reloaded(true);
        let journal = Journal::start(&start.config.state)?;
        let (force, in_force) = watch::channel(Arc::new(Force::new(start.config, None)));
        let letters = Arc::new(Notify::new());
        let engine = Engine::start(engine::Parts {
            procfs: start.procfs.clone(),
            own_uid: nix::unistd::geteuid().as_raw(),
            bounds: start.bounds,
            force: in_force.clone(),
            journal: journal.clone(),
            metrics: metrics.clone(),
            letters: Arc::clone(&letters),
            reach: start.reach.clone(),
        });
        let site = Arc::new(Site::new(web::Parts {
            journal: journal.clone(),
            engine: engine.clone(),
            force: in_force,
            metrics: metrics.clone(),
            token,
            exposed: exposed.is_some(),
            security: security.clone(),
            config_file: start.config_file.clone(),
            procfs: start.procfs,
            sandbox: start.sandbox,
            reach: start.reach,
        }));
        let (file, machine) = (start.config_file, start.machine);
        let exposed = exposed.is_some();
        Ok(Self {
            file,
            machine,
            exposed,
            security,
            force,
            journal,
            engine,
            site,
            metrics,
            letters,
        })
    }

    fn serve(
        &self,
        listeners: Vec<TcpListener>,
        settings: Settings,
        notifier: Notifier,
    ) -> io::Result<Lifecycle> {
        let site = Arc::clone(&self.site);
        let knows = Knows::new(move |headers| site.shows_token(headers));
        let settings = Settings { knows: Some(knows), ..settings };
        let site = Arc::clone(&self.site);
        let handler = move |request| web::answer(Arc::clone(&site), request);
        Lifecycle::start(listeners, settings, handler, notifier)
    }

    fn outbox(&self) -> Outbox {
        Outbox {
            journal: self.journal.clone(),
            force: self.force.subscribe(),
            letters: Arc::clone(&self.letters),
            metrics: self.metrics.clone(),
            confirm: CONFIRM,
            settled: SETTLED,
        }
    }

    /// Reads configuration and token again. A fault leaves everything as it was.
    fn reload(&self, runtime: &Handle) -> Result<(), ReloadError> {
        let reloaded = self.try_reload();
        self.metrics.reloaded(reloaded.is_ok());
        runtime.spawn(say_obstacles(Arc::clone(&self.site)));
        reloaded
    }

    /// Waits until the journal has been opened. A journal that does not work is no reason to wait for
    /// long: `/-/ready` says so, and it recovers when the disk does.
    async fn await_journal(&self) {
        if timeout(OPENING, self.journal.probe()).await.is_err() {
            tracing::warn!("the journal does not answer yet; serving all the same");
        }
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        let config = Config::read(&self.file, &self.machine)?;
        let token = read_token(config.token_file.as_deref())?;
        let before = self.force.borrow().clone();
        if config.state != before.config.state {
            return Err(ReloadError::Fixed("state"));
        }
        if config.parallel != before.config.parallel {
            return Err(ReloadError::Fixed("parallel"));
        }
        let closed = self.site.sandbox.landlock.restricts();
        let dirs = |config: &Config| (config.mail.spool.clone(), config.mail.archive.clone());
        if closed && dirs(&config) != dirs(&before.config) {
            return Err(ReloadError::Fixed("with the sandbox, mail.spool or mail.archive"));
        }
        if closed && config.sandbox.read != before.config.sandbox.read {
            return Err(ReloadError::Fixed("with the sandbox, sandbox.read"));
        }
        let access = |config: &Config| {
            let files = config.alertmanager_http.files().filter_map(Path::parent);
            files.map(Path::to_owned).collect::<BTreeSet<_>>()
        };
        if closed && !access(&config).is_subset(&access(&before.config)) {
            return Err(ReloadError::Fixed(
                "with the sandbox, the directories of the files in alertmanager_http",
            ));
        }
        let web = self.security.as_ref().map(|security| security.read()).transpose()?;
        let guarded = web.as_ref().is_some_and(Reading::asks_who_speaks);
        if self.exposed && token.is_none() && !guarded {
            return Err(ReloadError::Unguarded);
        }
        announce(&config, token.is_some(), guarded);
        if let (Some(security), Some(reading)) = (&self.security, web) {
            security.adopt(reading);
        }
        self.metrics.prepare(&config);
        self.site.replace_token(token);
        self.force.send_replace(Arc::new(Force::new(config, Some(&before))));
        self.letters.notify_one();
        Ok(())
    }
}

/// The first address that can be reached from elsewhere.
fn exposed(listeners: &[TcpListener]) -> io::Result<Option<SocketAddr>> {
    for listener in listeners {
        let address = listener.local_addr()?;
        if !address.ip().to_canonical().is_loopback() {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

fn read_token(file: Option<&Path>) -> Result<Option<Token>, TokenError> {
    file.map(Token::read).transpose()
}

/// Says what `/-/ready` would say, to those who look into the log alone.
async fn say_obstacles(site: Arc<Site>) {
    for obstacle in site.obstacles().await {
        tracing::error!(obstacle, "not ready");
    }
}

/// Says what an operator should notice at once.
fn announce(config: &Config, token: bool, guarded: bool) {
    match (token, guarded) {
        (true, _) => {}
        (false, true) => tracing::info!(
            "no token_file: requests are authenticated by the web configuration alone"
        ),
        (false, false) => tracing::warn!(
            "no token_file: every local process can send alerts; the policy decides what is done"
        ),
    }
    if config.alertmanager.is_empty() {
        tracing::warn!("no alertmanager in the policy: outcomes are logged and not mailed");
    }
    let (live, dry): (Vec<_>, Vec<_>) =
        config.playbooks.keys().map(String::as_str).partition(|name| !config.is_dry_run(name));
    if live.is_empty() {
        tracing::warn!("dry_run: nothing is saved and nothing is killed");
    } else if !dry.is_empty() {
        tracing::warn!(
            live = live.join(" "),
            dry_run = dry.join(" "),
            "some playbooks are dry runs"
        );
    }
    for warning in config.warnings("") {
        tracing::warn!("{warning}");
    }
}

/// Logs which parts of the sandbox do not hold. What only an older kernel lacks is not a warning.
fn announce_sandbox(sandbox: &Sandbox) {
    let Sandbox { capabilities, landlock, seccomp } = sandbox;
    let sound = |layer: &Layer| layer.fault().is_none() && *layer != Layer::Disabled;
    match sandbox.layers().iter().all(|(_, layer)| sound(layer)) {
        true => tracing::info!(%capabilities, %landlock, %seccomp, "sandbox"),
        false => tracing::warn!(%capabilities, %landlock, %seccomp, "sandbox incomplete"),
    }
}

/// How far the clocks of this host and of Alertmanager may differ, so that this host's is trusted
/// with what is to be forgotten.
const TRUSTED_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// How long the first reading of Alertmanager's clock is waited for.
const READING: Duration = Duration::from_secs(15);

/// Whether this host's clock is far from Alertmanager's. One that is ahead would forget all at once.
fn is_clock_off(force: &InForce) -> bool {
    let skew = force.borrow().alertmanager.as_ref().and_then(Members::skew);
    skew.is_some_and(|skew| skew.abs() > TRUSTED_SKEW)
}

/// Forgets what is older than the history, now and then.
async fn prune(journal: Journal, force: InForce, mut stop: watch::Receiver<bool>) {
    let asks = force.borrow().alertmanager.is_some();
    if asks && timeout(READING, stop.wait_for(|stop| *stop)).await.is_ok() {
        return;
    }
    loop {
        let history = SignedDuration::try_from(force.borrow().config.history).unwrap_or_default();
        if is_clock_off(&force) {
            tracing::warn!("this host's clock differs from Alertmanager's; journal not pruned");
        } else if let Ok(before) = Timestamp::now().checked_sub(history) {
            let mut forgotten: usize = 0;
            while !*stop.borrow() {
                match journal.prune(before).await {
                    Ok(0) => break,
                    Ok(count) => forgotten = forgotten.saturating_add(count),
                    Err(fault) => {
                        tracing::warn!(fault = %Chain(&fault), "journal pruning failed");
                        break;
                    }
                }
            }
            if forgotten > 0 {
                tracing::info!(forgotten, "pruned records older than history from the journal");
            }
        }
        if timeout(PRUNE, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

/// Removes the archives that the policy no longer keeps, of all users: at the start, and then every
/// hour.
async fn retain(force: InForce, mut stop: watch::Receiver<bool>) {
    loop {
        let mailroom = force.borrow().mailroom.clone();
        let wait = async {
            mailroom.prune().await;
            tokio::time::sleep(PRUNE).await;
        };
        tokio::select! {
            () = wait => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn report(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "background task failed");
    }
}
