//! The HTML of the status page.

use maud::{Markup, html};
use procstorm_toolkit::web::page::document;

use super::view::{Link, Mode, Overview, PlaybookView, RemediationView};
use super::wording::{cell, cell_of, count, took_or_dash, words};
use crate::journal::refusals::Refusals;
use crate::printable::printable;

/// `GET /`: what the daemon may do, and what it did last.
#[must_use]
pub fn overview(view: &Overview) -> String {
    let title = format!("procstorm remediator on {}", printable(&view.host));
    let body = html! {
        h1 { (title) }
        (links(&view.links))
        (state(view))
        h2 { "Playbooks" }
        (playbooks(&view.playbooks))
        p { (printable(&view.left_alone)) }
        h2 { "Remediations" }
        @if view.remediations.is_empty() {
            p { "None yet." }
        } @else {
            (remediations(&view.remediations))
        }
        @if let Some(id) = view.older_before {
            nav aria-label="Pages" { p { a href={ "/?before=" (id) } rel="next" { "Older" } } }
        }
        h2 { "Refused alerts of the last day" }
        (refusals(&view.refusals))
        footer { "procstorm-remediator " (view.version) " · "
            a href="/api/v1/remediations" { "JSON" } " · " a href="/metrics" { "metrics" } " · "
            a href="/-/ready" { "readiness" } " · All times are UTC." }
    };
    document(&title, &body)
}

/// Where else to look, if the policy says so.
pub(super) fn links(links: &[Link]) -> Markup {
    html! {
        @if !links.is_empty() {
            nav aria-label="Elsewhere" { ul.links {
                @for link in links { li { a href=(link.url) { (link.name) } } }
            } }
        }
    }
}

fn state(view: &Overview) -> Markup {
    html! {
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
    }
}

fn mode_card(mode: Mode) -> Markup {
    let (name, meaning) = mode.explained();
    html! { li class=(mode.class()) { strong { (name) } span { (meaning) } } }
}

fn playbooks(playbooks: &[PlaybookView]) -> Markup {
    html! {
        table {
            caption { "What an alert can ask for. The host's policy decides; the daemon counts again before it acts." }
            thead { tr {
                th scope="col" { "Playbook" } th scope="col" { "Mode" } th scope="col" { "Acts when" }
                th scope="col" { "Does" } th scope="col" { "At most" } th.number scope="col" { "Left now" }
            } }
            tbody { @for book in playbooks { tr {
                td.mono data-label="Playbook" { (printable(&book.name)) }
                td data-label="Mode" { (mode_of(book)) }
                td data-label="Acts when" { span { (printable(&book.when)) } }
                td data-label="Does" { ol { @for step in &book.steps { li { (printable(step)) } } } }
                td data-label="At most" { span { (book.limits) } }
                td.number data-label="Left now" {
                    span {
                        (count(book.left.map(u64::from)))
                        @for user in &book.exhausted {
                            br; span.bad { "none for " (printable(user)) }
                        }
                    }
                }
            } } }
        }
    }
}

fn mode_of(book: &PlaybookView) -> Markup {
    let (class, name) = if book.is_live { ("good", "live") } else { ("dry", "dry run") };
    html! { span class={ "verdict " (class) } { (name) } }
}

fn remediations(remediations: &[RemediationView]) -> Markup {
    html! {
        table {
            caption { "Newest first. A number leads to the steps and pids of that remediation." }
            thead { tr {
                th scope="col" { "No." } th scope="col" { "Began" } th scope="col" { "User" }
                th scope="col" { "Command" } th.number scope="col" { "Before" } th.number scope="col" { "After" }
                th scope="col" { "Result" } th scope="col" { "Mail saved as" }
                th.number scope="col" { "Took" }
            } }
            tbody { @for run in remediations { tr {
                td data-label="No." { a href={ "/remediations/" (run.id) } { (run.id) } }
                td data-label="Began" { time datetime=(run.started) { (cell_of(&run.started)) } }
                td.mono data-label="User" { (printable(&run.user)) }
                td.mono data-label="Command" { (printable(&run.command)) }
                td.number data-label="Before" { (count(run.before)) }
                td.number data-label="After" { (count(run.after)) }
                td data-label="Result" { span {
                    (result(run))
                    @if !run.summary.is_empty() { br; span.faint { (printable(&run.summary)) } }
                } }
                td.mono data-label="Mail saved as" {
                    (printable(&run.archives.join(" ")))
                    @if !run.archive_failures.is_empty() { " " span.bad { "not saved" } }
                }
                td.number data-label="Took" { (took_or_dash(run.milliseconds)) }
            } } }
        }
    }
}

/// The verdict in words, with a sign, since not everybody tells colours apart.
pub(super) fn result(run: &RemediationView) -> Markup {
    let (class, sign) = run.tone().shown();
    html! {
        span class={ "verdict " (class) } {
            span aria-hidden="true" { (sign) " " } (printable(&words(&run.verdict)))
        }
        @if run.dry_run && run.verdict != "dry_run" { " (dry run)" }
    }
}

