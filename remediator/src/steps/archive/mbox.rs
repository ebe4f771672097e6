//! The messages of an mbox: where each begins and ends, and which of them are the same.
//!
//! A message begins with a line `From ADDRESS DATE` at the start of the file or after an
//! empty line (RFC 4155). Two messages are the same if their headers and bodies are, but for the
//! envelope line and the headers in which mail servers keep what they know of a message (read,
//! answered, its number), which change while the message stays.

use std::io::{self, BufRead};

use ring::digest::{Context, Digest, SHA256};

/// The longest part of a line that is looked at as a whole; the rest of it is hashed as it comes.
const LINE_PART: u64 = 64 << 10;

/// Headers in which mail servers keep a message's state. They are no part of what makes two
/// messages the same.
const STATE_HEADERS: [&str; 9] = [
    "status",
    "x-status",
    "x-uid",
    "x-uidl",
    "x-keywords",
    "x-imap",
    "x-imapbase",
    "content-length",
    "lines",
];

/// Headers that number a message within its mailbox: meaningless in another one.
pub(super) const NUMBERING_HEADERS: [&str; 3] = ["x-uid", "x-imap", "x-imapbase"];

/// The subject of the first message of mailboxes that UW-IMAP or Courier have written: not mail.
const FOLDER_DATA: &[u8] = b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";

/// What two messages have in common if they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity([u8; 32]);

/// A message in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Where its envelope line begins, in bytes.
    pub(super) start: u64,
    /// Where the next message begins, or the file ends.
    pub(super) end: u64,
    /// What it is.
    pub(super) identity: Identity,
    /// Whether it is a mail server's own record and not mail.
    pub(super) is_folder_data: bool,
}

/// The messages of `mbox`, in order. What stands before the first envelope line is a message,
/// too: nothing in the file is left out. Errors are those of reading.
pub(super) fn messages(mbox: impl BufRead) -> io::Result<Vec<Message>> {
    let mut lines = Lines::new(mbox);
    let mut found = Vec::new();
    let mut position: u64 = 0;
    let mut current: Option<Draft> = None;
    let mut after_empty = true;
    let mut line = Vec::new();
    while let Some(is_start) = lines.next(&mut line)? {
        if is_start && (current.is_none() || (after_empty && is_envelope(&line))) {
            found.extend(current.take().map(|draft| draft.finish(position)));
            current = Some(Draft::new(position));
            if !is_envelope(&line) {
                current.iter_mut().for_each(|draft| draft.add(&line, is_start));
            }
        } else {
            current.iter_mut().for_each(|draft| draft.add(&line, is_start));
        }
        position = position.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        after_empty = is_start && is_empty(&line);
    }
    found.extend(current.map(|draft| draft.finish(position)));
    Ok(found)
}

/// Whether a line has nothing but its end.
pub(super) fn is_empty(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

/// Whether it is `From ADDRESS DATE`, a date being one as asctime(3) writes it, with a time zone or
/// not: a time of day, and a year after it.
fn is_envelope(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    let is_time = |word: &[u8]| {
        word.contains(&b':') && word.iter().all(|byte| byte.is_ascii_digit() || *byte == b':')
    };
    let is_year = |word: &[u8]| word.len() == 4 && word.iter().all(u8::is_ascii_digit);
    let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1);
    words.any(is_time) && words.any(is_year)
}

fn is_header(line: &[u8], names: &[&str]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return false };
    let name = line.get(..colon).unwrap_or_default();
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Tells which lines of a message are headers of certain names, with their continuations.
pub(super) struct Headers {
    names: &'static [&'static str],
    in_body: bool,
    /// Whether the header line before this one has such a name, and so its continuation.
    is_named: bool,
}

impl Headers {
    /// At the beginning of a message.
    pub(super) fn new(names: &'static [&'static str]) -> Self {
        Self { names, in_body: false, is_named: false }
    }

    /// Whether the next line, or part of one, belongs to such a header.
    pub(super) fn is_named(&mut self, line: &[u8], is_start: bool) -> bool {
        if !self.in_body && is_start {
            self.in_body = is_empty(line);
            if !line.first().is_some_and(|byte| b" \t".contains(byte)) {
                self.is_named = is_header(line, self.names);
            }
        }
        self.is_named && !self.in_body
    }
}

/// A message being read.
struct Draft {
    start: u64,
    hash: Context,
    headers: Headers,
    /// Line ends that count only if something follows: how many lines end a message differs.
    pending: u32,
    is_folder_data: bool,
}

impl Draft {
    fn new(start: u64) -> Self {
        let hash = Context::new(&SHA256);
        let headers = Headers::new(&STATE_HEADERS);
        Self { start, hash, headers, pending: 0, is_folder_data: false }
    }

