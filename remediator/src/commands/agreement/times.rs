//! Alertmanager's time intervals: do some of them ever hold, or always?
//!
//! - [`Intervals`]: those of a file, by name.
//! - [`Span`]: how much of the time some of them cover.

use std::collections::BTreeMap;

use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};

use crate::policy::yaml::{Fault, Node};

/// How far ahead is looked. Weekdays, dates and leap years repeat after 28.
const YEARS: i16 = 40;

const MINUTES: u16 = 24 * 60;

/// How much of the time to come something covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Never,
    Sometimes,
    Always,
}

/// The time intervals of a file, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals(BTreeMap<String, Vec<Interval>>);

/// All that is given must hold. An empty list holds never, an absent one always.
#[derive(Clone, Debug)]
struct Interval {
    times: Option<Vec<(u16, u16)>>,
    weekdays: Option<Vec<(i16, i16)>>,
    days_of_month: Option<Vec<(i16, i16)>>,
    months: Option<Vec<(i16, i16)>>,
    years: Option<Vec<(i16, i16)>>,
    zone: String,
}

impl Intervals {
    /// Those of a configuration: under `time_intervals`, and under the older name.
    pub(super) fn read(file: &Node) -> Result<Self, Fault> {
        let mut named = BTreeMap::new();
        for key in ["mute_time_intervals", "time_intervals"] {
            for item in file.items_of(key)? {
                let name = item.text_of("name")?.unwrap_or_default();
                let intervals = item.items_of("time_intervals")?;
                let intervals = intervals.iter().map(Interval::read).collect::<Result<_, _>>()?;
                if named.insert(name.to_owned(), intervals).is_some() {
                    let what = format!("two time intervals have the name {name:?}");
                    return Err(Fault::new(item.line, what));
                }
            }
        }
        Ok(Self(named))
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How much of the time those of these names cover together, from now on.
    pub(super) fn span(&self, names: &[String]) -> Span {
        self.span_from(names, TimeZone::UTC.to_datetime(Timestamp::now()).date())
    }

    fn span_from(&self, names: &[String], today: Date) -> Span {
        let intervals: Vec<&Interval> =
            names.iter().filter_map(|name| self.0.get(name)).flatten().collect();
        let zones: std::collections::BTreeSet<&str> =
            intervals.iter().map(|interval| interval.zone.as_str()).collect();
        // Minutes of two zones are not put together: it is not `Always` then, which errs towards
        // saying that something is muted or not active.
        let spans = zones.into_iter().map(|zone| {
            let of_zone: Vec<&Interval> =
                intervals.iter().copied().filter(|interval| interval.zone == zone).collect();
            span_of(&of_zone, today)
        });
        spans.fold(Span::Never, |so_far, span| match (so_far, span) {
            (Span::Always, _) | (_, Span::Always) => Span::Always,
            (Span::Never, Span::Never) => Span::Never,
            _ => Span::Sometimes,
        })
    }
}

fn span_of(intervals: &[&Interval], today: Date) -> Span {
    let (mut ever, mut always) = (false, true);
    // From yesterday: elsewhere it is that day still.
    let first = today.checked_sub(1.day()).unwrap_or(today);
    let last = date(today.year().saturating_add(YEARS), 12, 31);
    for day in first.series(1.day()).take_while(|day| *day <= last) {
        let mut spans: Vec<(u16, u16)> =
            intervals.iter().flat_map(|interval| interval.minutes_of(day)).collect();
        spans.sort_unstable();
        ever |= !spans.is_empty();
        let reached =
            spans.iter().fold(
                0,
                |reached, (start, end)| {
                    if *start <= reached { reached.max(*end) } else { reached }
                },
            );
        always &= reached >= MINUTES;
        if ever && !always {
            return Span::Sometimes;
        }
    }
    if always { Span::Always } else { Span::Never }
}

impl Interval {
    fn read(node: &Node) -> Result<Self, Fault> {
        let zone = node.text_of("location")?.or(node.text_of("time_zone")?);
        Ok(Self {
            times: list(node, "times", times)?,
            weekdays: list(node, "weekdays", |item| range(item, |text| position(&WEEKDAYS, text)))?,
            days_of_month: list(node, "days_of_month", |item| range(item, number))?,
            months: list(node, "months", |item| {
                range(item, |text| {
                    position(&MONTHS, text).map(|month| month.saturating_add(1)).or(number(text))
                })
            })?,
            years: list(node, "years", |item| range(item, number))?,
            zone: zone.unwrap_or("UTC").to_owned(),
        })
    }

