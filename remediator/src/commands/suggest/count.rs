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

/// What a group's history comes to: no count is kept, so a long history takes no more memory.
#[derive(Debug, Default)]
struct Course {
    /// The largest count, and when it was last reached.
    largest: Option<(u64, i64)>,
    /// The alerts at each candidate that was reached, from the smallest on.
    runs: Vec<Run>,
}

/// The alerts of a group at one threshold.
#[derive(Clone, Copy, Debug)]
struct Run {
    alerts: u64,
    /// When the threshold was last reached.
    last: i64,
}

impl Course {
    /// Adds a count. A step without so many as a candidate, or without any, is the end of an alert.
    fn add(&mut self, time: i64, count: u64, candidates: &[u64], step: i64) {
        if self.largest.is_none_or(|(largest, _)| count >= largest) {
            self.largest = Some((count, time));
        }
        let reached = candidates.partition_point(|candidate| *candidate <= count);
        for run in self.runs.iter_mut().take(reached) {
            if time.saturating_sub(run.last) > step {
                run.alerts = run.alerts.saturating_add(1);
            }
            run.last = time;
        }
        while self.runs.len() < reached {
            self.runs.push(Run { alerts: 1, last: time });
        }
    }
}

/// The most memory that the groups may take, in bytes.
const MEMORY_MAX: usize = 256 << 20;

/// About how much a group takes beside its names.
const GROUP: usize = 400;

/// There are more groups than fit into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// What was found.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) classes: Classes,
    exemptions: Vec<Exemption>,
    exempt: BTreeSet<(String, Group)>,
    step: i64,
    /// The thresholds that are looked at, in order.
    candidates: Vec<u64>,
    kinds: BTreeMap<Kind, BTreeMap<Group, Course>>,
    memory: usize,
}

impl Tally {
    /// Nothing yet; `table` holds the thresholds of all rows that Prometheus has loaded.
    pub(super) fn new(
        classes: Classes,
        exemptions: Vec<Exemption>,
        step: Duration,
        table: impl IntoIterator<Item = u64>,
    ) -> Self {
        let step = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        let candidates: BTreeSet<u64> = CANDIDATES.into_iter().chain(table).collect();
        Self {
            classes,
            exemptions,
            exempt: BTreeSet::new(),
            step,
            candidates: candidates.into_iter().collect(),
            kinds: BTreeMap::new(),
            memory: 0,
        }
    }

    /// Adds a part of a group's history, the parts in order of time. A value that is not a count is
    /// ignored. An exempt group triggers no alert at any threshold, so it is left out.
    pub(super) fn add(&mut self, mut series: Series) -> Result<(), TooMany> {
        let mut label = |name: &str| series.metric.remove(name).unwrap_or_default();
        let (role, command) = (label("role"), label("command"));
        let group = Group { host: label("host"), user: label("user"), command };
        let names = [&role, &group.host, &group.user, &group.command].map(String::len);
        let takes = names.iter().fold(GROUP, |sum, name| sum.saturating_add(*name));
        let is_new = if self.exemptions.iter().any(|row| row.exempts(&role, &group)) {
            self.exempt.insert((role, group))
        } else {
            let class = self.classes.of(&group.command).to_owned();
            let groups = self.kinds.entry((role, class)).or_default();
            let is_new = !groups.contains_key(&group);
            let course = groups.entry(group).or_default();
            for point in &series.values {
                if let Some(count) = point.count {
                    course.add(point.time, count, &self.candidates, self.step);
                }
            }
            is_new
        };
        if is_new {
            self.memory = self.memory.saturating_add(takes);
        }
        if self.memory > MEMORY_MAX { Err(TooMany) } else { Ok(()) }
    }

    /// How many exempt groups are left out.
    pub(super) fn exempt(&self) -> usize {
        self.exempt.len()
    }