    fn add(&mut self, line: &[u8], is_start: bool) {
        if self.headers.is_named(line, is_start) {
            return;
        }
        // Mail with that subject is mail, unless it is where servers put their record.
        let may_be = self.start == 0 && is_start && !self.headers.in_body;
        self.is_folder_data |= may_be && line.starts_with(FOLDER_DATA);
        let end = line.iter().rposition(|byte| !b"\r\n".contains(byte));
        let Some(content) = end.and_then(|end| line.get(..=end)) else {
            self.pending = self.pending.saturating_add(1);
            return;
        };
        for _ in 0..std::mem::take(&mut self.pending) {
            self.hash.update(b"\n");
        }
        self.hash.update(content);
        if line.ends_with(b"\n") {
            self.pending = 1;
        }
    }

    fn finish(self, end: u64) -> Message {
        let Self { start, hash, is_folder_data, .. } = self;
        Message { start, end, identity: Identity::from(hash.finish()), is_folder_data }
    }
}

impl From<Digest> for Identity {
    fn from(digest: Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// Lines, the long ones in parts.
pub(super) struct Lines<R> {
    input: R,
    at_start: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, at_start: true }
    }

    /// Reads the next part of a line into `line`. Returns whether it is the line's first; `None`
    /// at the end.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
        line.clear();
        let is_start = self.at_start;
        if io::Read::take(&mut self.input, LINE_PART).read_until(b'\n', line)? == 0 {
            return Ok(None);
        }
        self.at_start = line.ends_with(b"\n");
        Ok(Some(is_start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVELOPE: &str = "From x@example.org Sat Nov 28 16:00:00 2026\n";

    fn of(text: &str) -> Vec<Message> {
        messages(text.as_bytes()).unwrap()
    }

    fn message(headers: &str, body: &str) -> String {
        format!("{ENVELOPE}{headers}\n{body}\n")
    }

    #[test]
    fn a_message_stays_the_same_when_a_server_notes_that_it_was_read() {
        let new = of(&message("Subject: a\n", "hello\n"));
        for headers in [
            "Subject: a\nStatus: RO\nX-UID: 7\n",
            "X-IMAPbase: 1 2\n  3\nSubject: a\n",
            "Subject: a\nX-Keywords: a\n\tb\nCONTENT-LENGTH: 6\n",
        ] {
            let read = of(&message(headers, "hello\n"));
            assert_eq!(read[0].identity, new[0].identity, "{headers}");
        }
        let spaced = of(&format!("{}\n\n", message("Subject: a\n", "hello\n")));
        assert_eq!(spaced[0].identity, new[0].identity);
        for (headers, body) in [
            ("Subject: b\n", "hello\n"),
            ("Subject: a\n", "hell\n"),
            ("Subject: a\n", "hello\n\nworld\n"),
            ("Subject: a\n", "Status: RO\nhello\n"),
            ("Subject: a\n b\n", "hello\n"),
        ] {
            assert_ne!(of(&message(headers, body))[0].identity, new[0].identity, "{body}");
        }
    }

    #[test]
    fn only_an_envelope_line_after_an_empty_one_begins_a_message() {
        let text = format!(
            "{}{}{}",
            message("Subject: a\n", "From here on\nFrom x Sat Nov 28 16:00:00 2026\n"),
            message("Subject: b\n", "\nFrom afar, in 1999 times\n"),
            "From y@example.org Sat Nov 28 16:00:00 2026 +0100\nSubject: c\n\nthe end",
        );
        let found = of(&text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0].start, 0);
        assert_eq!(found[2].end, u64::try_from(text.len()).unwrap());
    }

    #[test]
    fn a_servers_own_record_is_no_mail() {
        let text = "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n";
        let found = of(&format!("{}{}", message(text, "x\n"), message("Subject: a\n", "b\n")));
        assert_eq!(found.iter().map(|it| it.is_folder_data).collect::<Vec<_>>(), [true, false]);
        // Anybody may send mail with that subject.
        let found = of(&format!("{}{}", message("Subject: a\n", "b\n"), message(text, "x\n")));
        assert_eq!(found.iter().map(|it| it.is_folder_data).collect::<Vec<_>>(), [false, false]);
    }

    #[test]
    fn a_line_of_a_megabyte_is_one_line() {
        let long = format!("{}\n", "x".repeat(1 << 20));
        let found = of(&format!("{}{}", message("Subject: a\n", &long), message("", "b\n")));
        assert_eq!(found.len(), 2);
    }

    proptest! {
        #[test]
        fn every_byte_belongs_to_one_message(
            parts in prop::collection::vec(
                prop::sample::select(vec![ENVELOPE, "\n", "From ", "a: b\n", "x", "\r\n", " 2026\n"]),
                0..40,
            ),
        ) {
            let text = parts.concat();
            let found = of(&text);
            let mut position = 0;
            for message in &found {
                prop_assert_eq!(message.start, position);
                prop_assert!(message.end > message.start);
                position = message.end;
            }
            prop_assert_eq!(position, u64::try_from(text.len()).unwrap());
        }
    }
}
