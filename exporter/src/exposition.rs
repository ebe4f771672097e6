//! A scan as Prometheus reads it: the classic text format, by the `prometheus` crate.
//!
//! The families are built from each scan, so that a group that is gone leaves no series.

use std::collections::BTreeMap;

use procstorm_toolkit::certificate::Validity;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::scan::Scan;
use crate::slices::Slice;

/// The `Content-Type` of what [`Exposition::render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the exporter says of its web configuration.
#[derive(Clone, Copy, Debug)]
pub struct Web {
    /// Whether its last reading was valid.
    pub is_valid: bool,
    /// How long the certificate that is served is valid; `None` without TLS.
    pub certificate: Option<Validity>,
}

/// What renders scans.
#[derive(Debug)]
pub struct Exposition {
    process: Option<ProcessCollector>,
}

impl Exposition {
    /// With the `process_*` family of this program, or without.
    #[must_use]
    pub fn new(process_metrics: bool) -> Self {
        Self { process: process_metrics.then(ProcessCollector::for_self) }
    }

    /// `scan` in the text format, and what else the exporter says of itself: `web` is of its web
    /// configuration, if there is one.
    pub fn render(&self, scan: &Scan, web: Option<Web>) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = of_scan(scan);
        families.extend(web.into_iter().flat_map(web_config));
        families.extend(self.process.iter().flat_map(Collector::collect));
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Every family of the exporter's own, with its labels: what the documents' tables are made from.
#[must_use]
pub fn families() -> Vec<MetricFamily> {
    let commands = BTreeMap::from([("imapd".to_owned(), 1)]);
    let counts = BTreeMap::from([("alice".into(), commands)]);
    let slice = Slice { uid: 1000, tasks: 1, max: Some(1), hits: Some(0) };
    let slices = BTreeMap::from([("alice".into(), slice)]);
    let user_processes = BTreeMap::from([("alice".into(), 1)]);
    let scan = Scan { counts, user_processes, slices, ..Scan::default() };
    let mut families = of_scan(&scan);
    let certificate = Some(Validity { not_before: 0, not_after: 0 });
    families.extend(web_config(Web { is_valid: true, certificate }));
    families
}

fn of_scan(scan: &Scan) -> Vec<MetricFamily> {
    let mut families = vec![processes(scan), user_processes(scan)];
    families.extend(tasks(scan));
    families.push(source(scan));
    families.extend(health(scan));
    families.push(build_info());
    families
}

fn processes(scan: &Scan) -> MetricFamily {
    let metrics = scan.counts.iter().flat_map(|(user, commands)| {
        commands.iter().map(move |(command, &n)| {
            gauge(&[("command", command.as_str()), ("user", user)], float(n))
        })
    });
    let help = "Processes of each effective user by command name, zombies included.";
    family("procstorm_processes", help, MetricType::GAUGE, metrics.collect())
}

fn user_processes(scan: &Scan) -> MetricFamily {
    let metrics = scan.user_processes.iter().map(|(user, &n)| gauge(&[("user", user)], float(n)));
    let help = "Processes of each effective user who has many, whatever their commands are called.";
    family("procstorm_user_processes", help, MetricType::GAUGE, metrics.collect())
}

/// How near each user is to the limit of tasks.
fn tasks(scan: &Scan) -> [MetricFamily; 3] {
    let each = |of: fn(&Slice) -> Option<u64>, metric: fn(&[(&str, &str)], f64) -> Metric| {
        let values = scan.slices.iter().filter_map(|(user, slice)| Some((user, of(slice)?)));
        values.map(|(user, n)| metric(&[("user", user)], float(n))).collect()
    };
    [
        family(
            "procstorm_user_tasks",
            "Tasks (processes and threads) in the systemd slice of each user who is logged in.",
            MetricType::GAUGE,
            each(|slice| Some(slice.tasks), gauge),
        ),
        family(
            "procstorm_user_tasks_limit",
            "How many tasks may be in the user's slice (TasksMax), if that is limited.",
            MetricType::GAUGE,
            each(|slice| slice.max, gauge),
        ),
        family(
            "procstorm_user_tasks_limit_hits_total",
            "Tasks that could not be started in the user's slice because of its limit, or of one \
             in it (Linux 6.11 and newer).",
            MetricType::COUNTER,
            each(|slice| slice.hits, counter),
        ),
    ]
}

fn source(scan: &Scan) -> MetricFamily {
    let metric = gauge(&[("source", scan.origin.label())], 1.0);
    let help = "A constant 1, labelled by where the scan's counts are from: bpf or procfs.";
    family("procstorm_scan_source", help, MetricType::GAUGE, vec![metric])
}

fn build_info() -> MetricFamily {
    let metric = gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let help = "A constant 1, labelled by the exporter's version.";
    family("procstorm_build_info", help, MetricType::GAUGE, vec![metric])
}

fn web_config(web: Web) -> Vec<MetricFamily> {
    let help = "Whether the last reload of the web configuration succeeded.";
    let valid = f64::from(u8::from(web.is_valid));
    let mut families = vec![simple("procstorm_web_config_last_reload_successful", help, valid)];
    families.extend(web.certificate.into_iter().flat_map(certificate));
    families
}

fn certificate(validity: Validity) -> [MetricFamily; 2] {
    let gauge = |name, help: &str, time| {
        let metrics = vec![gauge(&[("use", "server")], float(time))];
        family(name, help, MetricType::GAUGE, metrics)
    };
    [
        gauge(
            "procstorm_tls_certificate_not_before_timestamp_seconds",
            "When the TLS certificate that is served now becomes valid; the latest time in its chain.",
            validity.not_before,
        ),
        gauge(
            "procstorm_tls_certificate_not_after_timestamp_seconds",
            "When the TLS certificate that is served now expires; the earliest time in its chain.",
            validity.not_after,
        ),
    ]
}

/// What the exporter says of its own work.
fn health(scan: &Scan) -> Vec<MetricFamily> {
    let small = u64::try_from(scan.folded.small_groups).unwrap_or(u64::MAX);
    let groups = u64::try_from(scan.folded.groups).unwrap_or(u64::MAX);
    let overdue = u64::try_from(scan.overdue_names).unwrap_or(u64::MAX);
    vec![
        simple(
            "procstorm_scan_duration_seconds",
            "How long the scan took.",
            scan.duration.as_secs_f64(),
        ),
        simple(
            "procstorm_scan_processes",
            "Processes that the scan counted: the sum over procstorm_processes.",
            float(scan.processes),
        ),
        simple(
            "procstorm_scan_denied_processes",
            "Processes that the scan had no right to look at; they are not counted.",
            float(scan.denied),
        ),
        simple(
            "procstorm_scan_blind",
            "Whether other users' processes are hidden from the exporter (hidepid).",
            f64::from(u8::from(scan.blindness.is_some())),
        ),
        simple(
            "procstorm_scan_min_processes",
            "Processes of the smallest group that is shown by its name (--collector.min-processes).",
            float(scan.min_processes),
        ),
        simple(
            "procstorm_scan_min_user_processes",
            "Processes of the smallest user in procstorm_user_processes \
             (--collector.min-user-processes).",
            float(scan.min_user_processes),
        ),
        simple(
            "procstorm_scan_small_groups",
            "Groups of fewer processes; they are shown as part of command=\"(smaller-groups)\".",
            float(small),
        ),
        simple(
            "procstorm_scan_folded_groups",
            "Groups that are shown as part of command=\"(other)\" to bound the number of series.",
            float(groups),
        ),
        simple(
            "procstorm_scan_folded_processes",
            "Processes that are shown as part of command=\"(other)\".",
            float(scan.folded.processes),
        ),
        simple(
            "procstorm_scan_overdue_names",
            "User names that the name service did not return in time.",
            float(overdue),
        ),
        count("procstorm_scans_total", "Scans made.", scan.totals.scans),
        count(
            "procstorm_scan_vanished_total",
            "Processes that vanished while a scan looked at them; they are not counted.",
            scan.totals.vanished,
        ),
        count(
            "procstorm_scan_folds_total",
            "Groups folded into command=\"(other)\", summed over all scans.",
            scan.totals.folded_groups,
        ),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// A gauge without labels.
fn simple(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauge(&[], value)])
}

/// A counter without labels.
fn count(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counter(&[], float(value))])
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|&(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "the format's only number; exact up to 2^53"
)]
fn float(n: impl Into<i128>) -> f64 {
    n.into() as f64
}
