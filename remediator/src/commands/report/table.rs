//! A report for people: sentences, then tables as wide as the terminal. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Hit, Refused, Report};
use crate::commands::columns::{Column, table, wrapped};
use crate::counted::counted;
use crate::printable::printable;

/// The report as text.
pub(super) fn tell(report: &Report, span: &str, width: Option<usize>) -> String {
    let Report { host, journal, since, until, .. } = report;
    let mut text = String::new();
    let mut say = |sentence: String| {
        text.push_str(&wrapped(&sentence, width));
        text.push('\n');
    };
    say(format!(
        "Host {}, the last {span}: {} to {} UTC.",
        printable(host),
        minute(*since),
        minute(*until)
    ));
    if !report.has_journal {
        say(format!(
            "There is no journal {}: no daemon has run with this policy, or it keeps its state \
             elsewhere.",
            printable(journal)
        ));
        return text;
    }
    let (dry, live): (Vec<_>, Vec<_>) = report.hits.iter().partition(|hit| hit.dry_run);
    if dry.is_empty() && live.is_empty() {
        say("Nobody was hit, and nobody would have been.".to_owned());
    }
    if !dry.is_empty() {
        say(format!("In dry runs it would have hit {}; nothing was killed.", sum(&dry)));
    }
    if !live.is_empty() {
        say(format!("Live, it hit {}.", sum(&live)));
    }
    for (title, hits) in [("WOULD HAVE BEEN HIT", dry), ("HIT", live)] {
        if !hits.is_empty() {
            text.push_str(&format!("\n{title}\n{}", hit_table(&hits, width)));
        }
    }
    if !report.refusals.is_empty() {
        text.push_str(&format!("\nNOT ACTED ON, AND WHY\n{}", refusal_table(report, width)));
        text.push_str("\nThe last reason of each:\n");
        for refused in &report.refusals {
            let Refused { user, why, reason, .. } = refused;
            text.push_str(&wrapped(
                &format!("  {}, {}: {}", printable(user), printable(why), printable(reason)),
                width,
            ));
            text.push('\n');
        }
    }
    if report.left_out > 0 {
        text.push_str(&format!("\n{} more lines are left out.\n", report.left_out));
    }
    text
}

/// `3 storms of 2 users (390 processes, at most 120 at once)`.
fn sum(hits: &[&Hit]) -> String {
    let users: BTreeSet<_> = hits.iter().map(|hit| &hit.user).collect();
    let add =
        |of: fn(&Hit) -> u64| hits.iter().fold(0, |sum: u64, hit| sum.saturating_add(of(hit)));
    let largest = hits.iter().map(|hit| hit.largest).max().unwrap_or_default();
    format!(
        "{} of {} ({}, at most {largest} at once)",
        counted(add(|hit| hit.times), "storm", "storms"),
        counted(users.len(), "user", "users"),
        counted(add(|hit| hit.processes), "process", "processes")
    )
}

fn hit_table(hits: &[&Hit], width: Option<usize>) -> String {
    let columns = [
        Column::text("USER"),
        Column::text("COMMAND"),
        Column::text("PLAYBOOK"),
        Column::text("VERDICT"),
        Column::number("TIMES"),
        Column::number("LARGEST"),
        Column::fixed("FIRST"),
        Column::fixed("LAST"),
    ];
    let row = |hit: &&Hit| {
        vec![
            hit.user.clone(),
            hit.command.clone(),
            hit.playbook.clone(),
            hit.verdict.clone(),
            hit.times.to_string(),
            hit.largest.to_string(),
            minute(hit.first),
            minute(hit.last),
        ]
    };
    table(&columns, &hits.iter().map(row).collect::<Vec<_>>(), width)
}

fn refusal_table(report: &Report, width: Option<usize>) -> String {
    let columns = [
        Column::text("USER"),
        Column::text("COMMAND"),
        Column::text("PLAYBOOK"),
        Column::text("WHY"),
        Column::number("ALERTS"),
        Column::number("LARGEST"),
        Column::fixed("FIRST"),
        Column::fixed("LAST"),
    ];
    let row = |refused: &Refused| {
        vec![
            refused.user.clone(),
            refused.command.clone(),
            refused.playbook.clone(),
            refused.why.clone(),
            refused.alerts.to_string(),
            refused.largest.map_or_else(|| "-".to_owned(), |largest| largest.to_string()),
            minute(refused.first),
            minute(refused.last),
        ]
    };
    table(&columns, &report.refusals.iter().map(row).collect::<Vec<_>>(), width)
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}
