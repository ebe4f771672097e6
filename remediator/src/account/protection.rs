//! Whom the policy protects: its names, uids and groups, as the name service knows them now.
//!
//! A name alone protects nobody from a second name of the same uid, so uids are compared. What the
//! name service cannot answer for the moment keeps the meaning that it had.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use procstorm_processes::name_service::NameService;

use super::{Account, Protected};

/// How long the name service may take for all of it.
const DEADLINE: Duration = Duration::from_secs(2);

/// The most members of a group that are looked up one by one. Those beyond are found by the list
/// of groups of the user to be acted on.
const MEMBERS_MAX: usize = 4096;

/// The policy's list, and what each of it means on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    entry: Protected,
    meaning: Meaning,
    /// What the name service has not answered yet.
    question: Option<Question>,
}

/// A question to the name service, which may answer when nobody waits for it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    answer: Arc<OnceLock<Meaning>>,
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
            let known = before.and_then(|before| before.entry(entry));
            // A question that hangs holds a thread: it is not put twice.
            let under_way = known.and_then(|known| known.question.clone());
            match under_way.filter(Question::is_open_or_answered) {
                Some(question) => (entry.clone(), question, None),
                None => {
                    let (question, answered) = Question::put(entry.clone(), names);
                    (entry.clone(), question, Some(answered))
                }
            }
        };
        // All are asked at once: one that only a silent service knows holds up no other.
        let asked: Vec<_> = list.iter().map(ask).collect();
        let answered = asked.into_iter().map(|(entry, question, answered)| {
            if let Some(answered) = answered {
                let left = end.saturating_duration_since(Instant::now());
                // Its end is a closed channel; what has not come by then is asked for later.
                answered.recv_timeout(left).unwrap_or_default();
            }
            let answer = question.answer.get().cloned();
            let question = answer.is_none().then_some(question);
            let meaning = answer.unwrap_or(Meaning::Unanswered);
            let known = match &meaning {
                Meaning::Unanswered => before.and_then(|before| before.entry(&entry)),
                Meaning::Account(_) | Meaning::Group { .. } | Meaning::Nobody => None,
            };
            let meaning = known.map_or(meaning, |known| known.meaning.clone());
            Entry { entry, meaning, question }
        });
        Self { entries: answered.collect() }
    }

    /// Whether it is for this list.
    #[must_use]
    pub fn is_of(&self, list: &[Protected]) -> bool {
        self.entries.iter().map(|known| &known.entry).eq(list)
    }

    /// What of the list protects nobody, or may: a sentence each.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let doubt = |Entry { entry, meaning, .. }: &Entry| match meaning {
            Meaning::Nobody => Some(format!(
                "there is no {} on this machine; the entry protects nobody",
                entry.kind()
            )),
            Meaning::Unanswered => Some(format!(
                "the name service does not say who {} is; until it does, no process is ended",
                entry.kind()
            )),
            Meaning::Account(_) | Meaning::Group { .. } => None,
        };
        self.entries.iter().filter_map(doubt).collect()
    }

    /// How many entries protect nobody.
    #[must_use]
    pub fn void(&self) -> usize {
        self.entries.iter().filter(|known| known.meaning == Meaning::Nobody).count()
    }

    /// An entry of which it is not known whom it protects.
    #[must_use]
    pub fn unanswered(&self) -> Option<&Protected> {
        let is_open = |known: &&Entry| known.meaning == Meaning::Unanswered;
        self.entries.iter().find(is_open).map(|known| &known.entry)
    }

    /// Whether the groups of an account matter.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.entries.iter().any(|known| matches!(known.entry, Protected::Group(_)))
    }

    /// What protects an account that is in these groups.
    #[must_use]
    pub fn of(&self, account: &Account, groups: &[u32]) -> Option<&Protected> {
        let covers = |Entry { entry, meaning, .. }: &&Entry| {
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
        self.entries.iter().find(covers).map(|known| &known.entry)
    }

    fn entry(&self, entry: &Protected) -> Option<&Entry> {
        self.entries.iter().find(|known| known.entry == *entry)
    }
}

impl Question {
    /// Asks what an entry means. Returns the question, and what tells that it has ended.
    fn put(entry: Protected, names: &NameService) -> (Self, Receiver<()>) {
        let question = Self { answer: Arc::default() };
        let answer = Arc::clone(&question.answer);
        let ended = names.ask(move || answer.set(meaning(&entry)).unwrap_or_default());
        (question, ended)
    }

    /// Whether it need not be put again: it is under way, or has been answered.
    fn is_open_or_answered(&self) -> bool {
        // The caller holds it, too.
        let (kept_here, taken_for_this_look) = (1, 1);
        self.answer.get().is_some()
            || Arc::strong_count(&self.answer) > kept_here + taken_for_this_look
    }
}

/// The gids of all groups that the account of a uid is in, none for a uid without an account;
/// `None` where the name service does not say. Asks it, so is to be called within
/// [`NameService::ask`].
#[must_use]
pub fn groups_of(uid: u32) -> Option<Vec<u32>> {
    let user = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user,
        Ok(None) => return Some(Vec::new()),
        Err(error) => return (failed(error) == Meaning::Nobody).then(Vec::new),
    };
    let name = CString::new(user.name).ok()?;
    let listed = getgrouplist(&name, user.gid).ok()?;
    let mut groups: Vec<u32> = listed.into_iter().map(Gid::as_raw).collect();
    groups.push(user.gid.as_raw());
    Some(groups)
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
    fn what_is_not_answered_keeps_its_meaning_and_is_not_asked_twice() {
        let list = [name("root")];
        let names = NameService::default();
        let before = Protection::resolve(&list, &names, None);
        assert_eq!(before.unanswered(), None);
        let answer = Arc::<OnceLock<Meaning>>::default();
        let known = |meaning| Entry {
            entry: name("root"),
            meaning,
            question: Some(Question { answer: Arc::clone(&answer) }),
        };
        // The one who asks still does.
        let asker = Arc::clone(&answer);
        let silent = Protection { entries: vec![known(Meaning::Unanswered)] };
        let still = Protection::resolve(&list, &names, Some(&silent));
        assert_eq!(still.unanswered(), Some(&name("root")));
        assert_eq!(still.of(&account("toor", 0), &[]), None);
        let remembered = Protection { entries: vec![known(Meaning::Account(0))] };
        let kept = Protection::resolve(&list, &names, Some(&remembered));
        assert_eq!((kept.unanswered(), kept.of(&account("toor", 0), &[])), (None, Some(&list[0])));
        asker.set(Meaning::Account(0)).expect("the first answer");
        let late = Protection::resolve(&list, &names, Some(&still));
        assert_eq!(late.of(&account("toor", 0), &[]), Some(&list[0]));
        assert!(groups_of(0).is_some_and(|groups| groups.contains(&0)));
    }
}
