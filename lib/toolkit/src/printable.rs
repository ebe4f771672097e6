//! Names from outside, made fit for a line that a person reads.
//!
//! A user can call a process anything. In a mail, a page or a line of text, a newline would
//! forge a line, an escape sequence would drive the terminal, and a right-to-left mark would turn
//! the text around.

/// The text with every control character, line separator and invisible direction mark shown as
/// `?`, as ps(1) shows them.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_shown(c) { c } else { '?' }).collect()
}

/// The same for JSON, in which such a character stands within a text: as the escape that means it.
#[must_use]
pub fn escaped(json: &str) -> String {
    let shown = |c: char| match c {
        '\n' => c.to_string(),
        c if is_shown(c) => c.to_string(),
        c => format!("\\u{:04x}", u32::from(c)),
    };
    json.chars().map(shown).collect()
}

/// The most characters of [`line()`], and how many of them are from the text's end.
const LINE_MAX: usize = 256;
const LINE_END: usize = 64;

/// A message that may quote what came from outside, as one line of bounded length. What is too
/// long is cut in its middle: the beginning says what is wrong, the end often where.
#[must_use]
pub fn line(message: &str) -> String {
    let shown = printable(message);
    let length = shown.chars().count();
    if length <= LINE_MAX {
        return shown;
    }
    let beginning = shown.chars().take(LINE_MAX - LINE_END - 1);
    let end = shown.chars().skip(length - LINE_END);
    beginning.chain(['…']).chain(end).collect()
}

fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{200b}'..='\u{200f}'     // zero width, direction marks
            | '\u{2028}'..='\u{202e}'   // line and paragraph separators, direction overrides
            | '\u{2060}'..='\u{206f}'   // joiners, direction isolates
            | '\u{feff}'                // zero width no-break space
            | '\u{61c}'                 // Arabic letter mark
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_line_is_a_question_mark() {
        assert_eq!(printable("a\nBcc: x@y\r\t\u{1b}[2J\u{7f}\u{85}"), "a?Bcc: x@y???[2J??");
        assert_eq!(printable("exe\u{202e}cod\u{2066}\u{200b}\u{2028}"), "exe?cod???");
    }

    #[test]
    fn json_keeps_its_meaning_and_drives_no_terminal() {
        let text = "\u{9b}2J \u{202e}x \u{7f}\n\u{1b}";
        let json = serde_json::to_string(text).expect("JSON");
        let shown = escaped(&json);
        assert!(shown.chars().all(is_shown), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let message = format!("unknown variant `{}` at line 1 column 73", "x\n".repeat(100_000));
        let shown = line(&message);
        assert_eq!(shown.chars().count(), LINE_MAX);
        assert!(shown.starts_with("unknown variant `x?x?"), "{shown}");
        assert!(shown.ends_with("x?` at line 1 column 73"), "{shown}");
        assert_eq!(line("short"), "short");
    }

    #[test]
    fn what_can_be_read_stays() {
        for text in ["imapd", "im apd) S 1 (", "\"\\'<&>", "日本語", "é\u{fffd}", ""] {
            assert_eq!(printable(text), text);
        }
    }
}
