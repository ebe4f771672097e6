//! What a step did, as names and values that the status page shows.

use super::record::Unreadable;

/// How many entries of a list are shown; the journal has up to a thousand.
const SHOWN_MAX: usize = 20;

/// How many characters are shown of a record that cannot be read.
const TEXT_MAX: usize = 4096;

/// A name and its value.
pub(crate) type Fact = (String, String);

/// A record that cannot be read: why, and its text.
pub(crate) fn unreadable(record: &Unreadable, text: &str) -> Vec<Fact> {
    let shown: String = text.chars().take(TEXT_MAX).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    vec![fact("Cannot be read", record), fact("Record", format!("{shown}{rest}"))]
}

pub(super) fn fact(name: &str, value: impl ToString) -> Fact {
    (name.to_owned(), value.to_string())
}

/// A list on one line; `None` if it is empty.
pub(super) fn list<T>(name: &str, entries: &[T], shown: impl Fn(&T) -> String) -> Option<Fact> {
    if entries.is_empty() {
        return None;
    }
    let mut texts: Vec<_> = entries.iter().take(SHOWN_MAX).map(shown).collect();
    match entries.len().saturating_sub(SHOWN_MAX) {
        0 => {}
        more => texts.push(format!("and {more} more")),
    }
    Some(fact(name, texts.join(", ")))
}

/// The value of that name.
#[cfg(test)]
pub(super) fn value<'f>(facts: &'f [Fact], name: &str) -> &'f str {
    let found = facts.iter().find(|(known, _)| known == name);
    found.map_or_else(|| panic!("{name} in {facts:?}"), |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::record;

    #[test]
    fn a_record_that_cannot_be_read_is_shown_as_text() {
        let text = "x".repeat(TEXT_MAX + 1);
        let row = crate::journal::StepRow {
            id: 1,
            name: "kill_user_proc".to_owned(),
            began: jiff::Timestamp::UNIX_EPOCH,
            ended: Some(jiff::Timestamp::UNIX_EPOCH),
            outcome: Some("stuck".to_owned()),
            good: Some(false),
            detail: Some(text.clone()),
        };
        let record = record::of(&row).expect("ended").expect_err("not JSON");
        let facts = unreadable(&record, &text);
        assert!(value(&facts, "Cannot be read").contains("ended as \"stuck\""), "{facts:?}");
        assert_eq!(value(&facts, "Record"), format!("{}…", "x".repeat(TEXT_MAX)));
    }
}
