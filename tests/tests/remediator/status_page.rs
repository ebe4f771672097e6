//! The status pages in a real browser: what a person sees of real remediations, on a wide screen
//! and on a telephone, by day and in the dark, with script and without.
//!
//! `PROCSTORM_PICTURES=DIR` keeps pictures of the pages.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::skip::skipped;
use procstorm_testkit::uids::claim_uids;
use procstorm_testkit::{needs_root, programs, skip, test_name, wait};
use procstorm_tests::browser::{Browser, View};
use procstorm_tests::daemon::Daemon;
use procstorm_tests::host::{Host, Post};
use procstorm_tests::http::Http;
use procstorm_tests::storm::Storm;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A name that would be markup if it could.
const HOSTILE: &str = "<b>\"x'&</b>";

const DESK: View = View { width: 1200, dark: false, script: true };
const DESK_DARK: View = View { dark: true, ..DESK };
const TELEPHONE: View = View { width: 400, ..DESK };
const TELEPHONE_DARK: View = View { width: 400, ..DESK_DARK };

/// What a host shows that has been through something: alice's storm was killed, bob's is only
/// looked at, carol's was over before, and dave's processes have a hostile name.
struct Eventful {
    host: Host,
    /// Kept, so that dave's and bob's processes live until the end.
    _storms: Vec<Storm>,
}

impl Eventful {
    fn new() -> Result<Self, Fault> {
        let [uid, bob, carol, dave] = claim_uids();
        let users = [("alice", uid), ("bob", bob), ("carol", carol), ("dave", dave)];
        let quoted = format!("'{}'", HOSTILE.replace('\'', "''"));
        // Without a watch afterwards: the page tells how many there are, until they end.
        let more = format!(
            "    settle: 0s\n  rehearsal: {{alerts: [Storm], command: imapd, threshold: 5, dry_run: true, steps: \
             [archive_mail_file, kill_user_proc]}}\n  hostile: {{alerts: [Storm], command: \
             {quoted}, threshold: 5, settle: 0s, steps: [kill_user_proc]}}"
        );
        let links = "links: {dashboard: 'https://grafana.example.org/d/procstorm', runbook: \
                     'https://example.org/RUNBOOK.md', alertmanager: 'https://am.example.org'}";
        let host = Host::start_among(&users, "imapd", &more, links)?;
        let mail = host.dir().join("mail/alice");
        fs::write(&mail, "From alice\n".repeat(1000)).unwrap();
        chown(&mail, Some(uid), Some(uid)).unwrap();
        let storms = vec![
            Storm::raise(uid, b"imapd", 40)?,
            Storm::raise(bob, b"imapd", 20)?,
            Storm::raise(dave, HOSTILE.as_bytes(), 10)?,
        ];
        let alert = |user: &str| Post::storm(0, "imapd").with("user", user);
        let extra = "</dd><script>document.title='owned'</script>\u{202e}";
        for (post, count) in [
            (alert("carol"), 1),
            (alert("dave").with("command", HOSTILE).with("playbook", "hostile"), 2),
            (alert("bob").with("playbook", "rehearsal").with("note", extra), 3),
            (alert("alice"), 4),
        ] {
            host.post(&[post])?;
            wait::until("it is done", SOON, || {
                let verdicts = host.verdicts().ok()?;
                let done = verdicts.len() == count && !verdicts.iter().any(|v| v == "running");
                done.then_some(())
            })?;
        }
        assert_eq!(host.verdicts()?, ["no_longer_true", "none_seen", "dry_run", "none_seen"]);
        // Refused at once: there is no such playbook.
        host.post(&[alert("alice").with("playbook", "nosuch")])?;
        Ok(Self { host, _storms: storms })
    }

    /// How long alice's remediation took, as the pages say it.
    fn took(&self) -> Result<String, Fault> {
        let alices = self.alices()?;
        let ms = alices.get("milliseconds").and_then(Value::as_u64).unwrap();
        Ok(if ms < 1000 {
            format!("{ms} ms")
        } else {
            format!("{}.{} s", ms / 1000, ms % 1000 / 100)
        })
    }

