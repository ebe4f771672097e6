//! How many users and alerts a threshold would have meant. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::classes::Classes;
use super::prometheus::{Exemption, Series};

/// The thresholds that are looked at, besides those of the table.
const CANDIDATES: [u64; 16] =
    [5, 10, 15, 20, 30, 40, 60, 90, 120, 150, 200, 300, 500, 1000, 2000, 5000];

/// A user's processes of one command on one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) command: String,
}

/// A role and a class.
pub(super) type Kind = (String, String);

/// What one threshold would have meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) threshold: u64,
    pub(super) users: u64,
    pub(super) alerts: u64,
}

impl Exemption {
    /// Whether the row exempts that group, as the rules do: one with neither user nor command none.
    fn exempts(&self, role: &str, group: &Group) -> bool {
        let fits = |wanted: &str, label: &str| wanted.is_empty() || wanted == label;
        let Self { user, command, .. } = self;
        !(user.is_empty() && command.is_empty())
            && fits(&self.role, role)
            && fits(user, &group.user)
            && fits(command, &group.command)
    }
}

/// The counts of each group, by the seconds of their steps.
type Counts = BTreeMap<i64, u64>;

/// What was found.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) classes: Classes,
    exemptions: Vec<Exemption>,
    exempt: BTreeSet<(String, Group)>,
    step: i64,
    kinds: BTreeMap<Kind, BTreeMap<Group, Counts>>,
}

impl Tally {
    pub(super) fn new(classes: Classes, exemptions: Vec<Exemption>, step: Duration) -> Self {
        let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        Self { classes, exemptions, exempt: BTreeSet::new(), step, kinds: BTreeMap::new() }
    }

    /// Adds a part of a group's history. A value that is no count is none. An exempt group triggers
    /// no alert at any threshold, so it is left out.
    pub(super) fn add(&mut self, mut series: Series) {
        let mut label = |name: &str| series.metric.remove(name).unwrap_or_default();
        let (role, command) = (label("role"), label("command"));
        let group = Group { host: label("host"), user: label("user"), command };
        if self.exemptions.iter().any(|row| row.exempts(&role, &group)) {
            self.exempt.insert((role, group));
            return;
        }
        let class = self.classes.of(&group.command).to_owned();
        let counts = self.kinds.entry((role, class)).or_default().entry(group).or_default();
        for (time, value) in &series.values {
            let count = value.split('.').next().and_then(|whole| whole.parse().ok());
            let time = format!("{time:.0}").parse();
            if let (Some(count), Ok(time)) = (count, time) {
                counts.insert(time, count);
            }
        }
    }

    /// How many exempt groups are left out.
    pub(super) fn exempt(&self) -> usize {
        self.exempt.len()
    }

    /// Each role and class that was found.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.keys()
    }

    /// What each candidate would have meant for a role and class, these thresholds included; up to the
    /// first that nobody reached.
    pub(super) fn meanings(&self, kind: &Kind, least: u64, table: &[u64]) -> Vec<Meaning> {
        let largest = self.largest(kind).first().map_or(0, |(_, count, _)| *count);
        let candidates: BTreeSet<u64> =
            CANDIDATES.iter().chain(table).copied().filter(|one| *one >= least).collect();
        let mut meanings = Vec::new();
        for threshold in candidates {
            meanings.push(self.meaning(kind, threshold));
            if threshold > largest && table.iter().all(|one| *one <= threshold) {
                break;
            }
        }
        meanings
    }

    fn meaning(&self, kind: &Kind, threshold: u64) -> Meaning {
        let mut users = BTreeSet::new();
        let mut alerts: u64 = 0;
        for (group, counts) in self.kinds.get(kind).into_iter().flatten() {
            let times =
                counts.iter().filter(|(_, count)| **count >= threshold).map(|(time, _)| *time);
            let mut last: Option<i64> = None;
            for time in times {
                // A step without so many, or without any, is the end of an alert.
                if last.is_none_or(|last| time.saturating_sub(last) > self.step) {
                    alerts = alerts.saturating_add(1);
                }
                last = Some(time);
                users.insert(&group.user);
            }
        }
        Meaning { threshold, users: u64::try_from(users.len()).unwrap_or(u64::MAX), alerts }
    }

    /// The groups of a role and class with their largest counts and when, the largest first.
    pub(super) fn largest(&self, kind: &Kind) -> Vec<(&Group, u64, i64)> {
        let groups = self.kinds.get(kind).into_iter().flatten();
        let largest = groups.filter_map(|(group, counts)| {
            let (time, count) = counts.iter().max_by_key(|(_, count)| **count)?;
            Some((group, *count, *time))
        });
        let mut largest: Vec<_> = largest.collect();
        largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        largest
    }
}

