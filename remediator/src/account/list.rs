//! Whom a list of the policy covers (`accounts.protected`, `accounts.only`): its names, uids and
//! groups, as the name service knows them now.
//!
//! A name alone covers no second name of the same uid, so uids are compared. What the name service
//! cannot answer for the moment keeps the uid that it had. Who is in a group changes: a remembered
//! member is still protected, but a user who is not among them may be by now, so the group counts as
//! unanswered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use procstorm_processes::name_service::NameService;

use super::memory::Memory;
use super::{Account, Listed};

/// How long the name service may take for all of it.
const DEADLINE: Duration = Duration::from_secs(2);

/// The most members of a group that are looked up one by one. Those beyond are found by the list
/// of groups of the user to be acted on.
const MEMBERS_MAX: usize = 4096;

/// How much of /etc/passwd is read for the other names of a uid.
const PASSWD_MAX: u64 = 64 << 20;

/// How many members of a group are shown.
const SHOWN_MAX: usize = 8;

/// A group that no source has.
const NO_SUCH_GROUP: &str = "procstorm-no-such-group";

/// A list of the policy, and what each entry of it means on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountList {
    entries: Vec<Entry>,
}

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Those whom it covers are never acted on.
    Protects,
    /// Nobody else is acted on.
    Allows,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    entry: Listed,
    meaning: Meaning,
    /// Whether the name service says so now, and did not only say it before.
    is_fresh: bool,
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
        /// The names of those whom the group lists, by uid.
        members: BTreeMap<u32, String>,
        /// How many more it lists.
        more: usize,
    },
    /// There is no such account or group.
    Nobody,
    /// The name service does not say.
    Unanswered,
}

