//! The tables of the documents that are made from the code.
//!
//! A document holds a table between two markers, which name it:
//!
//! ```text
//! <!-- generated: flags of procstorm-exporter; cargo xtask docs writes this -->
//! ...
//! <!-- end of generated -->
//! ```
//!
//! In a manual page the markers are comments of roff. What stands between them is compared with
//! the code (`make docs`), or replaced (`cargo xtask docs`).
//!
//! - `tables`: which tables there are, each from its one definition in a daemon's code.
//! - `markup`: a table as Markdown or as mdoc.

mod markup;
mod tables;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use markup::Format;
use tables::Table;

/// The documents with generated tables, from the project's directory.
const DOCUMENTS: [&str; 4] = [
    "README.md",
    "remediator/README.md",
    "exporter/procstorm-exporter.8",
    "remediator/procstorm-remediator.8",
];

/// What begins a marker, behind the comment sign of the format.
const BEGIN: &str = "generated: ";

/// What ends the first marker.
const WRITER: &str = "; cargo xtask docs writes this";

/// The marker behind a table.
const END: &str = "end of generated";

/// The documents could not be written, or differ from the code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocsError {
    /// A file could not be read or written.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A document has a marker that means nothing.
    #[error("{document}:{line}: {problem}")]
    Marker { document: String, line: usize, problem: String },
    /// The metrics could not be listed.
    #[error("cannot list the metrics")]
    Metrics(#[from] prometheus::Error),
    /// No document shows these tables.
    #[error("no document has a place for {}: put markers into one", .0.join(", "))]
    Unplaced(Vec<String>),
    /// Tables differ from the code.
    #[error("{}\nwrite them with: cargo xtask docs", lines(.0))]
    Differ(Vec<Difference>),
}

/// A table that is not as the code has it.
#[derive(Debug)]
pub(crate) struct Difference {
    document: String,
    table: String,
    line: usize,
    /// The first line that differs: what stands there, and what should.
    found: Option<String>,
    wanted: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { document, table, line, .. } = self;
        write!(f, "{document}:{line}: the table \"{table}\" differs from the code")?;
        if let Some(found) = &self.found {
            write!(f, "\n  - {found}")?;
        }
        if let Some(wanted) = &self.wanted {
            write!(f, "\n  + {wanted}")?;
        }
        Ok(())
    }
}

/// Writes all tables into their documents; with `check`, fails where one differs.
pub(crate) fn run(check: bool) -> Result<(), DocsError> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tables = tables::all()?;
    let mut differences = Vec::new();
    let mut placed = BTreeSet::new();
    for document in DOCUMENTS {
        let path = project.join(document);
        let failed = |error| DocsError::File(path.clone(), error);
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let renewed = renew(document, &text, &tables)?;
        if !check && renewed.text != text {
            std::fs::write(&path, &renewed.text).map_err(failed)?;
        }
        placed.extend(renewed.tables);
        differences.extend(renewed.differences);
    }
    let names = tables.iter().map(|table| &table.name);
    let unplaced: Vec<_> = names.filter(|name| !placed.contains(*name)).cloned().collect();
    if !unplaced.is_empty() {
        return Err(DocsError::Unplaced(unplaced));
    }
    if check && !differences.is_empty() {
        return Err(DocsError::Differ(differences));
    }
    Ok(())
}

/// A document with the tables as the code has them.
struct Renewed {
    text: String,
    tables: Vec<String>,
    differences: Vec<Difference>,
}

