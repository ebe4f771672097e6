//! A table as Markdown, or as a list of mdoc(7).
//!
//! The texts come from the code's own comments and help texts. They are plain sentences, in which
//! names stand in backticks. A word that can only be a name (a flag, a path, a metric) needs none.

use super::tables::Table;

/// The longest line of a manual page's source, if its words allow it.
const WIDTH: usize = 100;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Markdown,
    Mdoc,
}

impl Format {
    /// By the name of its file.
    pub(super) fn of(document: &str) -> Self {
        if document.ends_with(".md") { Self::Markdown } else { Self::Mdoc }
    }

    /// What a line says, if it is a comment.
    pub(super) fn comment(self, line: &str) -> Option<&str> {
        match self {
            Self::Markdown => Some(line.strip_prefix("<!--")?.strip_suffix("-->")?.trim()),
            Self::Mdoc => Some(line.strip_prefix(".\\\"")?.trim()),
        }
    }

    /// The table, each line with its end.
    pub(super) fn render(self, table: &Table) -> String {
        match self {
            Self::Markdown => markdown(table),
            Self::Mdoc => mdoc(table),
        }
    }
}

fn markdown(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | ")).replace("  |", " |");
    let header = table.header.iter().map(|&title| title.to_owned()).collect();
    let mut text = row(header);
    text.push_str(&format!("|{}\n", "---|".repeat(table.header.len())));
    for entry in &table.entries {
        let cells = entry.cells.iter().map(|cell| inline(cell)).collect();
        text.push_str(&row(cells));
    }
    text
}

/// A text as one line of Markdown.
fn inline(text: &str) -> String {
    let written = |word: &Word| match word {
        Word::Plain(text) => text.replace('|', "\\|").replace('<', "&lt;"),
        Word::Name { before, name, after } => {
            format!("{before}`{}`{after}", name.replace('|', "\\|"))
        }
    };
    words(text).iter().map(written).collect::<Vec<_>>().join(" ")
}

fn mdoc(table: &Table) -> String {
    let mut text = String::from(".Bl -tag -width Ds\n");
    for entry in &table.entries {
        text.push_str(&format!(".It {}\n", entry.term));
        for (index, paragraph) in entry.text.split("\n\n").enumerate() {
            if index > 0 {
                text.push_str(".Pp\n");
            }
            text.push_str(&sentences(paragraph));
        }
    }
    text.push_str(".El\n");
    text
}

/// A paragraph as lines of mdoc: a new sentence begins a new line, and each name is a macro.
fn sentences(paragraph: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    let flush = |line: &mut String, text: &mut String| {
        if !line.is_empty() {
            text.push_str(&format!("{line}\n"));
            line.clear();
        }
    };
    for word in words(paragraph) {
        match word {
            Word::Plain(word) => {
                if line.len() + word.len() >= WIDTH {
                    flush(&mut line, &mut text);
                }
                let ends = word.ends_with(['.', '!', '?']);
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(&plain(&word, line.is_empty()));
                if ends {
                    flush(&mut line, &mut text);
                }
            }
            Word::Name { before, name, after } => {
                flush(&mut line, &mut text);
                let before = before.chars().map(|sign| format!("{sign} ")).collect::<String>();
                let (macro_name, name) = macro_of(&name);
                text.push_str(&format!(".{macro_name} {before}{name}"));
                if after.chars().all(|sign| ".,:;)!?".contains(sign)) {
                    after.chars().for_each(|sign| text.push_str(&format!(" {sign}")));
                } else {
                    text.push_str(&format!(" Ns \\&{}", plain(&after, false)));
                }
                text.push('\n');
            }
        }
    }
    flush(&mut line, &mut text);
    text
}

/// A word of a text line; at its beginning a dot or a quote would be a request.
fn plain(word: &str, begins: bool) -> String {
    let escaped = word.replace('\\', "\\e");
    if begins && escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// The macro for a name, and the name as its argument.
pub(super) fn macro_of(name: &str) -> (&'static str, String) {
    if let Some(flag) = name.strip_prefix("--") {
        return ("Fl", format!("Fl {}", argument(flag)));
    }
    let is_path = name.starts_with('/') && !name.contains(' ');
    (if is_path { "Pa" } else { "Li" }, argument(name))
}

/// Words as arguments of a macro. A short one could be a macro itself.
fn argument(name: &str) -> String {
    let one = |word: &str| {
        let word = word.replace('\\', "\\e").replace('"', "\\(dq");
        let may_be_macro = word.len() <= 3 && word.chars().all(char::is_alphabetic);
        let is_sign = word.chars().all(|sign| ".,:;()[]!?|".contains(sign));
        if may_be_macro || is_sign { format!("\\&{word}") } else { word }
    };
    name.split(' ').map(one).collect::<Vec<_>>().join(" ")
}

/// A word of a text.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    /// A name, with the punctuation around it.
    Name {
        before: String,
        name: String,
        after: String,
    },
}

fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let quoted = rest.find('`').filter(|&at| at < end);
        let (word, next) = match quoted.and_then(|begin| quoted_word(rest, begin)) {
            Some(found) => found,
            None => {
                let (word, next) = rest.split_at(end);
                (unquoted_word(word), next)
            }
        };
        words.push(word);
        rest = next.trim_start();
    }
    words
}

/// A word with a part in backticks, which may hold blanks, and what comes after it.
fn quoted_word(rest: &str, begin: usize) -> Option<(Word, &str)> {
    let (before, quoted) = rest.split_at(begin);
    let (name, after) = quoted.strip_prefix('`')?.split_once('`')?;
    let end = after.find(char::is_whitespace).unwrap_or(after.len());
    let (after, next) = after.split_at(end);
    let word = Word::Name {
        before: before.to_owned(),
        name: name.split_whitespace().collect::<Vec<_>>().join(" "),
        after: after.to_owned(),
    };
    Some((word, next))
}

fn unquoted_word(word: &str) -> Word {
    let core = word.trim_start_matches('(').trim_end_matches([',', '.', ';', ':']);
    // A closing bracket belongs to the name only if it opens in it.
    let core = if core.contains('(') { core } else { core.trim_end_matches(')') };
    let is_name = core.contains('_')
        || core.contains("=\"")
        || core.starts_with("--")
        || (core.starts_with('/') && core.len() > 1);
    match word.split_once(core) {
        Some((before, after)) if is_name => {
            Word::Name { before: before.to_owned(), name: core.to_owned(), after: after.to_owned() }
        }
        _ => Word::Plain(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_code_and_signs_do_not_break_the_table() {
        for (text, shown) in [
            ("In place of --web.config.file.", "In place of `--web.config.file`."),
            (
                "Where /proc is (see procstorm_processes).",
                "Where `/proc` is (see `procstorm_processes`).",
            ),
            ("As command=\"(other)\" to bound.", "As `command=\"(other)\"` to bound."),
            ("Either `a | b` or <c>|d.", "Either `a \\| b` or &lt;c>\\|d."),
            ("A `tick alone", "A `tick alone"),
        ] {
            assert_eq!(inline(text), shown);
        }
    }

    #[test]
    fn a_sentence_begins_a_line_and_a_name_is_a_macro() {
        assert_eq!(
            sentences("Where `host:port` (see --once) is. Then /proc, and `ps`'s No."),
            "Where\n.Li host:port\n(see\n.Fl Fl once )\nis.\nThen\n.Pa /proc ,\nand\n\
             .Li \\&ps Ns \\&'s\nNo.\n"
        );
        assert_eq!(sentences(".5 is a `\\`"), "\\&.5 is a\n.Li \\e\n");
    }
}
