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
    fn what_can_be_read_stays() {
        for text in ["imapd", "im apd) S 1 (", "\"\\'<&>", "日本語", "é\u{fffd}", ""] {
            assert_eq!(printable(text), text);
        }
    }
}
