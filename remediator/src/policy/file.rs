//! The host's own policy: `remediator.yml`, read as a tree and then checked as a whole.
//!
//! - [`Config`]: what the file says; only [`Config::read`] and [`Config::parse`] make one, so
//!   whoever holds one holds a checked one.
//! - [`LoadError`]: why a file was not taken, with every fault at once.
//! - [`Config::explain`]: the same policy in plain sentences, for `--check`.
//! - `tree` reads mappings, `values` reads quantities, `describe` speaks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use procstorm_processes::process::Command;
use serde_json::Value;

use super::tree::{Fault, Faults, Section, boolean, list, number, parsed, path, text};
use super::values::{self, Rate, Reserve, Retention};
use super::yaml;
use crate::account::Protected;

/// The largest configuration file that is read.
const FILE_MAX: u64 = 1 << 20;

/// The longest command of a user's process that the kernel shows (`TASK_COMM_LEN` is 16).
const COMMAND_MAX: usize = 15;

/// The host's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name that alerts for this machine carry in their label `host`.
    pub host: String,
    /// The directory of the journal.
    pub state: PathBuf,
    /// The file with the bearer token, if one is asked for.
    pub token_file: Option<PathBuf>,
    /// Where outcomes are posted and silences are asked for: `http://HOST[:PORT][/PREFIX]`.
    pub alertmanager: Option<Uri>,
    /// Where mail lies, and where it is saved.
    pub mail: Mail,
    /// Who may be acted upon.
    pub accounts: Accounts,
    /// What the sandbox leaves open to be read, besides what the daemon needs itself.
    pub readable: Vec<PathBuf>,
    /// Whether nothing is written or signalled, whatever the playbook.
    pub dry_run: bool,
    /// How many remediations may act at once.
    pub parallel: u32,
    /// For how long the journal keeps what is finished.
    pub history: Duration,
    /// What may be done, by name.
    pub playbooks: BTreeMap<String, Playbook>,
}

/// The mail spool and its archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The directory of the users' mail files.
    pub spool: PathBuf,
    /// The directory of the saved ones.
    pub archive: PathBuf,
    /// What must stay free on the archive's file system.
    pub reserve: Reserve,
    /// What is kept of each user.
    pub retention: Retention,
}

/// Whose processes may be ended. Root's never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Uids below this one are the system's; never 0.
    pub min_uid: u32,
    /// Users who are left alone, by name, uid or group.
    pub protected: Vec<Protected>,
    /// Whether the daemon may act upon the uid that it runs as itself.
    pub allow_own_uid: bool,
    /// Whether a uid that the name service has no name for may be acted upon.
    pub allow_nameless: bool,
    /// Whether a uid may be acted on that holds the mail of several users.
    pub allow_shared_uid: bool,
}

/// What is done about one kind of storm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playbook {
    /// The alerts that may name this playbook.
    pub alerts: Vec<String>,
    /// The commands of which each makes a storm of its own, exactly; at least one, none twice.
    pub commands: Vec<Command>,
    /// From which count on, counted here and now, it is a storm.
    pub threshold: u64,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// How long the processes have to exit after SIGTERM, before SIGKILL; zero is SIGKILL at once.
    pub grace: Duration,
    /// How long after one remediation the next may begin, for one user.
    pub cooldown: Duration,
    /// How long the storm is watched for after it was ended.
    pub settle: Duration,
    /// How often it may be done.
    pub limits: Limits,
    /// What happens to the rest of the steps when the mail file cannot be saved.
    pub on_archive_failure: OnArchiveFailure,
    /// What happens to processes in pid namespaces that are not the user's own.
    pub nested_namespaces: NestedNamespaces,
    /// Whether nothing is written or signalled.
    pub dry_run: bool,
}

impl Playbook {
    /// The one of its commands that bears this name.
    #[must_use]
    pub fn command_named(&self, name: &str) -> Option<Command> {
        self.commands.iter().find(|command| command.as_bytes() == name.as_bytes()).copied()
    }

