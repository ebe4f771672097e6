//! The host's own policy: `remediator.yml`, read as a tree and then checked as a whole.
//!
//! - [`Config`]: what the file says; only [`Config::read`] and [`Config::parse`] make one, so
//!   every policy in the program has been checked.
//! - [`LoadError`]: why a file was not taken, with every fault at once.
//! - `keys` makes a mapping's struct, reader and list of keys; `tree` reads
//!   mappings, `values` reads quantities.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use procstorm_processes::folded::{OTHER, SMALL, SMALL_USERS};
use procstorm_processes::process::Command;
use serde_json::Value;

use super::keys::{Entry, Fallback, Form, Key, keys};
use super::tree::{Fault, Faults, Section, Wrong, boolean, list, number, parsed, path, some, text};
use super::values::{self, Rate, Reserve, Retention};
use super::yaml;
use crate::account::Listed;

/// The largest configuration file that is read.
const FILE_MAX: u64 = 1 << 20;

/// The longest command of a user's process that the kernel shows (`TASK_COMM_LEN` is 16).
const COMMAND_MAX: usize = 15;

keys! {
    /// The host's policy.
    pub struct Config, RawConfig checked by check_config {
        /// The label `host` of alerts for this machine; alerts for others are refused. It must equal
        /// the name of Prometheus' target without the port.
        pub host: String => [HOST, given "this machine's name, as hostname(1) prints it"],
        /// The directory of the journal. A change needs a restart.
        pub state: PathBuf => [PATH, "/var/lib/procstorm"],
        /// A file with one line of 16 to 4096 visible characters: the bearer token that requests
        /// must carry. It must belong to root or to the user that the daemon runs as, with mode
        /// 0600. Alertmanager reads a copy of its own, at the path that its configuration names.
        /// Without it the daemon listens on loopback only, unless the web configuration asks for
        /// passwords or certificates.
        pub token_file: Option<PathBuf> => [TOKEN_FILE, none],
        /// Where outcomes are posted and silences are queried: one address, or a list of all members
        /// of a cluster, which do not pass alerts on to each other. An outcome counts as delivered
        /// as soon as one member has it; the others get it as soon as they answer. If one is
        /// `https://`, each must be. Without an address outcomes are only logged, not mailed.
        pub alertmanager: Vec<Uri> => [ALERTMANAGER, or_empty],
        /// How the daemon proves to Alertmanager who it is, and how it recognizes Alertmanager.
        pub alertmanager_http: Access => [section Access],
        /// Report what would be done, and do nothing: `true` for every playbook, `false` for those
        /// with `dry_run: true` of their own, `{except: [NAME]}` for every playbook but those that are
        /// named. So this one key stops everything, whatever the playbooks say.
        pub dry_run: DryRun => [DRY_RUN, "false"],
        /// How many remediations act at once. A change needs a restart.
        pub parallel: u32 => [COUNT, "4"],
        /// How long the journal keeps finished remediations.
        pub history: Duration => [TIME, "90d"],
        /// The mail spool and its archive.
        pub mail: Mail => [section Mail],
        /// Whose processes may be ended. Root's never.
        pub accounts: Accounts => [section Accounts],
        /// What the sandbox leaves open to be read, besides what the daemon needs itself.
        pub sandbox: Readable => [section Readable],
        /// Where the status page's links lead to.
        pub links: Links => [section Links],
        /// What may be done, by name.
        pub playbooks: BTreeMap<String, Playbook> => [named Playbook],
    }
}

keys! {
    /// How the daemon proves to Alertmanager who it is, and how it recognizes Alertmanager. The files
    /// are read again when they change.
    #[derive(Default)]
    pub struct Access, RawAccess checked by check_access {
        /// The certificates in PEM of the authorities that may sign Alertmanager's certificate:
        /// needed for `https://`. For public authorities name the system's bundle, such as
        /// /etc/ssl/certs/ca-certificates.crt.
        pub ca_file: Option<PathBuf> => [PATH, none],
        /// The daemon's client certificate in PEM, with the certificates that lead to its authority.
        pub cert_file: Option<PathBuf> => [PATH, none],
        /// The private key of `cert_file` in PEM.
        pub key_file: Option<PathBuf> => [PATH, none],
        /// The user name for basic authentication.
        pub username: Option<String> => [NAME, none],
        /// A file with the password of `username`.
        pub password_file: Option<PathBuf> => [SECRET_FILE, none],
        /// A file with a bearer token, in place of user name and password.
        pub credentials_file: Option<PathBuf> => [SECRET_FILE, none],
    }
}

