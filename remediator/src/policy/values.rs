//! Quantities of the policy, and the texts that stand for them: spans of time, sizes, rates.
//!
//! Each reader returns the value, or what is wrong as half a sentence that can stand behind a key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// How often something may happen: at most `count` times within any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many times at most; never 0.
    pub count: u32,
    /// The length of the sliding window; never zero.
    pub window: Duration,
}

/// What an archive must leave free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reserve {
    /// This share of the file system, in percent.
    Percent(u8),
    /// This many bytes.
    Bytes(u64),
}

impl Reserve {
    /// In bytes, of a file system of `total` bytes.
    #[must_use]
    pub fn bytes_of(self, total: u64) -> u64 {
        match self {
            // Divided first: no file system is so small that the rounding tells.
            Self::Percent(share) => (total / 100).saturating_mul(u64::from(share)),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// How many archives are kept of each user; without a limit, all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// At most this many archives of each form.
    pub keep: Option<u32>,
    /// None older than this, by the second in its name.
    pub max_age: Option<Duration>,
    /// At most this many bytes on the disk, of both forms together; the oldest go first.
    pub max_bytes: Option<u64>,
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
        assert_eq!(size("2TiB"), Ok(2_199_023_255_552));
        assert_eq!(size("10"), Ok(10));
        assert_eq!(size("4KiB"), Ok(4_096));
        assert_eq!(reserve("5%"), Ok(Reserve::Percent(5)));
        assert_eq!(reserve("1GiB"), Ok(Reserve::Bytes(1 << 30)));
        for text in ["100%", "-1%", "%", "1XB", "1MiB2", "99999999999TiB"] {
            assert!(reserve(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_bytes() {
        assert_eq!(Reserve::Percent(5).bytes_of(1000), 50);
        assert_eq!(Reserve::Percent(100).bytes_of(u64::MAX) / 100, u64::MAX / 100);
        assert_eq!(Reserve::Bytes(7).bytes_of(1000), 7);
    }
}
