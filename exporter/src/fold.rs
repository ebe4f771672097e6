//! Keeps the number of series small, and loses no process from the sum.
//!
//! Most groups of a host are a single process, and no rule needs them: those of fewer than
//! [`Limits::min_processes`] are added together by user, as [`SMALL`]. A user can rename a process at
//! will, and each name would be a series: beyond the other limits the smallest groups of each user
//! become one more, [`OTHER`].

use std::collections::BTreeMap;
use std::sync::Arc;

pub use procstorm_processes::folded::{OTHER, SMALL, SMALL_USERS};

/// How many processes each user has of each command, by the texts they are shown by.
pub type Counts = BTreeMap<Arc<str>, BTreeMap<String, u64>>;

/// Which groups are shown, and how many at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The processes of the smallest group that is shown by its name.
    pub min_processes: u64,
    /// Groups of all users together, [`OTHER`] and [`SMALL`] included.
    pub max_series: usize,
    /// Groups of one user, without [`OTHER`] and [`SMALL`].
    pub max_commands_per_user: usize,
}

/// What was folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many groups because they are small.
    pub small_groups: usize,
    /// How many groups because they are beyond the limits.
    pub groups: usize,
    /// With so many processes.
    pub processes: u64,
}

/// Folds small groups into [`SMALL`], and what is then beyond the limits into [`OTHER`]. Where there
/// are more users than series, the smallest of them are folded into one user, [`OTHER`], too.
pub fn fold(counts: &mut Counts, limits: Limits) -> Folded {
    let small_groups = fold_small(counts, limits.min_processes);
    let mut folded = Folded { small_groups, ..Folded::default() };
    for commands in counts.values_mut() {
        let groups = named(commands).map(|(command, n)| (n, command.clone())).collect();
        for (_, command) in beyond(groups, limits.max_commands_per_user) {
            folded.fold_command(commands, &command);
        }
    }
    if series(counts) > limits.max_series {
        let groups = counts.iter().flat_map(|(user, commands)| {
            named(commands).map(|(command, n)| (n, (Arc::clone(user), command.clone())))
        });
        let rests: usize = counts.values().map(rests).sum();
        let room = limits.max_series.saturating_sub(rests);
        for (_, (user, command)) in beyond(groups.collect(), room) {
            if let Some(commands) = counts.get_mut(&user) {
                folded.fold_command(commands, &command);
            }
        }
    }
    if series(counts) > limits.max_series {
        // The users who have few processes are one series in any case, and nobody's storm.
        for (_, commands) in counts.iter_mut().filter(|(user, _)| ***user != *SMALL_USERS) {
            folded.fold_command(commands, SMALL);
        }
    }
    if counts.len() > limits.max_series {
        let users = counts.iter().map(|(user, commands)| (commands.values().sum(), user.clone()));
        for (_, user) in beyond(users.collect(), limits.max_series.saturating_sub(1)) {
            folded.fold_user(counts, &user);
        }
    }
    folded
}

/// Folds the groups of fewer than `least` processes, and the users with fewer; returns how many groups
/// it folded.
fn fold_small(counts: &mut Counts, least: u64) -> usize {
    let (mut groups, mut of_small_users) = (0, 0);
    counts.retain(|_, commands| {
        let mut small = 0;
        commands.retain(|_, n| {
            let is_small = *n < least;
            if is_small {
                groups += 1;
                small += *n;
            }
            !is_small
        });
        let is_small = commands.is_empty() && small < least;
        if is_small {
            of_small_users += small;
        } else if small > 0 {
            *commands.entry(SMALL.to_owned()).or_default() += small;
        }
        !is_small
    });
    if of_small_users > 0 {
        let rest = counts.entry(SMALL_USERS.into()).or_default();
        *rest.entry(SMALL.to_owned()).or_default() += of_small_users;
    }
    groups
}

/// A user's groups that have a name of their own.
fn named(commands: &BTreeMap<String, u64>) -> impl Iterator<Item = (&String, u64)> {
    commands.iter().filter(|(command, _)| *command != SMALL).map(|(command, &n)| (command, n))
}

/// How many series a user shown by its name needs at least.
fn rests(commands: &BTreeMap<String, u64>) -> usize {
    usize::from(commands.contains_key(SMALL)) + usize::from(named(commands).next().is_some())
}

fn series(counts: &Counts) -> usize {
    counts.values().map(BTreeMap::len).sum()
}

/// The groups that are not among the `kept` largest; of equals, the first by name is kept, so that
/// what is shown does not change from scan to scan.
fn beyond<K: Ord>(mut groups: Vec<(u64, K)>, kept: usize) -> Vec<(u64, K)> {
    if groups.len() <= kept {
        return Vec::new();
    }
    groups.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    groups.split_off(kept)
}

