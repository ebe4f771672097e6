//! The durations of Prometheus and Alertmanager: `4m30s`, `1d`, `0s`.

use std::time::Duration;

/// The units, longest first, as they must follow one another
/// (`ParseDuration` in Prometheus' `model/time.go`).
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The duration that a text stands for; `None` where it stands for none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_prometheus_reads_them() {
        for (text, ms) in
            [("0s", 0), ("0", 0), ("5s", 5_000), ("4m30s", 270_000), ("1d", 86_400_000), ("1ms", 1)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5s4m", "5x", "-1s", "1.5h", "99999999999999999999s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
