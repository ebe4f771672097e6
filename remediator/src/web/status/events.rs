//! A remediation's course as a time line.

use jiff::Timestamp;

use super::view::Event;
use super::wording::words;
use crate::counted::counted;
use crate::journal::records::RemediationRow;
use crate::journal::story::Story;
use crate::steps::record;

/// What happened, in the order of the clock.
#[must_use]
pub fn of(record: &RemediationRow, story: &Story) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |at: Option<Timestamp>, what: String| {
        events.extend(at.map(|at| Event { at, what }));
    };
    if let Some(asked) = story.alert.as_ref() {
        let name = asked.labels.get("alertname").map_or("the alert", String::as_str);
        tell(asked.starts_at, format!("{name} begins to fire, as Alertmanager says"));
        tell(Some(asked.received), "its notification arrives".to_owned());
    }
    match story.repeats {
        Some(_) => tell(story.accepted, "the storm has come back".to_owned()),
        None => tell(story.accepted, "the alert is accepted, and on record".to_owned()),
    }
    if let (Some(acted), Some(before)) = (story.acted, record.before) {
        tell(
            Some(acted),
            format!("{} counted; it begins to act", counted(before, "process", "processes")),
        );
    } else {
        tell(story.acted, "it begins to act".to_owned());
    }
    for step in &record.steps {
        let title = record::title(&step.name);
        match (&step.outcome, step.ended) {
            (Some(outcome), ended @ Some(_)) => {
                tell(ended, format!("{title}: {}", words(outcome)));
            }
            (_, None) | (None, _) => tell(Some(step.began), format!("{title}: it begins")),
        }
    }
    if let Some(verdict) = &record.verdict {
        let notices = match story.notifications {
            0 | 1 => String::new(),
            more => format!(" ({more} notifications so far asked for it)"),
        };
        tell(story.ended, format!("it ends as {}{notices}", words(verdict)));
    }
    for outcome in &story.outcomes {
        match (outcome.taken, &outcome.dropped) {
            (taken @ Some(_), _) => {
                tell(taken, "Alertmanager has taken the outcome, and mails it".to_owned());
            }
            (None, Some(why)) => {
                tell(Some(outcome.created), format!("its outcome was given up: {why}"));
            }
            (None, None) => tell(
                Some(outcome.created),
                "its outcome waits until Alertmanager takes it".to_owned(),
            ),
        }
    }
    // A stable sort: of the same instant, the order above.
    events.sort_by_key(|event| event.at);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StepRow;
    use crate::journal::story::{Asked, Outcome};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("a time")
    }

    #[test]
    fn the_time_line_goes_from_the_alert_to_the_mail() {
        let step = StepRow {
            id: 1,
            name: "kill_user_proc".to_owned(),
            began: at(5_000),
            ended: Some(at(6_000)),
            outcome: Some("none_seen".to_owned()),
            good: Some(true),
            detail: None,
        };
        let record = RemediationRow {
            id: 1,
            began: at(4_500),
            user: "alice".to_owned(),
            command: "imapd".to_owned(),
            playbook: "p".to_owned(),
            dry_run: false,
            before: Some(97),
            after: Some(0),
            verdict: Some("none_seen".to_owned()),
            summary: String::new(),
            milliseconds: Some(1_500),
            steps: vec![step],
        };
        let outcome = Outcome { created: at(6_100), taken: Some(at(6_200)), dropped: None };
        let labels = [("alertname".to_owned(), "ProcNumChkRed".to_owned())].into();
        let story = Story {
            alert: Some(Asked { labels, starts_at: Some(at(1_000)), received: at(4_000) }),
            notifications: 3,
            repeats: None,
            accepted: Some(at(4_000)),
            acted: Some(at(4_500)),
            ended: Some(at(6_100)),
            outcomes: vec![outcome],
        };
        let events = of(&record, &story);
        let told: Vec<_> = events.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(
            told,
            [
                "ProcNumChkRed begins to fire, as Alertmanager says",
                "its notification arrives",
                "the alert is accepted, and on record",
                "97 processes counted; it begins to act",
                "End the processes: none seen",
                "it ends as none seen (3 notifications so far asked for it)",
                "Alertmanager has taken the outcome, and mails it",
            ]
        );
        assert!(events.is_sorted_by_key(|event| event.at));
    }
}
