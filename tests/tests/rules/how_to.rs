//! What the rules' documents say is true: each worked example of `rules/README.md` is applied to
//! a copy, which then passes the example's own checks and `rules/check.sh`, the table is the
//! rules' table, and every alert has its section in `rules/RUNBOOK.md`, its link to it and its row
//! in `alertmanager/routes.tsv`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use procstorm_remediator::verdict::Verdict;
use procstorm_testkit::programs;
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::webhook::Webhook;

fn shipped(path: &str) -> String {
    fs::read_to_string(programs::project().join(path)).unwrap()
}

/// A fenced block of a document: its language and its text.
struct Block<'a> {
    language: &'a str,
    text: &'a str,
}

/// The sections of a document (`## Title`), each with its fenced blocks.
fn sections(document: &str) -> Vec<(&str, Vec<Block<'_>>)> {
    let section = |text| {
        let (title, body) = str::split_once(text, '\n').unwrap_or((text, ""));
        let blocks = body.split("```").skip(1).step_by(2);
        let block = |block| {
            let (language, text) = str::split_once(block, '\n').unwrap();
            Block { language, text }
        };
        (title, blocks.map(block).collect())
    };
    document.split("\n## ").skip(1).map(section).collect()
}

/// Applies a diff of one place, whose lines before and after must be found exactly once.
fn apply(diff: &str, dir: &Path) {
    let (file, lines) = diff.split_once('\n').unwrap();
    let path = dir.join(file.strip_prefix("--- ").unwrap());
    let side = |dropped: char| -> String {
        let kept = lines.lines().filter(|line| !line.starts_with(dropped));
        kept.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect()
    };
    let (before, after) = (side('+'), side('-'));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches(&before).count(), 1, "{} has once:\n{before}", path.display());
    fs::write(&path, text.replace(&before, &after)).unwrap();
}

/// Runs a tool in the copy. Returns what it says.
fn run(dir: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(programs::other(tool).unwrap())
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}{complaint}");
    said
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What `make rules` says of the copy: a user who follows an example must pass it.
pub(crate) fn check(dir: &Path, title: &str) {
    let output = Command::new(dir.join("rules/check.sh"))
        .env("PROMTOOL", programs::other("promtool").unwrap())
        .env("AMTOOL", programs::other("amtool").unwrap())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{title}: {complaint}");
}

/// Checks one block that says what must hold now. Returns whether it was one.
fn holds(block: &Block<'_>, dir: &Path) -> bool {
    match block.language {
        "labels" => {
            let job = ["check", "service-discovery", "--timeout=5s", "rules/prometheus.yml"];
            let said = run(dir, "promtool", &[&job[..], &["procstorm"]].concat());
            let targets: serde_json::Value = serde_json::from_str(&said).unwrap();
            let wanted: Vec<_> = block.text.lines().map(|l| l.split_once('=').unwrap()).collect();
            let has_all = |target: &serde_json::Value| {
                wanted.iter().all(|(name, value)| {
                    target.pointer(&format!("/labels/{name}")).and_then(|v| v.as_str())
                        == Some(value.trim_matches('"'))
                })
            };
            assert!(targets.as_array().unwrap().iter().any(has_all), "{wanted:?} in {said}");
        }
        "promtool" => {
            fs::write(dir.join("example.test.yml"), block.text).unwrap();
            run(dir, "promtool", &["test", "rules", "example.test.yml"]);
        }
        "routes" => {
            for line in block.text.lines() {
                let (labels, receivers) = line.split_once('\t').unwrap();
                let receivers = format!("--verify.receivers={receivers}");
                let config = "--config.file=alertmanager/alertmanager.yml";
                let mut arguments = vec!["config", "routes", "test", config, &receivers];
                arguments.extend(labels.split(' '));
                run(dir, "amtool", &arguments);
            }
        }
        // Commands that change the copy.
        "sh" => drop(run(dir, "sh", &["-eu", "-c", block.text])),
        // A host's policy, which must agree with the rules and the routes beside it.
        "yaml" => {
            fs::write(dir.join("remediator.yml"), block.text).unwrap();
            let output = Command::new(programs::ours("procstorm-remediator").unwrap())
                .args(["--check", "--config.file=remediator.yml", "--rules=rules"])
                .arg("--alertmanager=alertmanager/alertmanager.yml")
                .current_dir(dir)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}\n{said}{complaint}", block.text);
            assert!(said.contains("the three agree"), "{}\n{said}", block.text);
        }
        // A field test runs it, on a machine of its own.
        "bash" => drop(run(dir, "bash", &["-n", "-c", block.text])),
        _ => return false,
    }
    true
}

