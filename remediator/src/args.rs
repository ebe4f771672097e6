//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use hyper::Uri;
use procstorm_toolkit::logging::{Format, Level};

use crate::commands::columns::width_of_terminal;
use crate::commands::report::since;
use crate::commands::suggest;
use crate::policy::Access;

/// Where it listens if nothing else is asked for.
pub const LISTEN: &str = "127.0.0.1:9958";

/// The policy, if no other is named.
pub const CONFIG_FILE: &str = "/etc/procstorm/remediator.yml";

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  procstorm-remediator --check                         Say in plain sentences what the policy does.
  procstorm-remediator explain --payload alert.json    Say what it would do with a notification.
  procstorm-remediator restore --user alice            Compare saved mail with the mailbox.

The shipped policy is a dry run: nothing is killed until you arm it. More: man procstorm-remediator";

/// Archives a user's mail file and kills a storm of processes when Alertmanager says so and the
/// host's own policy agrees, and proves it.
#[derive(Clone, Debug, Parser)]
#[command(name = "procstorm-remediator", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// Another thing to do than to serve.
    #[command(subcommand)]
    pub task: Option<Task>,

    /// The host's policy; SIGHUP reloads it.
    #[arg(
        long = "config.file",
        global = true,
        value_name = "FILE",
        default_value = CONFIG_FILE
    )]
    pub config_file: PathBuf,

    /// Check the policy, explain it in plain sentences, and exit.
    ///
    /// Each fault is one line on standard error: file, line, key, and what is wrong. A command that
    /// looks like a pattern or a path, and a directory of `sandbox.read` that does not exist, are
    /// warnings.
    #[arg(long)]
    pub check: bool,

    /// With --check and --alertmanager: check that these rules (a file, or a directory of
    /// `*.rules.yml`) agree with the policy.
    ///
    /// The check says "the three agree" only if an alert of each row that asks for a playbook of
    /// this host reaches this host's webhook and is acted on. Each obstacle is reported with file
    /// and line, and the exit status is 1: a playbook that the policy lacks, a threshold of the
    /// policy above the rule's, labels that the daemon refuses, another receiver that takes the
    /// alert, a time interval or inhibit rule that holds it back, another host's url or token,
    /// max_alerts, `payload`, a route that would group two users together, and a repeat that comes
    /// too late for the cooldown. What the files do not show is listed; then the exit status is 0,
    /// without these words. Rows of other hosts' roles are left out.
    ///
    /// The daemon's own --web.listen-address and --web.config.file make the check more exact. It
    /// does not check that the files are valid for their own programs; promtool and amtool do.
    #[arg(long, value_name = "PATH", requires = "check", requires = "alertmanager")]
    pub rules: Option<PathBuf>,

    /// With --check and --rules: Alertmanager's configuration, to be checked together with them.
    #[arg(long, value_name = "FILE", requires = "check", requires = "rules")]
    pub alertmanager: Option<PathBuf>,

    /// With --check, --rules, --alertmanager and --policies: check a whole fleet. FILE is the list of
    /// hosts, as Prometheus' `file_sd_configs` reads it.
    ///
    /// Each host is checked as --rules describes. Also reported are a host that is doubled, that has no
    /// policy though a row of its role asks for a playbook, or that no route leads to; a route for a
    /// host that is not in the list; and tokens that are swapped or shared. The daemons are taken to
    /// listen on port 9958 unless --web.listen-address says otherwise. --config.file is not used.
    #[arg(long, value_name = "FILE", requires_all = ["check", "rules", "policies"])]
    pub fleet: Option<PathBuf>,

    /// With --fleet: the directory of the hosts' policies, HOST.yml, or ROLE.yml for all hosts with
    /// that label `role`.
    #[arg(long, value_name = "DIR", requires = "fleet")]
    pub policies: Option<PathBuf>,

    /// Where to listen, as `host:port`, `[host]:port` or `:port`; may be given several times. The
    /// shipped unit does not use it: its address is in `procstorm-remediator.socket`.
    ///
    /// Beyond loopback the daemon does not start unless the policy names a token file, or the web
    /// configuration asks for passwords or verified certificates.
    ///
    /// A request that arrives at an address of the loopback without the token, a password or TLS
    /// must name it in `Host`: `localhost`, a loopback address, this machine's name, or a name that
    /// /etc/hosts gives a loopback address. Other names, and requests that a browser sends for
    /// another site, get 403. [default: 127.0.0.1:9958]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// Serve on the sockets that systemd passes, in place of --web.listen-address.
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// File with TLS and authentication, in the format of Prometheus' exporter-toolkit; with
    /// passwords, the token is not accepted.
    ///
    /// It is reloaded when it changes. With `basic_auth_users`, every request to every page needs a
    /// name and a password instead of the token: a bearer token gets 401. Alertmanager's receiver
    /// and Prometheus' job then need `basic_auth` instead of `authorization`. Without
    /// `basic_auth_users` the token is needed, with and without TLS.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Where /proc is mounted.
    #[arg(long = "path.procfs", global = true, value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Ask the running daemon with this pid to reload, wait for its answer, and exit; for
    /// `ExecReload=` of the systemd unit.
    ///
    /// Exits with status 1 and the daemon's reason if it keeps its previous configuration. The
    /// answer is written to `RUNTIME_DIRECTORY`.
    #[arg(long, value_name = "PID")]
    pub reload: Option<u32>,

    /// Do not drop capabilities, and enforce neither Landlock nor the seccomp filter.
    #[arg(long = "no-sandbox", global = true)]
    pub no_sandbox: bool,

    /// What is logged to standard error: debug, info, warn or error.
    #[arg(long = "log.level", value_name = "LEVEL", default_value_t)]
    pub log_level: Level,

    /// The form of the log: logfmt or json.
    ///
    /// Where standard error is the systemd journal, each line has its priority (err, warning, info,
    /// debug) and no time of its own.
    #[arg(long = "log.format", value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
}

