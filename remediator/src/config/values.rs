//! The texts of the configuration that stand for a quantity: spans of time, sizes, rates.
//!
//! Each reader returns the value, or what is wrong as half a sentence that can stand behind a key.

use std::time::Duration;

use crate::duration;
use crate::mailbox::Reserve;

/// How often something may happen: at most `count` times within any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many times at most; never 0.
    pub count: u32,
    /// The length of the sliding window; never zero.
    pub window: Duration,
}

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

/// A span of time: `30s`, `1h30m`, `500ms`; `0` alone needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .ok_or_else(|| format!("invalid duration {text:?} (examples: 30s, 5m, 1h30m)"))
}

/// A size: `512MiB`, `10GB`, or bytes without a unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let fault = || format!("invalid size {text:?} (examples: 512MiB, 10GB)");
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().map_err(|_number| fault())?;
    let (_, length) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
    number.checked_mul(*length).ok_or_else(fault)
}

/// A reserve: `5%`, or a size.
pub(super) fn reserve(text: &str) -> Result<Reserve, String> {
    let fault =
        || format!("{text:?} is neither a percentage from 0% to 99% nor a size such as 2GiB");
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
    let fault = || format!("invalid rate {text:?} (examples: 12/h, 3/15m)");
    let (count, window) = text.split_once('/').ok_or_else(fault)?;
    let count = count.parse().map_err(|_number| fault())?;
    let window = duration::unit(window).or_else(|| duration::parse(window)).ok_or_else(fault)?;
    if count == 0 || window.is_zero() {
        return Err(format!("{text:?} would allow nothing; write dry_run: true to only watch"));
    }
    Ok(Rate { count, window })
}

#[cfg(test)]
mod tests {
    use super::*;

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
