//! The directory of one stack, and the shipped configuration adapted to it: addresses and paths
//! are replaced, nothing else, so that what is shown is what is shipped.

use std::fs::{self, DirBuilder, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

use super::Addresses;

/// The secret between this stack's Alertmanager and its remediator.
pub const TOKEN: &str = "this-stack-lives-on-loopback-alone";

/// Whoever runs processes and gets mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The login name.
    pub name: String,
    /// The uid.
    pub uid: u32,
}

impl Person {
    /// A person of that name and uid.
    #[must_use]
    pub fn new(name: &str, uid: u32) -> Self {
        Self { name: name.to_owned(), uid }
    }
}

/// How often Prometheus looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timing {
    /// As the configuration says; as shipped: 5 s between scrapes and between evaluations.
    #[default]
    Shipped,
    /// 1 s, for tests.
    Fast,
}

/// The directory of one stack.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    /// Where `rules` and `alertmanager` are.
    configuration: PathBuf,
    /// Of the people, the lowest: the host's policy lets the remediator act upon no lower uid.
    min_uid: u32,
    root: bool,
}

impl Site {
    /// Makes the directories below `dir`, which must exist.
    pub fn lay_out(dir: &Path, people: &[Person]) -> Result<Self, Fault> {
        let dir = dir.canonicalize().or_fault(format!("no directory {}", dir.display()))?;
        let min_uid = people.iter().map(|person| person.uid).min().unwrap_or(1000);
        let configuration = programs::project().to_owned();
        let root = rustix::process::geteuid().is_root();
        let site = Self { dir, configuration, min_uid, root };
        for (path, mode) in [
            (site.spool(), 0o755),
            (site.archive(), 0o700),
            (site.state(), 0o700),
            (site.mails(), 0o755),
        ] {
            let made = DirBuilder::new().mode(mode).create(&path);
            made.or_fault(format!("cannot make {}", path.display()))?;
        }
        site.write("token", TOKEN, 0o600)?;
        Ok(site)
    }

    /// The same, with another configuration than the shipped one: a directory with `rules` and
    /// `alertmanager`. The policy stays the shipped one.
    #[must_use]
    pub fn with(mut self, configuration: &Path) -> Self {
        configuration.clone_into(&mut self.configuration);
        self
    }