keys! {
    /// The mail spool and its archive.
    pub struct Mail, RawMail checked by check_mail {
        /// The directory of the mail files. In the sandbox, a change needs a restart.
        pub spool: PathBuf => [PATH, "/var/mail"],
        /// The directory of the saved mail files. It must belong to the user that the daemon runs as
        /// (with the systemd unit: `procstorm`), with mode 0700. For another directory than the
        /// default the unit needs a drop-in with `ReadWritePaths=`. In the sandbox, a change needs a
        /// restart.
        pub archive: PathBuf => [PATH, "/var/mail/arc"],
        /// What must stay free on the archive's file system.
        pub reserve: Reserve => [RESERVE, "5%"],
        /// How many archives of each mail file are kept. The newest is never removed.
        pub keep: Option<u32> => [COUNT, none],
        /// The greatest age of an archive. The newest is never removed.
        pub max_age: Option<Duration> => [TIME, none],
        /// The size of all archives of one user. The newest is never removed.
        pub max_bytes: Option<u64> => [SIZE, none],
    }
}

keys! {
    /// Whose processes may be ended. Root's never.
    pub struct Accounts, RawAccounts checked by nothing_more {
        /// Users with a lower uid are never acted on, and root never is.
        pub min_uid: u32 => [COUNT, "1000"],
        /// Users who are never acted on, by name, by uid, or by group as `"@staff"`. Uids are
        /// compared: a second name of the same uid is protected as well. An entry that names no
        /// account or group on this machine protects nobody; --check, the log and
        /// procstorm_protected_entries_void say so.
        pub protected: Vec<Listed> => [PROTECTED, "[]"],
        /// The only users who are acted on, written as in `protected`, which still applies. Without
        /// this key, every user may be. An entry that names no account or group on this machine
        /// allows nobody.
        pub only: Option<Vec<Listed>> => [ONLY, none],
        /// Whether the daemon may act on the uid that it runs as.
        pub allow_own_uid: bool => [BOOLEAN, "false"],
        /// Whether it may act on a uid without a name.
        pub allow_nameless: bool => [BOOLEAN, "false"],
        /// Whether it may kill the processes of a uid that owns the mail of several users in the
        /// spool, as `vmail` does: its processes belong to all of them. Otherwise the remediation
        /// ends as shared_uid, which is mailed.
        pub allow_shared_uid: bool => [BOOLEAN, "false"],
    }
}

keys! {
    /// What the sandbox leaves open to be read, besides what the daemon needs itself.
    pub struct Readable, RawReadable checked by nothing_more {
        /// More directories that the daemon may read in its sandbox, for modules of the name service
        /// (nsswitch.conf(5)) that keep their accounts elsewhere than in /etc, /run, /usr/lib,
        /// /var/lib/sss, /var/lib/extrausers, /var/lib/misc, /var/db and /var/yp. A change needs a
        /// restart.
        pub read: Vec<PathBuf> => [READABLE, "[]"],
    }
}

keys! {
    /// Where the status page's links lead to: addresses as a browser reaches them.
    pub struct Links, RawLinks checked by nothing_more {
        /// The dashboard. The page adds `var-host` and `var-user`. Without it there is no such link.
        pub dashboard: Option<String> => [DASHBOARD, none],
        /// The runbook, to which the page adds `#procstormoutcome`. Without it there is no such link.
        pub runbook: Option<String> => [SITE, none],
        /// Alertmanager's own pages, where a silence can be made. Debian's package has none. Without
        /// it there is no such link.
        pub alertmanager: Option<String> => [SITE, none],
    }
}

