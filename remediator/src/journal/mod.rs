//! The journal: what was accepted, decided, done and told, durable before anything follows from it.
//!
//! An SQLite database, `STATE/journal.sqlite`, in WAL mode with `synchronous=FULL`: what a call
//! has returned from survives a crash of the daemon and of the machine.
//!
//! - [`Journal`]: the handle; every call runs on the journal's own thread, one after another.
//! - [`intake`]: alerts come in; [`Judged`], [`Receipt`].
//! - [`course`]: a remediation's way from accepted to done; [`Remediation`].
//! - [`letters`]: outcomes that wait for Alertmanager; [`Letter`].
//! - [`records`]: what was, for the policy's limits and for people.
//! - [`story`]: one remediation from the alert to the mail, [`uses`]: how far limits are used up,
//!   [`refusals`]: alerts that were refused; all three for the status page.
//! - `groups`: who was in the groups that the policy protects.
//! - `schema`: the tables and their versions.
//!
//! A journal that cannot be opened or written is no reason to stop: each call tries again, fails
//! with a [`Fault`], and [`Journal::obstacle`] says why, so that a repaired disk is enough.

pub mod course;
mod groups;
pub mod intake;
pub mod letters;
pub mod records;
pub mod refusals;
mod schema;
pub mod story;
pub mod uses;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use procstorm_toolkit::chain::Chain;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

pub use course::{Remediation, State, StepRow};
pub use intake::{Judged, Receipt};
pub use letters::Letter;

/// How long a reader outside (a person with sqlite3) may hold up a write.
const BUSY: Duration = Duration::from_secs(5);

/// Why the journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The directory or the file cannot be made or opened.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("another process uses the journal in {}", .0.display())]
    Taken(PathBuf),
    /// A newer program made it.
    #[error("it is of version {version}, this program knows {known}: use the newer program")]
    Newer {
        /// Its version.
        version: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// It is damaged.
    #[error("it is damaged: {0}; move it away to begin a new one, the archives do not need it")]
    Damaged(String),
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A value in it cannot be understood.
    #[error("a record cannot be read: {0}")]
    Record(String),
    /// So much is unfinished that nothing more is accepted.
    #[error("{0} remediations are unfinished: no more are accepted")]
    Crowded(i64),
    /// Its thread has ended.
    #[error("the journal is closed")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The handle of the journal. Clones share one thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Journal {
    jobs: mpsc::Sender<Job>,
    obstacle: Arc<Mutex<Option<String>>>,
}

impl Journal {
    /// Starts the journal in directory `state`, which is made where it is missing. That it cannot
    /// be opened is no error here, but an obstacle and the fault of each call. Fails only if no
    /// thread can be started.
    pub fn start(state: &Path) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let obstacle = Arc::new(Mutex::new(None));
        let mut store =
            Store { state: state.to_owned(), open: None, obstacle: Arc::clone(&obstacle) };
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            for job in queue {
                job(&mut store);
            }
        })?;
        Ok(Self { jobs, obstacle })
    }

    /// Why the last call failed, unless something was written since: that something can be read
    /// says nothing about a disk that is full.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something can be written: it is tried.
    pub async fn probe(&self) -> Result<(), Fault> {
        // A write that changes nothing still needs the lock, the log and the disk.
        self.write(|tx| {
            let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok(tx.execute_batch(&format!("PRAGMA user_version = {version}"))?)
        })
        .await
    }

    /// Runs `work` in a transaction, and returns when it is on the disk.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.call(true, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Runs `work`, which only reads.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.call(false, move |connection| work(connection)).await
    }

    /// Closes the database, so that all of it is in one file. A later call opens it again.
    pub async fn close(&self) {
        let (closed, wait) = oneshot::channel::<()>();
        let job: Job = Box::new(move |store| {
            store.open = None;
            drop(closed);
        });
        if self.jobs.send(job).is_ok() {
            // Nothing is sent: the end of the channel is the answer.
            wait.await.unwrap_or_default();
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        writes: bool,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            // Nobody may wait any more; the work is done all the same.
            drop(answer.send(store.attempt(writes, work)));
        });
        self.jobs.send(job).map_err(|_closed| Fault::Closed)?;
        answered.await.map_err(|_closed| Fault::Closed)?
    }
}

/// What the journal's thread holds.
struct Store {
    state: PathBuf,
    open: Option<Open>,
    obstacle: Arc<Mutex<Option<String>>>,
}

struct Open {
    connection: Connection,
    /// Held as long as the database is.
    _lock: File,
}

impl Store {
    fn attempt<T>(
        &mut self,
        writes: bool,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let result = self.connection().and_then(work);
        if let Err(fault) = &result
            && is_beyond_repair(fault)
        {
            self.open = None;
        }
        let obstacle = result
            .as_ref()
            .err()
            .map(|fault| format!("journal {}: {}", path(&self.state).display(), Chain(fault)));
        if obstacle.is_none() && !writes {
            return result;
        }
        let mut known = self.obstacle.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != obstacle {
            match &obstacle {
                Some(why) => tracing::error!(why, "the journal does not work"),
                None => tracing::info!("the journal works again"),
            }
        }
        *known = obstacle;
        drop(known);
        result
    }

    fn connection(&mut self) -> Result<&mut Connection, Fault> {
        let open = match self.open.take() {
            Some(open) => open,
            None => open(&self.state)?,
        };
        Ok(&mut self.open.insert(open).connection)
    }
}

/// Whether the database must be opened again before anything else can be done with it.
fn is_beyond_repair(fault: &Fault) -> bool {
    let Fault::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = fault else { return false };
    !matches!(error.code, ErrorCode::DatabaseBusy | ErrorCode::ConstraintViolation)
}

fn path(state: &Path) -> PathBuf {
    state.join("journal.sqlite")
}

fn open(state: &Path) -> Result<Open, Fault> {
    let fault = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Fault::File { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(fault("make", state))?;
    let lock_path = state.join("lock");
    // Made for the owner alone; SQLite gives its other files the mode of the database.
    let private = |path: &Path| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
    };
    let lock = private(&lock_path).map_err(fault("open", &lock_path))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_held| Fault::Taken(state.to_owned()))?;
    let path = path(state);
    drop(private(&path).map_err(fault("open", &path))?);
    let mut connection = Connection::open_with_flags(
        &path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // The sandbox keeps every directory closed in which SQLite would make a temporary file.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    let health: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if health != "ok" {
        return Err(Fault::Damaged(health));
    }
    schema::migrate(&mut connection)?;
    Ok(Open { connection, _lock: lock })
}

/// The file of the journal in directory `state`.
#[must_use]
pub fn file(state: &Path) -> PathBuf {
    path(state)
}

/// Opens a journal to read it alone, beside a daemon that writes. `None` if there is none.
pub fn open_to_read(state: &Path) -> Result<Option<Connection>, Fault> {
    let path = path(state);
    // SQLite says only that it could not.
    match File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Fault::File { action: "open", path, source }),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A daemon that has just made the file has not made its tables.
    Ok((schema::version(&connection)? > 0).then_some(connection))
}

/// A time as the tables hold it.
#[must_use]
pub fn ms(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// The time that a table holds.
pub fn time(ms: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_millisecond(ms).map_err(|error| Fault::Record(error.to_string()))
}

/// A count as the tables hold it: SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The count that a table holds.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Record(error.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Record(error.to_string()))
}
