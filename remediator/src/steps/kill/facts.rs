//! The record of `kill_user_proc`, as the status page shows it.

use super::{Changed, KillVerdict, Other, Replacement, Report, Traced, Zombie};
use crate::outcome::number;
use crate::steps::facts::{Fact, fact, list};
use crate::steps::record::Record;

impl Record for Report {
    fn facts(&self) -> Vec<Fact> {
        kill(self)
    }

    fn pids(&self) -> Vec<i32> {
        self.pids.clone()
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

fn kill(report: &Report) -> Vec<Fact> {
    let mut facts = vec![
        fact("Found", report.matched),
        fact("Asked to exit (SIGTERM)", report.asked),
        fact("Ended by SIGTERM", report.terminated),
        fact("Sent SIGKILL", report.signalled),
        fact("Ended by SIGKILL", report.exited),
        fact("Alive afterwards", number(report.left)),
        fact("Threshold", report.threshold),
        fact("Rounds of signals", report.rounds),
    ];
    // What most kills have none of is shown where there was some.
    let seldom = [
        ("Ended otherwise", report.gone),
        ("Let go alive", report.released),
        ("No right to signal", report.denied),
        ("Renamed and let go", report.changed),
        ("Left alone in other pid namespaces", report.nested),
        ("Sent SIGKILL and not exited", report.stuck_count),
        ("Appeared during the kill", report.replacement_count),
        ("Dead and not reaped", report.zombie_count),
    ];
    facts.extend(seldom.iter().filter(|(_, n)| *n > 0).map(|(name, n)| fact(name, n)));
    facts.extend(reason(&report.verdict));
    facts.extend(list("Renamed to", &report.changed_to, changed));
    facts.extend(list("Not exited", &report.stuck, i32::to_string));
    facts.extend(list("Traced", &report.traced, traced));
    facts.extend(list("Appeared", &report.replacements, replacement));
    facts.extend(list("Not reaped", &report.zombies, zombie));
    facts.extend(list("Parents that do not reap", &report.careless, other));
    facts
}

/// What a verdict says besides its label.
fn reason(verdict: &KillVerdict) -> Option<Fact> {
    match verdict {
        KillVerdict::NoneSeenForMs(ms) => Some(fact("None seen for", format!("{ms} ms"))),
        KillVerdict::Refused(why) | KillVerdict::Failed(why) => Some(fact("Reason", why)),
        KillVerdict::BelowThreshold
        | KillVerdict::Respawning
        | KillVerdict::Stuck
        | KillVerdict::Denied
        | KillVerdict::Blind
        | KillVerdict::LeftAlone
        | KillVerdict::Evaded
        | KillVerdict::NoLongerTrue
        | KillVerdict::Aborted
        | KillVerdict::Unfinished => None,
    }
}

fn changed(one: &Changed) -> String {
    match one.uid {
        Some(uid) => format!("pid {} to {:?} of uid {uid}", one.pid, one.command),
        None => format!("pid {}, which has exited since", one.pid),
    }
}

fn traced(Traced { pid, tracer }: &Traced) -> String {
    format!("pid {pid} by {}", other(tracer))
}

fn replacement(one: &Replacement) -> String {
    let Replacement { pid, parent, parent_command, parent_uid } = one;
    match parent_uid {
        Some(uid) => format!("pid {pid} from {parent} ({parent_command}, uid {uid})"),
        None if parent_command.is_empty() => format!("pid {pid} from {parent}"),
        None => format!("pid {pid} from {parent} ({parent_command})"),
    }
}

fn zombie(Zombie { pid, parent }: &Zombie) -> String {
    format!("pid {pid} of {parent}")
}

fn other(Other { pid, command, uid }: &Other) -> String {
    format!("{pid} ({command}, uid {uid})")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::steps::facts::value;

    #[test]
    fn a_kills_numbers_are_shown_in_words_and_what_was_not_counted_is_unknown() {
        let mut report = Report::idle(KillVerdict::Unfinished, Duration::from_millis(5));
        (report.matched, report.asked, report.terminated) = (10, 9, 4);
        (report.signalled, report.exited, report.changed) = (6, 5, 3);
        let facts = report.facts();
        let shown: Vec<_> =
            facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("Found", "10"),
            ("Asked to exit (SIGTERM)", "9"),
            ("Ended by SIGTERM", "4"),
            ("Sent SIGKILL", "6"),
            ("Ended by SIGKILL", "5"),
            ("Alive afterwards", "unknown"),
            ("Threshold", "0"),
            ("Rounds of signals", "0"),
            ("Renamed and let go", "3"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_kills_lists_are_shown_by_name_and_cut() {
        let replacement = |pid| Replacement {
            pid,
            parent: 9,
            parent_command: "sh".to_owned(),
            parent_uid: Some(0),
        };
        let tracer = Other { pid: 77, command: "gdb".to_owned(), uid: 1001 };
        let report = Report {
            pids: vec![1, 2],
            stuck: vec![6],
            traced: vec![Traced { pid: 6, tracer: tracer.clone() }],
            careless: vec![tracer],
            zombies: vec![Zombie { pid: 4, parent: 5 }],
            changed_to: vec![Changed { pid: 7, uid: Some(1000), command: "a\nb".to_owned() }],
            replacements: (0..22).map(replacement).collect(),
            ..Report::idle(KillVerdict::NoneSeenForMs(82), Duration::ZERO)
        };
        assert_eq!(report.pids(), [1, 2]);
        let facts = report.facts();
        for (name, expected) in [
            ("None seen for", "82 ms"),
            ("Not exited", "6"),
            ("Traced", "pid 6 by 77 (gdb, uid 1001)"),
            ("Parents that do not reap", "77 (gdb, uid 1001)"),
            ("Not reaped", "pid 4 of 5"),
            ("Renamed to", "pid 7 to \"a\\nb\" of uid 1000"),
        ] {
            assert_eq!(value(&facts, name), expected);
        }
        let appeared = value(&facts, "Appeared");
        assert!(appeared.starts_with("pid 0 from 9 (sh, uid 0), pid 1 "), "{appeared}");
        assert!(appeared.ends_with("pid 19 from 9 (sh, uid 0), and 2 more"), "{appeared}");
    }
}