    fn alices(&self) -> Result<Value, Fault> {
        Ok(self.host.remediations()?.pop().unwrap())
    }
}

/// Keeps a picture of what the browser shows, if somebody wants to look at it.
fn keep_picture(browser: &mut Browser, name: &str) -> Result<(), Fault> {
    if let Some(dir) = env::var_os("PROCSTORM_PICTURES") {
        fs::write(programs::project().join(dir).join(name), browser.picture()?).unwrap();
    }
    Ok(())
}

/// Ends the test that this stands in where it cannot be run.
macro_rules! needs_chromium_and_root {
    () => {
        if programs::other("chromium").is_err() {
            skip!("needs chromium");
        }
        needs_root!();
    };
}

/// The text of all that matches a selector.
fn texts(browser: &mut Browser, selector: &str) -> Result<Vec<String>, Fault> {
    let all = format!("[...document.querySelectorAll({selector:?})].map(e => e.innerText)");
    let value = browser.evaluate(&all)?;
    Ok(value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect())
}

fn is_true(browser: &mut Browser, expression: &str) -> Result<bool, Fault> {
    Ok(browser.evaluate(expression)? == Value::Bool(true))
}

#[test]
fn a_person_sees_what_was_done() -> Result<(), Fault> {
    needs_chromium_and_root!();
    let eventful = Eventful::new()?;
    let (host, alices) = (&eventful.host, eventful.alices()?);
    let mut browser = Browser::start()?;
    browser.visit(&host.url("/"), DESK)?;
    // Playbooks, remediations, refused alerts.
    let rows = texts(&mut browser, "table:nth-of-type(2) tbody tr")?;
    assert_eq!(rows.len(), 4, "{rows:?}");
    let archive = alices["archives"][0].as_str().unwrap().to_owned();
    let took = eventful.took()?;
    for text in ["alice", "imapd", "\t40\t0\t", "none seen", &archive, &took] {
        assert!(rows[0].contains(text), "{text:?} is not in {:?}", rows[0]);
    }
    assert!(fs::exists(&archive).unwrap());
    assert!(rows[1].contains("bob") && rows[1].contains("dry run"), "{}", rows[1]);
    assert!(rows[1].contains("\t20\t20\t"), "all of them live: {}", rows[1]);
    let signs = texts(&mut browser, "table:nth-of-type(2) .verdict span")?;
    assert_eq!(signs.concat().replace(' ', ""), "✓○✓–");
    assert!(rows[2].contains(HOSTILE), "{}", rows[2]);
    assert!(rows[3].contains("carol") && rows[3].contains("no longer true"), "{}", rows[3]);
    let state = texts(&mut browser, ".state li")?.join(" ");
    assert!(state.contains("live") && state.contains("pending"), "{state}");
    let books = texts(&mut browser, "table:nth-of-type(1) tbody tr")?.join("\n");
    for text in ["storm", "live", "rehearsal", "dry run", "5 or more", "named exactly \"imapd\""] {
        assert!(books.contains(text), "{text:?} is not in {books}");
    }
    assert!(books.contains("\t59"), "one of 60 is used up: {books}");
    let refused = texts(&mut browser, "table:nth-of-type(3) tbody tr")?.join("\n");
    assert!(refused.contains("alice") && refused.contains("there is no playbook \"nosuch\""));
    let page = texts(&mut browser, "main")?.join("\n");
    assert!(page.contains("Never acted on: root, uids below 1000"), "{page}");
    let addresses = "[...document.querySelectorAll('.links a')].map(a => a.href)";
    assert_eq!(
        browser.evaluate(addresses)?,
        serde_json::json!([
            "https://grafana.example.org/d/procstorm?var-host=moscow",
            "https://example.org/RUNBOOK.md#procstormoutcome",
            "https://am.example.org/#/silences",
        ])
    );
    keep_picture(&mut browser, "status-page.png")?;

    // The first row's number leads to its page, which tells each step.
    let link = browser.evaluate("document.querySelector('table:nth-of-type(2) tbody a').href")?;
    assert_eq!(link, host.url(&format!("/remediations/{}", alices["id"])));
    browser.visit(link.as_str().unwrap(), DESK)?;
    keep_picture(&mut browser, "remediation-page.png")?;
    let page = texts(&mut browser, "main")?.join("\n");
    for text in ["alice", "imapd", "40 before, 0 after", &archive, &took, "killed all alice imapd"]
    {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
    let events = texts(&mut browser, "tbody tr")?.join("\n");
    for text in [
        "Storm begins to fire",
        "its notification arrives",
        "40 processes counted",
        "Save the mail file: saved",
        "End the processes: none seen",
        "it ends as none seen",
    ] {
        assert!(events.contains(text), "{text:?} is not in {events}");
    }
    let name = archive.rsplit('/').next().unwrap();
    let policy = host.dir().join("remediator.yml");
    let restore = format!(
        "procstorm-remediator restore --config.file {} --user alice --archive {name}",
        policy.display()
    );
    assert_eq!(texts(&mut browser, "pre")?, [restore]);
    let silence = "https://am.example.org/#/silences/new?filter=%7Balertname%3D%22Storm%22%2C\
                   host%3D%22moscow%22%2Cuser%3D%22alice%22%2Ccommand%3D%22imapd%22%7D";
    assert!(is_true(&mut browser, &format!("!!document.querySelector('a[href=\"{silence}\"]')"))?);
    let steps = texts(&mut browser, ".step")?;
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(steps[0].contains("archive_mail_file") && steps[1].contains("kill_user_proc"));
    for pid in eventful._storms[0].pids() {
        assert!(steps[1].contains(&pid.to_string()), "{pid} is not in {}", steps[1]);
    }
    Ok(())
}

#[test]
fn hostile_names_stay_text_and_nothing_comes_from_elsewhere() -> Result<(), Fault> {
    needs_chromium_and_root!();
    let Eventful { host, _storms } = Eventful::new()?;
    let mut browser = Browser::start()?;
    for path in ["/", "/remediations/2", "/remediations/3"] {
        browser.visit(&host.url(path), DESK)?;
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{path}");
        assert_eq!(browser.requests(), [host.url(path), host.url("/style.css")]);
        assert!(
            is_true(&mut browser, "!document.querySelector('b, script, img, style')")?,
            "{path}"
        );
        let title = browser.evaluate("document.title")?;
        assert!(title.as_str().unwrap().contains("moscow"), "{title}");
        let styled = "getComputedStyle(document.querySelector('main')).display == 'block' \
                      && document.styleSheets.length == 1";
        assert!(is_true(&mut browser, styled)?, "{path} has no style");
        // The policy holds: what gets into the page all the same does not run.
        let inject = "(() => { const s = document.createElement('script'); \
                      s.textContent = 'window.owned = true'; document.body.append(s); \
                      return window.owned !== true })()";
        assert!(is_true(&mut browser, inject)?, "{path} runs what is put into it");
    }
    browser.visit(&host.url("/remediations/3"), DESK)?;
    let page = texts(&mut browser, "main")?.join("\n");
    assert!(page.contains("</dd><script>document.title='owned'</script>?"), "{page}");

    // Without script it is the same page.
    browser.visit(&host.url("/"), DESK)?;
    let with = texts(&mut browser, "main")?;
    browser.visit(&host.url("/"), View { script: false, ..DESK })?;
    assert_eq!(texts(&mut browser, "main")?, with);
    Ok(())
}

/// An exporter, and its address.
fn exporter(dir: &Path) -> Result<(Daemon, String), Fault> {
    let program = Command::new(programs::ours("procstorm-exporter")?);
    Daemon::serve("procstorm-exporter", program, dir, &Http::new()?)
}

#[test]
fn the_exporter_shows_the_largest_groups_now() -> Result<(), Fault> {
    needs_chromium_and_root!();
    let dir = tempfile::tempdir().unwrap();
    let (_exporter, url) = exporter(dir.path())?;
    let [uid] = claim_uids();
    // More than any other group of this machine has, wherever this runs.
    let storm = Storm::raise(uid, HOSTILE.as_bytes(), 300)?;
    let mut browser = Browser::start()?;
    let row = format!("{uid}\t{HOSTILE}\t300");
    wait::until("a scan has seen the storm", SOON, || {
        browser.visit(&format!("{url}/"), DESK).ok()?;
        let rows = texts(&mut browser, "tbody tr").ok()?;
        rows.first().filter(|first| **first == row).map(drop)
    })?;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(browser.requests(), [format!("{url}/"), format!("{url}/style.css")]);
    assert!(is_true(&mut browser, "!document.querySelector('b, script, img, style')")?);
    keep_picture(&mut browser, "landing-page.png")?;
    drop(storm);
    Ok(())
}

/// What a page must have for those who do not see it, where axe-core is not there to ask.
const ESSENTIALS: &str = "document.documentElement.lang == 'en' && document.title != '' \
    && document.querySelectorAll('h1').length == 1 && document.querySelectorAll('main').length == 1 \
    && [...document.querySelectorAll('th')].every(th => th.scope != '') \
    && [...document.querySelectorAll('table')].every(table => table.caption) \
    && [...document.querySelectorAll('a')].every(a => a.innerText.trim() != '') \
    && [...document.querySelectorAll('td')].every(td => td.dataset.label)";

/// What axe-core finds, each as a line.
const AXE: &str = "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(found => \
    found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary)\
    .join(' | ')).concat([String(found.passes.length)]))";

#[test]
fn everybody_can_read_it() -> Result<(), Fault> {
    needs_chromium_and_root!();
    let axe = programs::unpacked("axe/axe.min.js").and_then(|file| fs::read_to_string(file).ok());
    if axe.is_none() {
        skipped(
            test_name!(),
            "no axe-core (tests/tools.sh test): only the essentials are looked at",
        );
    }
    let Eventful { host, _storms } = Eventful::new()?;
    let dir = tempfile::tempdir().unwrap();
    let (_exporter, exporter) = exporter(dir.path())?;
    let mut browser = Browser::start()?;
    let pages = ["/", "/remediations/2", "/remediations/4"].map(|path| (path, host.url(path)));
    for (path, url) in pages.into_iter().chain([("/exporter", format!("{exporter}/"))]) {
        for view in [
            DESK,
            DESK_DARK,
            TELEPHONE,
            TELEPHONE_DARK,
            View { width: 360, ..DESK_DARK },
            View { width: 320, ..DESK },
        ] {
            browser.visit(&url, view)?;
            let about = format!("{path} {view:?}");
            let scheme = if view.dark { "dark" } else { "light" };
            let name = format!("page{}-{}-{scheme}.png", path.replace('/', "-"), view.width);
            keep_picture(&mut browser, &name)?;
            let fits =
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            assert!(is_true(&mut browser, fits)?, "{about} is too wide");
            assert_eq!(browser.evaluate("window.innerWidth")?, view.width, "{about}");
            assert!(is_true(&mut browser, ESSENTIALS)?, "{about}");
            let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")?;
            let wanted = if view.dark { "rgb(13, 17, 23)" } else { "rgb(255, 255, 255)" };
            assert_eq!(ground, wanted, "{about}");
            // Each link can be reached by keyboard, and shows that it was.
            let focus = "[...document.querySelectorAll('a')].every(a => { a.focus(); \
                         return document.activeElement == a })";
            assert!(is_true(&mut browser, focus)?, "{about}");
            let Some(axe) = &axe else { continue };
            browser.evaluate(&format!("{axe};0"))?;
            let found = browser.evaluate(AXE)?;
            let mut found = found.as_array().unwrap().clone();
            let passes: u32 = found.pop().unwrap().as_str().unwrap().parse().unwrap();
            assert!(passes > 10, "axe-core has looked at {passes} rules only");
            assert_eq!(found, Vec::<Value>::new(), "{about}");
        }
    }
    Ok(())
}
