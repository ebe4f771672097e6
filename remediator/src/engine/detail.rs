//! What a step did, as the journal keeps it: JSON in `steps.detail`.
//!
//! The step's name says what the JSON is: a [`StepDetail`] has one variant for each. The journal outlives
//! the program that wrote it, so these types only grow:
//! - a field that is added gets `#[serde(default)]`; a field is never renamed or removed;
//! - a field that this program does not know is ignored.
//!
//! `tests/data/steps-*.jsonl` holds what each version of the journal wrote, and a test reads it.
//!
//! A record that cannot be read all the same is [`Unreadable`]. The step has ended, and is not done
//! again: the outcome and the log say that its record cannot be read, and the status page shows the
//! text.

use serde::de::DeserializeOwned;

use crate::journal::StepRow;
use crate::policy::Step;
use crate::steps::archive::note::{FormNote, LockNote};
use crate::steps::kill::Report;

/// The step in the journal that tells of a lock on the mail file; no playbook names it.
pub(super) const LOCK_STEP: &str = "mail_file_lock";

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepDetail {
    /// `archive_mail_file`: what became of each form of the mail file.
    Archives(Vec<FormNote>),
    /// `kill_user_proc`.
    Kill(Box<Report>),
    /// `mail_file_lock`.
    Lock(LockNote),
}

/// A record in the journal that this program cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ended as {outcome:?}, but its record in the journal cannot be read: {why}")]
pub struct Unreadable {
    step: String,
    outcome: String,
    is_good: bool,
    why: String,
}

impl StepDetail {
    /// What is recorded of a step; `None` while it has not ended.
    #[must_use]
    pub fn of(row: &StepRow) -> Option<Result<Self, Unreadable>> {
        row.ended?;
        Some(match row.name.as_str() {
            name if name == Step::ArchiveMailFile.label() => read(row).map(Self::Archives),
            name if name == Step::KillUserProc.label() => read(row).map(Self::Kill),
            LOCK_STEP => read(row).map(Self::Lock),
            _ => Err(Unreadable::new(row, "this program knows no step of that name".to_owned())),
        })
    }
}

impl Unreadable {
    fn new(row: &StepRow, why: String) -> Self {
        Self {
            step: row.name.clone(),
            outcome: row.outcome.clone().unwrap_or_default(),
            is_good: row.good.unwrap_or_default(),
            why,
        }
    }

    /// Whether the step ended as it should.
    pub(super) fn is_good(&self) -> bool {
        self.is_good
    }

    pub(super) fn log(&self, remediation: i64) {
        tracing::error!(
            remediation,
            step = self.step,
            outcome = self.outcome,
            error = self.why,
            "cannot read the journal's record of a step; the step is not repeated"
        );
    }
}

/// What the journal knows of a step that ended in an earlier run of the daemon; `None` if it did not
/// end.
pub(super) fn recorded<T: DeserializeOwned>(
    steps: &[StepRow],
    name: &str,
) -> Option<Result<T, Unreadable>> {
    steps.iter().find(|step| step.name == name && step.ended.is_some()).map(read)
}

/// What the journal knows of the mail files.
pub(crate) fn recorded_archives(steps: &[StepRow]) -> Option<Result<Vec<FormNote>, Unreadable>> {
    recorded(steps, Step::ArchiveMailFile.label())
}

