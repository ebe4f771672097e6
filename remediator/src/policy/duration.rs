//! Spans of time, as Prometheus, Alertmanager and the policy write them: `4m30s`, `1d`, `0s`.
//!
//! - [`parse`], [`unit()`]: from a text.
//! - [`spoken`]: to one.

use std::time::Duration;

/// The units in milliseconds, longest first, as they must follow one another
/// (`ParseDuration` in Prometheus' `model/time.go`). A year has 365 days.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The span that a text stands for; `None` where it stands for none. `0` alone needs no unit.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut milliseconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        milliseconds =
            milliseconds.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_millis(milliseconds))
}

/// One of the unit of that name: an hour for `h`.
#[must_use]
pub fn unit(name: &str) -> Option<Duration> {
    let found = UNITS.iter().find(|(unit, _)| *unit == name);
    found.map(|(_, length)| Duration::from_millis(*length))
}

/// A span as a person would write it: `1h30m`, `30s`, `0s`. In days at most.
#[must_use]
pub fn spoken(span: Duration) -> String {
    let [_years, _weeks, units @ ..] = &UNITS;
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in units {
        if let Some(number) = rest.checked_div(*length).filter(|number| *number > 0) {
            text.push_str(&format!("{number}{unit}"));
            rest %= length;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_prometheus_writes_them() {
        for (text, ms) in [
            ("0s", 0),
            ("0", 0),
            ("5s", 5_000),
            ("4m30s", 270_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("1y", 31_536_000_000),
            ("500ms", 500),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "3 s",
            "5s4m",
            "5s5s",
            "5x",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615y",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_spoken_as_they_are_read() {
        for text in ["30s", "1h30m", "500ms", "2d", "1m0s"] {
            let span = parse(text).expect("a span");
            assert_eq!(parse(&spoken(span)), Some(span), "{text}");
        }
        assert_eq!(spoken(Duration::ZERO), "0s");
        assert_eq!(spoken(Duration::from_secs(30 * 24 * 3600)), "30d");
    }
}