    /// Its commands for people, each in quotes.
    #[must_use]
    pub fn told_commands(&self) -> String {
        let told: Vec<_> = self.commands.iter().map(|command| format!("{command:?}")).collect();
        told.join(" or ")
    }

    /// Whether processes in containers are of the storm.
    #[must_use]
    pub fn kills_nested(&self) -> bool {
        self.nested_namespaces == NestedNamespaces::Kill
    }
}

/// One step of a playbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Saves the user's mail files.
    ArchiveMailFile,
    /// Kills all processes of that user and command.
    KillUserProc,
}

impl Step {
    const ALL: [Self; 2] = [Self::ArchiveMailFile, Self::KillUserProc];

    /// Its name in the configuration, the journal and the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ArchiveMailFile => "archive_mail_file",
            Self::KillUserProc => "kill_user_proc",
        }
    }
}

/// How often a playbook may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Upon one user.
    pub per_user: Rate,
    /// Upon all users together.
    pub total: Rate,
}

/// What a failed archive means for the steps after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnArchiveFailure {
    /// They are done all the same, as in the scripts of 2000: the storm is the greater harm.
    Continue,
    /// They are left undone.
    Stop,
}

/// What is done about processes in pid namespaces below the host's, unless the user has made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedNamespaces {
    /// They are left alone: a container's uids are not the host's.
    Leave,
    /// They are counted and killed as the others are.
    Kill,
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what it must be: all that is wrong with it, a line each.
    #[error("{}", FaultList(path, faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the keys' reading.
        faults: Vec<Fault>,
    },
}

struct FaultList<'a>(&'a Path, &'a [Fault]);

impl fmt::Display for FaultList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, faults) = self;
        for (index, fault) in faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:", path.display())?;
            if fault.line > 0 {
                write!(f, "{}:", fault.line)?;
            }
            write!(f, " {fault}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a file; `machine` is the host's name where the file does not give one.
    pub fn read(path: &Path, machine: &str) -> Result<Self, LoadError> {
        let read = || {
            if std::fs::metadata(path)?.len() > FILE_MAX {
                return Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes")));
            }
            std::fs::read_to_string(path)
        };
        let text = read().map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, machine)
            .map_err(|faults| LoadError::Faults { path: path.to_owned(), faults })
    }

    /// Checks the text of a file. Returns every fault, not only the first.
    pub fn parse(text: &str, machine: &str) -> Result<Self, Vec<Fault>> {
        let document: Value = serde_saphyr::from_str(text).map_err(|error| {
            // Without its quotation of the file, which may hold a secret.
            let problem = format!("is not YAML: {}", error.without_snippet());
            let line = error.location().map(|location| location.line()).unwrap_or_default();
            vec![Fault { line, key: String::new(), problem }]
        })?;
        let faults: Faults = RefCell::default();
        let config = read_document(Section::new(String::new(), document, &faults), machine);
        let mut faults = faults.into_inner();
        place(&mut faults, text);
        config.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// What is valid, and most probably not meant. `text` is the file's, for the lines.
    #[must_use]
    pub fn warnings(&self, text: &str) -> Vec<Fault> {
        let playbooks = self.playbooks.iter();
        let mut warnings: Vec<Fault> = playbooks
            .flat_map(|(name, book)| {
                let which = if book.commands.len() == 1 { "command" } else { "commands" };
                let key = format!("playbooks.{}.{which}", name.escape_debug());
                let problems =
                    book.commands.iter().filter_map(|command| doubtful_command(&command.to_text()));
                problems.map(move |problem| Fault { line: 0, key: key.clone(), problem })
            })
            .collect();
        place(&mut warnings, text);
        warnings
    }
}

/// Gives each fault its line.
fn place(faults: &mut [Fault], text: &str) {
    // Read for this alone, and only where there is something to say.
    let Some(Ok(Some(root))) = (!faults.is_empty()).then(|| yaml::read(text)) else { return };
    for fault in faults {
        fault.line = root.line_of(&fault.key);
    }
}

