//! The shipped routes and templates, with a real Alertmanager and a real mail server: who gets
//! which mail, how often, and that no name can make more of a mail than its line.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use procstorm_remediator::outcome::{Story, Subject};
use procstorm_remediator::steps::archive::Form;
use procstorm_remediator::steps::archive::note::{self, Fate, FormNote};
use procstorm_remediator::steps::kill::{KillVerdict, Report, told};
use procstorm_testkit::{needs_root, programs, skip, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::browser::{Browser, View};
use procstorm_tests::http::Http;
use procstorm_tests::smtp::{Mail, Sink};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How much faster the clock of the routes goes here: a minute is two seconds.
const FASTER: f64 = 30.0;

struct Post {
    alertmanager: Alertmanager,
    http: Http,
    sink: Sink,
    _dir: TempDir,
}

impl Post {
    /// Alertmanager as it is shipped, but for addresses and for time.
    fn start() -> Self {
        let sink = Sink::start(None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "token").unwrap();
        let config = dir.path().join("alertmanager.yml");
        fs::write(&config, adapted(&sink, dir.path())).unwrap();
        let alertmanager = Alertmanager::start(&config, dir.path()).unwrap();
        Self { alertmanager, http: Http::new().unwrap(), sink, _dir: dir }
    }

    fn alerts(&self, alerts: &Value) {
        let url = format!("{}/api/v2/alerts", self.alertmanager.url());
        let headers = [("Content-Type", "application/json")];
        let answer = self.http.post(&url, &headers, alerts.to_string()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Waits for the mails that `wanted` chooses, until there are `count`.
    fn wait_for(&self, count: usize, seconds: u64, wanted: impl Fn(&Mail) -> bool) -> Vec<Mail> {
        let found = wait::until("mails", Duration::from_secs(seconds), || {
            let found: Vec<Mail> = self.sink.mails().into_iter().filter(&wanted).collect();
            (found.len() >= count).then_some(found)
        });
        found.unwrap_or_else(|_| {
            let subjects: Vec<String> = self.sink.mails().iter().map(Mail::subject).collect();
            panic!("not {count} mails within {seconds} s; there are {subjects:#?}")
        })
    }
}

fn adapted(sink: &Sink, dir: &Path) -> String {
    let project = programs::project().join("alertmanager");
    let mut text = fs::read_to_string(project.join("alertmanager.yml")).unwrap();
    let templates = project.join("templates/*.tmpl");
    let token = dir.join("token");
    for (from, to) in [
        ("smtp_smarthost: localhost:25", format!("smtp_smarthost: {}", sink.address())),
        ("[templates/*.tmpl]", format!("['{}']", templates.display())),
        ("/etc/prometheus/procstorm.token", token.display().to_string()),
        // Nobody listens: what is mailed does not depend on the remediator.
        ("http://127.0.0.1:9958/webhook", "http://127.0.0.1:1/webhook".to_owned()),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, &to);
    }
    text.lines().map(faster).collect::<Vec<_>>().join("\n")
}

/// A line of the configuration with its duration made shorter.
fn faster(line: &str) -> String {
    let keys = ["group_interval: ", "repeat_interval: "];
    let Some(key) = keys.into_iter().find(|key| line.trim_start().starts_with(key)) else {
        return line.to_owned();
    };
    let (indent, duration) = line.split_once(key).unwrap();
    let mut seconds = 0.0;
    let mut number = String::new();
    let mut letters = duration.chars().peekable();
    while let Some(letter) = letters.next() {
        let unit = match letter {
            'm' if letters.next_if_eq(&'s').is_some() => 0.001,
            's' => 1.0,
            'm' => 60.0,
            'h' => 3_600.0,
            'd' => 86_400.0,
            digit => {
                number.push(digit);
                continue;
            }
        };
        seconds += unit * number.parse::<f64>().unwrap();
        number.clear();
    }
    format!("{indent}{key}{:.0}ms", seconds * 1_000.0 / FASTER)
}

/// An alert as the shipped rules make it.
fn storm(host: &str, user: &str, command: &str, count: u64) -> Value {
    let playbook = if command == "imapd" { "imapd_storm" } else { "" };
    json!({
        "labels": {
            "alertname": "ProcNumChkRed", "host": host, "role": "mail", "user": user,
            "command": command, "class": "default", "level": "red", "severity": "critical",
            "playbook": playbook, "job": "procstorm", "instance": format!("{host}:9957"),
        },
        "annotations": {
            "summary": format!("A user runs too many processes on {host}."),
            "description": format!("{user} runs {count} {command} processes on {host}"),
            "inline": format!("{count:4} {user} {command}"),
            "count": count.to_string(),
            "threshold": "90",
            "dashboard_url": format!("https://grafana.example.org/d/procstorm?var-host={host}"),
            "runbook_url": "https://example.org/procstorm/blob/main/rules/RUNBOOK.md#procnumchkred",
        },
        "endsAt": "2099-01-01T00:00:00Z",
    })
}

/// Every five minutes give or take one, one mail a host with all its lines.
#[test]
fn a_red_alert_is_mailed_again_and_again() {
    let post = Post::start();
    post.alerts(&json!([
        storm("moscow", "alice", "imapd", 97),
        storm("moscow", "bob", "httpd", 1061),
        storm("moscow", "carol", "imapd", 340),
        storm("kiev", "alice", "imapd", 91),
    ]));
    let of_moscow = |mail: &Mail| mail.subject().contains("moscow");
    let mails = post.wait_for(3, 120, of_moscow);
    let minute = Duration::from_secs(60).div_f64(FASTER);
    for pair in mails.windows(2) {
        let gap = pair[1].received - pair[0].received;
        // Alertmanager takes a moment of its own, which does not shrink with its clock; ten minutes,
        // what the shipped intervals avoid, it still is not.
        let (least, most) = (minute * 4, minute * 6 + Duration::from_secs(6));
        assert!(
            least <= gap && gap <= most,
            "five minutes give or take one: {gap:?} of {minute:?}"
        );
    }
    for mail in &mails {
        assert_eq!(mail.subject(), "ProcNumChkRed on moscow: 1061 bob httpd (worst of 3 lines)");
        let text = lines(&mail.text());
        let (head, explained) = text.split_once("\n\n").unwrap();
        let mut head: Vec<&str> = head.lines().collect();
        head.sort_unstable();
        assert_eq!(head, ["  97 alice imapd", " 340 carol imapd", "1061 bob httpd"]);
        assert_eq!(explained.matches("\n* ").count() + 1, 3, "{text}");
        assert!(text.contains("alice imapd: 97, the red threshold of class default is 90; the remediator on moscow was asked to run playbook imapd_storm; a separate mail says what it did; if none comes, its status page says why."), "{text}");
        assert!(text.contains("bob httpd: 1061, the red threshold of class default is 90; no playbook: nothing acts on it, so a person must."), "{text}");
        assert!(
            text.contains("https://grafana.example.org/d/procstorm?var-host=moscow\n"),
            "{text}"
        );
        assert!(text.contains("/rules/RUNBOOK.md#procnumchkred\n"), "{text}");
        assert!(mail.html().contains("<td align=\"right\""), "{}", mail.html());
    }
    let of_kiev = post.wait_for(1, 60, |mail| mail.subject().contains("kiev"));
    assert_eq!(of_kiev[0].subject(), "ProcNumChkRed on kiev: 91 alice imapd");
}

/// A part of a mail, with the ends of lines that we know.
fn lines(part: &str) -> String {
    part.replace("\r\n", "\n")
}

/// Names that would be headers, lines, links or markup.
const HOSTILE: [&str; 9] = [
    "a\nBcc: x@y\n",
    "a\r\n\r\n<b>new",
    "http://evil.cc/",
    "www.evil.cc",
    "<a href=\"//e\">x",
    "javascript:x()",
    "a\u{202e}\u{2028}\u{85}b\u{200b}",
    "{{ .Labels }}",
    "\n.\nQUIT\n\u{1b}[2J",
];

#[test]
fn a_hostile_name_is_a_line_and_nothing_more() {
    let post = Post::start();
    // Each alone, so that each is the worst line and in the subject; then all in one mail.
    for (number, name) in HOSTILE.iter().enumerate() {
        post.alerts(&json!([storm(&format!("alone{number}"), "eve", name, 31)]));
    }
    let all: Vec<Value> = HOSTILE.iter().map(|name| storm("all", "eve", name, 31)).collect();
    post.alerts(&json!(all));
    // A busy machine may mail some twice before the last, or all of them in two parts.
    let names_in = |mail: &Mail| lines(&mail.text()).matches("  31 eve ").count();
    let alone = |host: &str| {
        let subject = format!("on {host}: ");
        post.wait_for(1, 60, |mail| mail.subject().contains(&subject))
    };
    (0..HOSTILE.len()).for_each(|number| drop(alone(&format!("alone{number}"))));
    post.wait_for(1, 60, |mail| names_in(mail) == HOSTILE.len());
    let mails = post.sink.mails();
    for mail in &mails {
        let mut headers = mail.header_names();
        headers.sort();
        let expected = [
            "Auto-Submitted",
            "Content-Type",
            "Date",
            "From",
            "MIME-Version",
            "Message-Id",
            "Subject",
            "To",
        ];
        assert_eq!(headers, expected, "{}", String::from_utf8_lossy(&mail.raw));
        assert_eq!(mail.to, ["postmaster@example.org"]);
        let (subject, text) = (mail.subject(), lines(&mail.text()));
        let html = lines(&mail.html());
        for part in [&subject, &text, &html] {
            let bad = |letter: char| {
                (letter.is_control() && letter != '\n')
                    || "\u{202e}\u{2028}\u{200b}\u{85}".contains(letter)
            };
            assert!(!part.contains(bad), "{part:?}");
        }
        assert!(!subject.contains('\n'), "{subject:?}");
        // A line for each name, a line for each explanation, and two links.
        let names = names_in(mail);
        assert!(names == 1 || subject.contains("on all"), "{subject}");
        assert_eq!(text.trim_end().lines().count(), names * 2 + 4, "{text}");
        let links = text.matches("://").count();
        assert_eq!(links, 2, "{text}");
        assert_eq!(html.matches("<a ").count(), 2, "{html}");
        assert_eq!(html.matches("://").count(), 2, "{html}");
        assert!(!text.contains("www.") && !html.contains("www."), "{text}");
        assert!(!html.contains("<b>"), "{html}");
    }
    assert!(mails.iter().any(|mail| mail.text().contains("  31 eve a?Bcc: x@y?")));
    assert!(mails.iter().any(|mail| mail.text().contains("  31 eve {{ .Labels }}")), "as it is");
}

/// An outcome is mailed once, whatever is posted again, and says nothing when it ends.
#[test]
fn an_outcome_is_mailed_once() {
    let post = Post::start();
    let outcome = |event: &str, ends: &str| {
        json!([{
            "labels": {
                "alertname": "ProcstormOutcome", "host": "moscow", "user": "alice",
                "command": "imapd", "playbook": "imapd_storm", "verdict": "none_seen",
                "severity": "info", "event": event,
            },
            "annotations": {
                "summary": "killed all alice imapd processes",
                "description": "saved user mail file as /var/mail/arc/alice.956953345\nkilled all alice imapd processes\n97 before, 0 after, in 41 ms\u{1b}[2J",
            },
            "endsAt": ends,
        }])
    };
    post.alerts(&outcome("1", "2099-01-01T00:00:00Z"));
    let first = post.wait_for(1, 60, |_| true).remove(0);
    assert_eq!(first.subject(), "moscow: killed all alice imapd processes");
    let text = lines(&first.text());
    assert!(
        text.contains(
            "\nsaved user mail file as /var/mail/arc/alice.956953345\nkilled all alice imapd \
             processes\n97 before, 0 after, in 41 ms?[2J\n"
        ),
        "{text}"
    );
    assert!(
        lines(&first.html()).contains("saved user mail file as /var/mail/arc/alice.956953345\n")
    );
    for part in [&text, &lines(&first.html())] {
        assert!(part.contains("https://grafana.example.org/d/procstorm?var-host=moscow"), "{part}");
        assert!(part.contains("/rules/RUNBOOK.md#procstormoutcome"), "{part}");
    }
    // Again while it lives, then its end, then another event: only that one is told.
    post.alerts(&outcome("1", "2099-01-01T00:00:00Z"));
    post.alerts(&outcome("1", "2020-01-01T00:00:00Z"));
    let flush = Duration::from_secs(60).div_f64(FASTER) * 3;
    let second = wait::until("a second mail of one outcome", flush, || {
        (post.sink.mails().len() > 1).then_some(())
    });
    assert!(second.is_err(), "{:?}", post.sink.mails().iter().map(Mail::text).collect::<Vec<_>>());
    post.alerts(&outcome("2", "2099-01-01T00:00:00Z"));
    assert_eq!(post.wait_for(2, 60, |_| true).len(), 2, "one mail an event");
}

/// What a remediator itself would post of a storm that was ended and a mail file that was not saved.
#[test]
fn the_subject_of_an_outcome_says_that_a_mail_file_was_not_saved() {
    let fate = Fate::Failed { label: "symlink".to_owned(), text: "it is a link".to_owned() };
    let notes = [FormNote { form: Form::Mbox, source: "/var/mail/alice".into(), fate }];
    let mut report = Report::idle(KillVerdict::NoneSeenForMs(120), Duration::from_millis(40));
    (report.matched, report.exited, report.left) = (97, 97, Some(0));
    let subject = Subject {
        host: "moscow",
        user: "alice",
        command: "imapd",
        playbook: "imapd_storm",
        before: Some(97),
        dry_run: false,
        tells_user: false,
    };
    let parts = vec![note::part("alice", &notes, false), told::part(&report)];
    let end = told::end(&subject, &report);
    let story = Story { subject, recurrence: 0, end, parts };
    let letter = story.tell().letter(&story, "7-1".to_owned());
    let post = Post::start();
    post.alerts(&json!([{
        "labels": letter.labels, "annotations": letter.annotations,
        "endsAt": "2099-01-01T00:00:00Z",
    }]));
    let mail = post.wait_for(1, 60, |_| true).remove(0);
    assert_eq!(
        mail.subject(),
        "moscow: killed all alice imapd processes; mail file /var/mail/alice NOT saved"
    );
    assert!(lines(&mail.text()).contains("could not save user mail file /var/mail/alice: it is a"));
    // The colour of a warning, not that of "all is well".
    assert!(mail.html().contains("#b26a00"), "{}", mail.html());
}

/// The mails in a browser, as a person sees them. `PROCSTORM_PICTURES=DIR` keeps a picture.
#[test]
fn the_mails_show_each_line_in_a_browser() {
    if programs::other("chromium").is_err() {
        skip!("needs chromium");
    }
    needs_root!();
    let post = Post::start();
    post.alerts(&json!([
        storm("moscow", "alice", "imapd", 97),
        storm("moscow", "bob", "python3", 340),
        storm("moscow", "eve", "<b>evil</b>", 131),
    ]));
    let alert = post.wait_for(1, 60, |mail| mail.text().matches(" eve ").count() > 0).remove(0);
    let report = {
        let mut report = Report::idle(KillVerdict::NoneSeenForMs(120), Duration::from_millis(40));
        (report.matched, report.exited, report.left) = (97, 97, Some(0));
        report.rounds = 1;
        report
    };
    let subject = Subject {
        host: "moscow",
        user: "alice",
        command: "imapd",
        playbook: "imapd_storm",
        before: Some(97),
        dry_run: false,
        tells_user: false,
    };
    let end = told::end(&subject, &report);
    let story = Story { subject, recurrence: 0, end, parts: vec![told::part(&report)] };
    let letter = story.tell().letter(&story, "7-1".to_owned());
    post.alerts(&json!([{
        "labels": letter.labels, "annotations": letter.annotations,
        "endsAt": "2099-01-01T00:00:00Z",
    }]));
    let outcome = post.wait_for(1, 60, |mail| mail.subject().contains("killed all")).remove(0);
    let page = format!(
        "<!DOCTYPE html><meta charset=utf-8><title>mails</title><body style=\"max-width:46rem\">\
         {}<hr>{}",
        alert.html(),
        outcome.html()
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mails.html");
    fs::write(&file, page).unwrap();
    let mut browser = Browser::start().unwrap();
    let view = View { width: 800, dark: false, script: false };
    browser.visit(&format!("file://{}", file.display()), view).unwrap();
    let text = browser.evaluate("document.body.innerText").unwrap();
    let text = text.as_str().unwrap();
    for part in ["alice", "97", "python3", "340", "<b>evil</b>", "killed all alice imapd processes"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(browser.evaluate("document.querySelectorAll('b').length").unwrap(), 0, "markup");
    if let Some(dir) = std::env::var_os("PROCSTORM_PICTURES") {
        let file = programs::project().join(dir).join("mail.png");
        fs::write(file, browser.picture().unwrap()).unwrap();
    }
}

/// An alert of a row with `tell: user`.
fn telling(host: &str, user: &str, command: &str, annotations: &[(&str, &str)]) -> Value {
    let mut alert = storm(host, user, command, 97);
    let mut set = |pointer: &str, name: &str, value: &str| {
        let object = alert.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
        object.insert(name.to_owned(), json!(value));
    };
    set("/labels", "tell", "user");
    if annotations.iter().any(|(name, _)| *name == "later") {
        set("/labels", "playbook", "");
    }
    for (name, value) in annotations {
        set("/annotations", name, value);
    }
    alert
}

fn to(address: &str) -> impl Fn(&Mail) -> bool {
    move |mail| mail.to == [address]
}

/// What a remediator posts to a user who is to hear of it.
fn done(user: &str, event: &str, verdict: &str) -> Value {
    json!({
        "labels": {
            "alertname": "ProcstormOutcome", "host": "moscow", "user": user, "tell": "user",
            "command": "imapd", "playbook": "imapd_storm", "verdict": verdict,
            "severity": "info", "event": event,
        },
        "annotations": {
            "summary": format!("killed all {user} imapd processes"),
            "description": "saved user mail file as /var/mail/arc/alice.956953345\n97 before",
        },
        "endsAt": "2099-01-01T00:00:00Z",
    })
}

#[test]
fn the_user_hears_what_runs_what_will_happen_and_what_was_done() {
    let post = Post::start();
    let later = [("later", "imapd_storm"), ("patience", "300")];
    post.alerts(&json!([
        telling("moscow", "alice", "imapd", &later),
        telling("moscow", "bob.o-neil", "imapd", &[]),
        telling("moscow", "carol", "x'; rm -rf ~", &[]),
        // A row without `tell`.
        storm("moscow", "dora", "imapd", 97),
    ]));
    let mail = post.wait_for(1, 60, to("alice@example.org")).remove(0);
    assert_eq!(mail.subject(), "Your imapd processes on moscow are too many");
    let text = lines(&mail.text());
    for part in [
        "You (alice) run 97 imapd processes on moscow. From 90 on, they endanger the host",
        "if there are still that many 300 seconds after ",
        // Not that they are: a dry run and a refusal end none.
        " UTC, the host is asked to end them. If they are ended, another mail says so.",
        "\n    pkill -TERM -u alice -x imapd\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let text = lines(&post.wait_for(1, 60, to("bob.o-neil@example.org")).remove(0).text());
    assert!(text.contains("What will happen: the host was asked to end them."), "{text}");
    assert!(text.contains("up so. If they are ended, another mail says so."), "{text}");
    let text = lines(&post.wait_for(1, 60, to("carol@example.org")).remove(0).text());
    assert!(text.contains("nothing ends them by itself for now"), "{text}");
    assert!(text.contains("ps -u carol -o pid,stat,comm") && !text.contains("pkill"), "{text}");

    // Not of a refusal, which changes nothing for the user.
    post.alerts(&json!([done("bob", "1", "limit_reached"), done("alice", "2", "none_seen")]));
    let is_done = |mail: &Mail| mail.subject().contains("what was done");
    let mail = post.wait_for(1, 60, is_done).remove(0);
    assert_eq!(mail.to, ["alice@example.org"]);
    assert_eq!(mail.subject(), "moscow: what was done about your imapd processes");
    let text = lines(&mail.text());
    assert!(text.contains("saved user mail file as /var/mail/arc/alice.956953345\n"), "{text}");
    // The administrators hear of all of it as well.
    post.wait_for(2, 60, |mail| {
        to("postmaster@example.org")(mail) && mail.subject().contains("killed all")
    });
    post.wait_for(1, 60, |mail| {
        let text = mail.text();
        to("postmaster@example.org")(mail)
            && ["alice", "bob.o-neil", "carol", "dora"].iter().all(|name| text.contains(name))
    });
    let told = |address: &str| post.sink.mails().into_iter().filter(to(address)).count();
    assert_eq!((told("dora@example.org"), told("bob@example.org")), (0, 0));
}

/// Labels that would be several addresses, another's address, or a header.
const HOSTILE_USERS: [&str; 12] = [
    "victim@example.net,x",
    "x@y,victim",
    "victim@example.net",
    "victim+x",
    "victim ",
    " victim",
    "victim\nBcc: victim@example.net",
    "victim\n",
    "\"victim\"",
    "<victim>",
    "victim,alice",
    "1001",
];

#[test]
fn a_hostile_user_name_reaches_nobody_else() {
    let post = Post::start();
    let alerts = HOSTILE_USERS.iter().map(|user| telling("moscow", user, "imapd", &[]));
    post.alerts(&json!(alerts.collect::<Vec<_>>()));
    let outcomes = HOSTILE_USERS.iter().zip(0..);
    let outcomes = outcomes.map(|(user, number)| done(user, &format!("{number}"), "none_seen"));
    post.alerts(&json!(outcomes.collect::<Vec<_>>()));
    // The first one whom it may reach comes last.
    post.alerts(&json!([telling("moscow", "alice", "imapd", &[])]));
    post.alerts(&json!([done("alice", "alice", "none_seen")]));
    post.wait_for(2, 60, to("alice@example.org"));
    let is_outcome = |mail: &Mail| mail.subject().contains("killed all");
    post.wait_for(HOSTILE_USERS.len() + 1, 60, is_outcome);
    for mail in post.sink.mails() {
        let reached = ["alice@example.org", "postmaster@example.org"];
        let [address] = mail.to.as_slice() else { panic!("one address, not {:?}", mail.to) };
        assert!(reached.contains(&address.as_str()), "{address}: {}", mail.subject());
    }
}
