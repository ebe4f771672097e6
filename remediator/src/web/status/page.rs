//! The HTML of the status pages.

use maud::{DOCTYPE, Markup, html};

use super::view::{Mode, Overview, RemediationPage, RemediationView, StepView};
use crate::printable::printable;

/// `GET /`: what the daemon may do, and what it did last.
#[must_use]
pub fn overview(view: &Overview) -> String {
    let title = format!("procstorm remediator on {}", printable(&view.host));
    let body = html! {
        h1 { (title) }
        ul.state {
            @for &mode in &view.modes { (mode_card(mode)) }
            @if let Some(why) = &view.unsaved {
                li.bad { strong { "mail not saved" } span { (printable(why)) } }
            }
            li class=[(view.pending > 0).then_some("work")] {
                strong { (view.pending) " pending" }
                span { "accepted, and not finished" }
            }
            @if view.watched > 0 {
                li {
                    strong { (view.watched) " watched" }
                    span { "finished; watching for a recurrence" }
                }
            }
            @if view.outcomes_pending > 0 {
                li.work {
                    strong { (view.outcomes_pending) " outcomes waiting" }
                    span { "until Alertmanager accepts them" }
                }
            }
            @for why in &view.sandbox {
                li.bad { strong { "sandbox incomplete" } span { (printable(why)) } }
            }
        }
        h2 { "Remediations" }
        @if view.remediations.is_empty() {
            p { "None yet." }
        } @else {
            (table(&view.remediations))
        }
        @if let Some(id) = view.older_before {
            nav aria-label="Pages" { p { a href={ "/?before=" (id) } rel="next" { "Older" } } }
        }
        footer { "procstorm-remediator " (view.version) " · "
            a href="/api/v1/remediations" { "JSON" } " · " a href="/metrics" { "metrics" } " · "
            a href="/-/ready" { "readiness" } }
    };
    document(&title, &body)
}

/// `GET /remediations/ID`: one remediation with each step.
#[must_use]
pub fn remediation(view: &RemediationPage) -> String {
    let run = &view.remediation;
    let title = format!("Remediation {} on {}", run.id, printable(&view.host));
    let body = html! {
        nav aria-label="Pages" { p { a href="/" { "All remediations" } } }
        h1 { (title) }
        p { (verdict(run)) " " (printable(&run.summary)) }
        dl {
            (fact("User", &run.user))
            (fact("Command", &run.command))
            (fact("Playbook", &run.playbook))
            (fact("Began", &run.started))
            (fact("Processes", &format!("{} before, {} after", count(run.before), count(run.after))))
            (fact("Took", &milliseconds(run.milliseconds)))
            @for path in &run.archives { (fact("Mail saved as", path)) }
            @for why in &run.archive_failures { (fact("Mail not saved", why)) }
        }
        h2 { "Steps" }
        @if view.steps.is_empty() { p { "None was taken." } }
        @for step in &view.steps { (step_card(step)) }
        h2 { "The alert that asked" }
        dl { @for (name, value) in &view.alert { (fact(name, value)) } }
    };
    document(&title, &body)
}

fn document(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href="/style.css";
            }
            body { main { (body) } }
        }
    }
    .into_string()
}

fn mode_card(mode: Mode) -> Markup {
    let (name, meaning) = mode.explained();
    let class = if mode.is_trouble() { "bad" } else { "good" };
    html! { li class=(class) { strong { (name) } span { (meaning) } } }
}

fn table(remediations: &[RemediationView]) -> Markup {
    html! {
        table {
            caption { "Newest first. A number leads to the steps and pids of that remediation." }
            thead { tr {
                th scope="col" { "No." } th scope="col" { "Began" } th scope="col" { "User" }
                th scope="col" { "Command" } th.number scope="col" { "Before" } th.number scope="col" { "After" }
                th scope="col" { "Verdict" } th scope="col" { "Mail saved as" }
                th.number scope="col" { "Took" }
            } }
            tbody { @for run in remediations { tr {
                td data-label="No." { a href={ "/remediations/" (run.id) } { (run.id) } }
                td data-label="Began" { time datetime=(run.started) { (run.started) } }
                td.mono data-label="User" { (printable(&run.user)) }
                td.mono data-label="Command" { (printable(&run.command)) }
                td.number data-label="Before" { (count(run.before)) }
                td.number data-label="After" { (count(run.after)) }
                td data-label="Verdict" { (verdict(run)) }
                td.mono data-label="Mail saved as" {
                    (printable(&run.archives.join(" ")))
                    @if !run.archive_failures.is_empty() { " " span.bad { "not saved" } }
                }
                td.number data-label="Took" { (milliseconds(run.milliseconds)) }
            } } }
        }
    }
}

