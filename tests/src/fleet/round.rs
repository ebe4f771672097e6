//! Storms on some hosts of a fleet at once, and what became of each.

use std::thread;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;
use serde_json::Value;

use super::{Fleet, LIMIT};
use crate::smtp::Mail;
use crate::storm::Storm;

/// What storms: more than the shipped threshold of 90.
const COMMAND: &str = "imapd";
const COUNT: usize = 95;

/// How often the storms are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// After everything is over: longer than a late member of the cluster waits before it notifies too, and
/// longer than the interval of any group that a storm is in.
const AFTERMATH: Duration = Duration::from_secs(12);

/// Storms that run, each of the same user on another host.
#[derive(Debug)]
pub struct Round {
    user: String,
    storms: Vec<Raised>,
    absent: Absent,
}

/// Who does not answer meanwhile, by their indices, and so is not asked whether it has an alert.
#[derive(Debug, Clone, Default)]
pub struct Absent {
    /// Members of the cluster.
    pub members: Vec<usize>,
    /// Of the pair of Prometheus.
    pub pair: Vec<usize>,
}

#[derive(Debug)]
struct Raised {
    host: usize,
    storm: Storm,
    onset: Instant,
    gone: Option<Instant>,
}

/// What became of one storm.
#[derive(Debug, Clone)]
pub struct Fate {
    /// On which host.
    pub host: String,
    /// From the onset until no process was left.
    pub ended: Duration,
    /// From then until its outcome was mailed.
    pub mailed: Duration,
    /// How the remediations of its user ended.
    pub verdicts: Vec<String>,
    /// The processes that the first of them found, and those that were left.
    pub counts: (u64, u64),
    /// Mails of the alert.
    pub red_mails: usize,
    /// Mails of the outcome.
    pub outcome_mails: usize,
    /// Posts to the remediator.
    pub posts: usize,
    /// Those of them that came when the storm was over.
    pub late_posts: usize,
}

impl Round {
    /// Raises a storm of the user on each of the hosts, at the same moment as nearly as can be.
    pub fn raise(fleet: &Fleet, hosts: &[usize], user: &str) -> Result<Self, Fault> {
        let mut begun = Vec::new();
        // By this thread, which stays: what a thread starts ends with it.
        for index in hosts {
            let host = fleet.hosts.get(*index).ok_or_else(|| Fault::new("no such host"))?;
            let person = host.people().iter().find(|person| person.name == user);
            let person = person.ok_or_else(|| Fault::new(format!("no user {user}")))?;
            host.put_mail(person)?;
            begun.push((*index, host.begin_storm(person.uid, COMMAND, COUNT)?));
        }
        let raised = thread::scope(|scope| {
            let named = |(host, storm): (usize, Storm)| {
                scope.spawn(move || {
                    let storm = storm.await_names()?;
                    Ok(Raised { host, storm, onset: Instant::now(), gone: None })
                })
            };
            let threads: Vec<_> = begun.into_iter().map(named).collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(Fault::new("a thread failed"))));
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Self { user: user.to_owned(), storms: raised, absent: Absent::default() })
    }

    /// The same, while these do not answer.
    #[must_use]
    pub fn without(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }

    /// Waits until all storms are gone and mailed and no alert is left, and for what may come after
    /// that. Returns what became of each.
    pub fn await_end(mut self, fleet: &Fleet) -> Result<Vec<Fate>, Fault> {
        let watched = self.await_gone().and_then(|()| self.await_calm(fleet));
        watched.map_err(|fault| self.with_logs(fleet, &fault))?;
        wait::nap(AFTERMATH);
        self.storms.iter().map(|raised| self.fate(fleet, raised)).collect()
    }

    /// Waits until no process of any storm is left.
    pub fn await_gone(&mut self) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            for raised in self.storms.iter_mut().filter(|raised| raised.gone.is_none()) {
                if !raised.storm.lives()? {
                    raised.gone = Some(Instant::now());
                }
            }
            let left = self.storms.iter().filter(|raised| raised.gone.is_none()).count();
            if left == 0 {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                return Err(Fault::new(format!("{left} storms are not ended")));
            }
            wait::nap(LOOK);
        }
    }

    /// Waits until each outcome is mailed, and neither Prometheus nor Alertmanager has an alert of the
    /// storms.
    fn await_calm(&self, fleet: &Fleet) -> Result<(), Fault> {
        wait::until("an outcome of each storm is mailed", LIMIT, || {
            let mails = fleet.mail.mails();
            let mailed =
                |raised: &Raised| mails.iter().any(|mail| self.is_outcome(fleet, raised, mail));
            self.storms.iter().all(mailed).then_some(())
        })?;
        let is_ours = |user: &str, name: &str| user == self.user && name == "ProcNumChkRed";
        wait::until("no alert of the storms", LIMIT, || {
            for (index, one) in fleet.pair.iter().enumerate() {
                if self.absent.pair.contains(&index) {
                    continue;
                }
                let alerts = one.alerts().ok()?;
                if alerts.iter().any(|it| is_ours(it.label("user"), it.label("alertname"))) {
                    return None;
                }
            }
            for (index, member) in fleet.members.iter().enumerate() {
                if self.absent.members.contains(&index) {
                    continue;
                }
                let text = |alert: &Value, name: &str| {
                    let label = alert.pointer(&format!("/labels/{name}"));
                    label.and_then(Value::as_str).unwrap_or_default().to_owned()
                };
                let alerts = member.alerts().ok()?;
                if alerts.iter().any(|it| is_ours(&text(it, "user"), &text(it, "alertname"))) {
                    return None;
                }
            }
            Some(())
        })
    }

    fn is_outcome(&self, fleet: &Fleet, raised: &Raised, mail: &Mail) -> bool {
        let host = fleet.hosts.get(raised.host).map(super::host::Host::name).unwrap_or_default();
        mail.subject() == format!("{host}: killed all {} {COMMAND} processes", self.user)
    }

    fn is_red(&self, fleet: &Fleet, raised: &Raised, mail: &Mail) -> bool {
        let host = fleet.hosts.get(raised.host).map(super::host::Host::name).unwrap_or_default();
        let subject = mail.subject();
        subject.starts_with(&format!("ProcNumChkRed on {host}:")) && subject.contains(&self.user)
    }

    fn fate(&self, fleet: &Fleet, raised: &Raised) -> Result<Fate, Fault> {
        let host = fleet.hosts.get(raised.host).ok_or_else(|| Fault::new("no such host"))?;
        let mails = fleet.mail.mails();
        let outcomes: Vec<_> =
            mails.iter().filter(|mail| self.is_outcome(fleet, raised, mail)).collect();
        let gone = raised.gone.ok_or_else(|| Fault::new("a storm that is not ended"))?;
        let first = outcomes.first().ok_or_else(|| Fault::new("no outcome"))?.received;
        let entries = host.entries(&self.user)?;
        let (posts, late_posts) = host.alerts(&self.user)?;
        Ok(Fate {
            host: host.name().to_owned(),
            ended: gone - raised.onset,
            mailed: first.saturating_duration_since(gone),
            counts: entries.first().map(|entry| entry.counts).unwrap_or_default(),
            verdicts: entries.into_iter().map(|entry| entry.verdict).collect(),
            red_mails: mails.iter().filter(|mail| self.is_red(fleet, raised, mail)).count(),
            outcome_mails: outcomes.len(),
            posts,
            late_posts,
        })
    }

    /// With the end of the log of each host whose storm has no mail or is not ended.
    fn with_logs(&self, fleet: &Fleet, fault: &Fault) -> Fault {
        let mails = fleet.mail.mails();
        let mut text = fault.whole();
        for raised in &self.storms {
            let mailed = mails.iter().any(|mail| self.is_outcome(fleet, raised, mail));
            if mailed && raised.gone.is_some() {
                continue;
            }
            let Some(host) = fleet.hosts.get(raised.host) else { continue };
            let log = host.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
            text += &format!(
                "\n{}: mailed {mailed}, gone {}\n{}",
                host.name(),
                raised.gone.is_some(),
                tail.join("\n")
            );
        }
        Fault::new(text)
    }
}