/// What is odd about a command, of which only the very name counts.
fn doubtful_command(command: &str) -> Option<String> {
    let signs = ["*", "?", "[", "]", "|", "^", "$", "\\", ".+"];
    if signs.iter().any(|sign| command.contains(sign)) {
        return Some(format!(
            "{command:?} is compared as it stands, not as a pattern; write the name of \
             the processes, as in /proc/PID/comm"
        ));
    }
    command.contains('/').then(|| {
        format!(
            "{command:?} is a path, and processes have names; write its last part, as in \
             /proc/PID/comm"
        )
    })
}

fn read_document(mut top: Section<'_>, machine: &str) -> Option<Config> {
    let host = top.or("host", machine.to_owned(), host);
    let state = top.or("state", PathBuf::from("/var/lib/procstorm"), path);
    let token_file = top.or("token_file", None, |value| token_file(value).map(Some));
    let alertmanager = top.or("alertmanager", None, |value| alertmanager(value).map(Some));
    let mail = read_mail(top.section("mail"));
    let accounts = read_accounts(top.section("accounts"));
    let readable = read_sandbox(top.section("sandbox"));
    let dry_run = top.or("dry_run", false, boolean);
    let parallel = top.or("parallel", 4, number(1));
    let history = top.or("history", Duration::from_secs(90 * 86_400), parsed(positive));
    let playbooks = read_playbooks(top.section("playbooks"));
    top.finish(&[
        "host",
        "state",
        "token_file",
        "alertmanager",
        "mail",
        "accounts",
        "sandbox",
        "dry_run",
        "parallel",
        "history",
        "playbooks",
    ]);
    Some(Config {
        host: host?,
        state: state?,
        token_file: token_file?,
        alertmanager: alertmanager?,
        mail: mail?,
        accounts: accounts?,
        readable: readable?,
        dry_run: dry_run?,
        parallel: parallel?,
        history: history?,
        playbooks: playbooks?,
    })
}

fn read_mail(mut mail: Section<'_>) -> Option<Mail> {
    let spool = mail.or("spool", PathBuf::from("/var/mail"), path);
    let archive = mail.or("archive", PathBuf::from("/var/mail/arc"), path);
    let reserve = mail.or("reserve", Reserve::Percent(5), parsed(values::reserve));
    let keep = mail.or("keep", None, |value| number(1)(value).map(Some));
    let max_age = mail.or("max_age", None, |value| parsed(positive)(value).map(Some));
    let max_bytes = mail.or("max_bytes", None, |value| parsed(values::size)(value).map(Some));
    if spool.is_some() && spool == archive {
        mail.fault("archive", "must be another directory than the spool");
    }
    mail.finish(&["spool", "archive", "reserve", "keep", "max_age", "max_bytes"]);
    Some(Mail {
        spool: spool?,
        archive: archive?,
        reserve: reserve?,
        retention: Retention { keep: keep?, max_age: max_age?, max_bytes: max_bytes? },
    })
}

fn read_accounts(mut accounts: Section<'_>) -> Option<Accounts> {
    let min_uid = accounts.or("min_uid", 1000, number(1));
    let protected = accounts.or("protected", Vec::new(), list(protected));
    let allow_own_uid = accounts.or("allow_own_uid", false, boolean);
    let allow_nameless = accounts.or("allow_nameless", false, boolean);
    let allow_shared_uid = accounts.or("allow_shared_uid", false, boolean);
    accounts.finish(&[
        "min_uid",
        "protected",
        "allow_own_uid",
        "allow_nameless",
        "allow_shared_uid",
    ]);
    Some(Accounts {
        min_uid: min_uid?,
        protected: protected?,
        allow_own_uid: allow_own_uid?,
        allow_nameless: allow_nameless?,
        allow_shared_uid: allow_shared_uid?,
    })
}

