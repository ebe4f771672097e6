//! Reads a mapping of the configuration key by key, and notes every fault on the way.
//!
//! - [`Fault`]: what is wrong, and at which key.
//! - [`Section`]: one mapping; what nobody has taken from it is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::keys::Entry;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of the key, from 1; 0 where there is none.
    pub line: u64,
    /// Where: `playbooks.imapd_storm.steps`; empty for the document as a whole.
    pub key: String,
    /// Which item of the list under the key, from 0, if it is one item's fault.
    pub item: Option<usize>,
    /// What is wrong, as half a sentence.
    pub problem: String,
}

/// What is wrong with a value, as half a sentence that can stand behind its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    problem: String,
    item: Option<usize>,
}

impl From<String> for Wrong {
    fn from(problem: String) -> Self {
        Self { problem, item: None }
    }
}

impl From<&str> for Wrong {
    fn from(problem: &str) -> Self {
        problem.to_owned().into()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            return f.write_str(&self.problem);
        }
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// Where the faults of one document are gathered.
pub(super) type Faults = RefCell<Vec<Fault>>;

/// A mapping and its place in the document.
pub(super) struct Section<'f> {
    at: String,
    map: Map<String, Value>,
    /// Whether it is not a mapping, which is a fault of its own: then no key is missing from it.
    spoilt: bool,
    faults: &'f Faults,
}

impl<'f> Section<'f> {
    /// The mapping at `at`. What is no mapping is a fault, and read as an empty one.
    pub(super) fn new(at: String, value: Value, faults: &'f Faults) -> Self {
        if let Value::Object(map) = value {
            return Self { at, map, spoilt: false, faults };
        }
        let section = Self { at, map: Map::new(), spoilt: true, faults };
        section.fault_here(format!("must be a mapping of keys to values, not {}", kind(&value)));
        section
    }

    /// The section under `key`; an absent one is empty.
    pub(super) fn section(&mut self, key: &str) -> Section<'f> {
        let value = self.map.remove(key).unwrap_or_else(|| Value::Object(Map::new()));
        let section = Section::new(self.path(key), value, self.faults);
        Section { spoilt: section.spoilt || self.spoilt, ..section }
    }

    /// The value under `key` as `read` understands it. Where the key is absent, `default` is read
    /// as if it stood in the file. `None` after a fault, which is noted here.
    pub(super) fn or<T>(
        &mut self,
        key: &str,
        default: &str,
        read: fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = match self.map.remove(key) {
            Some(value) => Ok(value),
            None => serde_saphyr::from_str(default).map_err(|error| {
                Wrong::from(format!("faulty default: {}", error.without_snippet()))
            }),
        };
        self.checked(key, value.and_then(|value| read(&value)))
    }

    /// The value under `key`, if it is there.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        read: fn(&Value) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        match self.map.remove(key) {
            None => Some(None),
            Some(value) => self.checked(key, read(&value)).map(Some),
        }
    }

    /// The value under `key`, which must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        read: fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Some(value) = self.map.remove(key) else {
            self.missing(key);
            return None;
        };
        self.checked(key, read(&value))
    }

    /// Puts a text there if the key is absent.
    pub(super) fn give(&mut self, key: &str, value: &str) {
        if !self.spoilt && !self.map.contains_key(key) {
            self.map.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    }

    /// Notes that a key is missing.
    pub(super) fn missing(&self, key: &str) {
        if !self.spoilt {
            self.fault(key, "missing");
        }
    }

    /// The mappings under `key` by their names, of which there must be one at least. Those with a
    /// fault are left out.
    pub(super) fn named<T>(
        &mut self,
        key: &str,
        read: fn(Section<'f>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut section = self.section(key);
        if section.map.is_empty() && !section.spoilt {
            section.fault_here("must not be empty");
        }
        let names: Vec<_> = section.map.keys().cloned().collect();
        let mut named = BTreeMap::new();
        for name in names {
            if !is_identifier(&name) {
                section.fault(&name, "must be a name of letters, digits, '_' and '-', at most 64");
            }
            if let Some(one) = read(section.section(&name)) {
                named.insert(name, one);
            }
        }
        named
    }

    /// Notes a fault of the value under `key`.
    pub(super) fn fault(&self, key: &str, problem: impl Into<String>) {
        let problem: String = problem.into();
        self.note(self.path(key), problem.into());
    }

    /// Notes a fault of the section as a whole.
    pub(super) fn fault_here(&self, problem: impl Into<String>) {
        let problem: String = problem.into();
        self.note(self.at.clone(), problem.into());
    }

    /// Ends the reading: what is left is unknown.
    pub(super) fn finish(self, known: &[Entry]) {
        let known: Vec<_> = known.iter().map(Entry::name).collect();
        for key in self.map.keys() {
            let hint = match closest(key, &known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            self.fault(key, format!("unknown key; {hint}"));
        }
    }

    fn checked<T>(&self, key: &str, result: Result<T, Wrong>) -> Option<T> {
        let noted = |wrong: Wrong| self.note(self.path(key), wrong);
        result.map_err(noted).ok()
    }

    fn note(&self, key: String, Wrong { problem, item }: Wrong) {
        self.faults.borrow_mut().push(Fault { line: 0, key, item, problem });
    }

    fn path(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.at.is_empty() { key.to_string() } else { format!("{}.{key}", self.at) }
    }
}

fn is_identifier(name: &str) -> bool {
    let taken = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(taken)
}

/// The known key that somebody who wrote `key` most probably meant.
fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = key.to_lowercase().replace('-', "_");
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(&plain, known), *known));
    // A third of its letters may be wrong.
    let near = near.filter(|(distance, known)| distance * 3 <= known.len());
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A text.
pub(super) fn text(value: &Value) -> Result<String, Wrong> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("must be text, not {}; put it in quotes", kind(value)).into()),
    }
}

/// A text that `read` understands further. A bare number is read as it is written.
pub(super) fn parsed<T>(value: &Value, read: fn(&str) -> Result<T, String>) -> Result<T, Wrong> {
    match value {
        Value::Number(number) => Ok(read(&number.to_string())?),
        Value::String(text) => Ok(read(text)?),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("must be text, not {}", kind(value)).into())
        }
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)).into())
}

/// A whole number from 1 on.
pub(super) fn number<T>(value: &Value) -> Result<T, Wrong>
where
    T: TryFrom<u64> + PartialOrd + From<u8>,
{
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number
        .filter(|number| *number >= T::from(1))
        .ok_or_else(|| format!("must be a whole number of at least 1, not {}", shown(value)).into())
}

/// An absolute path.
pub(super) fn path(value: &Value) -> Result<PathBuf, Wrong> {
    let text = text(value)?;
    if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("must be an absolute path, not {text:?}").into())
    }
}

/// A list whose items `read` understands; the first bad item is the fault.
pub(super) fn list<T>(
    value: &Value,
    read: fn(&Value) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let Some(items) = value.as_array() else {
        return Err(format!("must be a list, not {}", kind(value)).into());
    };
    let of = |(index, item)| read(item).map_err(|wrong| Wrong { item: Some(index), ..wrong });
    items.iter().enumerate().map(of).collect()
}

/// A list that is not empty.
pub(super) fn some<T>(
    value: &Value,
    read: fn(&Value) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    match list(value, read)? {
        items if items.is_empty() => Err("must not be empty".into()),
        items => Ok(items),
    }
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
    }
}