keys! {
    /// What is done about one kind of storm.
    pub struct Playbook, RawPlaybook checked by check_playbook {
        /// The alerts that may name this playbook.
        pub alerts: Vec<String> => [NAMES, required],
        /// The name of the processes, exactly, at most 15 bytes, as in /proc/PID/comm. Either
        /// `command` or `commands` is required.
        command: Option<Command> => [COMMAND, none],
        /// In place of `command`: a list of names, each exact. The processes of each name are
        /// counted and ended separately.
        pub commands: Vec<Command> => [COMMANDS, or_empty],
        /// The number of processes from which on it is a storm. The daemon counts before it acts,
        /// whatever the alert says.
        pub threshold: u64 => [THRESHOLD, required],
        /// What is done, in this order: `archive_mail_file`, `kill_user_proc`.
        pub steps: Vec<Step> => [STEPS, required],
        /// What happens to the steps after a failed archive: `continue` runs them, `stop` does not.
        pub on_archive_failure: OnArchiveFailure => [ON_ARCHIVE_FAILURE, "continue"],
        /// What happens to processes in pid namespaces below that of the host (containers): `leave`
        /// leaves them alone and mails how many there are, `kill` counts and kills them like the
        /// others. A pid namespace that the user has created (`unshare -Urpf`) is part of the storm
        /// in either case.
        pub nested_namespaces: NestedNamespaces => [NESTED_NAMESPACES, "leave"],
        /// How long the processes have to exit after SIGTERM; those that have not by then are sent
        /// SIGKILL. At most 60s; `0s` sends SIGKILL at once, which can leave a mail file torn and
        /// locked.
        pub grace: Duration => [GRACE, "2s"],
        /// How long the daemon watches for a recurrence.
        pub settle: Duration => [TIME_OR_NONE, "10s"],
        /// How long after the start of one remediation of the same user and command the next may
        /// begin.
        pub cooldown: Duration => [TIME_OR_NONE, "30s"],
        /// How often it may act.
        pub limits: Limits => [section Limits],
        /// Report what would be done, and do nothing. `true` holds even for a playbook that the
        /// `dry_run` of the whole policy names as an exception.
        pub dry_run: bool => [BOOLEAN, "false"],
    }
}

keys! {
    /// How often a playbook may act.
    #[derive(Copy)]
    pub struct Limits, RawLimits checked by nothing_more {
        /// How often it may act for one user.
        pub per_user: Rate => [RATE, "12/h"],
        /// How often it may act for all users together.
        pub total: Rate => [RATE, "60/h"],
    }
}

/// Which playbooks only report what they would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// All of them.
    All,
    /// Those that say so themselves.
    Own,
    /// All but these.
    Except(Vec<String>),
}

impl Config {
    /// Whether the playbook of that name only reports what it would do. One that is not there does
    /// nothing, either.
    #[must_use]
    pub fn is_dry_run(&self, playbook: &str) -> bool {
        let whole = match &self.dry_run {
            DryRun::All => true,
            DryRun::Own => false,
            DryRun::Except(live) => !live.iter().any(|name| name == playbook),
        };
        whole || self.playbooks.get(playbook).is_none_or(|book| book.dry_run)
    }

    /// The names of the playbooks that act.
    pub fn live_playbooks(&self) -> impl Iterator<Item = &str> {
        self.playbooks.keys().map(String::as_str).filter(|name| !self.is_dry_run(name))
    }

    /// Every key that the policy may have, in the order of the documents.
    #[must_use]
    pub fn keys() -> Vec<Key> {
        Entry::keys(Self::ENTRIES, "")
    }
}

impl Access {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [
            &self.ca_file,
            &self.cert_file,
            &self.key_file,
            &self.password_file,
            &self.credentials_file,
        ];
        files.into_iter().filter_map(Option::as_deref)
    }
}

