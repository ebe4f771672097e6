//! What a step did, as the journal keeps it: JSON in `steps.detail`.
//!
//! The step's name says what the JSON is: [`of`] asks the step of that name to read it as a [`Record`].
//! The journal outlives the program that wrote it, so the types that are records only grow:
//! - a field that is added gets `#[serde(default)]`; a field is never renamed or removed;
//! - a field that this program does not know is ignored.
//!
//! `tests/data/steps-*.jsonl` holds what each version of the journal wrote, and a test reads it.
//!
//! A record that cannot be read all the same is [`Unreadable`]. The step has ended, and is not done
//! again: the outcome and the log say that its record cannot be read, and the status page shows the
//! text.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use super::archive::LOCK_STEP;
use super::archive::note::LockNote;
use super::facts::Fact;
use crate::journal::StepRow;
use crate::policy::Step;

/// What a step did.
pub(crate) trait Record: Debug + Send + Sync {
    /// The same as names and values, for the status page.
    fn facts(&self) -> Vec<Fact>;

    /// The processes that were sent a signal.
    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    /// The same as the journal keeps it.
    fn json(&self) -> serde_json::Result<String>;
}

/// What the step of that name does, as a heading.
pub(crate) fn title(name: &str) -> &'static str {
    match Step::ALL.into_iter().find(|step| step.label() == name) {
        Some(step) => super::of(step).title(),
        None if name == LOCK_STEP => "Look for a lock on the mail file",
        None => "A step of another version",
    }
}

/// What is recorded of a step; `None` while it has not ended.
pub(crate) fn of(row: &StepRow) -> Option<Result<Box<dyn Record>, Unreadable>> {
    row.ended?;
    let named = Step::ALL.into_iter().find(|step| step.label() == row.name);
    Some(match named {
        Some(step) => super::of(step).record(row),
        None if row.name == LOCK_STEP => boxed::<LockNote>(row),
        None => Err(Unreadable::new(row, "this program knows no step of that name".to_owned())),
    })
}

/// The record in the row, which is a `T`.
pub(super) fn boxed<T>(row: &StepRow) -> Result<Box<dyn Record>, Unreadable>
where
    T: Record + DeserializeOwned + 'static,
{
    Ok(Box::new(read::<T>(row)?))
}

/// A record in the journal that this program cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ended as {outcome:?}, but its record in the journal cannot be read: {why}")]
pub(crate) struct Unreadable {
    step: String,
    outcome: String,
    is_good: bool,
    why: String,
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

    pub(crate) fn log(&self, remediation: i64) {
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

fn read<T: DeserializeOwned>(row: &StepRow) -> Result<T, Unreadable> {
    let text = row.detail.as_deref().unwrap_or_default();
    serde_json::from_str(text).map_err(|error| Unreadable::new(row, error.to_string()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::steps::archive::note::{Fate, FormNote};
    use crate::steps::kill::Report;

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
                let detail = of(&step).expect("it has ended");
                let detail = detail.unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
                let now: Value = serde_json::from_str(&detail.json().expect("JSON")).expect("JSON");
                let before: Value = serde_json::from_str(&text).expect("JSON");
                assert!(keeps(&now, &before), "{file}: {text} became {now}");
            }
        }
    }

    #[test]
    fn the_first_version_s_values_mean_what_they_meant() {
        let steps = steps(include_str!("../../tests/data/steps-v1.jsonl"));
        let notes = read::<Vec<FormNote>>(&steps[0]).expect("read");
        let [mbox, pop] = notes.as_slice() else { panic!("{notes:?}") };
        let Fate::Archived(archived) = &mbox.fate else { panic!("{mbox:?}") };
        assert_eq!(archived.path.to_str(), Some("/var/mail/arc/alice.1795896041"));
        assert_eq!((archived.bytes, archived.uncertain), (18, false));
        assert_eq!(pop.source.to_str(), Some("/var/mail/.alice.pop"));
        let report = read::<Report>(&steps[5]).expect("read");
        assert_eq!(report.verdict, crate::steps::kill::KillVerdict::Respawning);
        assert_eq!((report.exited, report.left, report.rounds), (856, Some(18), 50));
        // What the first version did not know.
        assert_eq!((report.asked, report.terminated, report.threshold), (0, 0, 0));
        assert_eq!(report.replacements[0].parent_uid, None);
    }

    #[test]
    fn a_field_of_a_later_version_does_no_harm() {
        let text = r#"{"left":{"path":"/var/mail/alice.lock","pid":7,"colour":"red"}}"#;
        let read = read::<LockNote>(&row(LOCK_STEP, text)).expect("read");
        let LockNote::Left(lock) = read else { panic!("{read:?}") };
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
            let error = of(&row(name, text)).expect("ended").expect_err(text);
            let said = error.to_string();
            assert!(said.contains(name) && said.contains(why), "{said}");
            assert!(error.is_good(), "as its own column says");
        }
        let open = StepRow { ended: None, detail: None, ..row(kill, "") };
        assert!(of(&open).is_none(), "a kill that was cut off has no record");
    }
}
