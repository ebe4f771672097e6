//! A suggestion for people. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::count::{Kind, Tally, emergency, red};
use super::prometheus::Row;
use super::{Question, whole};
use crate::commands::columns::{Column, table, wrapped};
use crate::counted::counted;
use crate::policy::duration::spoken;
use crate::printable::printable;

/// How many of the largest groups are shown.
const LARGEST: usize = 5;

/// The suggestion as text; `is_raised` is whether the exporters show no groups as small as was asked
/// for.
pub(super) fn tell(
    question: &Question,
    is_raised: bool,
    (since, until): (Timestamp, Timestamp),
    tally: &Tally,
    rows: &[Row],
) -> String {
    let Question { prometheus, least, hits, width, step, .. } = question;
    let mut text = String::new();
    let mut say = |sentence: &str| {
        text.push_str(&wrapped(sentence, *width));
        text.push('\n');
    };
    say(&format!(
        "Prometheus {prometheus}, {} to {} UTC: groups of at least {least} processes, the largest \
         count of each {}.",
        minute(since),
        minute(until),
        spoken(*step)
    ));
    if is_raised {
        say(&format!(
            "Not all exporters show groups of fewer than {least} processes \
             (--collector.min-processes), so smaller thresholds are not looked at."
        ));
    }
    if !tally.classes.are_loaded {
        say(
            "Prometheus has not loaded procstorm's rules: the classes are those of the shipped rules.",
        );
    }
    for pattern in &tally.classes.unknown {
        say(&format!("This pattern of the rules is not understood here and left out: {pattern}"));
    }
    match tally.exempt() {
        0 => {}
        1 => say("1 group is left out: the table of exemptions exempts it."),
        count => {
            say(&format!("{count} groups are left out: the table of exemptions exempts them."))
        }
    }
    if tally.kinds().next().is_none() && tally.exempt() > 0 {
        say(&format!("No other reached {least} in this time: nothing is suggested."));
        return text;
    }
    if tally.kinds().next().is_none() {
        say(&format!(
            "No series of procstorm_processes reached {least} in this time: nothing is suggested. \
             Does Prometheus scrape the exporter, and does it keep its history for so long?"
        ));
        return text;
    }
    let days = days(since, until);
    let mut suggested = String::new();
    for kind in tally.kinds() {
        let (role, class) = kind;
        let present = of_kind(rows, kind);
        let numbers: Vec<u64> = present.iter().filter_map(|row| whole(row.threshold)).collect();
        let meanings = tally.meanings(kind, *least, &numbers);
        let lines: Vec<_> = meanings
            .iter()
            .map(|one| {
                let is_here = |row: &&&Row| whole(row.threshold) == Some(one.threshold);
                let levels: BTreeSet<_> =
                    present.iter().filter(is_here).map(|row| row.level.as_str()).collect();
                vec![
                    one.threshold.to_string(),
                    one.users.to_string(),
                    one.alerts.to_string(),
                    levels.into_iter().collect::<Vec<_>>().join(" "),
                ]
            })
            .collect();
        let columns = [
            Column::number("THRESHOLD"),
            Column::number("USERS"),
            Column::number("ALERTS"),
            Column::text("NOW"),
        ];
        text.push_str(&format!("\nROLE {}, CLASS {}\n", printable(role), printable(class)));
        text.push_str(&table(&columns, &lines, *width));
        text.push_str("\nThe largest groups:\n");
        text.push_str(&largest(tally, kind, *width));
        let red = red(&meanings, *hits);
        let emergency = emergency(&meanings, days, red);
        if let (None, Some(red)) = (emergency, red) {
            suggested.push_str(&no_emergency(kind, red));
        }
        for (level, threshold) in [("emergency", emergency), ("red", red)] {
            let playbook =
                present.iter().find(|row| row.level == level && !row.playbook.is_empty());
            let playbook = playbook.map(|row| row.playbook.as_str());
            if let Some(threshold) = threshold {
                suggested.push_str(&yaml_row(level, kind, threshold, playbook));
            }
        }
    }
    text.push_str("\nROWS FOR THE TABLE in procstorm.rules.yml\n");
    text.push_str(&wrapped(&chosen_by(*hits), *width));
    text.push('\n');
    text.push_str(&suggested);
    text
}

