//! What was done, and the verdict. Pure.

use std::time::Duration;

use crate::steps::millis;
use serde::{Deserialize, Serialize};

use crate::verdict::{Severity, Verdict};

/// How many entries each list of a [`Report`] keeps; the counts beside them go on.
pub const LIST_MAX: usize = 1_000;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillVerdict {
    /// Some were killed, and none has been seen for so many milliseconds. That is all one can
    /// know: something that waits longer than that may still start another.
    NoneSeenForMs(u64),
    /// New ones appear, but round after round fewer than the threshold, and not more: this is no
    /// storm any longer.
    BelowThreshold,
    /// New ones appear as fast as the old ones die.
    Respawning,
    /// Some have been sent SIGKILL and have not exited: uninterruptible, or frozen.
    Stuck,
    /// We have no right to signal some of them.
    Denied,
    /// Other users' processes are hidden from us, so that finding none would prove nothing.
    Blind,
    /// None is left of those that it may end; but others live on in pid namespaces that are not
    /// the user's own, and were left alone.
    LeftAlone,
    /// None is left under that name; but some had changed their name or their owner by the time
    /// they were stopped, and were let go. The storm may go on as something else.
    Evaded,
    /// There was none to begin with.
    NoLongerTrue,
    /// The caller called it off; whatever was stopped and not killed goes on.
    Aborted,
    /// Deadline or signal budget came before the end; nothing says that they respawn.
    Unfinished,
    /// It may not be done at all; why.
    Refused(String),
    /// /proc could not be read, or no process could be pinned; why.
    Failed(String),
}

impl KillVerdict {
    /// The verdict as the value of a label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        Verdict::from(self).label()
    }
}

/// What it is in one word: why the kill refused or failed is in the outcome.
impl From<&KillVerdict> for Verdict {
    fn from(verdict: &KillVerdict) -> Self {
        match verdict {
            KillVerdict::NoneSeenForMs(_) => Self::NoneSeen,
            KillVerdict::BelowThreshold => Self::BelowThreshold,
            KillVerdict::Respawning => Self::Respawning,
            KillVerdict::Stuck => Self::Stuck,
            KillVerdict::Denied => Self::Denied,
            KillVerdict::Blind => Self::Blind,
            KillVerdict::LeftAlone => Self::LeftAlone,
            KillVerdict::Evaded => Self::Evaded,
            KillVerdict::NoLongerTrue => Self::NoLongerTrue,
            KillVerdict::Aborted => Self::Aborted,
            KillVerdict::Unfinished => Self::Unfinished,
            KillVerdict::Refused(_) => Self::Refused,
            KillVerdict::Failed(_) => Self::Failed,
        }
    }
}

/// A process that is dead and that its parent has not reaped: no signal can end it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zombie {
    /// Its pid.
    pub pid: i32,
    /// The process that should reap it.
    pub parent: i32,
}

/// A process that the storm hangs on: a tracer, or a parent that does not reap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its pid.
    pub pid: i32,
    /// Its command; bytes that are not UTF-8 as U+FFFD.
    pub command: String,
    /// Its effective uid.
    pub uid: u32,
}

/// A process that was sent SIGKILL and does not exit because another traces it: with
/// `PTRACE_O_TRACEEXIT` it waits until that one lets it go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Its pid.
    pub pid: i32,
    /// The tracer.
    pub tracer: Other,
}

/// A process of the storm that came after the first round of kills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Its pid.
    pub pid: i32,
    /// Its parent when it was found; 1 or a subreaper if its own parent had gone already.
    pub parent: i32,
    /// The parent's command; bytes that are not UTF-8 as U+FFFD, and empty if it had gone.
    pub parent_command: String,
    /// The parent's effective uid, if it had not gone.
    #[serde(default)]
    pub parent_uid: Option<u32>,
}

/// A process that was let go, since it had changed by the time it was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its pid.
    pub pid: i32,
    /// Its effective uid when all was over; `None` if it had gone.
    pub uid: Option<u32>,
    /// Its command then; bytes that are not UTF-8 as U+FFFD, and empty if it had gone.
    pub command: String,
}

