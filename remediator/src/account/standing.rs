//! What the policy's two lists say together about an account. Pure, but for
//! [`Lists::resolve`].
//!
//! A user who may be protected counts as unknown, and so does one who may be allowed: neither is
//! acted on.

use procstorm_processes::name_service::NameService;

use super::list::{AccountList, Purpose};
use super::memory::Memory;
use super::{Account, Listed};

/// What the lists say about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be acted on.
    Open,
    /// This entry of `accounts.protected` covers it.
    Protected(Listed),
    /// There is a list `accounts.only`, and no entry of it covers the account.
    Excluded,
}

/// Why it is not known what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The groups of the account matter, and were not given.
    Groups,
    /// The name service does not say whom this entry covers.
    Entry(Listed),
    /// The account was in this group, and the name service does not say so now.
    Left(Listed),
}

/// Both lists, with what each entry means on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// `accounts.protected`.
    pub protected: AccountList,
    /// `accounts.only`, if there is one.
    pub only: Option<AccountList>,
}

impl Lists {
    /// Asks the name service what the lists mean, for 4 s at most.
    #[must_use]
    pub fn resolve(
        protected: &[Listed],
        only: Option<&[Listed]>,
        names: &NameService,
        before: Option<&Self>,
    ) -> Self {
        let known = before.and_then(|before| before.only.as_ref());
        let only = only.map(|only| AccountList::resolve(only, names, known));
        let known = before.map(|before| &before.protected);
        Self { protected: AccountList::resolve(protected, names, known), only }
    }

    /// What is known of the lists after a restart, before the name service is asked.
    #[must_use]
    pub fn remembered(protected: &[Listed], memory: &Memory) -> Self {
        Self { protected: AccountList::remembered(protected, memory), only: None }
    }

    /// The lists without what they meant.
    #[must_use]
    pub fn forgotten(&self) -> Self {
        let only = self.only.as_ref().map(AccountList::forgotten);
        Self { protected: self.protected.forgotten(), only }
    }

    /// Whether they are for these lists.
    #[must_use]
    pub fn are_of(&self, protected: &[Listed], only: Option<&[Listed]>) -> bool {
        let only = match (&self.only, only) {
            (Some(known), Some(only)) => known.is_of(only),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        only && self.protected.is_of(protected)
    }

    /// What of them covers nobody, or may: the key and a sentence each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let keyed = |key: &str, list: &AccountList, purpose| -> Vec<_> {
            let doubts = list.doubts(purpose).into_iter();
            doubts.map(|doubt| format!("accounts.{key}: {doubt}")).collect()
        };
        let mut doubts = keyed("protected", &self.protected, Purpose::Protects);
        if let Some(only) = &self.only {
            doubts.extend(keyed("only", only, Purpose::Allows));
        }
        doubts
    }

    /// What each entry means on this machine, a line each below its key.
    #[must_use]
    pub fn meanings(&self) -> String {
        let told = |key: &str, list: &AccountList| {
            let lines: String =
                list.meanings().iter().map(|meaning| format!("\n  {meaning}")).collect();
            if lines.is_empty() {
                return String::new();
            }
            format!("On this machine, accounts.{key} covers:{lines}\n")
        };
        let only = self.only.as_ref().map(|only| told("only", only));
        told("protected", &self.protected) + &only.unwrap_or_default()
    }

    /// What of `accounts.only` allows nobody for another reason: a sentence each.
    #[must_use]
    pub fn contradictions(&self, min_uid: u32) -> Vec<String> {
        let Some(only) = &self.only else { return Vec::new() };
        let low = only.below(min_uid).into_iter().map(|(entry, uid)| {
            format!(
                "accounts.only: {entry} has uid {uid}, and uids below {min_uid} \
                 (accounts.min_uid) are never acted on"
            )
        });
        let both = only.entries().filter(|entry| self.protected.entries().any(|one| one == *entry));
        let both = both.map(|entry| {
            format!("accounts.only: {entry} is protected as well (accounts.protected), which wins")
        });
        low.chain(both).collect()
    }

    /// What they say about an account that is in `groups`, `None` if those are not known; `memory`
    /// has the groups in which it was before.
    pub fn standing(
        &self,
        account: &Account,
        groups: Option<&[u32]>,
        memory: &Memory,
    ) -> Result<Standing, Unknown> {
        let Self { protected, only } = self;
        let known = groups.unwrap_or_default();
        if let Some(entry) = protected.of(account, known) {
            return Ok(Standing::Protected(entry.clone()));
        }
        if let Some(entry) = protected.unanswered() {
            return Err(Unknown::Entry(entry.clone()));
        }
        if groups.is_none() && protected.has_groups() {
            return Err(Unknown::Groups);
        }
        if let Some(entry) = protected.once_of(account, memory) {
            return Err(Unknown::Left(entry.clone()));
        }
        let Some(only) = only else { return Ok(Standing::Open) };
        if only.surely_of(account, known).is_some() {
            return Ok(Standing::Open);
        }
        if groups.is_none() && only.has_groups() {
            return Err(Unknown::Groups);
        }
        match only.unanswered() {
            Some(entry) => Err(Unknown::Entry(entry.clone())),
            None => Ok(Standing::Excluded),
        }
    }
}