/// Applies each section of a document to a copy, and runs its checks and `rules/check.sh` on it.
/// Returns how many sections, changes and checks there were.
fn follow(document: &str) -> (usize, usize, usize) {
    let document = shipped(document);
    let (mut examples, mut changes, mut checks) = (0, 0, 0);
    for (title, blocks) in sections(&document) {
        if blocks.is_empty() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        for part in ["rules", "alertmanager"] {
            copy(&programs::project().join(part), &dir.path().join(part));
        }
        for block in &blocks {
            if block.language == "diff" {
                apply(block.text, dir.path());
                changes += 1;
            } else if holds(block, dir.path()) {
                checks += 1;
            } else {
                panic!("{title}: a block of language {:?}", block.language);
            }
        }
        check(dir.path(), title);
        examples += 1;
    }
    (examples, changes, checks)
}

#[test]
fn each_recipe_works() {
    let (recipes, changes, checks) = follow("rules/RECIPES.md");
    println!("recipes: {recipes}, {changes} changes applied, {checks} checks passed");
    assert!(recipes >= 5 && changes >= 10 && checks >= 8, "{recipes} recipes, {checks} checks");
}

#[test]
fn each_worked_example_works() {
    let (examples, changes, checks) = follow("rules/README.md");
    println!("how to: {examples} examples, {changes} changes applied, {checks} checks passed");
    assert!(examples >= 4 && checks >= 5, "{examples} examples, {checks} checks");
}

#[test]
fn each_integration_works() {
    let (sections, changes, checks) = follow("alertmanager/INTEGRATIONS.md");
    println!("integrations: {sections}, {changes} changes applied, {checks} checks passed");
    assert!(sections >= 4 && changes >= 4 && checks >= 5, "{sections} sections, {checks} checks");
}

/// A command of `sed` that finds nothing succeeds, too.
#[test]
fn what_is_scraped_every_second_is_notified_as_fast() {
    let document = shipped("alertmanager/INTEGRATIONS.md");
    let sections = sections(&document);
    let (_, second) = sections.iter().find(|(title, _)| *title == "Scrape every second").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for part in ["rules", "alertmanager"] {
        copy(&programs::project().join(part), &dir.path().join(part));
    }
    assert!(second.iter().any(|block| block.language == "sh" && holds(block, dir.path())));
    for (file, changed) in [
        (
            "rules/prometheus.yml",
            "  - job_name: procstorm\n    scrape_interval: 1s\n    scrape_timeout: 1s\n",
        ),
        ("rules/procstorm.rules.yml", "  - name: procstorm_alerts\n    interval: 250ms\n"),
        (
            "alertmanager/alertmanager.yml",
            "[alertname=\"ProcNumChkRed\"]\n      receiver: mail\n      group_wait: 200ms\n      \
             group_interval: 500ms\n",
        ),
        (
            "alertmanager/alertmanager.yml",
            "[alertname, host, user, command]\n      group_wait: 0s\n      group_interval: 800ms\n",
        ),
    ] {
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(text.matches(changed).count(), 1, "{file} has once: {changed}");
    }
}

