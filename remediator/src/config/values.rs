//! The texts of the configuration that stand for a quantity: spans of time, sizes, rates.
//!
//! Each reader returns the value, or what is wrong as half a sentence that can stand behind a key.

use std::time::Duration;

use crate::mailbox::Reserve;

/// How often something may happen: at most `count` times within any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many times at most; never 0.
    pub count: u32,
    /// The length of the sliding window; never zero.
    pub window: Duration,
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The units of a span of time, in milliseconds, as Prometheus writes them; a year has 365 days.
const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
    ("d", DAY),
    ("w", 7 * DAY),
    ("y", 365 * DAY),
];

/// The units of a size, in bytes.
const SIZES: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A span of time as Prometheus writes it: `30s`, `1h30m`, `500ms`; `0` alone needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is no span of time such as 30s, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(fault)?;
        let length = scale(&UNITS, unit).ok_or_else(fault)?;
        let part = number.checked_mul(length).ok_or_else(fault)?;
        total = total.checked_add(part).ok_or_else(fault)?;
        rest = after;
    }
    if text.is_empty() { Err(fault()) } else { Ok(Duration::from_millis(total)) }
}

/// A size: `512MiB`, `10GB`, or bytes without a unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let fault = || format!("{text:?} is no size such as 512MiB or 10GB");
    let (number, unit, after) = number_and_unit(text).ok_or_else(fault)?;
    let length = scale(&SIZES, unit).filter(|_| after.is_empty()).ok_or_else(fault)?;
    number.checked_mul(length).ok_or_else(fault)
}

/// A reserve: `5%`, or a size.
pub(super) fn reserve(text: &str) -> Result<Reserve, String> {
    let fault = || format!("{text:?} is neither a percentage from 0% to 99% nor a size");
    match text.strip_suffix('%') {
        Some(number) => match number.parse() {
            Ok(percent @ 0..=99) => Ok(Reserve::Percent(percent)),
            Ok(_) | Err(_) => Err(fault()),
        },
        None => size(text).map(Reserve::Bytes).map_err(|_size| fault()),
    }
}

/// A rate: `12/h`, `3/15m`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let fault = || format!("{text:?} is no rate such as 12/h or 3/15m");
    let (count, window) = text.split_once('/').ok_or_else(fault)?;
    let count = count.parse().map_err(|_number| fault())?;
    let window = match scale(&UNITS, window) {
        Some(unit) => Duration::from_millis(unit),
        None => duration(window).map_err(|_span| fault())?,
    };
    if count == 0 || window.is_zero() {
        return Err(format!("{text:?} would allow nothing; write dry_run: true to only watch"));
    }
    Ok(Rate { count, window })
}

/// Splits `1h30m` into 1, `h` and `30m`.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let (number, rest) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (unit, after) =
        rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    Some((number.parse().ok()?, unit, after))
}

fn scale(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length)
}

/// A span of time as a person would write it: `1h30m`, `30s`, `0s`.
#[must_use]
pub fn spoken(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)] {
        if let Some(number) = rest.checked_div(length).filter(|number| *number > 0) {
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
        for (text, ms) in
            [("0", 0), ("30s", 30_000), ("1h30m", 5_400_000), ("500ms", 500), ("1d", DAY)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "30", "3 s", "-1s", "1.5h", "99999999999999999999s", "18446744073709551615y"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_spoken_as_they_are_read() {
        for text in ["30s", "1h30m", "500ms", "2d", "1m0s"] {
            let span = duration(text).expect("a span");
            assert_eq!(duration(&spoken(span)), Ok(span), "{text}");
        }
        assert_eq!(spoken(Duration::ZERO), "0s");
    }

    #[test]
    fn rates_sizes_and_reserves() {
        assert_eq!(rate("12/h"), Ok(Rate { count: 12, window: Duration::from_secs(3600) }));
        assert_eq!(rate("3/15m"), Ok(Rate { count: 3, window: Duration::from_secs(900) }));
        for text in ["", "12", "12/", "/h", "0/h", "12/0", "-1/h", "1/x"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("10"), Ok(10));
        assert_eq!(reserve("5%"), Ok(Reserve::Percent(5)));
        assert_eq!(reserve("1GiB"), Ok(Reserve::Bytes(1 << 30)));
        for text in ["100%", "-1%", "%", "1XB", "1MiB2", "99999999999TiB"] {
            assert!(reserve(text).is_err(), "{text}");
        }
    }
}