/// Figures over the storms of a round.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How many storms.
    pub storms: usize,
    /// Median and maximum, in seconds, from the onset until none was left.
    pub ended: (f64, f64),
    /// The same from then until the outcome was mailed.
    pub mailed: (f64, f64),
    /// Storms for which not exactly one remediation is on record that signalled processes, and ended
    /// all of them.
    pub not_once: Vec<Fate>,
    /// Mails of the alert for each storm.
    pub red_mails: f64,
    /// The fewest and the most outcome mails of a storm.
    pub outcome_mails: (usize, usize),
    /// Posts to the remediators, and those of them that came when the storm was over.
    pub posts: (usize, usize),
}

impl Summary {
    /// Of these storms.
    pub fn of(fates: &[Fate]) -> Result<Self, Fault> {
        let ended = spread(fates.iter().map(|fate| fate.ended))?;
        let mailed = spread(fates.iter().map(|fate| fate.mailed))?;
        // An alert that is posted late can lead to another remediation, which finds nothing to do.
        let not_once = |fate: &&Fate| {
            let verdicts = fate.verdicts.split_first();
            let is_once = verdicts.is_some_and(|(first, later)| {
                first == "none_seen" && later.iter().all(|verdict| verdict == "no_longer_true")
            });
            !is_once || fate.counts.1 != 0 || fate.counts.0 != 95
        };
        let count = |it: usize| u32::try_from(it).map(f64::from).or_fault("too many");
        let outcomes = || fates.iter().map(|fate| fate.outcome_mails);
        Ok(Self {
            storms: fates.len(),
            ended,
            mailed,
            not_once: fates.iter().filter(not_once).cloned().collect(),
            red_mails: count(fates.iter().map(|fate| fate.red_mails).sum())? / count(fates.len())?,
            outcome_mails: (
                outcomes().min().unwrap_or_default(),
                outcomes().max().unwrap_or_default(),
            ),
            posts: (
                fates.iter().map(|fate| fate.posts).sum(),
                fates.iter().map(|fate| fate.late_posts).sum(),
            ),
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} storms, ended after {:.1} s (median; max {:.1}), outcome mailed {:.1} s later (max \
             {:.1}), {} not ended exactly once, {:.2} red mails and {}-{} outcome mails a storm, {} \
             webhooks, {} of them useless",
            self.storms,
            self.ended.0,
            self.ended.1,
            self.mailed.0,
            self.mailed.1,
            self.not_once.len(),
            self.red_mails,
            self.outcome_mails.0,
            self.outcome_mails.1,
            self.posts.0,
            self.posts.1,
        )
    }
}

/// Median and maximum, in seconds.
fn spread(times: impl Iterator<Item = Duration>) -> Result<(f64, f64), Fault> {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied();
    let most = times.last().copied();
    median.zip(most).ok_or_else(|| Fault::new("no storms"))
}