#[test]
fn a_process_cannot_call_everybody_in_a_chat() {
    let document = shipped("alertmanager/INTEGRATIONS.md");
    let sections = sections(&document);
    let (_, slack) = sections.iter().find(|(title, _)| *title == "Slack").unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy(&programs::project().join("alertmanager"), &dir.path().join("alertmanager"));
    for block in slack.iter().filter(|block| block.language == "diff") {
        apply(block.text, dir.path());
    }
    let chat = Webhook::serve().unwrap();
    let url = dir.path().join("slack");
    fs::write(&url, format!("http://{}/", chat.address())).unwrap();
    let config = dir.path().join("alertmanager/alertmanager.yml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("/etc/prometheus/procstorm.slack", url.to_str().unwrap());
    fs::write(&config, text).unwrap();
    let alertmanager = Alertmanager::start(&config, dir.path()).unwrap();
    let alert = serde_json::json!({
        "labels": {
            "alertname": "ProcNumChkRed", "host": "moscow", "user": "alice", "command": "<!channel>",
            "class": "default", "level": "red", "severity": "critical",
        },
        "annotations": {
            "inline": "  97 alice <!channel>`&\u{202e}", "count": "97", "threshold": "30",
            "runbook_url": "https://example.org/runbook",
        },
    });
    alertmanager.post_alerts(&[alert]).unwrap();
    let (_, told) = chat.next(Duration::from_secs(60)).unwrap();
    let attachment = told.pointer("/attachments/0").unwrap();
    let text = attachment["text"].as_str().unwrap();
    assert_eq!(
        text.trim_end(),
        "`  97 alice &lt;!channel&gt;'&amp;?`\nThe red threshold of class default is 30; no playbook: \
         nothing acts on it, so a person must."
    );
    assert_eq!(attachment["title"], "ProcNumChkRed on moscow");
    assert_eq!(attachment["color"], "danger");
    assert!(!told.to_string().contains("<!"), "{told}");
}

/// Three members, each of which is given each outcome, as a remediator does. The archive refuses the
/// first request.
#[test]
fn the_archive_gets_each_outcome_from_a_cluster() {
    let document = shipped("alertmanager/INTEGRATIONS.md");
    let sections = sections(&document);
    let (_, archive) =
        sections.iter().find(|(title, _)| *title == "One archive of all outcomes").unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy(&programs::project().join("alertmanager"), &dir.path().join("alertmanager"));
    for block in archive.iter().filter(|block| block.language == "diff") {
        apply(block.text, dir.path());
    }
    let refusals = 1;
    let place = Webhook::serve_after(refusals).unwrap();
    let config = dir.path().join("alertmanager/alertmanager.yml");
    let text = fs::read_to_string(&config).unwrap();
    let shipped_url = "http://archive.example.org:8080/outcomes";
    assert_eq!(text.matches(shipped_url).count(), 1);
    let here = format!("http://{}/outcomes", place.address());
    fs::write(&config, text.replace(shipped_url, &here)).unwrap();
    let members =
        Alertmanager::start_cluster(&config, dir.path(), 3, Duration::from_secs(5)).unwrap();
    let hosts = ["moscow", "kiev"];
    let outcome = |host: &str, event: u32| {
        serde_json::json!({
            "labels": {
                "alertname": "ProcstormOutcome", "host": host, "user": "alice", "command": "imapd",
                "playbook": "imapd_storm", "verdict": "none_seen", "severity": "info",
                "event": event.to_string(),
            },
            "annotations": {"summary": "killed all alice imapd processes"},
        })
    };
    let outcomes: Vec<_> =
        hosts.iter().flat_map(|host| (1..=5).map(|event| outcome(host, event))).collect();
    for member in &members {
        member.post_alerts(&outcomes).unwrap();
    }
    let (mut requests, mut found) = (0, BTreeSet::new());
    while found.len() < outcomes.len() {
        let (_, told) = place.next(Duration::from_secs(120)).unwrap();
        assert_eq!(told["alerts"].as_array().unwrap().len(), 1, "one outcome each: {told}");
        let labels = &told["alerts"][0]["labels"];
        assert_eq!(labels["verdict"], "none_seen");
        let label = |name: &str| labels[name].as_str().unwrap().to_owned();
        found.insert((label("host"), label("event")));
        requests += 1;
    }
    println!(
        "archive: {} outcomes in {requests} requests of three members, after {refusals} refusal",
        found.len()
    );
}

#[test]
fn a_target_in_any_form_has_its_host_as_a_label() {
    let dir = tempfile::tempdir().unwrap();
    copy(&programs::project().join("rules"), &dir.path().join("rules"));
    let file = dir.path().join("rules/prometheus.yml");
    let text = fs::read_to_string(&file).unwrap();
    let hosts = [
        ("moscow:9957", "moscow"),
        ("kiev", "kiev"),
        ("mail.example.org:9957", "mail.example.org"),
        ("192.0.2.7:9957", "192.0.2.7"),
        ("[2001:db8::5]:9957", "2001:db8::5"),
        ("[::1]:9957", "::1"),
        ("[2001:db8::6]", "2001:db8::6"),
        ("[fe80::1%eth0]:9957", "fe80::1%eth0"),
    ];
    assert_eq!(text.matches("['moscow:9957']").count(), 1);
    let targets: Vec<_> = hosts.iter().map(|(target, _)| format!("'{target}'")).collect();
    let text = text.replace("['moscow:9957']", &format!("[{}]", targets.join(", ")));
    fs::write(&file, text).unwrap();
    let job = ["check", "service-discovery", "--timeout=5s", "rules/prometheus.yml", "procstorm"];
    let found: serde_json::Value =
        serde_json::from_str(&run(dir.path(), "promtool", &job)).unwrap();
    for (target, host) in hosts {
        let one = found.as_array().unwrap().iter().find(|found| {
            found.pointer("/discoveredLabels/__address__").and_then(|v| v.as_str()) == Some(target)
        });
        let label = one.and_then(|found| found.pointer("/labels/host")).and_then(|v| v.as_str());
        assert_eq!(label, Some(host), "{target}: {found}");
    }
}

/// The values of `key: value` at the beginnings of the rules' lines.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn each_alert_has_a_section_a_link_and_a_route() {
    let rules = shipped("rules/procstorm.rules.yml");
    let runbook = shipped("rules/RUNBOOK.md");
    let routes = shipped("alertmanager/routes.tsv");
    let sections: BTreeSet<&str> = values(&runbook, "## ").into_iter().collect();
    let mut alerts: BTreeSet<&str> = values(&rules, "- alert: ").into_iter().collect();
    for alert in &alerts {
        assert!(routes.contains(&format!("alertname={alert} ")), "routes.tsv has no {alert}");
    }
    // Each rule's links, of which the two levels share a template.
    let mut links = BTreeSet::new();
    for link in values(&rules, "runbook_url: ") {
        let link = link.trim_matches('\'');
        let (page, anchor) = link.split_once('#').unwrap();
        assert_eq!(page, "https://example.org/procstorm/blob/main/rules/RUNBOOK.md");
        for level in ["emergency", "red"] {
            links.insert(anchor.replace("{{ $labels.level }}", level));
        }
    }
    // The remediator's own.
    alerts.insert("ProcstormOutcome");
    links.insert("procstormoutcome".to_owned());
    assert_eq!(sections, alerts, "sections and alerts");
    let anchors: BTreeSet<String> = sections.iter().map(|title| title.to_lowercase()).collect();
    assert_eq!(links, anchors, "links and sections");
    println!("runbook: {} alerts, each with a section, a link and a route", alerts.len());
}

