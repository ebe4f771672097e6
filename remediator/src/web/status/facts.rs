//! What a step did, as names and values that a page shows.

use crate::engine::{StepDetail, Unreadable};
use crate::steps::archive::note::{Fate, FormNote, LockNote};
use crate::steps::archive::{Archived, Form};
use crate::steps::kill::{Changed, KillVerdict, Other, Replacement, Report, Traced, Zombie};

/// How many entries of a list are shown; the journal has up to a thousand.
const SHOWN_MAX: usize = 20;

/// How many characters are shown of a record that cannot be read.
const TEXT_MAX: usize = 4096;

type Fact = (String, String);

/// What the step did.
#[must_use]
pub fn of(detail: &StepDetail) -> Vec<Fact> {
    match detail {
        StepDetail::Archives(notes) => notes.iter().flat_map(mail_file).collect(),
        StepDetail::Kill(report) => kill(report),
        StepDetail::Lock(note) => vec![lock(note)],
    }
}

/// The processes that were sent a signal.
#[must_use]
pub fn pids(detail: &StepDetail) -> Vec<i32> {
    match detail {
        StepDetail::Kill(report) => report.pids.clone(),
        StepDetail::Archives(_) | StepDetail::Lock(_) => Vec::new(),
    }
}

/// A record that cannot be read: why, and its text.
#[must_use]
pub fn unreadable(record: &Unreadable, text: &str) -> Vec<Fact> {
    let shown: String = text.chars().take(TEXT_MAX).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    vec![fact("Cannot be read", record), fact("Record", format!("{shown}{rest}"))]
}

fn fact(name: &str, value: impl ToString) -> Fact {
    (name.to_owned(), value.to_string())
}

fn mail_file(note: &FormNote) -> Vec<Fact> {
    let name = match note.form {
        Form::Mbox => "Mailbox",
        Form::Pop => "POP file",
    };
    let mut facts = vec![fact(name, note.source.display()), fact("Result", note)];
    if let Fate::Archived(Archived { method, lost, elapsed, .. }) = &note.fate {
        facts.push(fact("Copied by", method.label()));
        facts.push(fact("Copied in", format!("{elapsed:.1?}")));
        if !lost.is_empty() {
            let lost: Vec<_> = lost.iter().map(|attribute| attribute.label()).collect();
            facts.push(fact("Attributes not kept", lost.join(", ")));
        }
    }
    facts
}

fn lock(note: &LockNote) -> Fact {
    fact("Result", note)
}

fn kill(report: &Report) -> Vec<Fact> {
    // What was not counted is unknown, and not zero.
    let left = report.left.map_or_else(|| "unknown".to_owned(), |left| left.to_string());
    let mut facts = vec![
        fact("Found", report.matched),
        fact("Asked to exit (SIGTERM)", report.asked),
        fact("Ended by SIGTERM", report.terminated),
        fact("Sent SIGKILL", report.signalled),
        fact("Ended by SIGKILL", report.exited),
        fact("Ended otherwise", report.gone),
        fact("Alive afterwards", left),
        fact("Threshold", report.threshold),
        fact("No right to signal", report.denied),
        fact("Renamed and let go", report.changed),
        fact("Left alone in other pid namespaces", report.nested),
        fact("Sent SIGKILL and not exited", report.stuck_count),
        fact("Appeared during the kill", report.replacement_count),
        fact("Dead and not reaped", report.zombie_count),
        fact("Rounds of signals", report.rounds),
    ];
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

/// A list on one line; `None` if it is empty.
fn list<T>(name: &str, entries: &[T], shown: impl Fn(&T) -> String) -> Option<Fact> {
    if entries.is_empty() {
        return None;
    }
    let mut texts: Vec<_> = entries.iter().take(SHOWN_MAX).map(shown).collect();
    match entries.len().saturating_sub(SHOWN_MAX) {
        0 => {}
        more => texts.push(format!("and {more} more")),
    }
    Some(fact(name, texts.join(", ")))
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
    use crate::steps::archive::{Attribute, Method};

    fn value<'f>(facts: &'f [Fact], name: &str) -> &'f str {
        let found = facts.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("{name} in {facts:?}"), |(_, value)| value)
    }

    #[test]
    fn a_kills_numbers_are_shown_in_words_and_what_was_not_counted_is_unknown() {
        let mut report = Report::idle(KillVerdict::Unfinished, Duration::from_millis(5));
        (report.matched, report.asked, report.terminated) = (10, 9, 4);
        (report.signalled, report.exited) = (6, 5);
        let facts = of(&StepDetail::Kill(Box::new(report)));
        let shown: Vec<_> =
            facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("Found", "10"),
            ("Asked to exit (SIGTERM)", "9"),
            ("Ended by SIGTERM", "4"),
            ("Sent SIGKILL", "6"),
            ("Ended by SIGKILL", "5"),
            ("Ended otherwise", "0"),
            ("Alive afterwards", "unknown"),
            ("Threshold", "0"),
            ("No right to signal", "0"),
            ("Renamed and let go", "0"),
            ("Left alone in other pid namespaces", "0"),
            ("Sent SIGKILL and not exited", "0"),
            ("Appeared during the kill", "0"),
            ("Dead and not reaped", "0"),
            ("Rounds of signals", "0"),
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
        let detail = StepDetail::Kill(Box::new(report));
        assert_eq!(pids(&detail), [1, 2]);
        let facts = of(&detail);
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

    #[test]
    fn a_mail_file_is_shown_with_its_archive_and_what_was_lost() {
        let archived = Archived {
            path: "/var/mail/arc/alice.956900000".into(),
            bytes: 12,
            locked: true,
            changed: false,
            uncertain: false,
            method: Method::ReadWrite,
            dotlock: false,
            lost: vec![Attribute::Acl, Attribute::Owner],
            elapsed: Duration::from_micros(1500),
        };
        let note = FormNote {
            form: Form::Pop,
            source: "/var/mail/.alice.pop".into(),
            fate: Fate::Archived(archived),
        };
        let facts = of(&StepDetail::Archives(vec![note]));
        assert_eq!(value(&facts, "POP file"), "/var/mail/.alice.pop");
        let result = value(&facts, "Result");
        assert!(result.contains("alice.956900000 (12 bytes)"), "{result}");
        assert_eq!(value(&facts, "Copied by"), "read_write");
        assert_eq!(value(&facts, "Copied in"), "1.5ms");
        assert_eq!(value(&facts, "Attributes not kept"), "acl, owner");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_shown_as_text() {
        let text = "x".repeat(TEXT_MAX + 1);
        let row = crate::journal::StepRow {
            id: 1,
            name: "kill_user_proc".to_owned(),
            began: jiff::Timestamp::UNIX_EPOCH,
            ended: Some(jiff::Timestamp::UNIX_EPOCH),
            outcome: Some("stuck".to_owned()),
            good: Some(false),
            detail: Some(text.clone()),
        };
        let record = StepDetail::of(&row).expect("ended").expect_err("not JSON");
        let facts = unreadable(&record, &text);
        assert!(value(&facts, "Cannot be read").contains("ended as \"stuck\""), "{facts:?}");
        assert_eq!(value(&facts, "Record"), format!("{}…", "x".repeat(TEXT_MAX)));
    }
}