/// What [`end_storm`](super::end_storm) did. Each list holds at most [`LIST_MAX`] entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub verdict: KillVerdict,
    /// Processes that were pinned and found to be of the storm, each counted once: the sum of
    /// `exited`, `terminated`, `gone`, `changed`, `stuck_count` and `released`.
    pub matched: u64,
    /// Processes that were sent SIGKILL.
    pub signalled: u64,
    /// Those of them that have exited: the ones that SIGKILL has ended.
    pub exited: u64,
    /// Processes that were sent SIGTERM.
    #[serde(default)]
    pub asked: u64,
    /// Those of them that exited without SIGKILL.
    #[serde(default)]
    pub terminated: u64,
    /// Those that exited before they were sent SIGKILL, by themselves or by another signal.
    #[serde(default)]
    pub gone: u64,
    /// Those that were held or sent SIGTERM, and were let go alive: because the end came first, or
    /// because we had no right to signal them any more.
    #[serde(default)]
    pub released: u64,
    /// Processes of the storm that lived when all was over, stuck and denied ones included: a
    /// count, taken once; `None` where they could not be counted, in time or at all.
    #[serde(default)]
    pub left: Option<u64>,
    /// The count from which on it is a storm; 0 where none was given.
    #[serde(default)]
    pub threshold: u64,
    /// Processes that we have no right to signal, in the last scan.
    pub denied: u64,
    /// Processes that were stopped, turned out to have another name or owner by then, and were
    /// let go unharmed; but not those that were met again and killed.
    pub changed: u64,
    /// What they were by the end.
    #[serde(default)]
    pub changed_to: Vec<Changed>,
    /// Processes of nested pid namespaces that live and were left alone.
    pub nested: u64,
    /// Dead and not reaped, in the last scan.
    pub zombies: Vec<Zombie>,
    /// How many of them.
    pub zombie_count: u64,
    /// Sent SIGKILL and not exited.
    pub stuck: Vec<i32>,
    /// How many of them.
    pub stuck_count: u64,
    /// Those of them that are traced, and by whom.
    #[serde(default)]
    pub traced: Vec<Traced>,
    /// The parents of the dead that are not reaped, each once.
    #[serde(default)]
    pub careless: Vec<Other>,
    /// Whose the storm is; 0 where that is not on record.
    #[serde(default)]
    pub uid: u32,
    /// Came after the first round.
    pub replacements: Vec<Replacement>,
    /// How many of them.
    pub replacement_count: u64,
    /// The processes that were sent SIGTERM or SIGKILL.
    pub pids: Vec<i32>,
    /// How many rounds of signals there were.
    pub rounds: u32,
    /// From the start to the verdict.
    pub elapsed: Duration,
}

impl Report {
    /// A report of nothing done.
    #[must_use]
    pub fn idle(verdict: KillVerdict, elapsed: Duration) -> Self {
        Self {
            verdict,
            matched: 0,
            signalled: 0,
            exited: 0,
            asked: 0,
            terminated: 0,
            gone: 0,
            released: 0,
            left: None,
            threshold: 0,
            denied: 0,
            changed: 0,
            changed_to: Vec::new(),
            nested: 0,
            zombies: Vec::new(),
            zombie_count: 0,
            stuck: Vec::new(),
            stuck_count: 0,
            traced: Vec::new(),
            careless: Vec::new(),
            uid: 0,
            replacements: Vec::new(),
            replacement_count: 0,
            pids: Vec::new(),
            rounds: 0,
            elapsed,
        }
    }
}

impl Report {
    /// How many have exited under our hands, by SIGTERM or SIGKILL.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.exited.saturating_add(self.terminated)
    }

    /// How many live on, those in containers included; `None` where that is not known.
    #[must_use]
    pub fn living(&self) -> Option<u64> {
        match self.verdict {
            KillVerdict::Blind | KillVerdict::Refused(_) | KillVerdict::Failed(_) => None,
            KillVerdict::NoneSeenForMs(_)
            | KillVerdict::LeftAlone
            | KillVerdict::Evaded
            | KillVerdict::BelowThreshold
            | KillVerdict::Respawning
            | KillVerdict::Stuck
            | KillVerdict::Denied
            | KillVerdict::NoLongerTrue
            | KillVerdict::Aborted
            | KillVerdict::Unfinished => Some(self.left?.saturating_add(self.nested)),
        }
    }

    /// How grave it is: a storm of those that were not ended goes on; a few of them are none.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let grave = |count: u64| match count >= self.threshold.max(1) {
            true => Severity::Critical,
            false => Severity::Warning,
        };
        let verdict = Verdict::from(&self.verdict);
        let let_go = self.nested > 0 || self.changed > 0;
        if verdict == Verdict::Evaded {
            grave(self.changed)
        } else if verdict == Verdict::LeftAlone || (verdict == Verdict::NoneSeen && let_go) {
            if self.threshold > 0 { grave(self.nested) } else { Severity::Warning }
        } else {
            verdict.severity()
        }
    }

    /// Adds what another hand did in the same storm.
    pub(super) fn add(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.matched, other.matched),
            (&mut self.signalled, other.signalled),
            (&mut self.exited, other.exited),
            (&mut self.asked, other.asked),
            (&mut self.terminated, other.terminated),
            (&mut self.gone, other.gone),
            (&mut self.released, other.released),
            (&mut self.stuck_count, other.stuck_count),
            (&mut self.replacement_count, other.replacement_count),
        ] {
            *sum = sum.saturating_add(more);
        }
        append(&mut self.stuck, other.stuck);
        append(&mut self.traced, other.traced);
        append(&mut self.replacements, other.replacements);
        append(&mut self.pids, other.pids);
    }
}

/// Adds all to a list that is kept to [`LIST_MAX`]. The count is not reduced.
pub(super) fn append<T>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    let room = LIST_MAX.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}

/// Adds to a list that is kept to [`LIST_MAX`], and to the count that is not.
pub(super) fn note<T>(list: &mut Vec<T>, count: &mut u64, entry: T) {
    *count = count.saturating_add(1);
    if list.len() < LIST_MAX {
        list.push(entry);
    }
}

