//! Whose mail and processes: names that are safe in a file name, and the account behind a name.
//!
//! - [`list`]: whom a list of the policy covers, by uid.
//! - [`memory`]: who was in a protected group before.
//! - [`standing`]: what the two lists say together about an account.

pub mod list;
pub mod memory;
pub mod standing;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest user name: well over what useradd(8) takes (32), well under a file name's 255.
const USER_NAME_MAX: usize = 64;

/// A user's name that can be part of a file name: `[A-Za-z0-9_@+$.-]`, neither `-` nor `.` in
/// front (a user `.bob.pop` would be taken for bob's POP file), 1 to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text is not a user name that the daemon acts on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// It is empty or too long.
    #[error("user name {0:?} is not 1 to 64 bytes long")]
    Length(String),
    /// It begins with `-` or `.`.
    #[error("user name {0:?} begins with '-' or '.'")]
    Start(String),
    /// It holds a character that we do not take.
    #[error("user name {0:?} holds {1:?}; only A-Z a-z 0-9 _ @ + $ . - are taken")]
    Character(String, char),
}

impl UserName {
    /// Checks a name from outside.
    pub fn new(name: &str) -> Result<Self, NameFault> {
        if name.is_empty() || name.len() > USER_NAME_MAX {
            return Err(NameFault::Length(name.chars().take(USER_NAME_MAX).collect()));
        }
        if name.starts_with(['-', '.']) {
            return Err(NameFault::Start(name.to_owned()));
        }
        let taken = |c: char| c.is_ascii_alphanumeric() || "_@+$.-".contains(c);
        match name.chars().find(|&c| !taken(c)) {
            Some(c) => Err(NameFault::Character(name.to_owned(), c)),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserName {
    type Error = NameFault;

    fn try_from(name: String) -> Result<Self, NameFault> {
        Self::new(&name)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

/// One entry of `accounts.protected` or `accounts.only`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listed {
    /// An account, by one of its names.
    Name(UserName),
    /// An account, by its uid.
    Uid(u32),
    /// All members of a group, written `@name`.
    Group(String),
}

impl Listed {
    /// Reads an entry: a name, a uid in digits, or `@group`.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if let Some(group) = text.strip_prefix('@') {
            return UserName::new(group).map(|group| Self::Group(group.to_string()));
        }
        match text.parse() {
            Ok(uid) => Ok(Self::Uid(uid)),
            Err(_) => UserName::new(text).map(Self::Name),
        }
    }

    /// What it is, and its name in quotes.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Name(name) => format!("account {:?}", name.as_str()),
            Self::Uid(uid) => format!("account with uid {uid}"),
            Self::Group(group) => format!("group {group:?}"),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Group(group) => write!(f, "@{group}"),
        }
    }
}

/// A user who exists: the name, and the uid that the name service gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// The login name.
    pub name: UserName,
    /// Its uid.
    pub uid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_are_taken() {
        for name in ["alice", "bob.smith", "x", "A_b+c@d$", "longname_over_eight", "1st", "a-b"] {
            assert_eq!(UserName::new(name).map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        let long = "a".repeat(65);
        for name in [
            "",
            ".",
            "..",
            ".bob.pop",
            "-rf",
            "a/b",
            "../etc/passwd",
            "a\nb",
            "a\0",
            "é",
            "a b",
            "a*",
            &long,
        ] {
            assert!(UserName::new(name).is_err(), "{name:?}");
        }
    }
}