impl AccountList {
    /// Asks the name service what `list` means, for 2 s at most. What it does not answer means
    /// what it meant `before`.
    #[must_use]
    pub fn resolve(list: &[Listed], names: &NameService, before: Option<&Self>) -> Self {
        let end = Instant::now() + DEADLINE;
        let ask = |entry: &Listed| {
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
            let known = before.and_then(|before| before.entry(&entry));
            let remembered = known.map(|known| known.meaning.clone());
            let (meaning, is_fresh) = match (answer, remembered) {
                // A directory that is away says "no such group", too: what was there a moment ago
                // counts as not answered, until a reload.
                (Some(Meaning::Nobody), Some(group @ Meaning::Group { .. })) => (group, false),
                (Some(Meaning::Unanswered) | None, Some(before)) => (before, false),
                (Some(Meaning::Unanswered) | None, None) => (Meaning::Unanswered, false),
                (Some(now), _) => (now, true),
            };
            Entry { entry, meaning, is_fresh, question }
        });
        Self { entries: answered.collect() }
    }

    /// The list as it was before a restart, where groups are concerned. None of it is fresh.
    #[must_use]
    pub fn remembered(list: &[Listed], memory: &Memory) -> Self {
        let entry = |entry: &Listed| {
            let known = match entry {
                Listed::Group(name) => memory.group(name),
                Listed::Name(_) | Listed::Uid(_) => None,
            };
            let meaning = known.map_or(Meaning::Unanswered, |group| {
                let members = group.uids.iter().map(|uid| (*uid, uid.to_string())).collect();
                Meaning::Group { gid: group.gid, members, more: 0 }
            });
            Entry { entry: entry.clone(), meaning, is_fresh: false, question: None }
        };
        Self { entries: list.iter().map(entry).collect() }
    }

    /// Writes down who is in each group as the name service says now, and that `member`, who is in
    /// these groups, is in them.
    pub fn teach(&self, memory: &mut Memory, member: Option<(u32, &[u32])>) {
        for known in &self.entries {
            let Entry { entry: Listed::Group(name), is_fresh: true, meaning, .. } = known else {
                continue;
            };
            let Meaning::Group { gid, members, .. } = meaning else { continue };
            let member = member.filter(|(_, groups)| groups.contains(gid)).map(|(uid, _)| uid);
            memory.learn(name, *gid, members.keys().copied().chain(member));
        }
    }

    /// A group in which the account was.
    #[must_use]
    pub fn once_of(&self, account: &Account, memory: &Memory) -> Option<&Listed> {
        self.entries()
            .find(|entry| matches!(entry, Listed::Group(name) if memory.was_in(account.uid, name)))
    }

    /// The list without what it meant; the questions that are under way are not put again.
    #[must_use]
    pub fn forgotten(&self) -> Self {
        let forget = |entry: &Entry| Entry {
            meaning: Meaning::Unanswered,
            is_fresh: false,
            ..entry.clone()
        };
        Self { entries: self.entries.iter().map(forget).collect() }
    }

    /// Whether it is for this list.
    #[must_use]
    pub fn is_of(&self, list: &[Listed]) -> bool {
        self.entries.iter().map(|known| &known.entry).eq(list)
    }

    /// What of the list covers nobody, or may: a sentence each.
    #[must_use]
    pub fn doubts(&self, purpose: Purpose) -> Vec<String> {
        let (void, open) = match purpose {
            Purpose::Protects => ("protects nobody", "no process is ended"),
            Purpose::Allows => ("allows nobody", "it allows nobody"),
        };
        let doubt = |known: &Entry| {
            let kind = known.entry.kind();
            if known.is_open() {
                return Some(format!(
                    "the name service does not say who {kind} is; until it does, {open}"
                ));
            }
            (known.meaning == Meaning::Nobody)
                .then(|| format!("there is no {kind} on this machine; the entry {void}"))
        };
        self.entries.iter().filter_map(doubt).collect()
    }

    /// What each entry means, in the order of the list. Asks the name service nothing.
    #[must_use]
    pub fn meanings(&self) -> Vec<String> {
        self.entries.iter().map(Entry::told).collect()
    }

    /// Entries that are below `min_uid`, with their uids: they are never acted on, allowed or not.
    #[must_use]
    pub fn below(&self, min_uid: u32) -> Vec<(String, u32)> {
        let low = |known: &Entry| match known.meaning {
            Meaning::Account(uid) => (uid < min_uid).then(|| (known.entry.to_string(), uid)),
            Meaning::Group { .. } | Meaning::Nobody | Meaning::Unanswered => None,
        };
        self.entries.iter().filter_map(low).collect()
    }

    /// The entries, as the policy has them.
    pub fn entries(&self) -> impl Iterator<Item = &Listed> {
        self.entries.iter().map(|known| &known.entry)
    }

    /// How many entries cover nobody.
    #[must_use]
    pub fn void(&self) -> usize {
        self.entries.iter().filter(|known| known.meaning == Meaning::Nobody).count()
    }

    /// An entry of which it is not known whom it covers.
    #[must_use]
    pub fn unanswered(&self) -> Option<&Listed> {
        self.entries.iter().find(|known| known.is_open()).map(|known| &known.entry)
    }

    /// Whether the groups of an account matter.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.entries.iter().any(|known| matches!(known.entry, Listed::Group(_)))
    }

    /// What covers an account that is in these groups, by what the name service says now or said
    /// before.
    #[must_use]
    pub fn of(&self, account: &Account, groups: &[u32]) -> Option<&Listed> {
        let covers = |known: &&Entry| known.covers(account, groups);
        self.entries.iter().find(covers).map(|known| &known.entry)
    }

    /// The same, but what the name service said before of a group counts for nothing.
    #[must_use]
    pub fn surely_of(&self, account: &Account, groups: &[u32]) -> Option<&Listed> {
        let covers = |known: &&Entry| !known.is_open() && known.covers(account, groups);
        self.entries.iter().find(covers).map(|known| &known.entry)
    }

    fn entry(&self, entry: &Listed) -> Option<&Entry> {
        self.entries.iter().find(|known| known.entry == *entry)
    }
}

impl Entry {
    /// Whether it is not known whom it covers: an account keeps its uid, a group its members not.
    fn is_open(&self) -> bool {
        match self.meaning {
            Meaning::Unanswered => true,
            Meaning::Group { .. } => !self.is_fresh,
            Meaning::Account(_) | Meaning::Nobody => false,
        }
    }

    fn covers(&self, account: &Account, groups: &[u32]) -> bool {
        let is_named = matches!(&self.entry, Listed::Name(name) if *name == account.name);
        is_named
            || match &self.meaning {
                Meaning::Account(uid) => *uid == account.uid,
                Meaning::Group { gid, members, .. } => {
                    groups.contains(gid) || members.contains_key(&account.uid)
                }
                Meaning::Nobody | Meaning::Unanswered => false,
            }
    }