fn renew(document: &str, text: &str, tables: &[Table]) -> Result<Renewed, DocsError> {
    let format = Format::of(document);
    let mut renewed = Renewed { text: String::new(), tables: Vec::new(), differences: Vec::new() };
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        renewed.text.push_str(line);
        renewed.text.push('\n');
        let Some(marker) = format.comment(line) else { continue };
        let fault = |problem: String| {
            Err(DocsError::Marker { document: document.to_owned(), line: number, problem })
        };
        if marker == END {
            return fault("the end of a generated table that has no beginning".to_owned());
        }
        let Some(name) = marker.strip_prefix(BEGIN) else { continue };
        let name = name.strip_suffix(WRITER).unwrap_or(name);
        let Some(table) = tables.iter().find(|table| table.name == name) else {
            let names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
            return fault(format!("no table {name:?}; there are: {}", names.join(", ")));
        };
        let mut found = Vec::new();
        let end = loop {
            match lines.next() {
                Some((_, line)) if format.comment(line) == Some(END) => break line,
                Some((_, line)) => found.push(line),
                None => return fault(format!("the table {name:?} has no end")),
            }
        };
        let wanted = format.render(table);
        renewed.differences.extend(difference(document, name, number, &found, &wanted));
        renewed.text.push_str(&wanted);
        renewed.text.push_str(end);
        renewed.text.push('\n');
        renewed.tables.push(name.to_owned());
    }
    Ok(renewed)
}

/// Where `found` is not `wanted`; `line` is that of the marker above it.
fn difference(
    document: &str,
    table: &str,
    line: usize,
    found: &[&str],
    wanted: &str,
) -> Option<Difference> {
    let wanted: Vec<_> = wanted.lines().collect();
    let length = found.len().max(wanted.len());
    let at = (0..length).find(|&index| found.get(index) != wanted.get(index))?;
    let owned = |lines: &[&str]| lines.get(at).map(|line| (*line).to_owned());
    Some(Difference {
        document: document.to_owned(),
        table: table.to_owned(),
        line: line + 1 + at,
        found: owned(found),
        wanted: owned(&wanted),
    })
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<Table> {
        vec![Table {
            name: "fruits".to_owned(),
            header: vec!["fruit", "meaning"],
            entries: vec![tables::Entry {
                term: "Li apple".to_owned(),
                cells: vec!["`apple`".to_owned(), "A fruit.".to_owned()],
                text: "A fruit.".to_owned(),
            }],
        }]
    }

    const DOCUMENT: &str = "# Fruits\n\n<!-- generated: fruits; cargo xtask docs writes this -->\n\
                            | fruit | meaning |\n|---|---|\n| `apple` | A fruit. |\n\
                            <!-- end of generated -->\nMore.\n";

    #[test]
    fn a_table_like_the_code_does_not_differ() {
        let renewed = renew("F.md", DOCUMENT, &table()).expect("good markers");
        assert_eq!(renewed.text, DOCUMENT);
        assert!(renewed.differences.is_empty(), "{:?}", renewed.differences);
        assert_eq!(renewed.tables, ["fruits"]);
    }

    #[test]
    fn a_difference_names_document_line_and_table_and_is_repaired() {
        for changed in [
            DOCUMENT.replace("A fruit.", "A stone."),
            DOCUMENT.replace("| `apple` | A fruit. |\n", ""),
            DOCUMENT.replace("| `apple` | A fruit. |\n", "| `apple` | A fruit. |\n| `b` | |\n"),
        ] {
            let renewed = renew("F.md", &changed, &table()).expect("good markers");
            let shown = lines(&renewed.differences);
            assert!(shown.starts_with("F.md:"), "{shown}");
            assert!(shown.contains("the table \"fruits\" differs"), "{shown}");
            assert_eq!(renewed.text, DOCUMENT);
        }
        let renewed = renew("F.md", &DOCUMENT.replace("A fruit.", "A stone."), &table());
        let shown = lines(&renewed.expect("good markers").differences);
        assert!(shown.starts_with("F.md:6: "), "{shown}");
        assert!(shown.contains("- | `apple` | A stone. |\n  + | `apple` | A fruit. |"), "{shown}");
    }

    #[test]
    fn faulty_markers_are_faults_with_their_lines() {
        for (from, to, problem) in [
            ("generated: fruits", "generated: stones", "F.md:3: no table \"stones\""),
            ("<!-- end of generated -->", "", "F.md:3: the table \"fruits\" has no end"),
            (
                "<!-- generated: fruits; cargo xtask docs writes this -->",
                "",
                "F.md:7: the end of a generated table that has no beginning",
            ),
        ] {
            let Err(error) = renew("F.md", &DOCUMENT.replace(from, to), &table()) else {
                panic!("{to:?} is taken");
            };
            assert!(error.to_string().starts_with(problem), "{error}");
        }
    }
}
