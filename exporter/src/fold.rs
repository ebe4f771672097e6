//! Keeps the number of series bounded, and loses no process from the sum.
//!
//! A user can rename a process at will, and each name would be a series. The largest groups are
//! kept; the rest of each user becomes one group, `(other)`.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What the rest is shown as.
pub const OTHER: &str = "(other)";

/// How many processes each user has of each command, by the texts they are shown by.
pub type Counts = BTreeMap<Arc<str>, BTreeMap<String, u64>>;

/// How many groups are shown at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all users together, the rests included.
    pub max_series: usize,
    /// Of one user, without the rest.
    pub max_commands_per_user: usize,
}

/// What was folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// So many groups.
    pub groups: usize,
    /// With so many processes.
    pub processes: u64,
}

/// Folds what is beyond the limits into [`OTHER`]. Where there are more users than series, the
/// smallest of them are folded into one user, [`OTHER`], too.
pub fn fold(counts: &mut Counts, limits: Limits) -> Folded {
    let mut folded = Folded::default();
    for commands in counts.values_mut() {
        let groups = commands.iter().map(|(command, &n)| (n, command.clone())).collect();
        for (_, command) in beyond(groups, limits.max_commands_per_user) {
            folded.fold_command(commands, &command);
        }
    }
    if counts.values().map(BTreeMap::len).sum::<usize>() > limits.max_series {
        let groups = counts.iter().flat_map(|(user, commands)| {
            commands.iter().map(|(command, &n)| (n, (Arc::clone(user), command.clone())))
        });
        let room = limits.max_series.saturating_sub(counts.len());
        for (_, (user, command)) in beyond(groups.collect(), room) {
            if let Some(commands) = counts.get_mut(&user) {
                folded.fold_command(commands, &command);
            }
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

    /// Takes a user of whom only [`OTHER`] is left into the user of that name.
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
        let folded = fold(&mut shown, Limits { max_series: 100, max_commands_per_user: 1 });
        assert_eq!(shown, counts(&[("a", "(other)", 6), ("a", "y", 9), ("b", "x", 1)]));
        assert_eq!(folded, Folded { groups: 2, processes: 6 });
    }

    #[test]
    fn the_largest_groups_of_all_stay() {
        let mut shown = counts(&[("a", "x", 1), ("a", "y", 9), ("b", "x", 8), ("b", "z", 2)]);
        let folded = fold(&mut shown, Limits { max_series: 3, max_commands_per_user: 100 });
        assert_eq!(shown, counts(&[("a", "(other)", 1), ("a", "y", 9), ("b", "(other)", 10)]));
        assert_eq!(folded, Folded { groups: 3, processes: 11 });
    }

    #[test]
    fn a_command_that_is_called_other_is_part_of_the_rest() {
        let mut shown = counts(&[("a", "(other)", 7), ("a", "x", 1), ("a", "y", 9)]);
        fold(&mut shown, Limits { max_series: 100, max_commands_per_user: 1 });
        assert_eq!(shown, counts(&[("a", "(other)", 8), ("a", "y", 9)]));
    }

    proptest! {
        #[test]
        fn no_process_is_lost_and_the_limits_hold(
            groups in prop::collection::vec((0..8_u8, 0..50_u8, 1_u64..50), 0..200),
            max_series in 1_usize..40,
            max_commands_per_user in 1_usize..10,
        ) {
            let mut shown = Counts::new();
            for (user, command, n) in groups {
                let command = if command == 0 { OTHER.to_owned() } else { command.to_string() };
                *shown.entry(user.to_string().into()).or_default().entry(command).or_default() += n;
            }
            let before = sum(&shown);
            fold(&mut shown, Limits { max_series, max_commands_per_user });
            prop_assert_eq!(sum(&shown), before);
            prop_assert!(shown.values().map(BTreeMap::len).sum::<usize>() <= max_series);
            for commands in shown.values() {
                prop_assert!(commands.len() <= max_commands_per_user + 1);
            }
        }
    }
}
