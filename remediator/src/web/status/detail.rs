//! The HTML of one remediation's page.

use jiff::Timestamp;
use maud::{Markup, html};
use procstorm_toolkit::web::page::document;

use super::overview::{links, result};
use super::view::{Event, RemediationPage, StepView};
use super::wording::{cell, count, time_of, took_or_dash, words};
use crate::printable::printable;

/// `GET /remediations/ID`: one remediation with each step.
#[must_use]
pub fn remediation(view: &RemediationPage) -> String {
    let run = &view.remediation;
    let title = format!("Remediation {} on {}", run.id, printable(&view.host));
    let body = html! {
        nav aria-label="Pages" { p { a href="/" { "Status page" } } }
        h1 { (title) }
        p { (result(run)) " " (printable(&run.summary)) }
        @if let Some(meaning) = view.meaning { p.faint { "That means: " (meaning) "." } }
        (links(&view.links))
        dl {
            (fact("User", &run.user))
            (fact("Command", &run.command))
            (fact("Playbook", &run.playbook))
            (words_of("Mode", if run.dry_run { "dry run: nothing was touched" } else { "live" }))
            (words_of("Processes", &format!("{} before, {} after", count(run.before), count(run.after))))
            (words_of("Began", &time_of(&run.started)))
            (words_of("Took", &took_or_dash(run.milliseconds)))
            @if let Some(id) = view.repeats {
                dt { "Recurrence" } dd { "The storm came back after "
                    a href={ "/remediations/" (id) } { "remediation " (id) } "." }
            }
            @for path in &run.archives { (fact("Mail saved as", path)) }
            @for why in &run.archive_failures { (fact("Mail not saved", why)) }
        }
        (timeline(&view.events))
        @if !view.restore.is_empty() { (restore(&view.restore)) }
        h2 { "Steps" }
        @if view.steps.is_empty() { p { "None was taken." } }
        @for step in &view.steps { (step_card(step)) }
        h2 { "The alert that asked" }
        @if view.alert.is_empty() { p { "The journal no longer has it." } } @else {
            ul.labels { @for (name, value) in &view.alert {
                li { code { (printable(name)) "=\"" (printable(value)) "\"" } }
            } }
        }
    };
    document(&title, &body)
}

fn timeline(events: &[Event]) -> Markup {
    let before = std::iter::once(None).chain(events.iter().map(|event| Some(event.at)));
    html! {
        h2 { "What happened" }
        table {
            caption { "Times are UTC; the second column counts from the row before." }
            thead { tr {
                th scope="col" { "Time" } th.number scope="col" { "After" } th scope="col" { "What" }
            } }
            tbody { @for (event, before) in events.iter().zip(before) { tr {
                td data-label="Time" { time datetime=(event.at) { (cell(event.at)) } }
                td.number data-label="After" { (after(before, event.at)) }
                td data-label="What" { span { (printable(&event.what)) } }
            } } }
        }
    }
}

/// How long after the row before something was.
fn after(before: Option<Timestamp>, at: Timestamp) -> String {
    let passed = before.map(|before| at.duration_since(before).as_millis());
    took_or_dash(passed.and_then(|ms| u64::try_from(ms).ok()))
}

fn restore(commands: &[String]) -> Markup {
    html! {
        h2 { "Put the mail back" }
        p { "Only if the mailbox is torn, empty or gone. Close the user's sessions, and run this as \
             root on this host. It compares the saved mail with the mailbox and changes nothing; with "
            code { "--apply" } " it appends the messages that the mailbox lacks." }
        @for command in commands { pre { code { (printable(command)) } } }
    }
}

fn step_card(step: &StepView) -> Markup {
    let class = if step.good { "good" } else { "bad" };
    // What is only planned is not done.
    let class = if matches!(step.outcome.as_str(), "planned" | "dry_run") { "dry" } else { class };
    html! {
        section.step {
            h3 { (step.title) ": " span class=(class) { (printable(&words(&step.outcome))) } }
            dl {
                dt { "Step" } dd { code { (printable(&step.name)) } }
                (words_of("Began", &time_of(&step.started)))
                (words_of("Took", &took_or_dash(step.milliseconds)))
                @for (name, value) in &step.facts { (fact(name, value)) }
                @if !step.pids.is_empty() { (fact("Pids", &pids(&step.pids))) }
            }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { dt { (printable(name)) } dd.mono { (printable(value)) } }
}

fn words_of(name: &str, value: &str) -> Markup {
    html! { dt { (name) } dd { (printable(value)) } }
}

fn pids(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::overview::tests::{overview_of, run};
    use super::super::view::Link;
    use super::*;

    fn page() -> RemediationPage {
        let at = |ms| Timestamp::from_millisecond(ms).expect("a time");
        RemediationPage {
            host: "moscow".to_owned(),
            remediation: run(),
            meaning: Some("all were killed"),
            events: vec![
                Event { at: at(0), what: "the alert begins".to_owned() },
                Event { at: at(3_700), what: "the notification arrives".to_owned() },
            ],
            repeats: Some(6),
            restore: vec!["procstorm-remediator restore --user alice".to_owned()],
            alert: vec![("alertname".to_owned(), "Storm".to_owned())],
            steps: vec![StepView {
                title: "Save the mail file",
                name: "archive_mail_file".to_owned(),
                started: "2026-11-24T06:00:00Z".to_owned(),
                outcome: "saved".to_owned(),
                good: true,
                milliseconds: Some(12),
                facts: Vec::new(),
                pids: vec![12, 34],
            }],
            links: vec![Link { name: "Silence this alert", url: "https://am/#/x".to_owned() }],
        }
    }

    #[test]
    fn it_tells_what_happened_when_and_how_to_put_the_mail_back() {
        let page = remediation(&page());
        for text in [
            "That means: all were killed.",
            "3.7 s",
            "procstorm-remediator restore --user alice",
            "/remediations/6",
            "Save the mail file",
            "12 34",
            "alertname=&quot;Storm&quot;",
            "https://am/#/x",
        ] {
            assert!(page.contains(text), "{text} is missing in {page}");
        }
    }

    #[test]
    fn a_hostile_name_stays_text_on_one_line() {
        let mut hostile = run();
        hostile.command = "<script>alert(1)</script>\"'\n\u{202e}".to_owned();
        hostile.verdict = "<b>".to_owned();
        let mut detail = page();
        detail.remediation = hostile.clone();
        detail.alert = vec![("<i>".to_owned(), "\"><img src=x>".to_owned())];
        detail.steps = vec![StepView {
            title: "",
            name: "<u>".to_owned(),
            started: String::new(),
            outcome: "<s>".to_owned(),
            good: false,
            milliseconds: None,
            facts: vec![("<p>".to_owned(), "</main>".to_owned())],
            pids: vec![12, 34],
        }];
        for page in [overview_of(vec![hostile]), remediation(&detail)] {
            for markup in ["<script", "<b>", "<i>", "<img", "<u>", "<s>", "<p></p>", "\u{202e}"] {
                assert!(!page.contains(markup), "{markup} in {page}");
            }
            assert_eq!(page.matches("</main>").count(), 1);
            assert!(page.contains("&lt;script&gt;") && page.contains("??"));
        }
    }
}
