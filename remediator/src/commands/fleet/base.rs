//! The Alertmanager configuration that `fleet` starts from. Receivers and routes are replaced in it
//! between two pairs of comments, and all else stays; so do the times of the routes that go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::FleetError;
use crate::commands::agreement::rules::ReadError;
use crate::commands::agreement::{Finding, Place};
use crate::policy::duration;
use crate::policy::yaml::{self, Fault, Node};

/// The comments around the routes, without the blanks before them.
const ROUTES: (&str, &str) =
    ("# begin of the remediators' routes", "# end of the remediators' routes");

/// The comments around the receivers.
const RECEIVERS: (&str, &str) =
    ("# begin of the remediators' receivers", "# end of the remediators' receivers");

/// The times of a route to a remediator, and what the shipped route has. Somebody who scrapes more
/// often has changed them.
const TIMES: [(&str, &str); 3] =
    [("group_wait", "0s"), ("group_interval", "4s"), ("repeat_interval", "1m")];

/// The first line of a table of routes.
pub(super) const HEADER: &str = "# Labels (NAME=VALUE, separated by blanks), a tab, and the receivers \
                                 that they must reach, in order.";

/// The configuration.
#[derive(Debug)]
pub(super) struct Base {
    file: PathBuf,
    text: String,
    /// Each of [`TIMES`], as its routes to remediators have it.
    pub(super) times: Vec<(&'static str, String)>,
    /// The receivers that are replaced.
    receivers: BTreeSet<String>,
}

impl Base {
    pub(super) fn read(file: &Path) -> Result<Self, FleetError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| FleetError::Base(file.to_owned(), error))?;
        let routes = items(&text, ROUTES, file)?;
        let mut times = Vec::new();
        for (key, shipped) in TIMES {
            times.push((key, time(&routes, key, file)?.unwrap_or_else(|| shipped.to_owned())));
        }
        let mut receivers = BTreeSet::new();
        for receiver in items(&text, RECEIVERS, file)? {
            let name = receiver.text_of("name").map_err(|fault| ReadError::fault(file, fault))?;
            receivers.extend(name.map(ToOwned::to_owned));
        }
        Ok(Self { file: file.to_owned(), text, times, receivers })
    }

    /// The same with other routes and receivers.
    pub(super) fn with(&self, routes: &str, receivers: &str) -> Result<String, FleetError> {
        let text = between(&self.text, ROUTES, routes, &self.file)?;
        between(&text, RECEIVERS, receivers, &self.file)
    }

    /// The rows of the table of routes beside it that hold for the new configuration as well: those
    /// that reach no receiver that is replaced. None if there is no table.
    pub(super) fn rows(&self) -> Result<String, FleetError> {
        let file = self.file.with_file_name("routes.tsv");
        let table = match std::fs::read_to_string(&file) {
            Ok(table) => table,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(ReadError::Io(file, error).into()),
        };
        let replaced = |receiver: &str| {
            self.receivers.contains(receiver)
                || receiver == "remediator"
                || receiver.starts_with("remediator-")
        };
        let stays = |line: &&str| match line.split_once('\t') {
            Some((_, receivers)) if !line.starts_with('#') => {
                !receivers.split(',').any(|one| replaced(one.trim()))
            }
            _ => *line != HEADER,
        };
        Ok(table.lines().filter(stays).map(|line| format!("{line}\n")).collect())
    }
}

/// The items of the list between two comments, with their lines in the whole file.
fn items(text: &str, comments: (&str, &str), file: &Path) -> Result<Vec<Node>, FleetError> {
    let (first, last) = span(text, comments, file)?;
    // The lines before are left empty, so that a fault has its line in the whole file.
    let mut part = "\n".repeat(first.saturating_add(1));
    for line in text.lines().take(last).skip(first.saturating_add(1)) {
        part.push_str(line);
        part.push('\n');
    }
    let read = || match yaml::read(&part)? {
        Some(list) => Ok(list.items()?.to_vec()),
        None => Ok(Vec::new()),
    };
    read().map_err(|fault: Fault| ReadError::fault(file, fault).into())
}

/// What the routes have under a key of a time: all of them the same, since one is kept.
fn time(routes: &[Node], key: &str, file: &Path) -> Result<Option<String>, FleetError> {
    let mut kept: Option<(&str, u64)> = None;
    for route in routes {
        let Some(node) = route.get(key) else { continue };
        let (value, line) =
            (node.text().map_err(|fault| ReadError::fault(file, fault))?, node.line);
        let fault = |what| {
            let place = Place { file: file.to_owned(), line };
            Err(FleetError::Faults(vec![Finding { place, what }]))
        };
        if duration::parse(value).is_none() {
            return fault(format!("{key}: {value:?} is not a duration such as 30s or 5m"));
        }
        let (other, at) = *kept.get_or_insert((value, line));
        if other != value {
            return fault(format!(
                "{key}: {value:?}, and line {at} has {other:?}: all routes to remediators get the \
                 same, so write the same in both"
            ));
        }
    }
    Ok(kept.map(|(value, _)| value.to_owned()))
}

/// The lines of the two comments.
fn span(text: &str, (begin, end): (&str, &str), file: &Path) -> Result<(usize, usize), FleetError> {
    let of = |comment: &str| {
        let lines = text.lines().enumerate();
        let mut at = lines.filter(|(_, line)| line.trim_start().starts_with(comment));
        at.next().filter(|_| at.next().is_none()).map(|(number, _)| number)
    };
    of(begin).zip(of(end)).filter(|(first, last)| first < last).ok_or_else(|| {
        let place = Place { file: file.to_owned(), line: 1 };
        let what = format!(
            "needs a line {begin:?} and, below it, a line {end:?}, each once: what stands between \
             them is replaced"
        );
        FleetError::Faults(vec![Finding { place, what }])
    })
}

/// The text with what stands between the two comments replaced. Their lines stay.
fn between(
    text: &str,
    comments: (&str, &str),
    new: &str,
    file: &Path,
) -> Result<String, FleetError> {
    let (first, last) = span(text, comments, file)?;
    let mut out = String::with_capacity(text.len().saturating_add(new.len()));
    for line in text.lines().take(first.saturating_add(1)) {
        out.push_str(line);
        out.push('\n');
    }
    out.push_str(new);
    for line in text.lines().skip(last) {
        out.push_str(line);
        out.push('\n');
    }
    Ok(out)
}