impl Mail {
    /// What is kept of each user.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { keep: self.keep, max_age: self.max_age, max_bytes: self.max_bytes }
    }
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
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ArchiveMailFile, Self::KillUserProc];

    /// Whether it ends processes: then a uid must not hold the mail of several users.
    #[must_use]
    pub fn ends_processes(self) -> bool {
        match self {
            Self::ArchiveMailFile => false,
            Self::KillUserProc => true,
        }
    }

    /// Its name in the configuration, the journal and the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ArchiveMailFile => "archive_mail_file",
            Self::KillUserProc => "kill_user_proc",
        }
    }
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
    #[error("cannot read {path}{remedy}", path = path.display(), remedy = remedy(source))]
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

/// What to do about a file that is not there.
fn remedy(source: &io::Error) -> &'static str {
    if source.kind() != io::ErrorKind::NotFound {
        return "";
    }
    " (copy the shipped example, remediator.yml, from /usr/share/doc/procstorm-remediator, or name \
     another file with --config.file)"
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
            // With both lines, where a key stands twice.
            if let Err(yaml::Fault { line, what }) = yaml::read(text) {
                return vec![Fault { line, key: String::new(), item: None, problem: what }];
            }
            // Without its quotation of the file, which may hold a secret.
            let problem = format!("is not YAML: {}", error.without_snippet());
            let line = error.location().map(|location| location.line()).unwrap_or_default();
            vec![Fault { line, key: String::new(), item: None, problem }]
        })?;
        let faults: Faults = RefCell::default();
        let mut top = Section::new(String::new(), document, &faults);
        top.give("host", machine);
        let config = Self::read_mapping(top);
        let mut faults = faults.into_inner();
        // Not before: a playbook with a fault is left out, and is no unknown exception.
        if let Some(config) = config.as_ref().filter(|_| faults.is_empty()) {
            faults = config.unknown_exceptions();
        }
        place(&mut faults, text);
        faults.sort_by_key(|fault| fault.line);
        config.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// An exception that is no playbook's name would leave a person to believe that it acts.
    fn unknown_exceptions(&self) -> Vec<Fault> {
        let DryRun::Except(names) = &self.dry_run else { return Vec::new() };
        let unknown = names.iter().filter(|name| !self.playbooks.contains_key(*name));
        let fault = |name: &String| Fault {
            line: 0,
            key: "dry_run".to_owned(),
            item: None,
            problem: format!("except names {name:?}, which is no playbook of this policy"),
        };
        unknown.map(fault).collect()
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
                problems.map(move |problem| Fault {
                    line: 0,
                    key: key.clone(),
                    item: None,
                    problem,
                })
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
        fault.line = root.line_of(&fault.key, fault.item);
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

/// No fault that a value has not alone.
fn nothing_more<R>(_raw: &mut R, _section: &mut Section<'_>) {}

fn check_config(config: &mut RawConfig, section: &mut Section<'_>) {
    let (Some(members), Some(access)) = (&config.alertmanager, &config.alertmanager_http) else {
        return;
    };
    let encrypted = |uri: &&Uri| uri.scheme_str() == Some("https");
    if let (Some(uri), None) = (members.iter().find(encrypted), &access.ca_file) {
        section.fault("alertmanager", format!("{uri} needs alertmanager_http.ca_file"));
    }
    if members.iter().find(encrypted).is_none()
        && let Some(file) = access.ca_file.as_ref().or(access.cert_file.as_ref())
    {
        // Who names them expects encryption.
        section.fault(
            "alertmanager",
            format!("no address begins with https://, so {} would not be used", file.display()),
        );
    }
    if let Some(one) = members.iter().find(encrypted) {
        // The members share one login.
        for other in members.iter().filter(|uri| !encrypted(uri)) {
            section.fault(
                "alertmanager",
                format!(
                    "{other} must begin with https://, as {one} does: what goes to it, the login too, \
                     would be in clear"
                ),
            );
        }
    }
    if members.is_empty() && access.files().next().is_some() {
        section.fault("alertmanager_http", "is of no use without alertmanager");
    }
}

fn check_access(access: &mut RawAccess, section: &mut Section<'_>) {
    let has = |file: &Option<Option<PathBuf>>| matches!(file, Some(Some(_)));
    for (one, other, is, its) in [
        ("cert_file", "key_file", has(&access.cert_file), has(&access.key_file)),
        (
            "username",
            "password_file",
            matches!(access.username, Some(Some(_))),
            has(&access.password_file),
        ),
    ] {
        match (is, its) {
            (true, false) => section.fault(one, format!("needs {other}")),
            (false, true) => section.fault(other, format!("needs {one}")),
            (true, true) | (false, false) => {}
        }
    }
    if has(&access.credentials_file) && has(&access.password_file) {
        section.fault("credentials_file", "must not stand beside password_file");
    }
}

fn check_mail(mail: &mut RawMail, section: &mut Section<'_>) {
    if mail.spool.is_some() && mail.spool == mail.archive {
        section.fault("archive", "must be another directory than the spool");
    }
}

fn check_playbook(book: &mut RawPlaybook, section: &mut Section<'_>) {
    match (&mut book.command, &mut book.commands) {
        (Some(Some(_)), Some(commands)) if !commands.is_empty() => {
            section
                .fault("commands", "must not stand beside command; move that name into the list");
        }
        (Some(Some(command)), Some(commands)) => commands.push(*command),
        (Some(None), Some(commands)) if commands.is_empty() => section.missing("command"),
        (Some(None), Some(_)) | (None, _) | (_, None) => {}
    }
    let steps = book.steps.as_ref();
    let archives_first = steps.is_none_or(|steps| steps.first() == Some(&Step::ArchiveMailFile));
    if book.on_archive_failure == Some(OnArchiveFailure::Stop) && !archives_first {
        section.fault("on_archive_failure", "stop needs archive_mail_file as the first step");
    }
}

const HOST: Form<String> = Form { words: "a name", read: host };
const PATH: Form<PathBuf> = Form { words: "an absolute path", read: path };
const TOKEN_FILE: Form<PathBuf> = Form { words: "an absolute path", read: token_file };
const SECRET_FILE: Form<PathBuf> = Form { words: "an absolute path", read: secret_file };
const NAME: Form<String> = Form { words: "a name", read: user_name };
const ALERTMANAGER: Form<Vec<Uri>> =
    Form { words: "`http[s]://HOST[:PORT][/PREFIX]`, or a list", read: alertmanagers };
const DASHBOARD: Form<String> =
    Form { words: "`http://` or `https://` and so on, without a `#`", read: dashboard };
const SITE: Form<String> =
    Form { words: "`http://` or `https://` and so on, without a `?` or `#`", read: site };
const COUNT: Form<u32> = Form { words: "a whole number from 1", read: number };
const THRESHOLD: Form<u64> = Form { words: "a whole number from 1", read: number };
const BOOLEAN: Form<bool> = Form { words: "`true` or `false`", read: boolean };
const DRY_RUN: Form<DryRun> =
    Form { words: "`true`, `false` or `{except: [NAME]}`", read: dry_run };
const TIME: Form<Duration> =
    Form { words: "a time such as `90d`", read: |value| parsed(value, positive) };
const TIME_OR_NONE: Form<Duration> =
    Form { words: "a time such as `30s` or `5m`", read: |value| parsed(value, values::duration) };
const GRACE: Form<Duration> =
    Form { words: "a time up to `60s`", read: |value| parsed(value, grace) };
const SIZE: Form<u64> =
    Form { words: "a size such as `20GiB`", read: |value| parsed(value, values::size) };
const RESERVE: Form<Reserve> = Form {
    words: "a percentage, or a size such as `2GiB`",
    read: |value| parsed(value, values::reserve),
};
const RATE: Form<Rate> =
    Form { words: "a rate such as `12/h` or `3/15m`", read: |value| parsed(value, values::rate) };
const PROTECTED: Form<Vec<Listed>> =
    Form { words: "a list of names, uids, groups", read: |value| list(value, listed) };
const ONLY: Form<Vec<Listed>> = Form { words: "a list of names, uids, groups", read: only };
const READABLE: Form<Vec<PathBuf>> =
    Form { words: "a list of absolute paths", read: |value| list(value, readable) };
const NAMES: Form<Vec<String>> = Form { words: "a list of names", read: |value| some(value, text) };
const COMMAND: Form<Command> = Form { words: "a name", read: command };
const COMMANDS: Form<Vec<Command>> = Form { words: "a list of names", read: commands };
const STEPS: Form<Vec<Step>> = Form { words: "a list of steps", read: steps };
const ON_ARCHIVE_FAILURE: Form<OnArchiveFailure> =
    Form { words: "`continue` or `stop`", read: on_archive_failure };
const NESTED_NAMESPACES: Form<NestedNamespaces> =
    Form { words: "`leave` or `kill`", read: nested_namespaces };

fn dry_run(value: &Value) -> Result<DryRun, Wrong> {
    if let Some(whole) = value.as_bool() {
        return Ok(if whole { DryRun::All } else { DryRun::Own });
    }
    let named = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("except"));
    match named {
        Some(names) => Ok(DryRun::Except(some(names, text)?)),
        None => {
            Err("must be true, false, or {except: [NAME, ...]} with the names of the playbooks \
                     that act"
                .into())
        }
    }
}

/// A directory, but not all of them.
fn readable(value: &Value) -> Result<PathBuf, Wrong> {
    let place = path(value)?;
    if place.parent().is_none() {
        return Err("must not be /, which would leave every file open; name the directories that \
                    the name service's modules read"
            .into());
    }
    Ok(place)
}

fn host(value: &Value) -> Result<String, Wrong> {
    let host = text(value)?;
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    if host.is_empty() || host.len() > 255 || !host.chars().all(plain) {
        return Err(format!("must be a host's name without blanks, not {host:?}").into());
    }
    Ok(host)
}

/// Not quoted where it is wrong: it may be the token itself.
fn token_file(value: &Value) -> Result<PathBuf, Wrong> {
    path(value).map_err(|_quoted| {
        "must be an absolute path of a file that holds the token, such as /etc/procstorm/token"
            .into()
    })
}

/// Not quoted where it is wrong: it may be the secret itself.
fn secret_file(value: &Value) -> Result<PathBuf, Wrong> {
    path(value).map_err(|_quoted| "must be an absolute path of a file that holds the secret".into())
}

fn user_name(value: &Value) -> Result<String, Wrong> {
    let name = text(value)?;
    // RFC 7617: a colon would end the name.
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err("must be a name without a colon, of at most 255 bytes".into());
    }
    Ok(name)
}