/// How Alertmanager reaches the hosts of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FleetForm {
    /// A receiver and a route for each host, for every Alertmanager.
    #[value(name = "0.25")]
    PerHost,
    /// One receiver for all hosts, with client certificates, for Alertmanager 0.31 and newer.
    #[value(name = "0.31")]
    Templated,
}

/// What `fleet` makes, of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Fleet {
    /// The list of hosts, as Prometheus' `file_sd_configs` reads it, in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub targets: PathBuf,
    /// The directory of the hosts' policies, HOST.yml, or ROLE.yml for all hosts with that label
    /// `role`. A host with neither has no remediator.
    #[arg(long, value_name = "DIR")]
    pub policies: PathBuf,
    /// Where the files go.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// The oldest Alertmanager that must read the file. With 0.25, each host has a receiver of its
    /// own; with 0.31, one receiver serves all hosts, and the daemons must ask for client
    /// certificates.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "0.25")]
    pub alertmanager: FleetForm,
    /// The Alertmanager configuration to start from. What stands between its comments `begin of`
    /// and `end of the remediators' routes`, and `receivers`, is replaced.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/procstorm/alertmanager/alertmanager.yml"
    )]
    pub base: PathBuf,
    /// The directory on Alertmanager's machine with HOST.token for each host, ca.crt and, for hosts
    /// without a token, client.crt and client.key.
    #[arg(long, value_name = "DIR", default_value = "/etc/prometheus/procstorm")]
    pub credentials: PathBuf,
}

/// What `certificates` makes, of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Certificates {
    /// The list of hosts, as Prometheus' `file_sd_configs` reads it, in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub targets: PathBuf,
    /// A directory for the keys and certificates, which is made if it is missing. It must belong to
    /// the user who runs this, and nobody else may be able to write to it.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// How many days a new certificate is good for.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// How many days a new authority is good for: at least three times --days.
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(3..=36500))]
    pub ca_days: u32,
    /// The name or address of another server that needs a certificate, such as an Alertmanager whose
    /// API the remediators reach by https; may be given several times. Each host then also gets a
    /// client certificate.
    #[arg(long, value_name = "NAME")]
    pub server: Vec<String>,
}

