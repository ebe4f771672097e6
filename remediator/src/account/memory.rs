//! Who was in the groups of `accounts.protected`, as the name service said before. Pure.
//!
//! initgroups(3) and getgrouplist(3) of glibc report no error when one source of the line `group:`
//! in nsswitch.conf(5) is away: they return the groups that the other sources know. So a user who is
//! in a protected group by a directory alone seems to be in no group while that directory is down. A
//! user who was in a protected group and is not found there now counts as perhaps protected, until
//! a reload of the policy. The journal keeps the memory: a machine often starts before its
//! directory does.

use std::collections::{BTreeMap, BTreeSet};

/// Each group by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    groups: BTreeMap<String, Group>,
}

/// What was seen of a group since the last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The gid that it had last.
    pub gid: u32,
    /// All who were in it at any time.
    pub uids: BTreeSet<u32>,
}

impl Memory {
    /// A memory of these groups.
    #[must_use]
    pub fn new(groups: BTreeMap<String, Group>) -> Self {
        Self { groups }
    }

    /// Each group with its name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group))
    }

    /// What is known of a group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// The group has this gid, and these are in it now.
    pub fn learn(&mut self, name: &str, gid: u32, uids: impl IntoIterator<Item = u32>) {
        let group = self.groups.entry(name.to_owned()).or_default();
        group.gid = gid;
        group.uids.extend(uids);
    }

    /// Whether a uid was in a group.
    #[must_use]
    pub fn was_in(&self, uid: u32, name: &str) -> bool {
        self.groups.get(name).is_some_and(|group| group.uids.contains(&uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_in_a_group_once_is_remembered() {
        let mut memory = Memory::default();
        memory.learn("crew", 7, [4711, 4712]);
        memory.learn("crew", 8, [4713]);
        memory.learn("empty", 9, []);
        for (uid, group, was) in
            [(4711, "crew", true), (4713, "crew", true), (1, "crew", false), (4711, "empty", false)]
        {
            assert_eq!(memory.was_in(uid, group), was, "{uid} {group}");
        }
        assert_eq!(memory.group("crew").map(|group| group.gid), Some(8));
        assert_eq!(memory.groups().map(|(name, _)| name).collect::<Vec<_>>(), ["crew", "empty"]);
    }
}