impl Unknown {
    /// In words, for the account that it is about.
    #[must_use]
    pub fn told(&self, account: &Account) -> String {
        match self {
            Self::Groups => {
                format!("the name service does not say in which groups {} is", account.name)
            }
            Self::Entry(entry) => format!("the name service does not say who {} is", entry.kind()),
            Self::Left(entry) => format!(
                "the name service said before that {} is in {}, which is protected, and does not \
                 say so now: a source of groups may be away; if {} has left the group, reload the \
                 policy",
                account.name,
                entry.kind(),
                account.name
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::UserName;

    fn listed(entries: &[&str]) -> Vec<Listed> {
        entries.iter().map(|text| Listed::parse(text).expect("an entry")).collect()
    }

    fn lists(protected: &[&str], only: Option<&[&str]>) -> Lists {
        let names = NameService::default();
        let resolve = |entries| AccountList::resolve(&listed(entries), &names, None);
        Lists { protected: resolve(protected), only: only.map(resolve) }
    }

    #[test]
    fn who_was_in_a_protected_group_is_not_acted_on_when_the_name_service_no_longer_says_so() {
        let alice = Account { name: UserName::new("alice").expect("a name"), uid: 4711 };
        let (now, mut memory) = (lists(&["@daemon"], None), Memory::default());
        now.protected.teach(&mut memory, Some((4711, &[7])));
        assert_eq!(now.standing(&alice, Some(&[7]), &memory), Ok(Standing::Open));
        // The group's gid is 1.
        now.protected.teach(&mut memory, Some((4711, &[7, 1])));
        let left = || Err(Unknown::Left(listed(&["@daemon"]).remove(0)));
        assert_eq!(now.standing(&alice, Some(&[7]), &memory), left());
        // The same after a restart, and whether or not the group itself is still found.
        let names = NameService::default();
        for (group, wanted) in [
            ("@daemon", left()),
            ("@nosuchgroup", Ok(Standing::Protected(listed(&["@nosuchgroup"]).remove(0)))),
        ] {
            let protected = listed(&[group]);
            let mut memory = Memory::default();
            memory.learn(group.trim_start_matches('@'), 1, [4711]);
            let started = Lists::remembered(&protected, &memory);
            let later = Lists::resolve(&protected, None, &names, Some(&started));
            assert_eq!(later.standing(&alice, Some(&[7]), &memory), wanted, "{group}");
            let bob = Account { name: UserName::new("bob").expect("a name"), uid: 4712 };
            let is_known = later.standing(&bob, Some(&[7]), &memory).is_ok();
            assert_eq!(is_known, group == "@daemon", "{group}");
            // A reload takes the name service at its word.
            let reloaded = Lists::resolve(&protected, None, &names, Some(&later.forgotten()));
            let standing = reloaded.standing(&alice, Some(&[7]), &Memory::default());
            assert_eq!(standing, Ok(Standing::Open), "{group}");
        }
    }

    #[test]
    fn nobody_but_those_listed_may_be_acted_on_and_no_protected_one() {
        let account = |name: &str, uid| Account { name: UserName::new(name).expect("a name"), uid };
        let protected = |entry: &str| Ok(Standing::Protected(listed(&[entry]).remove(0)));
        let (alice, bob) = (account("alice", 4711), account("bob", 4712));
        for (denied, only, who, groups, wanted) in [
            (&[][..], None, &alice, None, Ok(Standing::Open)),
            (&[], Some(&["4711"][..]), &alice, None, Ok(Standing::Open)),
            (&[], Some(&["4711"]), &bob, None, Ok(Standing::Excluded)),
            // By name alone, as a nameless account's or one that only a silent service knows.
            (&[], Some(&["bob"]), &bob, None, Ok(Standing::Open)),
            // All names of a uid: root's entry covers every name of uid 0.
            (&[], Some(&["root"]), &account("toor", 0), None, Ok(Standing::Open)),
            (&[], Some(&["nosuchuser"]), &alice, None, Ok(Standing::Excluded)),
            (&[], Some(&["@daemon"]), &alice, Some(&[1][..]), Ok(Standing::Open)),
            (&[], Some(&["@daemon"]), &alice, Some(&[2]), Ok(Standing::Excluded)),
            (&[], Some(&["@daemon"]), &alice, None, Err(Unknown::Groups)),
            // Who is listed by name need not wait for groups.
            (&[], Some(&["@daemon", "4711"]), &alice, None, Ok(Standing::Open)),
            (&["@daemon"], Some(&["4711"]), &alice, None, Err(Unknown::Groups)),
            (&["@daemon"], Some(&["4711"]), &alice, Some(&[1]), protected("@daemon")),
            (&["4711"], Some(&["4711"]), &alice, None, protected("4711")),
        ] {
            let found = lists(denied, only).standing(who, groups, &Memory::default());
            assert_eq!(found, wanted, "{denied:?} {only:?} {who:?} {groups:?}");
        }
    }
}
