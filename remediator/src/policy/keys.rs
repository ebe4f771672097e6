//! The keys of the policy, each written once: its name, its form, its default and its meaning.
//!
//! - [`keys!`]: a mapping of the file as a struct, a field for each key. The field's comment is the
//!   key's meaning in the documents; from the same lines come the reader and the list of keys.
//! - [`Form`]: what a value must be, in words, and how it is read.
//! - [`Key`]: a key as the documents show it.

use serde_json::Value;

use super::tree::Wrong;

/// What a value must be.
pub(super) struct Form<T> {
    /// In words, for the documents.
    pub(super) words: &'static str,
    /// Reads one.
    pub(super) read: fn(&Value) -> Result<T, Wrong>,
}

/// A key of the policy, as the documents show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its path: `playbooks.NAME.threshold`.
    pub path: String,
    /// What its value must be.
    pub form: &'static str,
    /// What holds without it.
    pub default: Fallback,
    /// What it is for, in sentences.
    pub meaning: &'static str,
}

/// What holds where a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The key must be there.
    Required,
    /// Nothing takes its place.
    Nothing,
    /// This value, as it would stand in the file.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// A key of a mapping, or a mapping below it.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Key {
        name: &'static str,
        form: &'static str,
        default: Fallback,
        meaning: &'static str,
    },
    Section {
        name: &'static str,
        entries: &'static [Entry],
    },
    /// A mapping of names to mappings.
    Named {
        name: &'static str,
        entries: &'static [Entry],
    },
}

impl Entry {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Key { name, .. } | Self::Section { name, .. } | Self::Named { name, .. } => name,
        }
    }

    /// The keys of these entries, in their order, with the paths below `at`.
    pub(super) fn keys(entries: &[Self], at: &str) -> Vec<Key> {
        let keys = entries.iter().flat_map(|entry| match *entry {
            Self::Key { name, form, default, meaning } => {
                vec![Key { path: format!("{at}{name}"), form, default, meaning }]
            }
            Self::Section { name, entries } => Self::keys(entries, &format!("{at}{name}.")),
            Self::Named { name, entries } => Self::keys(entries, &format!("{at}{name}.NAME.")),
        });
        keys.collect()
    }
}

/// A mapping of the policy: a struct with a field for each key.
///
/// `keys! { pub struct Mail, RawMail checked by check_mail { ... } }` makes `Mail`; `RawMail`, with
/// each value as it was read, or `None` after a fault; `Mail::ENTRIES`; and `Mail::read_mapping`,
/// which calls `check_mail` for the faults that no value has alone. The forms of a field:
///
/// | field | the key |
/// |---|---|
/// | `[FORM, "30s"]` | is `30s` if it is absent |
/// | `[FORM, none]` | is `None` if it is absent |
/// | `[FORM, or_empty]` | is an empty list if it is absent |
/// | `[FORM, required]` | must be there |
/// | `[FORM, given "words"]` | is put there before the reading if it is absent |
/// | `[section Mail]` | is another such mapping |
/// | `[named Playbook]` | maps names to other such mappings |
macro_rules! keys {
    (
        $(#[$about:meta])*
        pub struct $name:ident, $raw:ident checked by $check:path {
            $(
                $(#[doc = $meaning:literal])+
                $visible:vis $key:ident: $type:ty => [$($how:tt)+],
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $meaning])+ $visible $key: $type, )*
        }

        struct $raw { $( $key: Option<$type>, )* }

        impl $name {
            pub(super) const ENTRIES: &'static [Entry] = &[
                $( keys!(@entry $key, concat!($($meaning, "\n"),+), $($how)+), )*
            ];

            fn read_mapping(mut section: Section<'_>) -> Option<Self> {
                let mut raw = $raw { $( $key: keys!(@read section, $key, $($how)+), )* };
                $check(&mut raw, &mut section);
                section.finish(Self::ENTRIES);
                Some(Self { $( $key: raw.$key?, )* })
            }
        }
    };

    (@entry $key:ident, $meaning:expr, section $type:ident) => {
        Entry::Section { name: stringify!($key), entries: $type::ENTRIES }
    };
    (@entry $key:ident, $meaning:expr, named $type:ident) => {
        Entry::Named { name: stringify!($key), entries: $type::ENTRIES }
    };
    (@entry $key:ident, $meaning:expr, $form:ident, $($default:tt)+) => {
        Entry::Key {
            name: stringify!($key),
            form: $form.words,
            default: keys!(@default $($default)+),
            meaning: $meaning,
        }
    };

    (@default required) => { Fallback::Required };
    (@default none) => { Fallback::Nothing };
    (@default or_empty) => { Fallback::Nothing };
    (@default given $words:literal) => { Fallback::Words($words) };
    (@default $value:literal) => { Fallback::Value($value) };

    (@read $section:ident, $key:ident, section $type:ident) => {
        $type::read_mapping($section.section(stringify!($key)))
    };
    (@read $section:ident, $key:ident, named $type:ident) => {
        Some($section.named(stringify!($key), $type::read_mapping))
    };
    (@read $section:ident, $key:ident, $form:ident, none) => {
        $section.optional(stringify!($key), $form.read)
    };
    (@read $section:ident, $key:ident, $form:ident, or_empty) => {
        $section.optional(stringify!($key), $form.read).map(Option::unwrap_or_default)
    };
    (@read $section:ident, $key:ident, $form:ident, $default:literal) => {
        $section.or(stringify!($key), $default, $form.read)
    };
    (@read $section:ident, $key:ident, $form:ident, $($required:tt)+) => {
        $section.required(stringify!($key), $form.read)
    };
}

pub(super) use keys;
