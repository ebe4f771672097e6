//! A picture of the shipped dashboard after some minutes of storms, drawn with Grafana's own
//! components (`grafana/picture/`), as somebody sees it whose screen is 1,400 pixels wide.
//!
//! `make dashboard-picture` bundles the components, and runs this with
//!
//! - `PROCSTORM_DASHBOARD_APP`, the bundle;
//! - `PROCSTORM_PICTURE`, the picture's file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::browser::{Browser, View};
use procstorm_tests::dashboard::Dashboard;
use procstorm_tests::stack::{Person, Stack, Timing};
use procstorm_tests::storm::Storm;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(120);

const SCREEN: View = View { width: 1400, dark: true, script: true };

/// Waits until the newest remediation of a user has ended, and says how.
fn ended(stack: &Stack, person: &Person, number: usize) -> String {
    wait::until(&format!("the end for {}", person.name), LIMIT, || {
        let all = stack.remediations().ok()?;
        let of_user: Vec<_> = all.iter().filter(|one| one.user() == person.name).collect();
        let newest = of_user.first().filter(|one| one.is_done())?;
        (of_user.len() == number).then(|| newest.verdict().to_owned())
    })
    .unwrap()
}

/// Waits until Prometheus has looked so many times at what there is.
fn seen(stack: &Stack, times: usize) {
    for _ in 0..times {
        let now = Timestamp::now();
        wait::until("an evaluation", LIMIT, || {
            (stack.prometheus.last_evaluation("procstorm_alerts").ok()? > now).then_some(())
        })
        .unwrap();
    }
}

#[test]
#[ignore = "takes minutes, and needs Grafana's components: make dashboard-picture"]
fn the_picture_of_the_dashboard_shows_every_text_whole() {
    needs_root!();
    let [app, picture] = ["PROCSTORM_DASHBOARD_APP", "PROCSTORM_PICTURE"]
        .map(|name| PathBuf::from(std::env::var_os(name).expect("run make dashboard-picture")));
    let dir = tempfile::tempdir().unwrap();
    let person = |(name, uid)| Person::new(name, uid);
    let people =
        [("alice", 46_910), ("bob", 46_911), ("carol", 46_912), ("dave", 46_913), ("gita", 46_914)];
    let people = people.map(person);
    let [alice, bob, carol, dave, gita] = &people;
    let stack = Stack::start(dir.path(), &people, Timing::Shipped).unwrap();
    for person in [alice, carol] {
        stack.site.put_mail(person, &person.name, b"From alice\n", 0o600).unwrap();
    }
    let begun = Instant::now();
    seen(&stack, 4);

    // First a dry run: it would act on carol's storm, and does not.
    stack.dry_run(true).unwrap();
    let storm = Storm::raise(carol.uid, b"imapd", 97).unwrap();
    assert_eq!(ended(&stack, carol, 1), "dry_run");
    seen(&stack, 2);
    drop(storm);
    stack.dry_run(false).unwrap();

    // Then it acts. Other lines grow beside it.
    let mut growing = Vec::new();
    for (sendmail, python, imapd) in [(44, 23, 31), (0, 0, 32), (39, 10, 25)] {
        for (person, command, count) in
            [(dave, "sendmail", sendmail), (bob, "python3", python), (alice, "imapd", imapd)]
        {
            if count > 0 {
                growing.push(Storm::raise(person.uid, command.as_bytes(), count).unwrap());
            }
        }
        seen(&stack, 2);
    }
    growing.push(Storm::raise(alice.uid, b"imapd", 1_812).unwrap());
    assert_eq!(ended(&stack, alice, 1), "none_seen");
    let _refused = Storm::raise(gita.uid, b"imapd-ssl", 112).unwrap();
    seen(&stack, 4);
    let again = Storm::raise(carol.uid, b"imapd", 95).unwrap();
    assert_eq!(ended(&stack, carol, 2), "none_seen");
    drop(again);
    seen(&stack, 5);

    let json = fs::read_to_string(programs::project().join("grafana/procstorm.json")).unwrap();
    let dashboard = Dashboard::read(&json).unwrap();
    // The reader has chosen them: there are also the processes of this test.
    let users = people.each_ref().map(|person| person.name.as_str()).join("|");
    let now = Timestamp::now().as_second();
    let range = i64::try_from(begun.elapsed().as_secs()).unwrap() / 60 * 60 + 60;
    let shown = json!({
        "dashboard": dashboard.json(),
        "answers": dashboard.answers(&stack.prometheus, &users, now, range).unwrap(),
        "from": (now - range) * 1000,
        "to": now * 1000,
        "variables": {"datasource": "prometheus", "user": users},
    });
    // No text of the answers ends the script.
    let shown = shown.to_string().replace('<', "\\u003c");
    // It stays there, to be looked at in a browser.
    let page = app.with_file_name("index.html");
    let text = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>procstorm</title>\
         <link rel=stylesheet href='file://{style}'><body><script>window.PICTURE = {shown}</script>\
         <script src='file://{script}'></script>",
        style = app.with_extension("css").display(),
        script = app.display(),
    );
    fs::write(&page, text).unwrap();

    let mut browser = Browser::start().unwrap();
    browser.visit(&format!("file://{}", page.display()), SCREEN).unwrap();
    let drawn = wait::until("the dashboard is drawn", LIMIT, || {
        let panels = "document.querySelectorAll('[data-panel]').length";
        let count = browser.evaluate(panels).ok()?.as_u64()?;
        (count == u64::try_from(dashboard.panels().len()).ok()?).then_some(())
    });
    assert!(drawn.is_ok(), "{:?}", browser.complaints());
    // Graphs and tables are drawn after the panels are there.
    browser.evaluate("new Promise(done => setTimeout(done, 3000))").unwrap();
    fs::write(programs::project().join(picture), browser.picture().unwrap()).unwrap();
    let all = browser.evaluate("document.body.innerText").unwrap();
    let all = all.as_str().unwrap();
    for text in ["1,995", "none_seen", "dry_run", "other_command", "imapd-ssl"] {
        assert!(all.contains(text), "no {text} in {all}");
    }
    let cut = browser.evaluate("window.cutTexts()").unwrap();
    assert_eq!(cut, json!([]), "texts that are cut at {} pixels", SCREEN.width);
}