/// The members of a cluster are few: each is asked at each outcome.
const MEMBERS_MAX: usize = 16;

fn alertmanagers(value: &Value) -> Result<Vec<Uri>, Wrong> {
    if !value.is_array() {
        return Ok(vec![alertmanager(value)?]);
    }
    let members = some(value, alertmanager)?;
    let twice = |uri: &&Uri| members.iter().filter(|other| other == uri).count() > 1;
    if let Some(uri) = members.iter().find(twice) {
        return Err(format!("names {uri} twice").into());
    }
    match members.len() {
        0..=MEMBERS_MAX => Ok(members),
        count => Err(format!("must have at most {MEMBERS_MAX} addresses, not {count}").into()),
    }
}

fn alertmanager(value: &Value) -> Result<Uri, Wrong> {
    let address = text(value)?;
    // Before anything is quoted.
    if address.contains('@') {
        return Err("must not hold a password: it would show in logs".into());
    }
    let fault = |problem: &str| Wrong::from(format!("{address:?} {problem}"));
    let uri: Uri = address.parse().map_err(|_uri| fault("is not a URL"))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !known || uri.host().is_none_or(str::is_empty) {
        return Err(fault("must be http://HOST[:PORT][/PREFIX] or https://HOST[:PORT][/PREFIX]"));
    }
    if uri.query().is_some() {
        return Err(fault("must not hold a query"));
    }
    Ok(uri)
}

