//! Reads a mapping of the configuration key by key, and notes every fault on the way.
//!
//! - [`Fault`]: what is wrong, and at which key.
//! - [`Section`]: one mapping; what nobody has taken from it is an unknown key.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line of the key, from 1; 0 where there is none.
    pub line: u64,
    /// Where: `playbooks.imapd_storm.steps`; empty for the document as a whole.
    pub key: String,
    /// What is wrong, as half a sentence.
    pub problem: String,
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
    /// Whether it is no mapping at all, which is told already: then nothing is missing from it.
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

    /// The value under `key` as `read` understands it, or `default` where the key is absent.
    /// `None` after a fault, which is noted here.
    pub(super) fn or<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.map.remove(key) {
            None => Some(default),
            Some(value) => self.checked(key, read(&value)),
        }
    }

    /// The value under `key`, which must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.map.remove(key) {
            None if self.spoilt => None,
            None => self.checked(key, Err("is missing".to_owned())),
            Some(value) => self.checked(key, read(&value)),
        }
    }

    /// The names of the keys that have not been taken; there must be one at least.
    pub(super) fn names(&self) -> Vec<String> {
        if self.map.is_empty() && !self.spoilt {
            self.fault_here("must not be empty");
        }
        self.map.keys().cloned().collect()
    }

    /// Notes a fault of the value under `key`.
    pub(super) fn fault(&self, key: &str, problem: impl Into<String>) {
        self.note(self.path(key), problem.into());
    }

    /// Notes a fault of the section as a whole.
    pub(super) fn fault_here(&self, problem: impl Into<String>) {
        self.note(self.at.clone(), problem.into());
    }

    /// Ends the reading: what is left is unknown.
    pub(super) fn finish(self, known: &[&str]) {
        for key in self.map.keys() {
            self.fault(key, format!("unknown key; expected one of {}", known.join(", ")));
        }
    }

    fn checked<T>(&self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.fault(key, problem)).ok()
    }

    fn note(&self, key: String, problem: String) {
        self.faults.borrow_mut().push(Fault { line: 0, key, problem });
    }

    fn path(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.at.is_empty() { key.to_string() } else { format!("{}.{key}", self.at) }
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("must be text, not {}; put it in quotes", kind(value))),
    }
}

/// A text that `read` understands further. A bare number is read as it is written.
pub(super) fn parsed<T>(
    read: fn(&str) -> Result<T, String>,
) -> impl Fn(&Value) -> Result<T, String> {
    move |value| match value {
        Value::Number(number) => read(&number.to_string()),
        Value::String(text) => read(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("must be text, not {}", kind(value)))
        }
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

/// A whole number of at least `least`.
pub(super) fn number<T>(least: T) -> impl Fn(&Value) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + fmt::Display,
{
    move |value| {
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        number.filter(|number| *number >= least).ok_or_else(|| {
            format!("must be a whole number of at least {least}, not {}", shown(value))
        })
    }
}

/// An absolute path.
pub(super) fn path(value: &Value) -> Result<PathBuf, String> {
    let text = text(value)?;
    if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("must be an absolute path, not {text:?}"))
    }
}

/// A list whose items `read` understands; the first bad item is the fault.
pub(super) fn list<T>(
    read: impl Fn(&Value) -> Result<T, String>,
) -> impl Fn(&Value) -> Result<Vec<T>, String> {
    move |value| match value.as_array() {
        Some(items) => items.iter().map(&read).collect(),
        None => Err(format!("must be a list, not {}", kind(value))),
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
