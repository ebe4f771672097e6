//! Times, durations and counts as a person says them.

use jiff::Timestamp;

/// A time as a person reads it: `2026-11-24 06:00:00 UTC`.
#[must_use]
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The same for a column of times, which says by itself that they are UTC.
#[must_use]
pub fn cell(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same of a time as text; a text that is not a time stays as it is.
#[must_use]
pub fn time_of(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), time)
}

/// The same for a column.
#[must_use]
pub fn cell_of(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), cell)
}

/// How long something took: `85 ms`, `2.1 s`, `3 min 5 s`, `2 h 0 min`.
#[must_use]
pub fn took(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    let tenth = milliseconds % 1_000 / 100;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..=59 => format!("{seconds}.{tenth} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The same, where it may not be known.
#[must_use]
pub fn took_or_dash(milliseconds: Option<u64>) -> String {
    milliseconds.map_or_else(|| "–".to_owned(), took)
}

/// A number, where it may not be known.
#[must_use]
pub fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| number.to_string())
}

/// A label such as `none_seen` as words.
#[must_use]
pub fn words(label: &str) -> String {
    label.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_a_duration_are_read_at_a_glance() {
        assert_eq!(time_of("2026-11-24T06:00:00.123Z"), "2026-11-24 06:00:00 UTC");
        assert_eq!(time_of("<b>"), "<b>");
        for (milliseconds, said) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (2_199, "2.1 s"),
            (59_999, "59.9 s"),
            (185_000, "3 min 5 s"),
            (7_200_000, "2 h 0 min"),
        ] {
            assert_eq!(took(milliseconds), said);
        }
    }
}