fn refusals(refusals: &Refusals) -> Markup {
    html! {
        @if refusals.groups.is_empty() {
            p { "None." }
        } @else {
            table {
                caption { "Alerts that asked for something and got nothing. Those that a remediation \
                           refused are above, with their reason." }
                thead { tr {
                    th scope="col" { "Last" } th.number scope="col" { "Times" } th scope="col" { "Alert" }
                    th scope="col" { "User" } th scope="col" { "Command" } th scope="col" { "Playbook" }
                    th scope="col" { "Why" }
                } }
                tbody { @for group in &refusals.groups { tr {
                    td data-label="Last" { time datetime=(group.last) { (cell(group.last)) } }
                    td.number data-label="Times" { (group.times) }
                    td.mono data-label="Alert" { (printable(&group.alert)) }
                    td.mono data-label="User" { (printable(&group.user)) }
                    td.mono data-label="Command" { (printable(&group.command)) }
                    td.mono data-label="Playbook" { (printable(&group.playbook)) }
                    td data-label="Why" { (printable(&group.reason)) }
                } } }
            }
        }
        @if refusals.is_cut { p { "There are more than are shown here: see the table alerts of the journal." } }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::journal::refusals::RefusedAlerts;

    pub(in super::super) fn run() -> RemediationView {
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
            milliseconds: Some(2085),
        }
    }

    pub(in super::super) fn overview_of(remediations: Vec<RemediationView>) -> String {
        overview(&view_of(remediations))
    }

    fn view_of(remediations: Vec<RemediationView>) -> Overview {
        Overview {
            unsaved: None,
            host: "moscow".to_owned(),
            version: "0.1.0".to_owned(),
            modes: vec![Mode::Live],
            pending: 0,
            watched: 0,
            outcomes_pending: 0,
            sandbox: Vec::new(),
            playbooks: Vec::new(),
            left_alone: "Never acted on: root.".to_owned(),
            refusals: Refusals::default(),
            remediations,
            older_before: Some(7),
            links: Vec::new(),
        }
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
            "killed all alice imapd processes",
            "/var/mail/arc/alice.956900000",
            "2.0 s",
            "2026-11-24 06:00:00<",
            "/remediations/7",
            "/?before=7",
            "live",
            "Never acted on: root.",
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
    fn a_verdict_of_a_newer_version_is_text_and_neither_a_success_nor_a_failure() {
        let mut newer = run();
        newer.verdict = "of_a_newer_version".to_owned();
        let page = overview_of(vec![newer]);
        assert!(page.contains("of a newer version") && page.contains('?'), "{page}");
        assert!(!page.contains('✗') && !page.contains('✓'), "{page}");
    }

    #[test]
    fn a_dry_run_is_no_success_and_a_user_left_alone_is_no_failure() {
        for (verdict, sign) in [("dry_run", '○'), ("protected_user", '–'), ("stuck", '✗')] {
            let mut other = run();
            other.verdict = verdict.to_owned();
            let page = overview_of(vec![other]);
            let signs: Vec<_> =
                ['✓', '✗', '○', '–'].into_iter().filter(|s| page.contains(*s)).collect();
            assert_eq!(signs, [sign], "{verdict}");
        }
    }

    #[test]
    fn playbooks_limits_and_refused_alerts_are_shown_and_hostile_labels_stay_text() {
        let mut view = view_of(Vec::new());
        view.playbooks = vec![PlaybookView {
            name: "imapd_storm".to_owned(),
            is_live: false,
            when: "ProcNumChkRed asks for it".to_owned(),
            steps: vec!["save the user's mail files".to_owned()],
            limits: "12 in 1h for one user, 60 in 1h for all".to_owned(),
            left: Some(57),
            exhausted: vec!["bob".to_owned()],
        }];
        view.refusals = Refusals {
            groups: vec![RefusedAlerts {
                last: Timestamp::UNIX_EPOCH,
                times: 18,
                alert: "<script>".to_owned(),
                user: "a\u{202e}b".to_owned(),
                command: "<b>".to_owned(),
                playbook: "nosuch".to_owned(),
                reason: "there is no playbook \"nosuch\"".to_owned(),
            }],
            is_cut: true,
        };
        view.links = vec![Link { name: "Runbook", url: "https://example.org/\"<x>".to_owned() }];
        let page = overview(&view);
        for text in [
            "dry run",
            ">57<",
            "none for bob",
            "12 in 1h for one user",
            ">18<",
            "there is no playbook &quot;nosuch&quot;",
            "a?b",
            "There are more",
            "https://example.org/&quot;&lt;x&gt;",
        ] {
            assert!(page.contains(text), "{text} is missing in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    }
}