fn read_sandbox(mut sandbox: Section<'_>) -> Option<Vec<PathBuf>> {
    let read = sandbox.or("read", Vec::new(), list(readable));
    sandbox.finish(&["read"]);
    read
}

/// A directory, but not all of them.
fn readable(value: &Value) -> Result<PathBuf, String> {
    let place = path(value)?;
    if place.parent().is_none() {
        return Err("must not be /, which would leave every file open; name the directories that \
                    the name service's modules read"
            .to_owned());
    }
    Ok(place)
}

fn read_playbooks(mut section: Section<'_>) -> Option<BTreeMap<String, Playbook>> {
    let names = section.names();
    let mut playbooks = BTreeMap::new();
    for name in names {
        if !is_identifier(&name) {
            section.fault(&name, "must be a name of letters, digits, '_' and '-', at most 64");
        }
        if let Some(playbook) = read_playbook(section.section(&name)) {
            playbooks.insert(name, playbook);
        }
    }
    Some(playbooks)
}

fn read_playbook(mut book: Section<'_>) -> Option<Playbook> {
    let alerts = book.required("alerts", non_empty(list(text)));
    let commands = read_commands(&mut book);
    let threshold = book.required("threshold", number(1));
    let steps = book.required("steps", steps);
    let grace = book.or("grace", Duration::from_secs(2), parsed(grace));
    let cooldown = book.or("cooldown", Duration::from_secs(30), parsed(values::duration));
    let settle = book.or("settle", Duration::from_secs(10), parsed(values::duration));
    let limits = read_limits(book.section("limits"));
    let on_archive_failure =
        book.or("on_archive_failure", OnArchiveFailure::Continue, on_archive_failure);
    let nested_namespaces =
        book.or("nested_namespaces", NestedNamespaces::Leave, nested_namespaces);
    let dry_run = book.or("dry_run", false, boolean);
    let stops = on_archive_failure == Some(OnArchiveFailure::Stop);
    if stops && steps.as_ref().is_some_and(|steps| steps.first() != Some(&Step::ArchiveMailFile)) {
        book.fault("on_archive_failure", "stop needs archive_mail_file as the first step");
    }
    book.finish(&[
        "alerts",
        "command",
        "commands",
        "threshold",
        "steps",
        "grace",
        "cooldown",
        "settle",
        "limits",
        "on_archive_failure",
        "nested_namespaces",
        "dry_run",
    ]);
    Some(Playbook {
        alerts: alerts?,
        commands: commands?,
        threshold: threshold?,
        steps: steps?,
        grace: grace?,
        cooldown: cooldown?,
        settle: settle?,
        limits: limits?,
        on_archive_failure: on_archive_failure?,
        nested_namespaces: nested_namespaces?,
        dry_run: dry_run?,
    })
}

/// `command: imapd`, or `commands: [imapd, imapd-ssl]`.
fn read_commands(book: &mut Section<'_>) -> Option<Vec<Command>> {
    let one = book.or("command", None, |value| command(value).map(Some));
    let several = book.or("commands", None, |value| commands(value).map(Some));
    match (one?, several?) {
        (Some(command), None) => Some(vec![command]),
        (None, Some(commands)) => Some(commands),
        (Some(_), Some(_)) => {
            book.fault("commands", "must not stand beside command; move that name into the list");
            None
        }
        (None, None) => book.required("command", command).map(|command| vec![command]),
    }
}

fn read_limits(mut limits: Section<'_>) -> Option<Limits> {
    let hour = Duration::from_secs(3600);
    let per_user = limits.or("per_user", Rate { count: 12, window: hour }, parsed(values::rate));
    let total = limits.or("total", Rate { count: 60, window: hour }, parsed(values::rate));
    limits.finish(&["per_user", "total"]);
    Some(Limits { per_user: per_user?, total: total? })
}

fn host(value: &Value) -> Result<String, String> {
    let host = text(value)?;
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    if host.is_empty() || host.len() > 255 || !host.chars().all(plain) {
        return Err(format!("must be a host's name without blanks, not {host:?}"));
    }
    Ok(host)
}