    /// Where mail files lie.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Where mail files are archived.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.dir.join("arc")
    }

    /// Where the remediator keeps its journal.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where the mails that were sent are kept.
    #[must_use]
    pub fn mails(&self) -> PathBuf {
        self.dir.join("sent")
    }

    /// The log of one of our daemons.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The remediator's configuration.
    #[must_use]
    pub fn remediator_yml(&self) -> PathBuf {
        self.dir.join("remediator.yml")
    }

    /// Puts a mail file of `person` into the spool under `name` (`alice` or `.alice.pop`), with
    /// that mode, and returns its path.
    pub fn put_mail(
        &self,
        person: &Person,
        name: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<PathBuf, Fault> {
        let path = self.write(&format!("mail/{name}"), content, mode)?;
        if self.root {
            chown(&path, Some(person.uid), Some(person.uid))
                .or_fault(format!("cannot give {} away", path.display()))?;
        }
        Ok(path)
    }

    /// All files in the archive, oldest name first.
    pub fn archived(&self) -> Result<Vec<PathBuf>, Fault> {
        let entries = fs::read_dir(self.archive()).or_fault("cannot read the archive")?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    }

    /// The people, as the daemons shall see them.
    pub fn accounts(&self, people: &[Person]) -> Result<Accounts, Fault> {
        if !self.root {
            return Ok(Accounts::of_the_machine());
        }
        let people: Vec<(&str, u32)> = people.iter().map(|p| (p.name.as_str(), p.uid)).collect();
        Accounts::only(&people, &self.dir)
    }

    /// Writes `alertmanager.yml`, and returns its path.
    pub fn alertmanager(&self, smtp: SocketAddr, remediator: &str) -> Result<PathBuf, Fault> {
        let templates = self.configuration.join("alertmanager/templates/*.tmpl");
        let token = self.dir.join("token");
        self.adapt(
            &self.configuration,
            "alertmanager/alertmanager.yml",
            &[
                ("smtp_smarthost: localhost:25", &format!("smtp_smarthost: {smtp}")),
                (
                    "templates: [templates/*.tmpl]",
                    &format!("templates: ['{}']", templates.display()),
                ),
                ("http://127.0.0.1:9958/webhook", &format!("http://{remediator}/webhook")),
                ("/etc/prometheus/procstorm.token", &token.display().to_string()),
            ],
        )
    }

    /// Writes `prometheus.yml`, and returns its path. Targets keep their names, so that they keep
    /// their labels; the address behind the name is put in after those are made.
    pub fn prometheus(
        &self,
        alertmanager: &str,
        addresses: &Addresses,
        timing: Timing,
    ) -> Result<PathBuf, Fault> {
        let rules = self.configuration.join("rules/procstorm.rules.yml");
        let host = r"- {source_labels: [host, __address__], regex: ';(?:\[(.+)\](:\d+)?|([^:]+)(:\d+)?)', replacement: '$1$3', target_label: host}";
        let behind = |address: &str| {
            format!("{host}\n      - {{target_label: __address__, replacement: '{address}'}}")
        };
        let second = format!("relabel_configs:\n      {}", behind(&addresses.remediator));
        let path = self.adapt(
            &self.configuration,
            "rules/prometheus.yml",
            &[
                ("[procstorm.rules.yml]", &format!("['{}']", rules.display())),
                ("localhost:9093", alertmanager.trim_start_matches("http://")),
                ("      - {targets: ['nantes:9957'], labels: {role: nis}}\n", ""),
                (host, &behind(&addresses.exporter)),
                ("relabel_configs: *host", &second),
                // Many a test takes the mail server or the remediator away, for other reasons.
                (ALERTMANAGER_JOB, ""),
            ],
        )?;
        if timing == Timing::Fast {
            let text = fs::read_to_string(&path).or_fault("cannot read prometheus.yml")?;
            let text = replace_once(&text, "scrape_interval: 5s", "scrape_interval: 1s")
                .and_then(|t| replace_once(&t, "scrape_timeout: 4s", "scrape_timeout: 1s"))
                .and_then(|t| {
                    replace_once(&t, "evaluation_interval: 5s", "evaluation_interval: 1s")
                })
                .or_fault("rules/prometheus.yml")?;
            self.write("prometheus.yml", text, 0o644)?;
        }
        Ok(path)
    }

    /// Writes `remediator.yml`.
    pub fn remediator(&self, alertmanager: &str) -> Result<PathBuf, Fault> {
        let path = |path: PathBuf| path.display().to_string();
        self.adapt(
            programs::project(),
            "remediator/remediator.yml",
            &[
                ("/var/lib/procstorm", &path(self.state())),
                ("/etc/procstorm/token", &path(self.dir.join("token"))),
                ("http://127.0.0.1:9093", alertmanager),
                ("\ndry_run: true\n", "\ndry_run: false\n"),
                ("archive: /var/mail/arc", &format!("archive: {}", path(self.archive()))),
                ("spool: /var/mail", &format!("spool: {}", path(self.spool()))),
                // The machine's own disk may be fuller than a mail server's should be.
                ("reserve: 5%", "reserve: 16MiB"),
                ("min_uid: 1000", &format!("min_uid: {}", self.min_uid)),
                ("allow_own_uid: false", &format!("allow_own_uid: {}", !self.root)),
            ],
        )
    }

    /// Makes the policy a dry run, or live.
    pub fn dry_run(&self, dry_run: bool) -> Result<(), Fault> {
        let text = fs::read_to_string(self.remediator_yml()).or_fault("cannot read the policy")?;
        let key = |dry_run: bool| format!("\ndry_run: {dry_run}\n");
        let text = replace_once(&text, &key(!dry_run), &key(dry_run)).or_fault("the policy")?;
        self.write("remediator.yml", text, 0o644).map(drop)
    }

    /// Writes a file of the configuration into the directory, each of `changes` made once.
    fn adapt(
        &self,
        configuration: &Path,
        shipped_as: &str,
        changes: &[(&str, &str)],
    ) -> Result<PathBuf, Fault> {
        let path = configuration.join(shipped_as);
        let mut text =
            fs::read_to_string(&path).or_fault(format!("cannot read {}", path.display()))?;
        for (from, to) in changes {
            text = replace_once(&text, from, to).or_fault(shipped_as)?;
        }
        let name = Path::new(shipped_as).file_name().unwrap_or_default().to_string_lossy();
        self.write(&name, text, 0o644)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<PathBuf, Fault> {
        let path = self.dir.join(name);
        fs::write(&path, content).or_fault(format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .or_fault(format!("no mode for {}", path.display()))?;
        Ok(path)
    }
}

/// The job of prometheus.yml that scrapes Alertmanager.
const ALERTMANAGER_JOB: &str = "  - job_name: alertmanager
    static_configs:
      - {targets: ['127.0.0.1:9093']}
";

/// Replaces the only place of `from`. That there is not exactly one is a fault: the shipped file
/// was changed, and what adapts it must be too.
pub(crate) fn replace_once(text: &str, from: &str, to: &str) -> Result<String, Fault> {
    match text.matches(from).count() {
        1 => Ok(text.replacen(from, to, 1)),
        n => Err(Fault::new(format!("{from:?} is there {n} times, not once"))),
    }
}

/// What must be equal between a mail file and its archive, besides the bytes: mode, owner, group,
/// and the time of change in nanoseconds.
pub fn likeness(path: &Path) -> Result<(u32, u32, u32, i64, i64), Fault> {
    let meta = fs::metadata(path).or_fault(format!("no {}", path.display()))?;
    Ok((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec()))
}
