//! The command line.

use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use hyper::http::uri::PathAndQuery;
use procstorm_toolkit::logging::{Format, Level};
use procstorm_toolkit::web::page::STYLE;

use crate::fold::Limits;
use crate::scan;
use crate::source::Choice;

/// The default listen address.
pub const LISTEN: &str = ":9957";

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  procstorm-exporter          Serve on port 9957; http://127.0.0.1:9957/ shows the largest groups.
  procstorm-exporter --once   Print the metrics, and exit.

It only reads /proc: no process is touched. More: man procstorm-exporter";

/// Exports how many processes of each command each user runs, for Prometheus.
#[derive(Clone, Debug, Parser)]
#[command(name = "procstorm-exporter", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// Where to listen, as `host:port`, `[host]:port` or `:port`; may be given several times.
    ///
    /// A request that arrives at an address of the loopback without TLS or a password must name it
    /// in `Host`: `localhost`, a loopback address, this machine's name, or a name that /etc/hosts
    /// gives a loopback address. Other names get 403, so that no web page can read the metrics
    /// through a browser on this machine. [default: :9957]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// Serve on the sockets that systemd passes, in place of --web.listen-address.
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// The path of the metrics.
    #[arg(
        long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics",
        value_parser = path
    )]
    pub telemetry_path: String,

    /// File with TLS and authentication, in the format of Prometheus' exporter-toolkit.
    ///
    /// It is reloaded when it changes. If it then has a fault, the last valid one stays in force; the
    /// log and procstorm_web_config_last_reload_successful say so.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Scrapes answered at the same time; 0 sets no limit.
    #[arg(long = "web.max-requests", value_name = "N", default_value_t = 40)]
    pub max_requests: usize,

    /// Leave out the metrics of this program itself (`process_*`).
    #[arg(long = "web.disable-exporter-metrics")]
    pub disable_exporter_metrics: bool,

    /// Where /proc is mounted.
    #[arg(long = "path.procfs", value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,

    /// Where the control groups of version 2 are mounted.
    #[arg(long = "path.cgroupfs", value_name = "DIR", default_value = "/sys/fs/cgroup")]
    pub cgroupfs: PathBuf,

    /// Where the counts come from: auto, bpf or procfs.
    ///
    /// bpf counts in the kernel, which costs a tenth of reading /proc. It needs CAP_BPF and CAP_PERFMON,
    /// and the kernel's BTF. auto counts in the kernel where it can, and otherwise reads /proc; the log
    /// says why. With bpf the program does not start where it cannot count in the kernel. A /proc of
    /// another pid namespace is always read.
    #[arg(long = "collector.source", value_name = "SOURCE", default_value_t)]
    pub source: Choice,

    /// Count the kernel's own threads, too.
    #[arg(long = "collector.kernel-threads")]
    pub kernel_threads: bool,

    /// Processes of the smallest group that is shown; smaller ones are command="(smaller-groups)".
    ///
    /// Most groups on a host have one process, and no rule needs them. They are added together by user,
    /// so that no process is lost from the sum; users with fewer processes in all are shown as
    /// user="(smaller-users)". 1 shows each group, as ps does. It must not be above the smallest
    /// threshold of the rules: ProcstormThresholdBelowMark fires if it is.
    #[arg(
        long = "collector.min-processes", value_name = "N", default_value = "10",
        value_parser = at_least_one::<u64>
    )]
    pub min_processes: u64,

    /// Processes of the smallest user in procstorm_user_processes; others are user="(smaller-users)".
    ///
    /// Users with fewer processes in all are added together there, whatever the mark for groups is. 1
    /// shows each user, up to as many as --collector.max-series says. It must not be above the smallest
    /// threshold of role:procstorm_user_processes:threshold: ProcstormThresholdBelowMark fires if it is.
    #[arg(
        long = "collector.min-user-processes", value_name = "N", default_value = "100",
        value_parser = at_least_one::<u64>
    )]
    pub min_user_processes: u64,

    /// Series of procstorm_processes at most; the smallest groups are shown as command="(other)".
    ///
    /// The smallest groups of each user are shown as one, so that no process is lost from the sum.
    #[arg(
        long = "collector.max-series", value_name = "N", default_value = "5000",
        value_parser = at_least_one::<usize>
    )]
    pub max_series: usize,

    /// Commands shown of one user at most; the smallest groups are shown as command="(other)".
    #[arg(
        long = "collector.max-commands-per-user", value_name = "N", default_value = "200",
        value_parser = at_least_one::<usize>
    )]
    pub max_commands_per_user: usize,

    /// Print the metrics once and exit.
    #[arg(long)]
    pub once: bool,

    /// Ask the running daemon with this pid to reload, wait for its answer, and exit; for
    /// `ExecReload=` of the systemd unit.
    ///
    /// Exits with status 1 if the web configuration has a fault. The answer is written to
    /// `RUNTIME_DIRECTORY`.
    #[arg(long, value_name = "PID")]
    pub reload: Option<u32>,

    /// Load the BPF program, and hand it over through the socket that is standard input.
    #[arg(long, hide = true)]
    pub load_bpf: bool,

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

impl Args {
    /// What to scan, and how much of it to show.
    #[must_use]
    pub fn scan_settings(&self) -> scan::Settings {
        scan::Settings {
            procfs: self.procfs.clone(),
            cgroupfs: self.cgroupfs.clone(),
            kernel_threads: self.kernel_threads,
            limits: Limits {
                min_processes: self.min_processes,
                max_series: self.max_series,
                max_commands_per_user: self.max_commands_per_user,
            },
            min_user_processes: self.min_user_processes,
        }
    }
}

/// A path by which a request can ask, as the server reads it, and which is not another page's. Two
/// slashes would make the landing page's link one to another host.
fn path(text: &str) -> Result<String, String> {
    let ours =
        text.len() > 1 && text != STYLE && !text.starts_with("/-/") && !text.starts_with("//");
    let asked = PathAndQuery::try_from(text).is_ok_and(|asked| asked.path() == text);
    if ours && asked && text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("a path begins with one \"/\", is neither \"/\" nor \"/style.css\" nor one of \"/-/\", \
             and holds no blank, \"?\" or \"#\""
            .to_owned())
    }
}

fn at_least_one<N: FromStr<Err = ParseIntError> + Default + PartialEq>(
    text: &str,
) -> Result<N, String> {
    match text.parse::<N>() {
        Ok(n) if n == N::default() => Err("it must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flag in [
            "--web.telemetry-path=metrics",
            "--web.telemetry-path=/",
            "--web.telemetry-path=/-/healthy",
            "--web.telemetry-path=/style.css",
            "--web.telemetry-path=//metrics",
            "--web.telemetry-path=/my metrics",
            "--web.telemetry-path=/metrics?all",
            "--web.telemetry-path=/metrics#all",
            "--collector.min-processes=0",
            "--collector.min-processes=-1",
            "--collector.min-user-processes=0",
            "--collector.max-series=0",
            "--collector.max-commands-per-user=few",
            "--collector.source=ebpf",
            "--log.level=loud",
            "--log.format=xml",
        ] {
            assert!(Args::try_parse_from(["procstorm-exporter", flag]).is_err(), "{flag}");
        }
    }
}
