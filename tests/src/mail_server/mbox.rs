//! Mailboxes of numbered messages, each of which can be told to be whole.

use std::collections::{BTreeMap, BTreeSet};

/// Messages that are delivered during a storm have numbers from here on, and less than a thousand
/// more. No client deletes them.
pub const DELIVERED: u32 = 7_000_000;

/// The lines of the shortest and the longest body.
const LINES: [u32; 3] = [3, 30, 300];

/// What was found in a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many messages there are.
    pub messages: usize,
    /// The numbers of those that are whole.
    pub whole: BTreeSet<u32>,
    /// The beginnings of those that are not whole.
    pub torn: Vec<String>,
    /// The numbers of those that are there more than once.
    pub doubled: Vec<u32>,
}

impl Findings {
    /// Whether each message is whole and there once.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.torn.is_empty() && self.doubled.is_empty()
    }
}

/// The message with a number, as it is sent to a mail server: headers, an empty line, the body.
#[must_use]
pub fn message(number: u32) -> String {
    format!("From: x@example.org\nSubject: n{number}\nX-Num: {number}\n\n{}", body(number))
}

/// The mailbox with messages of these numbers.
#[must_use]
pub fn mailbox(numbers: std::ops::Range<u32>) -> String {
    let envelope = "From x@example.org Sat Nov 28 16:00:00 2026";
    numbers.map(|number| format!("{envelope}\n{}\n", message(number))).collect()
}

/// Reads a mailbox of such messages, whatever headers a mail server has added to them.
#[must_use]
pub fn check(mailbox: &str) -> Findings {
    let mut findings = Findings::default();
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    let mut rest = mailbox;
    while !rest.is_empty() {
        let end = rest.find("\n\nFrom ").map_or(rest.len(), |end| end + 2);
        let (one, more) = rest.split_at(end);
        rest = more;
        findings.messages += 1;
        match number(one) {
            Some(number) => *seen.entry(number).or_default() += 1,
            None => findings.torn.push(one.chars().take(120).collect()),
        }
    }
    findings.whole = seen.keys().copied().collect();
    findings.doubled = seen.into_iter().filter(|(_, times)| *times > 1).map(|it| it.0).collect();
    findings
}

/// The number of a message that is whole.
fn number(message: &str) -> Option<u32> {
    let (headers, found) = message.split_once("\n\n")?;
    let number = headers.lines().find_map(|line| line.strip_prefix("X-Num: "))?.parse().ok()?;
    let is_whole = message.starts_with("From ") && found.trim_end() == body(number).trim_end();
    is_whole.then_some(number)
}

fn body(number: u32) -> String {
    let index = usize::try_from(number).unwrap_or_default() % LINES.len();
    let lines = LINES.get(index).copied().unwrap_or_default();
    (0..lines)
        .map(|line| format!("{number:08} line {line:04} of a message like any other\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_mailbox_is_told_from_a_torn_and_a_doubled_one() {
        let sound = mailbox(1..40);
        let found = check(&sound);
        assert!(found.is_sound() && found.messages == 39, "{found:?}");
        let read = sound.replace("X-Num", "Status: RO\nX-Num");
        assert!(check(&read).is_sound());
        let doubled = format!("{sound}{}", mailbox(7..8));
        assert_eq!(check(&doubled).doubled, [7]);
        let mut torn = sound.clone();
        torn.replace_range(900..1500, "");
        assert!(!check(&torn).torn.is_empty());
        assert!(!check(&sound[..sound.len() - 30]).torn.is_empty());
    }
}
