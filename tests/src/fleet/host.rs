//! A host of a fleet: its machine, its daemons, and what is on record there.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

use super::network::Machine;
use crate::daemon::Daemon;
use crate::host::faketime;
use crate::http::Http;
use crate::journal;
use crate::stack::{Person, Site, replace_once};
use crate::storm::Storm;

/// A host.
#[derive(Debug)]
pub struct Host {
    // In the order in which they are to end.
    exporter: Option<Daemon>,
    remediator: Option<Daemon>,
    machine: Machine,
    site: Site,
    accounts: Accounts,
    people: Vec<Person>,
    dir: PathBuf,
}

/// A remediation, as the host's journal has it. Times are in milliseconds, by the host's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How it ended; empty until then.
    pub verdict: String,
    /// How many processes it found, and how many it left.
    pub counts: (u64, u64),
}

impl Host {
    /// Writes what is to be on the host, its policy into `policies` too, and its token into
    /// `credentials`, where its certificate is.
    pub(super) fn prepare(
        machine: Machine,
        dir: &Path,
        people: Vec<Person>,
        members: &[String],
        policies: &Path,
        credentials: &Path,
    ) -> Result<Self, Fault> {
        let dir = dir.join(machine.name());
        fs::create_dir(&dir).or_fault(format!("cannot make {}", dir.display()))?;
        let site = Site::lay_out(&dir, &people)?;
        let accounts = site.accounts(&people)?;
        let name = machine.name();
        let token = format!("the-token-of-{name}-and-of-no-other-host");
        let tokens = [dir.join("token"), credentials.join(format!("{name}.token"))];
        tokens.iter().try_for_each(|path| fs::write(path, &token)).or_fault("no token")?;
        let path = site.remediator(&format!("[{}]", members.join(", ")))?;
        let policy = fs::read_to_string(&path).or_fault("no policy")?;
        let policy = replace_once(&policy, "\nhost: moscow ", &format!("\nhost: {name} "))?;
        for path in [path, policies.join(format!("{name}.yml"))] {
            fs::write(&path, &policy).or_fault("no policy")?;
        }
        let certificate = credentials.join(machine.address().to_string());
        let web = format!(
            "tls_server_config: {{cert_file: '{0}.crt', key_file: '{0}.key'}}\n",
            certificate.display()
        );
        fs::write(dir.join("web.yml"), web).or_fault("no web configuration")?;
        Ok(Self { exporter: None, remediator: None, machine, site, accounts, people, dir })
    }

    /// Starts its daemons, and does not wait for them. With its clock so many seconds ahead, if that is
    /// asked.
    pub fn start(&mut self, ahead: Option<i64>) -> Result<(), Fault> {
        let started = |name: &str, arguments: &[String]| {
            let mut command = self.accounts.command(&programs::ours(name)?)?;
            command.args(arguments);
            if let Some(seconds) = ahead {
                let library =
                    faketime().ok_or_else(|| Fault::new("no libfaketime: run tests/tools.sh"))?;
                command.env("LD_PRELOAD", library).env("FAKETIME", format!("{seconds:+}"));
                command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
            let log = self.dir.join(format!("{name}.log"));
            Daemon::start(name, &self.machine.inside(&command)?, &log)
        };
        let listen = |address: String| format!("--web.listen-address={address}");
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        let exporter = started("procstorm-exporter", &[listen(self.exporter_address())])?;
        let remediator = started(
            "procstorm-remediator",
            &[
                listen(self.remediator_address()),
                file("config.file", "remediator.yml"),
                file("web.config.file", "web.yml"),
            ],
        )?;
        (self.exporter, self.remediator) = (Some(exporter), Some(remediator));
        Ok(())
    }

    /// Waits until its daemons are ready.
    pub(super) fn await_ready(&mut self, http: &Http) -> Result<(), Fault> {
        let exporter = format!("http://{}/-/ready", self.exporter_address());
        let remediator = self.remediator_address();
        if let Some(daemon) = &mut self.exporter {
            daemon.ready(|| http.is_ok(&exporter))?;
        }
        if let Some(daemon) = &mut self.remediator {
            // It listens when it is ready, and speaks TLS, of which our client knows nothing.
            daemon.ready(|| TcpStream::connect(&remediator).is_ok())?;
        }
        Ok(())
    }

    /// What it is called: the label `host`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Its machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its users.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Where its exporter listens.
    #[must_use]
    pub fn exporter_address(&self) -> String {
        format!("{}:9957", self.machine.address())
    }

    fn remediator_address(&self) -> String {
        format!("{}:9958", self.machine.address())
    }

    /// All that its remediator has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.remediator.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Begins to raise a storm there.
    pub fn begin_storm(&self, uid: u32, command: &str, count: usize) -> Result<Storm, Fault> {
        Storm::begin(uid, command.as_bytes(), count, &self.machine.proc(), |program| {
            self.machine.inside(&program)
        })
    }

    /// Puts a mail file of a user into the spool.
    pub fn put_mail(&self, person: &Person) -> Result<PathBuf, Fault> {
        self.site.put_mail(person, &person.name, b"From alice\n\nHello\n", 0o600)
    }

    /// How many mail files are in its archive.
    pub fn archived(&self) -> Result<usize, Fault> {
        self.site.archived().map(|files| files.len())
    }

    /// Its remediations of a user's storms, oldest first.
    pub fn entries(&self, user: &str) -> Result<Vec<Entry>, Fault> {
        let rows = self.journal(&format!(
            "SELECT coalesce(verdict, ''), coalesce(before, 0), coalesce(after, 0) \
             FROM remediations WHERE user = '{user}' ORDER BY id"
        ))?;
        let entry = |row: &String| {
            let mut columns = row.split('|');
            let mut next = || columns.next().unwrap_or_default();
            let verdict = next().to_owned();
            let mut count = || next().parse().unwrap_or_default();
            Entry { verdict, counts: (count(), count()) }
        };
        Ok(rows.iter().map(entry).collect())
    }

    /// How many alerts of a user were posted to it, and how many of them after the user's first
    /// remediation was over: those are of no use.
    pub fn alerts(&self, user: &str) -> Result<(usize, usize), Fault> {
        let rows = self.journal(&format!(
            "SELECT count(*), coalesce(sum(received_ms > (SELECT min(ended_ms) FROM remediations \
             WHERE user = '{user}')), 0) FROM alerts WHERE user = '{user}'"
        ))?;
        let counts = rows.first().and_then(|row| row.split_once('|'));
        let (all, late) = counts.ok_or_else(|| Fault::new("the journal counts nothing"))?;
        Ok((all.parse().or_fault("no count")?, late.parse().or_fault("no count")?))
    }

    fn journal(&self, query: &str) -> Result<Vec<String>, Fault> {
        journal::read(&self.site.state(), query)
    }
}