/// Not quoted where it is wrong: it may be the token itself.
fn token_file(value: &Value) -> Result<PathBuf, String> {
    path(value).map_err(|_quoted| {
        "must be an absolute path of a file that holds the token, such as /etc/procstorm/token"
            .to_owned()
    })
}

fn alertmanager(value: &Value) -> Result<Uri, String> {
    let address = text(value)?;
    // Before anything is quoted.
    if address.contains('@') {
        return Err("must not hold a password: it would show in logs".to_owned());
    }
    let fault = |problem: &str| format!("{address:?} {problem}");
    let uri: Uri = address.parse().map_err(|_uri| fault("is no URL"))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(fault("must be http://HOST[:PORT][/PREFIX]"));
    }
    if uri.query().is_some() {
        return Err(fault("must not hold a query"));
    }
    Ok(uri)
}

/// A name, a uid or `@group`.
fn protected(value: &Value) -> Result<Protected, String> {
    let entry = if let Value::Number(uid) = value { uid.to_string() } else { text(value)? };
    Protected::parse(&entry).map_err(|fault| fault.to_string())
}

fn command(value: &Value) -> Result<Command, String> {
    let name = text(value)?;
    if name.is_empty() || name.len() > COMMAND_MAX {
        return Err(format!(
            "process names are 1 to {COMMAND_MAX} bytes long, and {name:?} is not; write the name as \
             in /proc/PID/comm"
        ));
    }
    Command::new(name.as_bytes()).ok_or_else(|| format!("{name:?} is too long"))
}

fn commands(value: &Value) -> Result<Vec<Command>, String> {
    let commands = non_empty(list(command))(value)?;
    let twice = |command: &&Command| commands.iter().filter(|other| *other == *command).count() > 1;
    match commands.iter().find(twice) {
        Some(command) => Err(format!("names {command:?} twice")),
        None => Ok(commands),
    }
}

fn steps(value: &Value) -> Result<Vec<Step>, String> {
    let steps = non_empty(list(step))(value)?;
    let twice = |step: &Step| steps.iter().filter(|other| *other == step).count() > 1;
    match steps.iter().find(|step| twice(step)) {
        Some(step) => Err(format!("names {} twice", step.label())),
        None => Ok(steps),
    }
}

fn step(value: &Value) -> Result<Step, String> {
    let name = text(value)?;
    let found = Step::ALL.into_iter().find(|step| step.label() == name);
    found.ok_or_else(|| {
        let known: Vec<_> = Step::ALL.into_iter().map(Step::label).collect();
        format!("unknown step {name:?}; expected one of {}", known.join(", "))
    })
}

fn on_archive_failure(value: &Value) -> Result<OnArchiveFailure, String> {
    match text(value)?.as_str() {
        "continue" => Ok(OnArchiveFailure::Continue),
        "stop" => Ok(OnArchiveFailure::Stop),
        other => Err(format!("must be continue or stop, not {other:?}")),
    }
}

fn nested_namespaces(value: &Value) -> Result<NestedNamespaces, String> {
    match text(value)?.as_str() {
        "leave" => Ok(NestedNamespaces::Leave),
        "kill" => Ok(NestedNamespaces::Kill),
        other => Err(format!("must be leave or kill, not {other:?}")),
    }
}

/// A storm goes on meanwhile: a minute is much.
const GRACE_MAX: Duration = Duration::from_secs(60);

fn grace(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        grace if grace > GRACE_MAX => Err(format!("must be at most 60s, not {text:?}")),
        grace => Ok(grace),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        span => Ok(span),
    }
}

fn non_empty<T>(
    read: impl Fn(&Value) -> Result<Vec<T>, String>,
) -> impl Fn(&Value) -> Result<Vec<T>, String> {
    move |value| match read(value)? {
        items if items.is_empty() => Err("must not be empty".to_owned()),
        items => Ok(items),
    }
}

fn is_identifier(name: &str) -> bool {
    let taken = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(taken)
}