/// The verdict in words, with a sign, since not everybody tells colours apart.
fn verdict(run: &RemediationView) -> Markup {
    let (class, sign) = match (run.is_running(), run.is_good()) {
        (true, _) => ("work", "…"),
        (false, true) => ("good", "✓"),
        (false, false) => ("bad", "✗"),
    };
    let words = run.verdict.replace('_', " ");
    html! {
        span class={ "verdict " (class) } { span aria-hidden="true" { (sign) " " } (printable(&words)) }
        @if run.dry_run && run.verdict != "dry_run" { " (dry run)" }
    }
}

fn step_card(step: &StepView) -> Markup {
    let class = if step.good { "good" } else { "bad" };
    html! {
        section.step {
            h3 { code { (printable(&step.name)) } ": " span class=(class) { (printable(&step.outcome)) } }
            dl {
                (fact("Began", &step.started))
                (fact("Took", &milliseconds(step.milliseconds)))
                @for (name, value) in &step.facts { (fact(name, value)) }
                @if !step.pids.is_empty() { (fact("Pids", &pids(&step.pids))) }
            }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { dt { (printable(name)) } dd.mono { (printable(value)) } }
}

fn count(processes: Option<u64>) -> String {
    processes.map_or_else(|| "–".to_owned(), |n| n.to_string())
}

fn milliseconds(taken: Option<u64>) -> String {
    taken.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"))
}

fn pids(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RemediationView {
        RemediationView {
            id: 7,
            started: "2026-11-24T06:00:00Z".to_owned(),
            user: "alice".to_owned(),
            command: "imapd".to_owned(),
            playbook: "imapd_storm".to_owned(),
            dry_run: false,
            before: Some(100),
            after: Some(0),
            verdict: "none_seen".to_owned(),
            summary: "killed all alice imapd processes".to_owned(),
            archives: vec!["/var/mail/arc/alice.956900000".to_owned()],
            archive_failures: Vec::new(),
            milliseconds: Some(85),
        }
    }

    fn overview_of(remediations: Vec<RemediationView>) -> String {
        overview(&Overview {
            unsaved: None,
            host: "moscow".to_owned(),
            version: "0.1.0".to_owned(),
            modes: vec![Mode::Live],
            pending: 0,
            watched: 0,
            outcomes_pending: 0,
            sandbox: Vec::new(),
            remediations,
            older_before: Some(7),
        })
    }

    #[test]
    fn a_remediation_is_told_in_full() {
        let page = overview_of(vec![run()]);
        for text in [
            "alice",
            "imapd",
            ">100<",
            ">0<",
            "none seen",
            "/var/mail/arc/alice.956900000",
            "85 ms",
            "/remediations/7",
            "/?before=7",
            "live",
        ] {
            assert!(page.contains(text), "{text} is missing in {page}");
        }
    }

    #[test]
    fn what_was_not_saved_is_told_beside_what_was() {
        assert!(!overview_of(vec![run()]).contains("not saved"));
        let mut failed = run();
        failed.archive_failures = vec!["/var/mail/.alice.pop is a <link>".to_owned()];
        let page = overview_of(vec![failed]);
        assert!(page.contains("alice.956900000") && page.contains("not saved"), "{page}");
    }

    #[test]
    fn a_verdict_of_a_newer_version_is_shown_as_text() {
        let mut newer = run();
        newer.verdict = "of_a_newer_version".to_owned();
        let page = overview_of(vec![newer]);
        assert!(page.contains("of a newer version") && page.contains('✗'), "{page}");
    }

    #[test]
    fn a_hostile_name_stays_text_on_one_line() {
        let mut hostile = run();
        hostile.command = "<script>alert(1)</script>\"'\n\u{202e}".to_owned();
        hostile.verdict = "<b>".to_owned();
        let detail = RemediationPage {
            host: "moscow".to_owned(),
            remediation: hostile.clone(),
            alert: vec![("<i>".to_owned(), "\"><img src=x>".to_owned())],
            steps: vec![StepView {
                name: "<u>".to_owned(),
                started: String::new(),
                outcome: "<s>".to_owned(),
                good: false,
                milliseconds: None,
                facts: vec![("<p>".to_owned(), "</main>".to_owned())],
                pids: vec![12, 34],
            }],
        };
        for page in [overview_of(vec![hostile]), remediation(&detail)] {
            for markup in ["<script", "<b>", "<i>", "<img", "<u>", "<s>", "<p></p>", "\u{202e}"] {
                assert!(!page.contains(markup), "{markup} in {page}");
            }
            assert_eq!(page.matches("</main>").count(), 1);
            assert!(page.contains("&lt;script&gt;") && page.contains("??"));
        }
    }
}