fn read<T: DeserializeOwned>(row: &StepRow) -> Result<T, Unreadable> {
    let text = row.detail.as_deref().unwrap_or_default();
    serde_json::from_str(text).map_err(|error| Unreadable::new(row, error.to_string()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::steps::archive::note::Fate;

    fn row(name: &str, detail: &str) -> StepRow {
        StepRow {
            id: 1,
            name: name.to_owned(),
            began: Timestamp::UNIX_EPOCH,
            ended: Some(Timestamp::UNIX_EPOCH),
            outcome: Some("saved".to_owned()),
            good: Some(true),
            detail: Some(detail.to_owned()),
        }
    }

    /// The steps in a file of `tests/data`.
    fn steps(text: &str) -> Vec<StepRow> {
        let step = |line| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            row(value["name"].as_str().expect("a name"), &value["detail"].to_string())
        };
        text.lines().map(step).collect()
    }

    fn written(detail: &StepDetail) -> Value {
        let value = match detail {
            StepDetail::Archives(notes) => serde_json::to_value(notes),
            StepDetail::Kill(report) => serde_json::to_value(report),
            StepDetail::Lock(note) => serde_json::to_value(note),
        };
        value.expect("JSON")
    }

    /// Whether `now` has everything that `before` has.
    fn keeps(now: &Value, before: &Value) -> bool {
        match (now, before) {
            (Value::Object(now), Value::Object(before)) => before
                .iter()
                .all(|(key, value)| now.get(key).is_some_and(|kept| keeps(kept, value))),
            (Value::Array(now), Value::Array(before)) => {
                now.len() == before.len() && now.iter().zip(before).all(|(a, b)| keeps(a, b))
            }
            (now, before) => now == before,
        }
    }

    #[test]
    fn what_each_version_wrote_is_read_whole() {
        for (file, text, count) in [
            ("steps-v1.jsonl", include_str!("../../tests/data/steps-v1.jsonl"), 6),
            ("steps-v2.jsonl", include_str!("../../tests/data/steps-v2.jsonl"), 10),
        ] {
            let steps = steps(text);
            assert_eq!(steps.len(), count, "{file}");
            for step in steps {
                let text = step.detail.clone().unwrap_or_default();
                let detail = StepDetail::of(&step).expect("it has ended");
                let detail = detail.unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
                let now = written(&detail);
                let before: Value = serde_json::from_str(&text).expect("JSON");
                assert!(keeps(&now, &before), "{file}: {text} became {now}");
            }
        }
    }

    #[test]
    fn the_first_version_s_values_mean_what_they_meant() {
        let steps = steps(include_str!("../../tests/data/steps-v1.jsonl"));
        let detail = |step: usize| StepDetail::of(&steps[step]).expect("ended").expect("read");
        let StepDetail::Archives(notes) = detail(0) else { panic!("{:?}", detail(0)) };
        let [mbox, pop] = notes.as_slice() else { panic!("{notes:?}") };
        let Fate::Archived(archived) = &mbox.fate else { panic!("{mbox:?}") };
        assert_eq!(archived.path.to_str(), Some("/var/mail/arc/alice.1795896041"));
        assert_eq!((archived.bytes, archived.uncertain), (18, false));
        assert_eq!(pop.source.to_str(), Some("/var/mail/.alice.pop"));
        let StepDetail::Kill(report) = detail(5) else { panic!("{:?}", detail(5)) };
        assert_eq!(report.verdict, crate::steps::kill::KillVerdict::Respawning);
        assert_eq!((report.exited, report.left, report.rounds), (856, Some(18), 50));
        // What the first version did not know.
        assert_eq!((report.asked, report.terminated, report.threshold), (0, 0, 0));
        assert_eq!(report.replacements[0].parent_uid, None);
    }

    #[test]
    fn a_field_of_a_later_version_does_no_harm() {
        let text = r#"{"left":{"path":"/var/mail/alice.lock","pid":7,"colour":"red"}}"#;
        let read = StepDetail::of(&row(LOCK_STEP, text)).expect("ended").expect("read");
        let StepDetail::Lock(LockNote::Left(lock)) = read else { panic!("{read:?}") };
        assert_eq!((lock.pid, lock.host), (Some(7), None));
    }

    #[test]
    fn what_cannot_be_read_says_which_step_and_why() {
        let kill = Step::KillUserProc.label();
        for (name, text, why) in [
            (kill, "", "EOF"),
            (kill, r#"{"verdict":"none_seen"}"#, "none_seen"),
            (kill, r#"{"verdict":"unheard_of","matched":8}"#, "unheard_of"),
            (Step::ArchiveMailFile.label(), r#"{"form":"mbox"}"#, "sequence"),
            ("notify_user", "{}", "knows no step"),
        ] {
            let error = StepDetail::of(&row(name, text)).expect("ended").expect_err(text);
            let said = error.to_string();
            assert!(said.contains(name) && said.contains(why), "{said}");
            assert!(error.is_good(), "as its own column says");
        }
        let open = StepRow { ended: None, detail: None, ..row(kill, "") };
        assert!(StepDetail::of(&open).is_none(), "a kill that was cut off has no record");
    }
}
