//! Text in columns, as wide as a terminal at most. What comes from outside cannot break a line.

use crate::printable::printable;

/// The width below which no column of text is cut.
const LEAST: usize = 8;

/// The most characters of a cell that are shown: names that others chose can have millions, and a column
/// is as wide as its widest cell.
const MOST: usize = 1000;

/// What is between two columns.
const GAP: &str = "  ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    is_number: bool,
    may_be_cut: bool,
}

impl Column {
    /// Of text, which is cut where the terminal is too narrow.
    pub(crate) fn text(title: &'static str) -> Self {
        Self { title, is_number: false, may_be_cut: true }
    }

    /// Of text that is shown in full.
    pub(crate) fn fixed(title: &'static str) -> Self {
        Self { title, is_number: false, may_be_cut: false }
    }

    /// Of numbers.
    pub(crate) fn number(title: &'static str) -> Self {
        Self { title, is_number: true, may_be_cut: false }
    }
}

/// How many characters a line of standard output may have: the terminal's width, or no limit where it
/// is none.
#[must_use]
pub fn width_of_terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// A table with its titles.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let widths = widths(columns, &rows, width);
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let lines = std::iter::once(&titles).chain(&rows).map(|row| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| {
            let cell = cut(cell, width);
            // Not by `{:width$}`, which panics from a width of 65,536 on.
            let blanks = " ".repeat(width.saturating_sub(length(&cell)));
            if column.is_number { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    });
    lines.collect()
}

fn widths(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| length(column.title)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell).min(MOST));
        }
    }
    let Some(most) = width else { return widths };
    let gaps = GAP.len().saturating_mul(columns.len().saturating_sub(1));
    loop {
        let total = widths.iter().fold(gaps, |sum, width| sum.saturating_add(*width));
        let over = total.saturating_sub(most);
        // The widest first, until all fit or none can be cut any more.
        let cuttable = widths.iter_mut().zip(columns).filter(|(_, column)| column.may_be_cut);
        let widest = cuttable.map(|(width, _)| width).max_by_key(|width| **width);
        match widest {
            Some(widest) if over > 0 && *widest > LEAST => *widest = widest.saturating_sub(1),
            Some(_) | None => return widths,
        }
    }
}

/// A text, printable, in lines of at most `width` characters; the later lines are indented as the first.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> String {
    let text = printable(text);
    let Some(width) = width else { return text };
    let indent = text.chars().take_while(|c| *c == ' ').count();
    let indent = " ".repeat(indent);
    let (mut lines, mut line) = (Vec::new(), indent.clone());
    for word in text.split_whitespace() {
        let is_first = line.len() == indent.len();
        if !is_first && length(&line).saturating_add(length(word)) >= width {
            lines.push(std::mem::replace(&mut line, indent.clone()));
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_the_terminal_and_its_numbers_stand_below_each_other() {
        let columns = [Column::text("USER"), Column::number("TIMES"), Column::fixed("LAST")];
        let row =
            |user: &str, times: &str| vec![user.to_owned(), times.to_owned(), "now".to_owned()];
        let rows = [row("alice", "3"), row(&"x".repeat(40), "12"), row("e\u{1b}[2J\nve", "1")];
        let wide = table(&columns, &rows, None);
        assert!(wide.lines().any(|line| line.starts_with(&"x".repeat(40))), "{wide}");
        let narrow = table(&columns, &rows, Some(30));
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        assert_eq!(narrow.lines().count(), 4, "{narrow}");
        assert!(narrow.contains("x…"), "{narrow}");
        assert!(narrow.contains("e?[2J?ve"), "{narrow}");
        assert_eq!(
            narrow.lines().next().map(str::trim_end),
            Some("USER               TIMES  LAST")
        );
        // Where nothing fits, it is too wide rather than empty.
        assert!(table(&columns, &rows, Some(3)).contains("xxxxxxx…"));
    }

    #[test]
    fn a_name_of_a_million_characters_is_cut() {
        let columns = [Column::fixed("USER"), Column::number("TIMES")];
        let row = |user: &str| vec![user.to_owned(), "3".to_owned()];
        let text = table(&columns, &[row(&"x".repeat(1_000_000)), row("alice")], None);
        let lengths: Vec<_> = text.lines().map(length).collect();
        assert_eq!(lengths, [1007, 1007, 1007], "titles and rows");
        assert!(text.contains("x…      3\n"));
    }

    #[test]
    fn a_sentence_is_wrapped_between_words() {
        assert_eq!(wrapped("  one two three", Some(10)), "  one two\n  three");
        assert_eq!(wrapped("one two", None), "one two");
        assert_eq!(wrapped("unbreakable", Some(4)), "unbreakable");
    }
}