/// The names by which GitHub lets links point to a document's headings, of every level.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut anchors = BTreeSet::new();
    for line in document.lines() {
        in_code ^= line.starts_with("```");
        let title = line.trim_start_matches('#').strip_prefix(' ');
        let Some(title) = title.filter(|_| line.starts_with('#') && !in_code) else { continue };
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        anchors.insert(title.to_lowercase().chars().filter(kept).collect::<String>());
    }
    anchors.into_iter().map(|title| title.replace(' ', "-")).collect()
}

#[test]
fn each_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut headings = 0;
    let documents = [
        "README.md",
        "alertmanager/INTEGRATIONS.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "remediator/README.md",
        "rules/README.md",
        "rules/RECIPES.md",
        "rules/RUNBOOK.md",
    ];
    for document in documents {
        let text = shipped(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // A part of the regular expression that makes the label host looks like a link.
            if link.starts_with("http") || link == r":\d+" {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = Path::new(document).parent().unwrap();
            let target = if file.is_empty() { document.into() } else { directory.join(file) };
            let there = programs::project().join(&target);
            assert!(there.exists(), "{document}: no file {link}");
            if !anchor.is_empty() {
                let found = anchors(&fs::read_to_string(there).unwrap());
                assert!(found.contains(anchor), "{document}: {link} is none of {found:?}");
                headings += 1;
            }
        }
    }
    assert!(headings > 15, "{headings} links to headings");
}