/// What a storm looked like when the rounds were over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aftermath {
    /// How long the last scans, all of them empty, have seen none; only if there were enough.
    pub(super) quiet: Option<Duration>,
    /// Whether any process had been there at all.
    pub(super) any: bool,
    /// Whether any came after the first round, or some die all the time.
    pub(super) replaced: bool,
    /// Whether any had changed when it was stopped, and was let go.
    pub(super) changed: bool,
    /// Whether it ebbed away: several rounds left fewer than the threshold, and so did the last.
    pub(super) ebbed: bool,
    /// Whether any were left alone in other pid namespaces.
    pub(super) nested: bool,
    /// Alive, and neither denied nor sent SIGKILL.
    pub(super) at_large: bool,
    /// Alive, and we have no right to signal it.
    pub(super) denied: bool,
    /// Sent SIGKILL, and not exited.
    pub(super) stuck: bool,
}

/// The verdict on it. Of several ills, the one that a person must look at first.
pub(super) fn judge(after: Aftermath) -> KillVerdict {
    match after {
        Aftermath { quiet: Some(_), any: true, changed: true, .. } => KillVerdict::Evaded,
        Aftermath { quiet: Some(_), nested: true, .. } => KillVerdict::LeftAlone,
        Aftermath { quiet: Some(_), any: false, .. } => KillVerdict::NoLongerTrue,
        Aftermath { quiet: Some(time), .. } => KillVerdict::NoneSeenForMs(millis(time)),
        Aftermath {
            ebbed: true,
            changed: false,
            at_large: false,
            denied: false,
            stuck: false,
            ..
        } => KillVerdict::BelowThreshold,
        Aftermath { at_large: true, replaced: true, .. } => KillVerdict::Respawning,
        Aftermath { denied: true, .. } => KillVerdict::Denied,
        Aftermath { stuck: true, .. } => KillVerdict::Stuck,
        Aftermath { replaced: true, .. } => KillVerdict::Respawning,
        Aftermath { .. } => KillVerdict::Unfinished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_ills_the_verdict_is_the_one_to_look_at_first() {
        let none = Aftermath::default();
        let quiet = Some(Duration::from_micros(82_999));
        let replaced = Aftermath { any: true, replaced: true, ..none };
        for (after, verdict) in [
            (Aftermath { quiet, ..none }, KillVerdict::NoLongerTrue),
            (Aftermath { quiet, any: true, ..none }, KillVerdict::NoneSeenForMs(82)),
            (Aftermath { quiet, ..replaced }, KillVerdict::NoneSeenForMs(82)),
            (Aftermath { quiet, nested: true, ..none }, KillVerdict::LeftAlone),
            (Aftermath { quiet, nested: true, ..replaced }, KillVerdict::LeftAlone),
            (Aftermath { quiet, nested: true, changed: true, ..replaced }, KillVerdict::Evaded),
            (Aftermath { at_large: true, denied: true, ..replaced }, KillVerdict::Respawning),
            (Aftermath { denied: true, stuck: true, ..replaced }, KillVerdict::Denied),
            (Aftermath { stuck: true, ..replaced }, KillVerdict::Stuck),
            (replaced, KillVerdict::Respawning),
            (Aftermath { ebbed: true, ..replaced }, KillVerdict::BelowThreshold),
            (Aftermath { ebbed: true, stuck: true, ..replaced }, KillVerdict::Stuck),
            (Aftermath { ebbed: true, changed: true, ..replaced }, KillVerdict::Respawning),
            (Aftermath { at_large: true, any: true, ..none }, KillVerdict::Unfinished),
        ] {
            assert_eq!(judge(after), verdict, "{after:?}");
        }
    }

    #[test]
    fn a_report_survives_the_journal() {
        let report = Report {
            replacements: vec![Replacement {
                pid: 9,
                parent: 8,
                parent_command: "sh".into(),
                parent_uid: Some(0),
            }],
            ..Report::idle(KillVerdict::Refused("uid 0".into()), Duration::from_millis(7))
        };
        let text = serde_json::to_string(&report).expect("written");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("read"), report);
    }

    #[test]
    fn a_report_of_an_older_version_is_read() {
        let text = r#"{"verdict":"unfinished","matched":3,"signalled":2,"exited":2,"left":1,
            "denied":0,"changed":0,"nested":0,"zombies":[],"zombie_count":0,"stuck":[],
            "stuck_count":0,"replacements":[],"replacement_count":0,"pids":[4,5],"rounds":1,
            "elapsed":{"secs":5,"nanos":0}}"#;
        let report: Report = serde_json::from_str(text).expect("read");
        assert_eq!((report.left, report.exited, report.threshold), (Some(1), 2, 0));
    }

    #[test]
    fn lists_are_bounded_and_counts_are_not() {
        let (mut list, mut count) = (Vec::new(), 0);
        (0..LIST_MAX + 5).for_each(|n| note(&mut list, &mut count, n));
        assert_eq!((list.len(), count), (LIST_MAX, 1_005));
    }
}
