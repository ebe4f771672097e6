//! What the daemon says of itself to Prometheus.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use procstorm_toolkit::certificate::Validity;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{LabelPair, Metric, MetricFamily};
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::journal::records::Pending;
use crate::policy::Config;
use crate::sandbox::Sandbox;
use crate::steps::archive::Method;
use crate::steps::archive::note::NO_MAIL_FILE;
use crate::verdict::Verdict;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From the alert's start to the first step: seconds with a fast Prometheus, minutes with a slow.
const REACTION_BUCKETS: [f64; 11] = [0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 600.0];

/// The steps themselves.
const WORK_BUCKETS: [f64; 10] = [0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

macro_rules! results {
    ($(#[$about:meta])* $name:ident {
        $($(#[doc = $meaning:literal])+ $variant:ident = $label:literal,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $meaning])+ $variant,)*
        }

        impl $name {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value of the label `result`.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }

            /// What it means, in a sentence for the documents.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning, "\n"),+),)*
                }
            }
        }
    };
}

results! {
    /// What became of a request to the webhook.
    WebhookResult {
        /// At least one alert of it was taken.
        Accepted = "accepted",
        /// Each alert of it was refused, which is on record.
        Refused = "refused",
        /// It is not a notification.
        BadRequest = "bad_request",
        /// It came without the token, or with a wrong one.
        Unauthorized = "unauthorized",
        /// The journal could not be written.
        Unavailable = "unavailable",
        /// Its body is too large.
        TooLarge = "too_large",
        /// Its body did not arrive in time.
        TooSlow = "too_slow",
    }
}

/// What became of an alert in a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertDecision {
    /// A remediation was begun for it.
    Accepted,
    /// An unfinished remediation serves it too.
    Coalesced,
    /// It was refused at once.
    Refused(Verdict),
}

impl AlertDecision {
    /// The value of the label `decision`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Coalesced => "coalesced",
            Self::Refused(verdict) => verdict.label(),
        }
    }
}

results! {
    /// What became of an outcome, or of an attempt to deliver it.
    DeliveryResult {
        /// Alertmanager took it.
        Taken = "taken",
        /// Alertmanager had lost it, and took it again.
        Repeated = "repeated",
        /// Alertmanager will never take it, so it is dropped.
        Rejected = "rejected",
        /// The attempt failed; another follows.
        Failed = "failed",
    }
}

/// What one of the daemon's certificates is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is served to those who connect to the daemon.
    Server,
    /// It is shown to Alertmanager.
    Client,
}

impl Use {
    /// The value of the label `use`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// All metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    intake: Intake,
    work: Work,
    telling: Telling,
    health: Health,
}

/// Every family of the remediator's own, with its labels: what the documents' tables are made from.
pub fn families() -> Result<Vec<MetricFamily>, prometheus::Error> {
    Metrics::with_families().map(|(_metrics, families)| families)
}

/// The registry, and what was registered in it.
#[derive(Default)]
struct Catalogue {
    registry: Registry,
    families: Vec<MetricFamily>,
}

/// What comes in.
#[derive(Clone, Debug)]
struct Intake {
    notifications: IntCounterVec,
    alerts: IntCounterVec,
    truncated: IntCounter,
}

/// What is done.
#[derive(Clone, Debug)]
struct Work {
    remediations: IntCounterVec,
    pending: IntGauge,
    killed: IntCounter,
    terminated: IntCounter,
    gone: IntCounter,
    archives: IntCounterVec,
    archived_bytes: IntCounter,
    alert_to_action: HistogramVec,
    duration: HistogramVec,
}

/// What the delivery of outcomes shows.
#[derive(Clone, Debug)]
struct Telling {
    outcomes: IntCounterVec,
    pending: IntGauge,
    /// Without labels, so that there is no series as long as it is not known.
    skew: GaugeVec,
    members: GaugeVec,
}

/// How the daemon is.
#[derive(Clone, Debug)]
struct Health {
    reload_successful: IntGauge,
    reload_time: Gauge,
    web_config: IntGauge,
    /// Without series where there is no TLS.
    not_before: IntGaugeVec,
    not_after: IntGaugeVec,
    journal_up: IntGauge,
    archive_up: IntGauge,
    void_protection: IntGauge,
    lost_threads: IntGauge,
    blind: IntGauge,
    sandbox: GaugeVec,
}