#[test]
fn the_table_in_the_readme_is_the_table_of_the_rules() {
    let rules = shipped("rules/procstorm.rules.yml");
    let field = |row: &str, key: &str| {
        let rest = row.split_once(&format!("{key}: ")).map(|(_, rest)| rest);
        rest.map(|rest| rest.split([',', '}']).next().unwrap().to_owned()).unwrap_or_default()
    };
    let number = |row: &str| -> String {
        row.split_once("vector(").unwrap().1.split_once(')').unwrap().0.to_owned()
    };
    let rows_of = |family: &str| {
        let start = format!("- {{record: 'role_class:procstorm_processes:{family}'");
        let rows = rules.lines().filter(|line| line.contains(&start));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    let patience = rows_of("patience");
    // Of a row with a playbook, which alone can wait.
    let patience_of = |role: &str, class: &str| {
        let is_its = |row: &&String| field(row, "role") == role && field(row, "class") == class;
        patience.iter().find(is_its).map_or_else(|| "0".to_owned(), |row| number(row))
    };
    let rows: BTreeSet<[String; 6]> = rows_of("threshold")
        .iter()
        .map(|row| {
            let [level, role, class, playbook] =
                ["level", "role", "class", "playbook"].map(|key| field(row, key));
            let waits = level == "red" && !playbook.is_empty();
            let patience = if waits { patience_of(&role, &class) } else { String::new() };
            [level, role, class, number(row), playbook, patience]
        })
        .collect();
    assert_eq!(rows.len(), 9, "{rows:?}");
    let readme = shipped("rules/README.md");
    let told: BTreeSet<[String; 6]> = readme
        .lines()
        .filter(|line| line.starts_with("| emergency |") || line.starts_with("| red |"))
        .map(|line| {
            let line = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [level, role, class, number, playbook, patience] = cells.try_into().unwrap();
            let role = role.split(' ').next().unwrap();
            [level, role, class, number, playbook, patience].map(str::to_owned)
        })
        .collect();
    assert_eq!(told, rows);
}

#[test]
fn each_verdict_of_an_outcome_is_explained() {
    let runbook = shipped("rules/RUNBOOK.md");
    let (_, section) = runbook.split_once("\n## ProcstormOutcome\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for verdict in Verdict::ALL {
        let row = format!("| `{verdict}` | {} |", verdict.meaning());
        let is_explained = match verdict.is_mailed() {
            true => section.lines().any(|line| line.starts_with(&row)),
            false => section.contains(&format!("`{verdict}`")),
        };
        assert!(is_explained, "the runbook should say of it: {row}");
    }
}
