//! The two forms of a user's mail file, and the names that both have in the spool and the archive.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::account::UserName;

/// A form of mail file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The mailbox, `SPOOL/U`.
    Mbox,
    /// What a POP server keeps while a session lasts, `SPOOL/.U.pop`.
    Pop,
}

impl Form {
    /// Both, in the order in which they are archived.
    pub const ALL: [Self; 2] = [Self::Mbox, Self::Pop];

    /// A word for logs, metrics and the mark on an archive.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Mbox => "mbox",
            Self::Pop => "pop",
        }
    }

    /// The form of a [`Self::label`].
    pub(super) fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.label() == label)
    }

    /// The file's name in the spool.
    #[must_use]
    pub fn source_name(self, user: &UserName) -> String {
        match self {
            Self::Mbox => user.to_string(),
            Self::Pop => format!(".{user}.pop"),
        }
    }

    /// The second that the archive's name asks for: the POP file's is one later, so that the two
    /// do not collide.
    pub(super) fn first_second(self, now_epoch: u64) -> u64 {
        match self {
            Self::Mbox => now_epoch,
            Self::Pop => now_epoch.saturating_add(1),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The name of a user's archive of a second: `U.EPOCH`.
pub(super) fn archive_name(user: &UserName, second: u64) -> String {
    format!("{user}.{second}")
}

/// The second in `name`, if it is exactly what [`archive_name`] makes for `user`: never a prefix
/// or a pattern, since `a.1.1700000000` belongs to user `a.1` and not to user `a`.
pub(super) fn archive_second(user: &UserName, name: &str) -> Option<u64> {
    let second = name.strip_prefix(user.as_str())?.strip_prefix('.')?.parse().ok()?;
    (archive_name(user, second) == name).then_some(second)
}

/// The user and the second of an archive's name.
pub(super) fn parse_archive_name(name: &str) -> Option<(UserName, u64)> {
    let (user, _) = name.rsplit_once('.')?;
    let user = UserName::new(user).ok()?;
    archive_second(&user, name).map(|second| (user, second))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    #[test]
    fn only_the_exact_name_is_ours() {
        assert_eq!(archive_second(&user("a"), "a.1700000000"), Some(1_700_000_000));
        for foreign in [
            "a.b.1700000000",
            "a.1.1700000000",
            "a.",
            "a",
            "a.017",
            "a.+17",
            "a.-1",
            "a.17 ",
            "a.1e9",
            "a.99999999999999999999999",
            "ab.17",
            "A.17",
            "a.17.gz",
        ] {
            assert_eq!(archive_second(&user("a"), foreign), None, "{foreign}");
        }
        assert_eq!(archive_second(&user("a.1"), "a.1.17"), Some(17));
    }

    proptest! {
        #[test]
        fn an_archive_belongs_to_one_user_alone(
            mine in "[A-Za-z0-9_@+$][A-Za-z0-9_@+$.-]{0,63}",
            other in "[a1][a1.]{0,5}",
            second: u64,
        ) {
            let mine = user(&mine);
            let name = archive_name(&mine, second);
            prop_assert!(name.len() < 255 && !name.contains('/') && !name.starts_with('.'));
            prop_assert_eq!(archive_second(&mine, &name), Some(second));
            prop_assert_eq!(parse_archive_name(&name), Some((mine.clone(), second)));
            let other = user(&other);
            prop_assert_eq!(archive_second(&other, &name).is_some(), other == mine);
        }

        #[test]
        fn near_names_do_not_cross(
            mine in "[a1][a1.]{0,4}", other in "[a1][a1.]{0,4}", second in 0_u64..30,
        ) {
            let (mine, other) = (user(&mine), user(&other));
            let name = archive_name(&mine, second);
            prop_assert_eq!(archive_second(&other, &name).is_some(), other == mine);
        }

        #[test]
        fn no_mail_file_is_anybody_elses(
            mine in "[a.p][a.po]{0,7}", other in "[a.p][a.po]{0,7}",
        ) {
            let (Ok(mine), Ok(other)) = (UserName::new(&mine), UserName::new(&other)) else {
                return Ok(());
            };
            prop_assert_ne!(Form::Mbox.source_name(&mine), Form::Pop.source_name(&other));
            prop_assert_eq!(
                Form::Pop.source_name(&mine) == Form::Pop.source_name(&other),
                mine == other
            );
        }

        #[test]
        fn any_text_parses_or_not_without_a_panic(name in ".{0,80}") {
            if let Some((user, second)) = parse_archive_name(&name) {
                prop_assert_eq!(archive_name(&user, second), name);
            }
        }
    }
}
