//! Whom the policy protects: its names, uids and groups, as the name service knows them now.
//!
//! A name alone protects nobody from a second name of the same uid, so uids are compared. What the
//! name service cannot answer for the moment keeps the meaning that it had.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use procstorm_exporter::name_service::NameService;

use crate::account::{Account, Protected};

/// How long the name service may take for all of it.
const DEADLINE: Duration = Duration::from_secs(2);

/// The most members of a group that are looked up one by one. Those beyond are found by the list
/// of groups of whoever is to be acted on.
const MEMBERS_MAX: usize = 4096;

/// The policy's list, and what each of it means on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    entries: Vec<(Protected, Meaning)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Account(u32),
    Group {
        gid: u32,
        members: BTreeSet<u32>,
    },
    /// There is no such account or group.
    Nobody,
    /// The name service does not say.
    Unanswered,
}

impl Protection {
    /// Asks the name service what `list` means, for 2 s at most. What it does not answer means
    /// what it meant `before`.
    #[must_use]
    pub fn resolve(list: &[Protected], names: &NameService, before: Option<&Self>) -> Self {
        let end = Instant::now() + DEADLINE;
        let ask = |entry: &Protected| {
            let question = entry.clone();
            (entry.clone(), names.ask(move || meaning(&question)))
        };
        // All are asked at once: one that only a silent service knows holds up no other.
        let asked: Vec<_> = list.iter().map(ask).collect();
        let answered = asked.into_iter().map(|(entry, answer)| {
            let left = end.saturating_duration_since(Instant::now());
            let meaning = answer.recv_timeout(left).unwrap_or(Meaning::Unanswered);
            let known = match &meaning {
                Meaning::Unanswered => before.and_then(|before| before.meaning(&entry)).cloned(),
                Meaning::Account(_) | Meaning::Group { .. } | Meaning::Nobody => None,
            };
            (entry, known.unwrap_or(meaning))
        });
        Self { entries: answered.collect() }
    }

    /// Whether it is for this list.
    #[must_use]
    pub fn is_of(&self, list: &[Protected]) -> bool {
        self.entries.iter().map(|(entry, _)| entry).eq(list)
    }

    /// What of the list protects nobody, or may: a sentence each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let doubt = |(entry, meaning): &(Protected, Meaning)| match meaning {
            Meaning::Nobody => Some(format!(
                "there is no {} on this machine; the entry protects nobody",
                entry.kind()
            )),
            Meaning::Unanswered => Some(format!(
                "the name service does not say who {} is; until it does, the entry protects that \
                 very name alone",
                entry.kind()
            )),
            Meaning::Account(_) | Meaning::Group { .. } => None,
        };
        self.entries.iter().filter_map(doubt).collect()
    }

    /// How many entries protect nobody.
    #[must_use]
    pub fn void(&self) -> usize {
        self.entries.iter().filter(|(_, meaning)| *meaning == Meaning::Nobody).count()
    }

    /// Whether the groups of an account matter.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.entries.iter().any(|(entry, _)| matches!(entry, Protected::Group(_)))
    }

    /// What protects an account that is in these groups.
    #[must_use]
    pub fn of(&self, account: &Account, groups: &[u32]) -> Option<&Protected> {
        let covers = |(entry, meaning): &&(Protected, Meaning)| {
            let is_named = matches!(entry, Protected::Name(name) if *name == account.name);
            is_named
                || match meaning {
                    Meaning::Account(uid) => *uid == account.uid,
                    Meaning::Group { gid, members } => {
                        groups.contains(gid) || members.contains(&account.uid)
                    }
                    Meaning::Nobody | Meaning::Unanswered => false,
                }
        };
        self.entries.iter().find(covers).map(|(entry, _)| entry)
    }

    fn meaning(&self, entry: &Protected) -> Option<&Meaning> {
        self.entries.iter().find(|(known, _)| known == entry).map(|(_, meaning)| meaning)
    }
}

/// The gids of all groups that the account of a uid is in. Asks the name service, so is to be
/// called within [`NameService::ask`].
#[must_use]
pub fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return Vec::new() };
    let listed = CString::new(user.name).map(|name| getgrouplist(&name, user.gid));
    let mut groups: Vec<u32> = match listed {
        Ok(Ok(groups)) => groups.into_iter().map(Gid::as_raw).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    groups.push(user.gid.as_raw());
    groups
}

fn meaning(entry: &Protected) -> Meaning {
    match entry {
        Protected::Uid(uid) => Meaning::Account(*uid),
        Protected::Name(name) => match User::from_name(name.as_str()) {
            Ok(Some(user)) => Meaning::Account(user.uid.as_raw()),
            Ok(None) => Meaning::Nobody,
            Err(error) => failed(error),
        },
        Protected::Group(name) => match Group::from_name(name) {
            Ok(Some(group)) => {
                let uid = |name: &String| Some(User::from_name(name).ok()??.uid.as_raw());
                let members = group.mem.iter().take(MEMBERS_MAX).filter_map(uid).collect();
                Meaning::Group { gid: group.gid.as_raw(), members }
            }
            Ok(None) => Meaning::Nobody,
            Err(error) => failed(error),
        },
    }
}

/// What getpwnam_r(3) lists for "not found" is that; all else is no answer.
fn failed(error: Errno) -> Meaning {
    let unknown = [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM];
    if unknown.contains(&error) { Meaning::Nobody } else { Meaning::Unanswered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::UserName;

    fn name(text: &str) -> Protected {
        Protected::parse(text).expect("an entry")
    }

    fn account(name: &str, uid: u32) -> Account {
        Account { name: UserName::new(name).expect("a name"), uid }
    }

    #[test]
    fn a_name_a_uid_and_a_group_protect_every_name_of_a_uid() {
        let list = [name("root"), name("@daemon"), name("4711"), name("nosuchuser"), name("@nog")];
        let protection = Protection::resolve(&list, &NameService::default(), None);
        for (account, groups, protects) in [
            (account("toor", 0), [7], Some("root")),
            (account("root", 9999), [7], Some("root")),
            (account("alice", 4711), [7], Some("uid 4711")),
            (account("bob", 5000), [1], Some("@daemon")),
            (account("bob", 5000), [7], None),
            (account("nosuchuser", 5000), [7], Some("nosuchuser")),
        ] {
            let found = protection.of(&account, &groups).map(ToString::to_string);
            assert_eq!(found.as_deref(), protects, "{account:?}");
        }
        assert_eq!(protection.void(), 2);
        let doubts = protection.doubts();
        assert!(doubts[0].contains("account \"nosuchuser\""), "{doubts:?}");
        assert!(doubts[1].contains("group \"nog\""), "{doubts:?}");
        assert!(protection.is_of(&list) && !protection.is_of(&list[1..]));
    }

    #[test]
    fn what_is_not_answered_keeps_its_meaning() {
        let list = [name("root")];
        let names = NameService::default();
        let before = Protection::resolve(&list, &names, None);
        let silent = Protection { entries: vec![(name("root"), Meaning::Unanswered)] };
        assert_eq!(silent.of(&account("toor", 0), &[]), None);
        assert_eq!(before.meaning(&name("root")), Some(&Meaning::Account(0)));
        assert!(groups_of(0).contains(&0));
    }
}
