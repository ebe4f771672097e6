//! The command line.

use std::path::PathBuf;

use clap::Parser;
use procstorm_exporter::logging::{Format, Level};

/// Archives a user's mail file and kills a storm of processes when Alertmanager says so and the
/// host's own policy agrees, and proves it.
#[derive(Clone, Debug, Parser)]
#[command(name = "procstorm-remediator", version, max_term_width = 100)]
pub struct Args {
    /// The host's policy; read anew at SIGHUP.
    #[arg(
        long = "config.file",
        value_name = "FILE",
        default_value = "/etc/procstorm/remediator.yml"
    )]
    pub config_file: PathBuf,

    /// Check the policy, explain it in plain sentences, and end.
    #[arg(long)]
    pub check: bool,

    /// Where to listen, as host:port, [host]:port or :port; may be given several times. Beyond
    /// loopback, the policy must name a token file, or the web configuration ask who speaks.
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:9958")]
    pub listen: Vec<String>,

    /// File with TLS and authentication, in the format of Prometheus' exporter-toolkit; read anew
    /// when it changes.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Where /proc is mounted.
    #[arg(long = "path.procfs", value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Do not give up the rights that are not needed (Landlock, seccomp).
    #[arg(long = "no-sandbox")]
    pub no_sandbox: bool,

    /// What is logged: debug, info, warn or error.
    #[arg(long = "log.level", value_name = "LEVEL", default_value_t)]
    pub log_level: Level,

    /// In which form: logfmt or json.
    #[arg(long = "log.format", value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
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
