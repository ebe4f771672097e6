//! Reads Prometheus' text format, as a scraper that knows nothing of who wrote it.

use std::collections::BTreeMap;

/// One line: a metric with its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The metric's name.
    pub name: String,
    /// Its labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Line {
    /// One of its labels; empty if it has not that label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// All lines of an exposition but comments. `None` if one of them is not of the format.
#[must_use]
pub fn read(text: &str) -> Option<Vec<Line>> {
    let lines = text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(read_line).collect()
}

fn read_line(line: &str) -> Option<Line> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(name_end)?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            let (value, after) = unquoted(value)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim().parse().ok()?;
    Some(Line { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                literal @ ('\\' | '"') => value.push(literal),
                _ => return None,
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let lines = read("# HELP x y\na 1\nb{c=\"\\\"d\\\\\\n}, \",e=\"\"} 2.5\n").unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].label("c"), "\"d\\\n}, ");
        assert_eq!(
            (lines[0].value.to_string(), lines[1].value.to_string()),
            ("1".into(), "2.5".into())
        );
    }

    #[test]
    fn what_is_not_of_the_format_is_refused() {
        for text in ["a", "a{", "a{b=\"c} 1", "a{b=\"\\x\"} 1", "a{b=\"c\"} one"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