impl Metrics {
    /// All of them, at their beginnings. Fails if a name is not one, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::with_families().map(|(metrics, _families)| metrics)
    }

    fn with_families() -> Result<(Self, Vec<MetricFamily>), prometheus::Error> {
        let mut registry = Catalogue::default();
        let process: Box<dyn Collector> = Box::new(ProcessCollector::for_self());
        registry.registry.register(process)?;
        let help = "A constant 1, labelled by the program's version.";
        let build = registered(
            &mut registry,
            IntGaugeVec::new(Opts::new("procstorm_build_info", help), &["version"])?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            intake: Intake::new(&mut registry)?,
            work: Work::new(&mut registry)?,
            telling: Telling::new(&mut registry)?,
            health: Health::new(&mut registry)?,
            registry: registry.registry,
        };
        Ok((metrics, registry.families))
    }

    /// A post to the webhook was answered.
    pub fn notification(&self, result: WebhookResult) {
        self.intake.notifications.with_label_values(&[result.label()]).inc();
    }

    /// An alert was judged.
    pub fn alert(&self, decision: AlertDecision) {
        self.intake.alerts.with_label_values(&[decision.label()]).inc();
    }

    /// Alertmanager left alerts out.
    pub fn truncated(&self, count: u64) {
        self.intake.truncated.inc_by(count);
    }

    /// A remediation has ended.
    pub fn remediation(&self, playbook: &str, verdict: Verdict, dry_run: bool) {
        let labels = [playbook, verdict.label(), boolean(dry_run)];
        self.work.remediations.with_label_values(&labels).inc();
    }

    /// `count` processes have been killed, `terminated` of them by SIGTERM alone. `gone` more exited
    /// before they were sent SIGTERM or SIGKILL.
    pub fn killed(&self, count: u64, terminated: u64, gone: u64) {
        self.work.killed.inc_by(count);
        self.work.terminated.inc_by(terminated);
        self.work.gone.inc_by(gone);
    }

    /// A mail file was saved in this way, so many bytes; or not, for this reason.
    pub fn archive(&self, result: &str, bytes: u64) {
        self.work.archives.with_label_values(&[result]).inc();
        self.work.archived_bytes.inc_by(bytes);
    }

    /// The first step begins so long after the alert; in a dry run, after the notification.
    pub fn reaction(&self, time: Duration, dry_run: bool) {
        let labels = [boolean(dry_run)];
        self.work.alert_to_action.with_label_values(&labels).observe(time.as_secs_f64());
    }

    /// The steps took so long.
    pub fn duration(&self, time: Duration, dry_run: bool) {
        let labels = [boolean(dry_run)];
        self.work.duration.with_label_values(&labels).observe(time.as_secs_f64());
    }

    /// What became of an outcome, or of an attempt to post it.
    pub fn outcome(&self, result: DeliveryResult) {
        self.telling.outcomes.with_label_values(&[result.label()]).inc();
    }

    /// How far the host's clock is ahead of Alertmanager's, where that is known.
    pub fn clock_skew(&self, skew: Option<SignedDuration>) {
        let gauge = &self.telling.skew;
        match skew {
            Some(skew) => gauge.with_label_values::<&str>(&[]).set(skew.as_secs_f64()),
            // There may be none to remove.
            None => gauge.remove_label_values::<&str>(&[]).unwrap_or_default(),
        }
    }

    /// Whether a member of Alertmanager's cluster answered last.
    pub fn member_up(&self, member: &str, up: bool) {
        self.telling.members.with_label_values(&[member]).set(if up { 1.0 } else { 0.0 });
    }

    /// A member that is not in force any more, or is asked again.
    pub fn forget_member(&self, member: &str) {
        // It may never have answered.
        self.telling.members.remove_label_values(&[member]).unwrap_or_default();
    }

    /// The configuration was read.
    pub fn reloaded(&self, good: bool) {
        self.health.reload_successful.set(i64::from(good));
        if good {
            self.health.reload_time.set(Timestamp::now().as_duration().as_secs_f64());
        }
    }

    /// Whether the web configuration is good.
    pub fn web_config(&self, good: bool) {
        self.health.web_config.set(i64::from(good));
    }

    /// How long the certificate for this use is valid; `None` if there is none, or it has not been
    /// read yet.
    pub fn certificate(&self, certificate: Use, validity: Option<Validity>) {
        let labels = [certificate.label()];
        for (gauge, time) in [
            (&self.health.not_before, validity.map(|validity| validity.not_before)),
            (&self.health.not_after, validity.map(|validity| validity.not_after)),
        ] {
            match time {
                Some(time) => gauge.with_label_values(&labels).set(time),
                // There may be none to remove.
                None => gauge.remove_label_values(&labels).unwrap_or_default(),
            }
        }
    }

    /// The series that alert rules look at exist from the beginning: an increase from nothing to
    /// 1 is none to Prometheus.
    pub fn prepare(&self, config: &Config) {
        for playbook in config.playbooks.keys() {
            for verdict in Verdict::ALL {
                for dry_run in MODES {
                    let labels = [playbook.as_str(), verdict.label(), boolean(dry_run)];
                    self.work.remediations.with_label_values(&labels).inc_by(0);
                }
            }
        }
        for dry_run in MODES {
            self.work.alert_to_action.with_label_values(&[boolean(dry_run)]);
            self.work.duration.with_label_values(&[boolean(dry_run)]);
        }
        // Without such a file there is none that could be bad.
        self.web_config(true);
        for result in WebhookResult::ALL {
            self.intake.notifications.with_label_values(&[result.label()]).inc_by(0);
        }
        for result in Method::ALL.map(Method::label).into_iter().chain([NO_MAIL_FILE]) {
            self.work.archives.with_label_values(&[result]).inc_by(0);
        }
        for result in DeliveryResult::ALL {
            self.telling.outcomes.with_label_values(&[result.label()]).inc_by(0);
        }
    }

    /// How the sandbox is.
    pub fn sandbox(&self, sandbox: &Sandbox) {
        for (name, layer) in sandbox.layers() {
            self.health.sandbox.with_label_values(&[name]).set(layer.value());
        }
    }

    /// What is looked up for each scrape.
    pub fn state(&self, pending: Option<Pending>, journal_works: bool, blind: bool) {
        self.health.journal_up.set(i64::from(journal_works));
        self.health.blind.set(i64::from(blind));
        if let Some(pending) = pending {
            let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
            self.work.pending.set(gauge(pending.remediations));
            self.telling.pending.set(gauge(pending.outcomes));
        }
    }

    /// How many entries of `accounts.protected` protect nobody.
    pub fn void_protection(&self, count: usize) {
        self.health.void_protection.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether mail files can be saved.
    pub fn archive_works(&self, works: bool) {
        self.health.archive_up.set(i64::from(works));
    }

    /// How many threads wait for a mail file system that does not answer.
    pub fn lost_threads(&self, count: usize) {
        self.health.lost_threads.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All of them as text.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Intake {
    fn new(registry: &mut Catalogue) -> Result<Self, prometheus::Error> {
        Ok(Self {
            notifications: counters(
                registry,
                "procstorm_webhook_notifications_total",
                "Requests to the webhook, by their result.",
                &["result"],
            )?,
            alerts: counters(
                registry,
                "procstorm_webhook_alerts_total",
                "Alerts in the notifications: accepted, coalesced, or why they were refused.",
                &["decision"],
            )?,
            truncated: counter(
                registry,
                "procstorm_webhook_truncated_alerts_total",
                "Alerts that Alertmanager left out (max_alerts); it should be 0.",
            )?,
        })
    }
}

impl Work {
    fn new(registry: &mut Catalogue) -> Result<Self, prometheus::Error> {
        Ok(Self {
            remediations: counters(
                registry,
                "procstorm_remediations_total",
                "Remediations that have ended, by playbook and verdict, and whether they were dry runs.",
                &["playbook", "verdict", "dry_run"],
            )?,
            pending: gauge(
                registry,
                "procstorm_remediations_pending",
                "Remediations that were accepted and are not done, those under watch included.",
            )?,
            killed: counter(
                registry,
                "procstorm_processes_killed_total",
                "Processes that were sent SIGTERM or SIGKILL and have exited.",
            )?,
            terminated: counter(
                registry,
                "procstorm_processes_terminated_total",
                "Those of the killed processes that exited on SIGTERM, without SIGKILL.",
            )?,
            gone: counter(
                registry,
                "procstorm_processes_gone_total",
                "Processes of a storm that exited before SIGTERM or SIGKILL was sent to them.",
            )?,
            archives: counters(
                registry,
                "procstorm_mailbox_archives_total",
                "Mail files to be saved, by method or by the reason why not.",
                &["result"],
            )?,
            archived_bytes: counter(
                registry,
                "procstorm_mailbox_archived_bytes_total",
                "Bytes of the mail files that were saved.",
            )?,
            alert_to_action: histograms(
                registry,
                "procstorm_alert_to_action_seconds",
                "From the start of the alert to the first step; in a dry run, from the notification.",
                &REACTION_BUCKETS,
            )?,
            duration: histograms(
                registry,
                "procstorm_remediation_duration_seconds",
                "From the first step to the end of the last.",
                &WORK_BUCKETS,
            )?,
        })
    }
}

impl Telling {
    fn new(registry: &mut Catalogue) -> Result<Self, prometheus::Error> {
        let skew = Opts::new(
            "procstorm_alertmanager_clock_skew_seconds",
            "How far this host's clock is ahead of Alertmanager's, by the Date of its answers; absent until it is known.",
        );
        let members = Opts::new(
            "procstorm_alertmanager_up",
            "Whether this Alertmanager answered when it was last asked or given an outcome.",
        );
        Ok(Self {
            outcomes: counters(
                registry,
                "procstorm_outcomes_total",
                "Outcomes for Alertmanager: taken, repeated, rejected; and failed attempts.",
                &["result"],
            )?,
            pending: gauge(
                registry,
                "procstorm_outcomes_pending",
                "Outcomes that Alertmanager has not taken yet.",
            )?,
            skew: registered(registry, GaugeVec::new(skew, &[])?)?,
            members: registered(registry, GaugeVec::new(members, &["alertmanager"])?)?,
        })
    }
}

impl Health {
    fn new(registry: &mut Catalogue) -> Result<Self, prometheus::Error> {
        let sandbox = Opts::new(
            "procstorm_sandbox_enforced",
            "1 if a layer of the sandbox holds in full, 0.2 to 0.8 as far as an older kernel has \
             it, 0.1 if a part of it failed, 0 if it is off.",
        );
        let reload_time = Opts::new(
            "procstorm_config_last_reload_success_timestamp_seconds",
            "When a reload of the policy last succeeded.",
        );
        let not_before = Opts::new(
            "procstorm_tls_certificate_not_before_timestamp_seconds",
            "When the TLS certificate that is used now (as the server or as a client of Alertmanager) becomes valid; the latest time in its chain.",
        );
        let not_after = Opts::new(
            "procstorm_tls_certificate_not_after_timestamp_seconds",
            "When the TLS certificate that is used now (as the server or as a client of Alertmanager) expires; the earliest time in its chain.",
        );
        Ok(Self {
            reload_successful: gauge(
                registry,
                "procstorm_config_last_reload_successful",
                "Whether the last reload of the policy succeeded.",
            )?,
            reload_time: registered(registry, Gauge::with_opts(reload_time)?)?,
            web_config: gauge(
                registry,
                "procstorm_web_config_last_reload_successful",
                "Whether the last reload of the web configuration succeeded.",
            )?,
            not_before: registered(registry, IntGaugeVec::new(not_before, &["use"])?)?,
            not_after: registered(registry, IntGaugeVec::new(not_after, &["use"])?)?,
            journal_up: gauge(
                registry,
                "procstorm_journal_up",
                "Whether the journal works; if not, no alert is accepted.",
            )?,
            archive_up: gauge(
                registry,
                "procstorm_archive_up",
                "Whether mail files can be opened and a file can be created in the archive; if not, none is saved.",
            )?,
            lost_threads: gauge(
                registry,
                "procstorm_mailbox_lost_threads",
                "Threads that wait for a mail file system that does not answer.",
            )?,
            void_protection: gauge(
                registry,
                "procstorm_protected_entries_void",
                "Entries of accounts.protected that name no account or group on this machine.",
            )?,
            blind: gauge(
                registry,
                "procstorm_remediator_blind",
                "Whether other users' processes are hidden from the daemon (hidepid).",
            )?,
            sandbox: registered(registry, GaugeVec::new(sandbox, &["layer"])?)?,
        })
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &mut Catalogue,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.registry.register(Box::new(collector.clone()))?;
    // Without its labels' values, as nothing has happened yet.
    for (family, desc) in collector.collect().iter_mut().zip(collector.desc()) {
        let labels = desc.variable_labels.iter().map(|name| {
            let mut label = LabelPair::default();
            label.set_name(name.clone());
            label
        });
        family.set_metric(vec![Metric::from_label(labels.collect())]);
        registry.families.push(family.clone());
    }
    Ok(collector)
}

fn counters(
    registry: &mut Catalogue,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn counter(
    registry: &mut Catalogue,
    name: &str,
    help: &str,
) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &mut Catalogue, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

/// A histogram, apart for dry runs.
fn histograms(
    registry: &mut Catalogue,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(opts, &["dry_run"])?)
}

/// The values of the label `dry_run`.
const MODES: [bool; 2] = [false, true];

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_good_name_and_shows() {
        let metrics = Metrics::new().expect("good names");
        metrics.reloaded(true);
        metrics.remediation("imapd_storm", Verdict::NoneSeen, false);
        metrics.reaction(Duration::from_secs(1), true);
        metrics.killed(95, 93, 4);
        let text = String::from_utf8(metrics.render().expect("text")).expect("UTF-8");
        for line in [
            "procstorm_config_last_reload_successful 1",
            "procstorm_remediations_total{dry_run=\"false\",playbook=\"imapd_storm\",verdict=\"none_seen\"} 1",
            "procstorm_processes_killed_total 95",
            "procstorm_processes_terminated_total 93",
            "procstorm_processes_gone_total 4",
            "procstorm_outcomes_pending 0",
            "procstorm_alert_to_action_seconds_count{dry_run=\"true\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_rules_look_at_is_there_from_the_beginning() {
        let metrics = Metrics::new().expect("good names");
        let policy = "playbooks: {p: {alerts: [A], command: c, threshold: 9, \
                      steps: [kill_user_proc]}}";
        metrics.prepare(&Config::parse(policy, "here").expect("a policy"));
        let text = String::from_utf8(metrics.render().expect("text")).expect("UTF-8");
        let has = |line: &str| assert!(text.lines().any(|shown| shown == line), "{line}");
        for verdict in Verdict::ALL {
            for dry_run in MODES {
                has(&format!(
                    "procstorm_remediations_total{{dry_run=\"{dry_run}\",playbook=\"p\",verdict=\"{verdict}\"}} 0"
                ));
            }
        }
        for result in WebhookResult::ALL {
            let result = result.label();
            has(&format!("procstorm_webhook_notifications_total{{result=\"{result}\"}} 0"));
        }
        for result in DeliveryResult::ALL {
            has(&format!("procstorm_outcomes_total{{result=\"{}\"}} 0", result.label()));
        }
    }

    #[test]
    fn no_two_families_have_a_name_in_common_in_openmetrics() {
        let metrics = Metrics::new().expect("good names");
        let text = String::from_utf8(metrics.render().expect("text")).expect("UTF-8");
        let families =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut names = Vec::new();
        for (name, kind) in families {
            // There a counter's family is called without its "_total".
            let family = match kind {
                "counter" => name.strip_suffix("_total").expect("a counter's name"),
                _ => name,
            };
            let suffixes: &[&str] = match kind {
                "counter" => &["", "_total", "_created"],
                "histogram" => &["", "_bucket", "_count", "_sum", "_created"],
                _ => &[""],
            };
            names.extend(suffixes.iter().map(|suffix| format!("{family}{suffix}")));
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{text}");
    }
}