    /// The minutes of a day that it covers.
    fn minutes_of(&self, day: Date) -> Vec<(u16, u16)> {
        let holds = |ranges: &Option<Vec<(i16, i16)>>, value: i16| {
            let within = |(first, last): &(i16, i16)| (*first..=*last).contains(&value);
            ranges.as_ref().is_none_or(|ranges| ranges.iter().any(within))
        };
        let length = i16::from(day.days_in_month());
        let of_month = self.days_of_month.as_ref().is_none_or(|ranges| {
            ranges.iter().any(|(first, last)| {
                let from_start =
                    |n: i16| if n < 0 { length.saturating_add(n).saturating_add(1) } else { n };
                (from_start(*first)..=from_start(*last)).contains(&i16::from(day.day()))
            })
        });
        let weekday = i16::from(day.weekday().to_sunday_zero_offset());
        if of_month
            && holds(&self.weekdays, weekday)
            && holds(&self.months, i16::from(day.month()))
            && holds(&self.years, day.year())
        {
            return self.times.clone().unwrap_or_else(|| vec![(0, MINUTES)]);
        }
        Vec::new()
    }
}

const WEEKDAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

fn position(names: &[&str], text: &str) -> Option<i16> {
    let lower = text.to_lowercase();
    names.iter().position(|name| *name == lower).and_then(|index| i16::try_from(index).ok())
}

fn number(text: &str) -> Option<i16> {
    text.parse().ok()
}

fn list<T>(
    node: &Node,
    key: &str,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Result<Option<Vec<T>>, Fault> {
    let items = node.get(key).map(|list| list.items()?.iter().map(&read).collect());
    items.transpose()
}

/// `monday:friday`, or `monday` alone.
fn range(node: &Node, read: impl Fn(&str) -> Option<i16>) -> Result<(i16, i16), Fault> {
    let text = node.text()?;
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let both = read(first.trim()).zip(read(last.trim()));
    both.ok_or_else(|| Fault::new(node.line, format!("{text:?} is not a range here")))
}

fn times(node: &Node) -> Result<(u16, u16), Fault> {
    let time = |key| {
        let text = node.text_of(key)?.unwrap_or_default();
        let minutes = text.split_once(':').and_then(|(hours, minutes)| {
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            hours.checked_mul(60)?.checked_add(minutes).filter(|all| *all <= MINUTES)
        });
        minutes.ok_or_else(|| Fault::new(node.line, format!("{key}: {text:?} is not a time")))
    };
    let (start, end) = (time("start_time")?, time("end_time")?);
    if start >= end {
        return Err(Fault::new(node.line, "start_time must be before end_time"));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::yaml;

    fn span(intervals: &str) -> Span {
        let text = format!("time_intervals: [{{name: x, time_intervals: {intervals}}}]");
        let node = yaml::read(&text).expect("YAML").expect("a document");
        let intervals = Intervals::read(&node).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        intervals.span_from(&["x".to_owned()], date(2026, 11, 28))
    }

    #[test]
    fn what_is_covered_is_told() {
        for (expected, intervals) in [
            (Span::Never, "[]"),
            (Span::Never, ""),
            (Span::Always, "[{}]"),
            (Span::Always, "[{times: [{start_time: '00:00', end_time: '24:00'}]}]"),
            (Span::Never, "[{times: []}]"),
            (Span::Always, "[{times: }]"),
            (Span::Sometimes, "[{times: [{start_time: '00:00', end_time: '23:59'}]}]"),
            (
                Span::Always,
                "[{times: [{start_time: '00:00', end_time: '12:00'}]}, \
                  {times: [{start_time: '11:00', end_time: '24:00'}]}]",
            ),
            (
                Span::Sometimes,
                "[{times: [{start_time: '00:00', end_time: '12:00'}]}, \
                  {times: [{start_time: '12:00', end_time: '24:00'}], location: Europe/Berlin}]",
            ),
            (Span::Always, "[{weekdays: ['sunday:saturday']}]"),
            (Span::Sometimes, "[{weekdays: ['Monday:Friday']}]"),
            (Span::Always, "[{weekdays: ['monday:friday']}, {weekdays: [saturday, sunday]}]"),
            (Span::Always, "[{days_of_month: ['1:-1']}]"),
            (Span::Sometimes, "[{days_of_month: ['1:28']}]"),
            (Span::Always, "[{months: ['january:june', '7:12']}]"),
            (Span::Never, "[{years: ['2020:2025']}]"),
            (Span::Sometimes, "[{years: ['2026:2030']}]"),
            (Span::Always, "[{years: ['2000:9999']}]"),
            (Span::Never, "[{months: [february], days_of_month: [30]}]"),
            (Span::Sometimes, "[{months: [2], days_of_month: [29]}]"),
        ] {
            assert_eq!(span(intervals), expected, "{intervals}");
        }
    }
}