impl Folded {
    fn fold_command(&mut self, commands: &mut BTreeMap<String, u64>, command: &str) {
        if command != OTHER
            && let Some(n) = commands.remove(command)
        {
            *commands.entry(OTHER.to_owned()).or_default() += n;
            self.groups += 1;
            self.processes += n;
        }
    }

    /// Takes a user, of whom one series is left, into the user [`OTHER`].
    fn fold_user(&mut self, counts: &mut Counts, user: &str) {
        if user != OTHER
            && let Some(commands) = counts.remove(user)
        {
            let n = commands.values().sum::<u64>();
            let rest = counts.entry(OTHER.into()).or_default();
            *rest.entry(OTHER.to_owned()).or_default() += n;
        }
    }
}

/// How many processes each user has in all, by the counts before [`fold`]: a user whose groups are all
/// small has a sum, too. Those with fewer than `least` are added together as [`SMALL_USERS`], and the
/// smallest of more than `max` as [`OTHER`].
#[must_use]
pub fn users(counts: &Counts, least: u64, max: usize) -> BTreeMap<Arc<str>, u64> {
    let sum = |(user, commands): (&Arc<str>, &BTreeMap<String, u64>)| {
        (Arc::clone(user), commands.values().sum::<u64>())
    };
    let mut users: BTreeMap<_, _> = counts.iter().map(sum).collect();
    let small: u64 = users.values().filter(|n| **n < least).sum();
    users.retain(|_, n| *n >= least);
    let room = max.saturating_sub(usize::from(small > 0));
    if users.len() > room {
        let all = users.iter().map(|(user, &n)| (n, Arc::clone(user))).collect();
        for (n, user) in beyond(all, room.saturating_sub(1)) {
            if *user != *OTHER {
                users.remove(&user);
                *users.entry(OTHER.into()).or_default() += n;
            }
        }
    }
    if small > 0 {
        let shown_as = if users.len() < max { SMALL_USERS } else { OTHER };
        *users.entry(shown_as.into()).or_default() += small;
    }
    users
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(groups: &[(&str, &str, u64)]) -> Counts {
        let mut counts = Counts::new();
        for &(user, command, n) in groups {
            counts.entry(user.into()).or_default().insert(command.to_owned(), n);
        }
        counts
    }

    fn sum(counts: &Counts) -> u64 {
        counts.values().flat_map(BTreeMap::values).sum()
    }

    #[test]
    fn the_largest_groups_of_a_user_stay() {
        let mut shown = counts(&[("a", "x", 1), ("a", "y", 9), ("a", "z", 5), ("b", "x", 1)]);
        let folded = fold(
            &mut shown,
            Limits { min_processes: 1, max_series: 100, max_commands_per_user: 1 },
        );
        assert_eq!(shown, counts(&[("a", "(other)", 6), ("a", "y", 9), ("b", "x", 1)]));
        assert_eq!(folded, Folded { small_groups: 0, groups: 2, processes: 6 });
    }

    #[test]
    fn the_largest_groups_of_all_stay() {
        let mut shown = counts(&[("a", "x", 1), ("a", "y", 9), ("b", "x", 8), ("b", "z", 2)]);
        let folded = fold(
            &mut shown,
            Limits { min_processes: 1, max_series: 3, max_commands_per_user: 100 },
        );
        assert_eq!(shown, counts(&[("a", "(other)", 1), ("a", "y", 9), ("b", "(other)", 10)]));
        assert_eq!(folded, Folded { small_groups: 0, groups: 3, processes: 11 });
    }

    #[test]
    fn a_command_that_is_called_other_is_part_of_the_rest() {
        let mut shown = counts(&[("a", "(other)", 7), ("a", "x", 1), ("a", "y", 9)]);
        fold(&mut shown, Limits { min_processes: 1, max_series: 100, max_commands_per_user: 1 });
        assert_eq!(shown, counts(&[("a", "(other)", 8), ("a", "y", 9)]));
    }

    #[test]
    fn small_groups_and_small_users_are_added_together() {
        let mut shown = counts(&[
            ("a", "x", 5),
            ("a", "y", 4),
            ("a", "z", 1),
            ("b", "x", 4),
            ("b", "y", 1),
            ("c", "x", 3),
            ("c", "y", 1),
            ("d", "x", 1),
        ]);
        let limits = Limits { min_processes: 5, max_series: 100, max_commands_per_user: 100 };
        assert_eq!(fold(&mut shown, limits), Folded { small_groups: 7, ..Folded::default() });
        let expected = [("a", "x", 5), ("a", SMALL, 5), ("b", SMALL, 5), (SMALL_USERS, SMALL, 5)];
        assert_eq!(shown, counts(&expected));
    }

    #[test]
    fn users_below_their_mark_are_added_together() {
        let groups = [("a", "x", 5), ("a", "y", 5), ("b", "x", 9), ("c", "x", 7), ("c", "y", 1)];
        let all = counts(&groups);
        let expected = BTreeMap::from([("a".into(), 10), (SMALL_USERS.into(), 17)]);
        assert_eq!(users(&all, 10, 100), expected);
        let each = BTreeMap::from([("a".into(), 10), ("b".into(), 9), ("c".into(), 8)]);
        assert_eq!(users(&all, 1, 3), each, "nobody is small");
        let largest = BTreeMap::from([("a".into(), 10), (OTHER.into(), 17)]);
        assert_eq!(users(&all, 1, 2), largest, "there is room for two");
        assert_eq!(users(&all, 9, 1), BTreeMap::from([(OTHER.into(), 27)]));
        assert_eq!(users(&counts(&[("a", "x", 10)]), 10, 1), BTreeMap::from([("a".into(), 10)]));
    }

    /// The kernel's own answer, on a thread that asks for the name.
    #[test]
    fn no_process_can_have_the_name_of_the_small_groups() {
        let ask = || {
            std::fs::write("/proc/thread-self/comm", SMALL).unwrap();
            std::fs::read_to_string("/proc/thread-self/comm").unwrap()
        };
        let name = std::thread::spawn(ask).join().unwrap();
        assert_eq!(name.trim_end(), "(smaller-groups");
        assert_ne!(name.trim_end(), SMALL);
    }

    #[test]
    fn what_is_beyond_the_limits_stays_apart_from_what_is_small() {
        let mut shown = counts(&[("a", "(other)", 9), ("a", "v", 7), ("a", "x", 8), ("a", "y", 2)]);
        let limits = Limits { min_processes: 5, max_series: 100, max_commands_per_user: 2 };
        let folded = fold(&mut shown, limits);
        assert_eq!(folded, Folded { small_groups: 1, groups: 1, processes: 7 });
        assert_eq!(shown, counts(&[("a", "(other)", 16), ("a", "x", 8), ("a", SMALL, 2)]));
    }

    /// As `(other)` they would trigger an alert, as if they were one user.
    #[test]
    fn small_users_stay_what_they_are_where_there_are_too_many_others() {
        let users = [("a", "x", 9), ("a", "y", 2), ("b", "x", 9), ("b", "y", 2)];
        let mut shown = counts(&[&users[..], &[("c", "x", 4), ("d", "x", 4)]].concat());
        let limits = Limits { min_processes: 5, max_series: 3, max_commands_per_user: 100 };
        let folded = fold(&mut shown, limits);
        assert_eq!(folded, Folded { small_groups: 4, groups: 4, processes: 22 });
        let expected = [("a", OTHER, 11), ("b", OTHER, 11), (SMALL_USERS, SMALL, 8)];
        assert_eq!(shown, counts(&expected));
    }

    proptest! {
        #[test]
        fn no_process_is_lost_and_the_limits_hold(
            groups in prop::collection::vec((0..8_u8, 0..50_u8, 1_u64..50), 0..200),
            min_processes in 1_u64..20,
            max_series in 1_usize..40,
            max_commands_per_user in 1_usize..10,
        ) {
            let mut shown = Counts::new();
            for (user, command, n) in groups {
                let command = if command == 0 { OTHER.to_owned() } else { command.to_string() };
                *shown.entry(user.to_string().into()).or_default().entry(command).or_default() += n;
            }
            let (before, all) = (sum(&shown), shown.clone());
            let limits = Limits { min_processes, max_series, max_commands_per_user };
            let sums = users(&shown, min_processes, max_series);
            prop_assert_eq!(sums.values().sum::<u64>(), before);
            prop_assert!(sums.len() <= max_series, "{sums:?}");
            let folded = fold(&mut shown, limits);
            prop_assert_eq!(sum(&shown), before);
            prop_assert!(shown.values().map(BTreeMap::len).sum::<usize>() <= max_series);
            for commands in shown.values() {
                prop_assert!(named(commands).count() <= max_commands_per_user + 1);
            }
            for (user, n) in sums.iter().filter(|(user, _)| ![OTHER, SMALL_USERS].contains(&&***user)) {
                prop_assert_eq!(all[user].values().sum::<u64>(), *n);
                prop_assert!(*n >= min_processes, "{user} is small");
            }
            let large = all.iter().flat_map(|(user, commands)| {
                commands.iter().filter(|(_, n)| **n >= min_processes).map(move |group| (user, group))
            });
            for (user, (command, n)) in large.filter(|_| folded.groups == 0) {
                prop_assert_eq!(shown[user].get(command), Some(n), "it reaches the mark");
            }
            let shown_by_name = shown.values().flat_map(named);
            for (command, n) in shown_by_name.filter(|(command, _)| *command != OTHER) {
                prop_assert!(n >= min_processes, "{command} is small");
            }
            let mut again = all;
            prop_assert_eq!(fold(&mut again, limits), folded);
            prop_assert_eq!(again, shown, "the same at each scan");
        }
    }
}