/// Nobody could be acted on if it were empty, which `dry_run` says more plainly.
fn only(value: &Value) -> Result<Vec<Listed>, Wrong> {
    match list(value, listed)? {
        items if items.is_empty() => {
            Err("must not be empty, which would allow nobody; delete the \
                                          key to allow every user, or write dry_run: true"
                .into())
        }
        items => Ok(items),
    }
}

/// An address for a browser, to which a query can be added.
fn dashboard(value: &Value) -> Result<String, Wrong> {
    let address = text(value)?;
    // Before anything is quoted.
    if address.contains('@') {
        return Err("must not hold a password: it would show on the status page".into());
    }
    let fault = |problem: &str| Wrong::from(format!("{address:?} {problem}"));
    if address.contains('#') {
        return Err(fault("must not hold a #: the page adds its own"));
    }
    let uri: Uri = address.parse().map_err(|_uri| fault("is not a URL"))?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_web || uri.host().is_none_or(str::is_empty) {
        return Err(fault("must be http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"));
    }
    Ok(address)
}

/// An address for a browser, to which a fragment can be added.
fn site(value: &Value) -> Result<String, Wrong> {
    match dashboard(value)? {
        address if address.contains('?') => {
            Err(format!("{address:?} must not hold a query").into())
        }
        address => Ok(address.trim_end_matches('/').to_owned()),
    }
}

