//! `rate_limit`: how many requests are answered, from all clients together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::Deserialize;

use super::super::{Response, reply};
use super::faults::Faults;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRate {
    interval: Option<RawInterval>,
    burst: Option<i64>,
}

/// A span of time in Go's writing, or a number of nanoseconds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawInterval {
    Nanoseconds(i64),
    Text(String),
}

/// One request each `interval`, and up to `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// `None` where nothing is limited: there is no interval, or it is 0.
    pub(super) fn validate(raw: RawRate, faults: &mut Faults) -> Option<Self> {
        let interval = match raw.interval? {
            RawInterval::Nanoseconds(number) => {
                u64::try_from(number).map(Duration::from_nanos).ok()
            }
            RawInterval::Text(text) => go_duration(&text),
        };
        let Some(interval) = interval else {
            let problem = "not a duration of at least 0 (examples: 500ms, 1s, 1m30s)";
            faults.add("rate_limit.interval", problem);
            return None;
        };
        if interval.is_zero() {
            return None;
        }
        match u32::try_from(raw.burst.unwrap_or_default()) {
            Ok(burst @ 1..) => Some(Self { interval, burst }),
            Ok(0) | Err(_) => {
                let problem = "must be at least 1: else every request is refused";
                faults.add("rate_limit.burst", problem);
                None
            }
        }
    }
}

/// A span of time as Go's `time.ParseDuration` reads it; `None` if it is none, or below 0.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let unit = match unit {
            "ns" => Duration::from_nanos(1),
            "us" | "\u{b5}s" | "\u{3bc}s" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        // Not "." and not "1.2.3", which are no numbers.
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(unit.as_secs_f64() * number).ok()?;
        sum = sum.checked_add(part)?;
        if tail.is_empty() {
            return Some(sum);
        }
        rest = tail;
    }
}

/// Counts requests against a [`Rate`].
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// When all that was answered so far would have been answered at one request an interval.
    paid_until: Mutex<Option<Instant>>,
}

impl Limiter {
    /// `None` if the request may pass, else 429.
    pub(super) fn refuse(&self, rate: Option<Rate>) -> Option<Response> {
        let passes = rate.is_none_or(|rate| self.passes(rate, Instant::now()));
        (!passes).then(|| reply::text(StatusCode::TOO_MANY_REQUESTS, "too many requests\n"))
    }

    fn passes(&self, rate: Rate, now: Instant) -> bool {
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid_until.map_or(now, |paid| paid.max(now));
        let ahead = from.saturating_duration_since(now);
        if ahead > rate.interval.saturating_mul(rate.burst - 1) {
            return false;
        }
        *paid_until = from.checked_add(rate.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_in_go() {
        for (text, milliseconds) in
            [("1s", 1000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("0", 0), ("0s", 0)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1d", "1.2.3s", ".s", "1s ", "ten"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let rate = Rate { interval: Duration::from_secs(1), burst: 3 };
        let passed = (0..10).filter(|_| limiter.passes(rate, start)).count();
        assert_eq!(passed, 3);
        assert!(!limiter.passes(rate, start + Duration::from_millis(900)));
        assert!(limiter.passes(rate, start + Duration::from_millis(1100)));
        assert!(!limiter.passes(rate, start + Duration::from_millis(1200)));
        let later = start + Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| limiter.passes(rate, later)).count(), 3, "never more");
    }
}
