//! Hostile names, all the way from /proc to the alert and the mail.

use std::time::Duration;

use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{in_a_world_apart, wait};
use procstorm_tests::exposition;
use procstorm_tests::prometheus::Alert;
use procstorm_tests::smtp::Mail;
use procstorm_tests::stack::{Person, Stack, Timing};
use procstorm_tests::storm::Storm;

const LIMIT: Duration = Duration::from_secs(120);

/// Names that break what does not expect them: an exposition, a regular expression, a header, a
/// log line. The kernel takes up to 15 bytes, any but NUL.
const NAMES: [&[u8]; 7] = [
    b"a\"b\\c{d=\"e\"},",
    b"a\nBcc: x@y.org",
    b"im apd) S 1 (",
    b"{{.Labels}}$x%s",
    b"\xff\xfe not utf-8",
    b"\x1b[31mred\r\x07\x7f",
    b"<b>&amp;</b>",
];

#[test]
fn hostile_names_reach_the_alert_and_the_mail_and_break_nothing() {
    in_a_world_apart!();
    let uid = claim_uid();
    let dir = tempfile::tempdir().unwrap();
    let people = [Person::new("mallory", uid)];
    let stack = Stack::start(dir.path(), &people, Timing::Fast).unwrap();
    // Each at the red threshold of class default.
    let storms: Vec<Storm> =
        NAMES.iter().map(|name| Storm::raise(uid, name, 30).unwrap()).collect();

    // A scrape may be answered from a scan that was begun for another, before the last storm.
    let url = format!("{}/metrics", stack.exporter_url());
    let shown = wait::until("a series of each name", LIMIT, || {
        let lines = exposition::read(&stack.http.get(&url).ok()?.body)?;
        let is_shown = |name: &&[u8]| {
            let text = String::from_utf8_lossy(name);
            lines.iter().any(|l| l.name == "procstorm_processes" && l.label("command") == text)
        };
        NAMES.iter().all(is_shown).then_some(lines)
    })
    .unwrap();
    let alerts = wait::until("an alert for each name", LIMIT, || {
        let alerts = stack.prometheus.alerts().ok()?.into_iter();
        let red = |a: &Alert| a.fires() && a.label("alertname") == "ProcNumChkRed";
        let alerts: Vec<Alert> = alerts.filter(red).collect();
        (alerts.len() == NAMES.len()).then_some(alerts)
    })
    .unwrap_or_else(|fault| panic!("{fault}: {:#?}", stack.prometheus.alerts()));
    for name in NAMES {
        let text = String::from_utf8_lossy(name);
        let line = shown
            .iter()
            .find(|line| line.name == "procstorm_processes" && line.label("command") == text);
        assert_eq!(line.unwrap_or_else(|| panic!("no {text:?}")).label("user"), "mallory");
        let alert = alerts.iter().find(|alert| alert.label("command") == text);
        let alert = alert.unwrap_or_else(|| panic!("no alert for {text:?}"));
        assert_eq!(alert.annotation("inline"), format!("  30 mallory {text}"));
        assert_eq!(alert.label("playbook"), "", "nobody may kill it");
    }

    // Whoever was scraped before the last storm was raised is mailed before, too.
    let mail = wait::until("a mail with each name", LIMIT, || {
        let lines =
            |mail: &Mail| mail.text().lines().filter(|l| l.starts_with("  30 mallory")).count();
        let all =
            |mail: &Mail| mail.subject().contains("ProcNumChkRed") && lines(mail) == NAMES.len();
        stack.mail.mails().into_iter().rfind(all)
    })
    .unwrap_or_else(|fault| panic!("{fault}: {:#?}", stack.mail.mails()));
    assert_eq!(mail.header("Bcc"), None);
    assert_eq!(mail.to, ["postmaster@example.org"]);
    let lines: Vec<String> = mail.text().lines().map(str::to_owned).collect();
    assert!(!lines.iter().any(|line| line.starts_with("Bcc:")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("30 mallory a?Bcc: x@y.org")), "{lines:#?}");
    let control = |c: char| c.is_control() && c != '\n' && c != '\r';
    assert!(!mail.subject().contains(control) && !mail.text().contains(control), "{lines:#?}");
    assert!(!mail.html().contains("<b>&amp;</b>"), "{}", mail.html());

    // None of it is of a command that the host's policy names.
    for storm in &storms {
        assert_eq!(storm.living().unwrap(), 30);
    }
    assert!(stack.remediations().unwrap().is_empty());
}
