//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use procstorm_toolkit::logging::{Format, Level};

/// Where it listens if nothing else is asked for.
pub const LISTEN: &str = "127.0.0.1:9958";

/// Archives a user's mail file and kills a storm of processes when Alertmanager says so and the
/// host's own policy agrees, and proves it.
#[derive(Clone, Debug, Parser)]
#[command(name = "procstorm-remediator", version, max_term_width = 100)]
pub struct Args {
    /// Another thing to do than to serve.
    #[command(subcommand)]
    pub task: Option<Task>,

    /// The host's policy; read anew at SIGHUP.
    #[arg(
        long = "config.file",
        global = true,
        value_name = "FILE",
        default_value = "/etc/procstorm/remediator.yml"
    )]
    pub config_file: PathBuf,

    /// Check the policy, explain it in plain sentences, and end.
    #[arg(long)]
    pub check: bool,

    /// With --check: do these rules agree with the policy? A rule file, or a directory of them.
    #[arg(long, value_name = "PATH", requires = "check", requires = "alertmanager")]
    pub rules: Option<PathBuf>,

    /// With --check: does this Alertmanager configuration bring the rules' alerts to a webhook?
    #[arg(long, value_name = "FILE", requires = "check", requires = "rules")]
    pub alertmanager: Option<PathBuf>,

    /// Where to listen, as `host:port`, `[host]:port` or `:port`; may be given several times. Beyond
    /// loopback, the policy must name a token file, or the web configuration ask who speaks
    /// [default: 127.0.0.1:9958]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// Serve on the sockets that systemd passes, in place of --web.listen-address.
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// File with TLS and authentication, in the format of Prometheus' exporter-toolkit; read anew
    /// when it changes.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Where /proc is mounted.
    #[arg(long = "path.procfs", global = true, value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Ask the running daemon with this pid to reload its configuration, wait for its answer, and
    /// end. For ExecReload= of the systemd unit.
    #[arg(long, value_name = "PID")]
    pub reload: Option<u32>,

    /// Keep all rights: drop no capabilities, enforce neither Landlock nor the seccomp filter.
    #[arg(long = "no-sandbox", global = true)]
    pub no_sandbox: bool,

    /// What is logged: debug, info, warn or error.
    #[arg(long = "log.level", value_name = "LEVEL", default_value_t)]
    pub log_level: Level,

    /// In which form: logfmt or json.
    #[arg(long = "log.format", value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
}

/// Another thing to do than to serve.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Say what would be done with a captured notification, and why, without doing it.
    Explain {
        /// The body that Alertmanager has posted, or would post.
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
    },
    /// Compare a user's archived mail with the mailbox, and append the messages that it lacks.
    /// Nothing in the mailbox is removed or overwritten. Run as root.
    Restore {
        /// Whose mail.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// Which archive, by its name in the archive directory; without it, the newest.
        #[arg(long, value_name = "NAME")]
        archive: Option<String>,
        /// Append them; without this flag, only say what would be appended.
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