/// The rows of the table that hold for a role and class: its own, or the default of its role.
fn of_kind<'r>(rows: &'r [Row], (role, class): &Kind) -> Vec<&'r Row> {
    let of = |wanted: &str, level: &str| {
        rows.iter().find(|row| row.role == *role && row.class == wanted && row.level == level)
    };
    let levels: BTreeSet<_> = rows.iter().map(|row| row.level.as_str()).collect();
    levels
        .into_iter()
        .filter_map(|level| of(class, level).or_else(|| of("default", level)))
        .collect()
}

fn largest(tally: &Tally, kind: &Kind, width: Option<usize>) -> String {
    let columns = [
        Column::number("PROCESSES"),
        Column::text("USER"),
        Column::text("COMMAND"),
        Column::text("HOST"),
        Column::fixed("WHEN (UTC)"),
    ];
    let largest = tally.largest(kind);
    let rows = largest.iter().take(LARGEST).map(|(group, count, time)| {
        let when = Timestamp::from_second(*time).map(minute).unwrap_or_default();
        vec![count.to_string(), group.user.clone(), group.command.clone(), group.host.clone(), when]
    });
    table(&columns, &rows.collect::<Vec<_>>(), width)
}

/// A row as the shipped table has them.
fn yaml_row(level: &str, (role, class): &Kind, threshold: u64, playbook: Option<&str>) -> String {
    let playbook =
        playbook.map(|playbook| format!(", playbook: {}", word(playbook))).unwrap_or_default();
    format!(
        "      - {{record: 'role_class:procstorm_processes:threshold', expr: vector({threshold}), \
         labels: {{level: {level}, role: {}, class: {}{playbook}}}}}\n",
        word(role),
        word(class)
    )
}

/// By what the suggested rows are chosen.
fn chosen_by(hits: u64) -> String {
    let reached = match hits {
        0 => "no user".to_owned(),
        hits => format!("at most {}", counted(hits, "user", "users")),
    };
    format!(
        "A red row is at the first threshold that {reached} reached (--hits), an emergency row at the \
         first with at most one alert a day, if it is below the red row. If there was a storm in this \
         time, a red row above it would not have ended it: choose by the tables."
    )
}

/// Why there is no emergency row, as a comment among the rows.
fn no_emergency((role, class): &Kind, red: u64) -> String {
    format!(
        "      # No emergency row for role {}, class {}: of the thresholds below {red}, none \
         had at most one alert a day.\n",
        word(role),
        word(class)
    )
}

/// A text as YAML: in quotes unless it is a plain name.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_plain) {
        return text.to_owned();
    }
    crate::printable::escaped(&serde_json::Value::from(text).to_string())
}

fn days(since: Timestamp, until: Timestamp) -> u64 {
    let hours = until.duration_since(since).as_hours();
    u64::try_from(hours.saturating_add(23).checked_div(24).unwrap_or_default()).unwrap_or_default()
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_yaml_whatever_the_names() {
        let kind = |role: &str, class: &str| (role.to_owned(), class.to_owned());
        let shipped = "      - {record: 'role_class:procstorm_processes:threshold', expr: vector(90), \
                       labels: {level: red, role: mail, class: imapd, playbook: imapd_storm}}\n";
        assert_eq!(yaml_row("red", &kind("mail", "imapd"), 90, Some("imapd_storm")), shipped);
        let odd = yaml_row("red", &kind("", "a\u{9b}: {b"), 90, None);
        let rows: serde_json::Value = serde_saphyr::from_str(&odd).expect("YAML");
        assert_eq!(rows[0]["labels"]["class"], "a\u{9b}: {b");
        assert_eq!(rows[0]["labels"]["role"], "");
        assert!(odd.chars().all(|c| c == '\n' || !c.is_control()), "{odd:?}");
        assert!(chosen_by(0).contains("that no user reached"));
        assert!(chosen_by(1).contains("that at most 1 user reached"));
        let none = no_emergency(&kind("", "a\n- b"), 90);
        assert!(none.trim_start().starts_with('#') && none.lines().count() == 1, "{none:?}");
    }
}