    fn told(&self) -> String {
        let entry = &self.entry;
        match &self.meaning {
            Meaning::Account(uid) if matches!(entry, Listed::Uid(_)) => {
                names_of(*uid, "").map_or_else(|| entry.to_string(), |of| format!("{entry} ({of})"))
            }
            Meaning::Account(uid) => {
                let name = entry.to_string();
                let others = names_of(*uid, &name).map(|of| format!(", also called {of}"));
                format!("{name} (uid {uid}{})", others.unwrap_or_default())
            }
            Meaning::Group { gid, members, more } => {
                let shown = members.iter().take(SHOWN_MAX);
                let shown: Vec<_> = shown.map(|(uid, name)| format!("{name} {uid}")).collect();
                let more = more.saturating_add(members.len().saturating_sub(SHOWN_MAX));
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                let listed = if shown.is_empty() { "nobody".to_owned() } else { shown.join(", ") };
                format!(
                    "{entry} (gid {gid}; the group lists {listed}{more}; and those whose own group \
                     it is)"
                )
            }
            Meaning::Nobody => format!("{entry} (none on this machine)"),
            Meaning::Unanswered => format!("{entry} (the name service does not answer)"),
        }
    }
}

/// The names of a uid in /etc/passwd besides `known`; `None` if there are none.
fn names_of(uid: u32, known: &str) -> Option<String> {
    let names: BTreeSet<_> = local_accounts(uid).into_iter().map(|(name, _)| name).collect();
    let names: Vec<_> = names.into_iter().filter(|name| name != known).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

impl Question {
    /// Asks what an entry means. Returns the question, and what tells that it has ended.
    fn put(entry: Listed, names: &NameService) -> (Self, Receiver<()>) {
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

/// The gids of all groups that the accounts of a uid are in, none for a uid without an account;
/// `None` where the name service does not say. Asks it, so is to be called within
/// [`NameService::ask`].
///
/// getgrouplist(3) reports no error of any source. glibc's getgrnam(3) returns the error of the
/// source that it asked last, so it is asked for a group that no source has. An error of a source
/// before the last, or one that also means "not found", does not show: see
/// [`memory`](super::memory).
#[must_use]
pub fn groups_of(uid: u32) -> Option<Vec<u32>> {
    let first = match User::from_uid(Uid::from_raw(uid)) {
        Ok(user) => user.map(|user| (user.name, user.gid.as_raw())),
        Err(error) if failed(error) == Meaning::Nobody => None,
        Err(_silent) => return None,
    };
    // The name service names one account of a uid. Its other names have groups of their own.
    let mut groups = BTreeSet::new();
    for (name, gid) in first.into_iter().chain(local_accounts(uid)) {
        let name = CString::new(name).ok()?;
        let listed = getgrouplist(&name, Gid::from_raw(gid)).ok()?;
        groups.extend(listed.into_iter().map(Gid::as_raw).chain([gid]));
    }
    let away = Group::from_name(NO_SUCH_GROUP).err().map(failed);
    (away != Some(Meaning::Unanswered)).then(|| groups.into_iter().collect())
}

/// The names of a uid in /etc/passwd, each with its group.
fn local_accounts(uid: u32) -> Vec<(String, u32)> {
    let Ok(passwd) = File::open("/etc/passwd") else { return Vec::new() };
    let lines = BufReader::new(passwd.take(PASSWD_MAX)).split(b'\n').map_while(Result::ok);
    let account = |line: Vec<u8>| {
        let line = String::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        let (name, of, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        (of.parse() == Ok(uid)).then_some((name.to_owned(), gid.parse().ok()?))
    };
    lines.filter_map(account).collect()
}

fn meaning(entry: &Listed) -> Meaning {
    match entry {
        Listed::Uid(uid) => Meaning::Account(*uid),
        Listed::Name(name) => match User::from_name(name.as_str()) {
            Ok(Some(user)) => Meaning::Account(user.uid.as_raw()),
            Ok(None) => Meaning::Nobody,
            Err(error) => failed(error),
        },
        Listed::Group(name) => match Group::from_name(name) {
            Ok(Some(group)) => members(&group),
            Ok(None) => Meaning::Nobody,
            Err(error) => failed(error),
        },
    }
}

/// Whom a group lists. Without an answer about one of them, nothing is known of the group.
fn members(group: &Group) -> Meaning {
    let mut members = BTreeMap::new();
    for name in group.mem.iter().take(MEMBERS_MAX) {
        match User::from_name(name) {
            Ok(Some(user)) => {
                members.insert(user.uid.as_raw(), user.name);
            }
            Ok(None) => {}
            Err(error) if failed(error) == Meaning::Nobody => {}
            Err(_silent) => return Meaning::Unanswered,
        }
    }
    let more = group.mem.len().saturating_sub(MEMBERS_MAX);
    Meaning::Group { gid: group.gid.as_raw(), members, more }
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

    fn name(text: &str) -> Listed {
        Listed::parse(text).expect("an entry")
    }

    fn account(name: &str, uid: u32) -> Account {
        Account { name: UserName::new(name).expect("a name"), uid }
    }

    #[test]
    fn a_name_a_uid_and_a_group_protect_every_name_of_a_uid() {
        let list = [name("root"), name("@daemon"), name("4711"), name("nosuchuser"), name("@nog")];
        let protection = AccountList::resolve(&list, &NameService::default(), None);
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
        let doubts = protection.doubts(Purpose::Protects);
        assert!(doubts[0].contains("account \"nosuchuser\""), "{doubts:?}");
        assert!(doubts[1].contains("group \"nog\""), "{doubts:?}");
        assert!(protection.is_of(&list) && !protection.is_of(&list[1..]));
    }

    #[test]
    fn what_is_not_answered_keeps_its_meaning_and_is_not_asked_twice() {
        let list = [name("root")];
        let names = NameService::default();
        let before = AccountList::resolve(&list, &names, None);
        assert_eq!(before.unanswered(), None);
        let answer = Arc::<OnceLock<Meaning>>::default();
        let known = |meaning| Entry {
            entry: name("root"),
            meaning,
            is_fresh: false,
            question: Some(Question { answer: Arc::clone(&answer) }),
        };
        // The one who asks still does.
        let asker = Arc::clone(&answer);
        let silent = AccountList { entries: vec![known(Meaning::Unanswered)] };
        let still = AccountList::resolve(&list, &names, Some(&silent));
        assert_eq!(still.unanswered(), Some(&name("root")));
        assert_eq!(still.of(&account("toor", 0), &[]), None);
        let remembered = AccountList { entries: vec![known(Meaning::Account(0))] };
        let kept = AccountList::resolve(&list, &names, Some(&remembered));
        assert_eq!((kept.unanswered(), kept.of(&account("toor", 0), &[])), (None, Some(&list[0])));
        asker.set(Meaning::Account(0)).expect("the first answer");
        let late = AccountList::resolve(&list, &names, Some(&still));
        assert_eq!(late.of(&account("toor", 0), &[]), Some(&list[0]));
        assert!(groups_of(0).is_some_and(|groups| groups.contains(&0)));
    }

    /// A list of one group, which meant something before and whose question is still under way.
    fn group_before(text: &str, members: &[u32], answer: &Arc<OnceLock<Meaning>>) -> AccountList {
        let members = members.iter().map(|uid| (*uid, format!("u{uid}"))).collect();
        let entry = Entry {
            entry: name(text),
            meaning: Meaning::Group { gid: 7, members, more: 0 },
            is_fresh: true,
            question: Some(Question { answer: Arc::clone(answer) }),
        };
        AccountList { entries: vec![entry] }
    }

    #[test]
    fn a_group_that_is_not_answered_now_still_protects_and_allows_nobody() {
        let (list, names) = ([name("@nosuchgroup")], NameService::default());
        let answer = Arc::<OnceLock<Meaning>>::default();
        let asker = Arc::clone(&answer);
        let before = group_before("@nosuchgroup", &[4711], &answer);
        let (alice, bob) = (account("alice", 4711), account("bob", 4712));
        assert_eq!(before.surely_of(&alice, &[]), Some(&list[0]));
        let now = AccountList::resolve(&list, &names, Some(&before));
        assert_eq!(now.of(&alice, &[]), Some(&list[0]), "a member before");
        assert_eq!(now.surely_of(&alice, &[]), None, "maybe a member no more");
        assert_eq!((now.of(&bob, &[]), now.unanswered()), (None, Some(&list[0])));
        // A directory that is away may also say that there is none.
        asker.set(Meaning::Nobody).expect("the first answer");
        let denied = AccountList::resolve(&list, &names, Some(&now));
        assert_eq!((denied.unanswered(), denied.void()), (Some(&list[0]), 0));
        let reloaded = AccountList::resolve(&list, &names, Some(&denied.forgotten()));
        assert_eq!((reloaded.unanswered(), reloaded.void()), (None, 1));
    }

    #[test]
    fn a_list_says_what_its_entries_mean_here() {
        let list = [name("root"), name("0"), name("@daemon"), name("nosuchuser")];
        let found = AccountList::resolve(&list, &NameService::default(), None);
        let meanings = found.meanings();
        assert!(meanings[0].starts_with("root (uid 0"), "{meanings:?}");
        assert!(meanings[1].starts_with("uid 0 (root"), "{meanings:?}");
        assert!(meanings[2].starts_with("@daemon (gid 1; the group lists "), "{meanings:?}");
        assert_eq!(meanings[3], "nosuchuser (none on this machine)");
        let below = [("root".to_owned(), 0), ("uid 0".to_owned(), 0)];
        assert_eq!(found.below(1000), below);
        assert!(found.doubts(Purpose::Allows)[0].ends_with("the entry allows nobody"));
    }
}