/// A name, a uid or `@group`.
fn listed(value: &Value) -> Result<Listed, Wrong> {
    let entry = if let Value::Number(uid) = value { uid.to_string() } else { text(value)? };
    Ok(Listed::parse(&entry).map_err(|fault| fault.to_string())?)
}

fn command(value: &Value) -> Result<Command, Wrong> {
    let name = text(value)?;
    if [SMALL, OTHER, SMALL_USERS].contains(&name.as_str()) {
        return Err(format!(
            "{name:?} is how the exporter shows several commands together; name the commands \
             themselves"
        )
        .into());
    }
    if name.is_empty() || name.len() > COMMAND_MAX {
        return Err(format!(
            "process names are 1 to {COMMAND_MAX} bytes long, and {name:?} is not; write the name as \
             in /proc/PID/comm"
        )
        .into());
    }
    Command::new(name.as_bytes()).ok_or_else(|| format!("{name:?} is too long").into())
}

fn commands(value: &Value) -> Result<Vec<Command>, Wrong> {
    let commands = some(value, command)?;
    let twice = |command: &&Command| commands.iter().filter(|other| *other == *command).count() > 1;
    match commands.iter().find(twice) {
        Some(command) => Err(format!("names {command:?} twice").into()),
        None => Ok(commands),
    }
}

fn steps(value: &Value) -> Result<Vec<Step>, Wrong> {
    let steps = some(value, step)?;
    let twice = |step: &Step| steps.iter().filter(|other| *other == step).count() > 1;
    match steps.iter().find(|step| twice(step)) {
        Some(step) => Err(format!("names {} twice", step.label()).into()),
        None => Ok(steps),
    }
}

fn step(value: &Value) -> Result<Step, Wrong> {
    let name = text(value)?;
    let found = Step::ALL.into_iter().find(|step| step.label() == name);
    found.ok_or_else(|| {
        let known: Vec<_> = Step::ALL.into_iter().map(Step::label).collect();
        format!("unknown step {name:?}; expected one of {}", known.join(", ")).into()
    })
}

fn on_archive_failure(value: &Value) -> Result<OnArchiveFailure, Wrong> {
    match text(value)?.as_str() {
        "continue" => Ok(OnArchiveFailure::Continue),
        "stop" => Ok(OnArchiveFailure::Stop),
        other => Err(format!("must be continue or stop, not {other:?}").into()),
    }
}

fn nested_namespaces(value: &Value) -> Result<NestedNamespaces, Wrong> {
    match text(value)?.as_str() {
        "leave" => Ok(NestedNamespaces::Leave),
        "kill" => Ok(NestedNamespaces::Kill),
        other => Err(format!("must be leave or kill, not {other:?}").into()),
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