/// The threshold from which on at most so many users would have been hit.
pub(super) fn red(meanings: &[Meaning], hits: u64) -> Option<u64> {
    meanings.iter().find(|one| one.users <= hits).map(|one| one.threshold)
}

/// The threshold from which on there would have been at most one alert a day, and that is not above
/// that of the red row.
pub(super) fn emergency(meanings: &[Meaning], days: u64, red: Option<u64>) -> Option<u64> {
    let calm = meanings.iter().find(|one| one.alerts <= days.max(1)).map(|one| one.threshold);
    match (calm, red) {
        (Some(calm), Some(red)) => Some(calm.min(red)),
        (calm, red) => calm.or(red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(user: &str, from: i64, counts: &[u64]) -> Series {
        let labels = [("role", "mail"), ("host", "moscow"), ("user", user), ("command", "imapd")];
        let metric = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let times = (0..).map(|index| f64::from(i32::try_from(from + 60 * index).expect("small")));
        let values = times.zip(counts).map(|(time, count)| (time, count.to_string())).collect();
        Series { metric, values }
    }

    #[test]
    fn a_group_is_left_out_if_a_row_exempts_it_by_each_label_that_the_row_has() {
        for (role, user, command, is_exempt) in [
            ("", "root", "", true),
            ("", "", "imapd", true),
            ("mail", "root", "imapd", true),
            ("nis", "root", "", false),
            ("", "root", "sshd", false),
            ("", "roo", "", false),
            ("mail", "", "", false),
            ("", "", "", false),
        ] {
            let row = Exemption {
                role: role.to_owned(),
                user: user.to_owned(),
                command: command.to_owned(),
            };
            let classes = Classes::of_rules(&BTreeMap::new());
            let mut tally = Tally::new(classes, vec![row.clone()], Duration::from_secs(60));
            // Two parts of one group.
            tally.add(series("root", 0, &[500]));
            tally.add(series("root", 60, &[500]));
            let wanted = if is_exempt { (1, 0) } else { (0, 1) };
            assert_eq!((tally.exempt(), tally.kinds().count()), wanted, "{row:?}");
        }
    }

    #[test]
    fn each_candidate_has_its_users_and_its_alerts_across_the_parts_of_the_history() {
        let classes = Classes::of_rules(&BTreeMap::new());
        let mut tally = Tally::new(classes, Vec::new(), Duration::from_secs(60));
        // One storm that lasts across two parts, one that dips, a standing group, and no number.
        tally.add(series("alice", 0, &[20, 95, 120]));
        tally.add(series("alice", 180, &[110, 20]));
        tally.add(series("bob", 600, &[95, 61, 92]));
        tally.add(series("carol", 0, &[25, 25, 25, 25]));
        let mut odd = series("dora", 0, &[99]);
        odd.values[0].1 = "NaN".to_owned();
        tally.add(odd);
        let kind = ("mail".to_owned(), "imapd".to_owned());
        assert_eq!(tally.kinds().collect::<Vec<_>>(), [&kind]);
        let meanings = tally.meanings(&kind, 20, &[60, 90, 91]);
        let of = |threshold| meanings.iter().find(|one| one.threshold == threshold).copied();
        let meaning = |threshold, users, alerts| Some(Meaning { threshold, users, alerts });
        assert_eq!(of(20), meaning(20, 3, 3));
        assert_eq!(of(60), meaning(60, 2, 2), "bob's dip is above it");
        assert_eq!(of(90), meaning(90, 2, 3), "bob's dip is below it");
        assert_eq!(of(120), meaning(120, 1, 1));
        assert_eq!(meanings.last().copied(), meaning(150, 0, 0), "the first that nobody reached");
        assert_eq!((of(15), of(91).is_some()), (None, true));
        let largest: Vec<_> = tally
            .largest(&kind)
            .iter()
            .map(|(group, count, _)| (group.user.as_str(), *count))
            .collect();
        assert_eq!(largest, [("alice", 120), ("bob", 95), ("carol", 25)]);
        assert_eq!(red(&meanings, 0), Some(150));
        assert_eq!(red(&meanings, 2), Some(30));
        assert_eq!(emergency(&meanings, 2, Some(150)), Some(30));
        assert_eq!(emergency(&meanings, 1, Some(90)), Some(90), "not above the red row");
    }
}