    /// Each role and class that was found.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.keys()
    }

    /// What each candidate would have meant for a role and class, these thresholds of its own rows
    /// included; up to the first that nobody reached.
    pub(super) fn meanings(&self, kind: &Kind, least: u64, table: &[u64]) -> Vec<Meaning> {
        let largest = self.largest(kind).first().map_or(0, |(_, count, _)| *count);
        let mut meanings = Vec::new();
        for (index, &threshold) in self.candidates.iter().enumerate() {
            let is_looked_at = CANDIDATES.contains(&threshold) || table.contains(&threshold);
            if threshold < least || !is_looked_at {
                continue;
            }
            meanings.push(self.meaning(kind, index, threshold));
            if threshold > largest && table.iter().all(|one| *one <= threshold) {
                break;
            }
        }
        meanings
    }

    fn meaning(&self, kind: &Kind, index: usize, threshold: u64) -> Meaning {
        let mut users = BTreeSet::new();
        let mut alerts: u64 = 0;
        for (group, course) in self.kinds.get(kind).into_iter().flatten() {
            if let Some(run) = course.runs.get(index) {
                alerts = alerts.saturating_add(run.alerts);
                users.insert(&group.user);
            }
        }
        Meaning { threshold, users: u64::try_from(users.len()).unwrap_or(u64::MAX), alerts }
    }

    /// The groups of a role and class with their largest counts and when, the largest first.
    pub(super) fn largest(&self, kind: &Kind) -> Vec<(&Group, u64, i64)> {
        let groups = self.kinds.get(kind).into_iter().flatten();
        let largest = groups.filter_map(|(group, course)| {
            let (count, time) = course.largest?;
            Some((group, count, time))
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

/// The threshold from which on there would have been at most one alert a day, if it is below that of
/// the red row: a warning that comes together with the red alert warns of nothing.
pub(super) fn emergency(meanings: &[Meaning], days: u64, red: Option<u64>) -> Option<u64> {
    let calm = meanings.iter().find(|one| one.alerts <= days.max(1)).map(|one| one.threshold);
    calm.filter(|calm| red.is_none_or(|red| *calm < red))
}

#[cfg(test)]
mod tests {
    use super::super::prometheus::Point;
    use super::*;

    fn series(user: &str, from: i64, counts: &[u64]) -> Series {
        let labels = [("role", "mail"), ("host", "moscow"), ("user", user), ("command", "imapd")];
        let metric = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let times = (0..).map(|index| from + 60 * index);
        let point = |(time, count): (i64, &u64)| Point { time, count: Some(*count) };
        let values = times.zip(counts).map(point).collect();
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
            let mut tally = Tally::new(classes, vec![row.clone()], Duration::from_secs(60), []);
            // Two parts of one group.
            tally.add(series("root", 0, &[500])).expect("few");
            tally.add(series("root", 60, &[500])).expect("few");
            let wanted = if is_exempt { (1, 0) } else { (0, 1) };
            assert_eq!((tally.exempt(), tally.kinds().count()), wanted, "{row:?}");
        }
    }

    #[test]
    fn each_candidate_has_its_users_and_its_alerts_across_the_parts_of_the_history() {
        let classes = Classes::of_rules(&BTreeMap::new());
        let mut tally = Tally::new(classes, Vec::new(), Duration::from_secs(60), [60, 90, 91, 95]);
        // One storm that lasts across two parts, one that dips, a standing group, and no number.
        tally.add(series("alice", 0, &[20, 95, 120])).expect("few");
        tally.add(series("alice", 180, &[110, 20])).expect("few");
        tally.add(series("bob", 600, &[95, 61, 92])).expect("few");
        tally.add(series("carol", 0, &[25, 25, 25, 25])).expect("few");
        let mut odd = series("dora", 0, &[99]);
        odd.values[0] = Point::from((0.0, "NaN".to_owned()));
        tally.add(odd).expect("few");
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
        assert_eq!(of(95), None, "another class has that row");
        let largest: Vec<_> = tally
            .largest(&kind)
            .iter()
            .map(|(group, count, _)| (group.user.as_str(), *count))
            .collect();
        assert_eq!(largest, [("alice", 120), ("bob", 95), ("carol", 25)]);
        assert_eq!(red(&meanings, 0), Some(150));
        assert_eq!(red(&meanings, 2), Some(30));
        assert_eq!(emergency(&meanings, 2, Some(150)), Some(30));
        assert_eq!(emergency(&meanings, 1, Some(90)), None, "not above the red row");
        assert_eq!(emergency(&meanings, 2, Some(30)), None, "nor at it");
        assert_eq!(emergency(&meanings, 2, None), Some(30));
    }

    #[test]
    fn a_long_history_takes_no_more_memory_and_too_many_groups_are_refused() {
        let classes = Classes::of_rules(&BTreeMap::new());
        let mut tally = Tally::new(classes, Vec::new(), Duration::from_secs(60), []);
        let mut after_one_hour = None;
        for hour in 0..1000 {
            tally.add(series("alice", hour * 3600, &[100; 60])).expect("one group");
            let courses = tally.kinds.values().flat_map(BTreeMap::values);
            let takes = (tally.memory, courses.map(|course| course.runs.len()).sum::<usize>());
            assert_eq!(*after_one_hour.get_or_insert(takes), takes);
        }
        let long = "x".repeat(1 << 20);
        let many = (0..300).map(|index| tally.add(series(&format!("{index}{long}"), 0, &[100])));
        assert_eq!(many.last(), Some(Err(TooMany)));
    }
}