/// What `suggest` is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Suggest {
    /// The address of Prometheus.
    #[arg(long, value_name = "URL", value_parser = suggest::address)]
    prometheus: Uri,
    /// How far to look back: 12h, 7d; at most 90d.
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = since)]
    since: Duration,
    /// How exactly: of each such span the largest count is read. Two storms within one count as one
    /// alert.
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = suggest::step)]
    step: Duration,
    /// The least threshold that is looked at; smaller groups are not read.
    #[arg(long, value_name = "N", default_value_t = 10)]
    least: u64,
    /// How many users the suggested red row may hit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    hits: u64,
    /// The certificates in PEM of the authorities that may sign Prometheus' certificate: needed for
    /// https://.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The user name for basic authentication.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// A file with the password of --username.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with a bearer token, in place of user name and password.
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
}

impl Suggest {
    /// The same for the command.
    #[must_use]
    pub fn question(&self) -> suggest::Question {
        let access = Access {
            ca_file: self.ca_file.clone(),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            credentials_file: self.credentials_file.clone(),
            ..Access::default()
        };
        suggest::Question {
            prometheus: self.prometheus.clone(),
            access,
            since: self.since,
            step: self.step,
            least: self.least.max(1),
            hits: self.hits,
            width: width_of_terminal(),
        }
    }
}

/// Another thing to do than to serve.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Show what the daemon would do with a captured notification, and why, without doing it.
    ///
    /// The output has pids and files. It ignores cooldown and limits. It looks names up as the daemon
    /// does in its sandbox or, with --no-sandbox, outside of it. It does not consider what the systemd
    /// unit also closes.
    Explain {
        /// The body of a POST by Alertmanager.
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
    },
    /// List from the journal who was hit, or would have been hit in a dry run: when, how often, how many
    /// processes; and what was refused, and why.
    ///
    /// It only reads, while the daemon runs as well. It needs the right to read the journal: run it as
    /// root.
    Report {
        /// How far to look back: 12h, 7d. The policy's `history` says how much the journal keeps.
        #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = since)]
        since: Duration,
        /// Print JSON, for machines. Its fields are described in the README.
        #[arg(long)]
        json: bool,
    },
    /// Write the files of Alertmanager and Prometheus for a fleet, from Prometheus' own list of hosts.
    ///
    /// Writes to DIR: alertmanager.yml, with a receiver and a route for each host that has a policy;
    /// procstorm.json and procstorm-remediator.json, the lists for the two jobs in `file_sd_configs`;
    /// and routes.tsv, which receivers each host's alerts reach. Run it again after each change of the
    /// list. If anything is wrong, it writes nothing and reports each fault with file and line.
    Fleet(Fleet),
    /// Make the certificates of a fleet from Prometheus' own list of hosts, and renew them.
    ///
    /// Writes to DIR: an authority (ca.crt, ca.key), hosts/HOST.crt and HOST.key for each host,
    /// client.crt for Alertmanager and prometheus.crt for Prometheus, with their keys. It prints what
    /// each file is for, and the settings that use them. Everything begins a day in the past, for hosts
    /// whose clocks are late.
    ///
    /// Run again, it makes the certificates of new hosts and renews what has less than a third of its
    /// time left; everything else stays as it is. A renewed certificate keeps its key: delete both
    /// files for a new key. If a file is damaged or not from this command, or if the list has a fault,
    /// nothing is written.
    Certificates(Certificates),
    /// Show from Prometheus' history how many users each threshold would have hit, and how many alerts
    /// it would have caused, for each role and class, with the largest groups; and print rows for the
    /// table of thresholds.
    ///
    /// It needs the history of the exporter alone, and no policy. If Prometheus has loaded the rules,
    /// the classes are theirs, and the table shows their present thresholds.
    Suggest(Suggest),
    /// Compare a user's archived mail with the mailbox, and append the missing messages with
    /// --apply. Run it as root.
    ///
    /// Nothing in the mailbox is removed or overwritten. The mailbox is locked with `USER.lock` and
    /// fcntl(2).
    Restore {
        /// The user whose mail it is.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// The archive's name in the archive directory; without it, the newest archive.
        #[arg(long, value_name = "NAME")]
        archive: Option<String>,
        /// Append the missing messages; without this flag, only show them.
        #[arg(long)]
        apply: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
