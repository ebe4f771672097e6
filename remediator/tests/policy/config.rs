//! The example configuration is good, and each bad one is refused for the fault it is named after.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use procstorm_remediator::policy::{Config, Fallback, Fault, LoadError};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// The faults of a bad file.
fn faults(path: &Path) -> Vec<Fault> {
    match Config::read(path, "here") {
        Err(LoadError::Faults { faults, .. }) => faults,
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn every_bad_file_is_refused_for_its_fault_alone() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# fault: ").unwrap().to_owned();
        let faults = faults(&path);
        assert_eq!(faults.len(), 1, "{}: {faults:?}", path.display());
        let shown = faults.first().unwrap().to_string();
        assert!(shown.starts_with(&expected), "{}: {shown:?}", path.display());
        seen += 1;
    }
    assert!(seen > 50, "the fixtures are in {}: {seen}", folder().display());
}

#[test]
fn every_fault_is_told_at_once_with_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yml");
    let text =
        "host: 7\nstat: /x\nmail: {reserve: lots}\nplaybooks: {p: {threshold: 0, alerts: [A]}}\n";
    std::fs::write(&path, text).unwrap();
    let shown = Config::read(&path, "here").unwrap_err().to_string();
    let lines: Vec<_> = shown.lines().collect();
    let keys = [
        (1, "host"),
        (2, "stat"),
        (3, "mail.reserve"),
        (4, "playbooks.p.command"),
        (4, "playbooks.p.threshold"),
        (4, "playbooks.p.steps"),
    ];
    for (line, key) in keys {
        let start = format!("{}:{line}: {key}: ", path.display());
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{key} in {shown}");
    }
    assert_eq!(lines.len(), keys.len(), "{shown}");
}

/// What is wrong with a policy, with the number of each line.
fn shown(text: &str) -> Vec<String> {
    match Config::parse(text, "here") {
        Err(faults) => faults.iter().map(|fault| format!("{}: {fault}", fault.line)).collect(),
        Ok(_) => panic!("no fault in: {text}"),
    }
}

#[test]
fn each_kind_of_fault_has_its_line_and_key_at_every_depth() {
    let good = "\
host: here
mail:
  spool: /var/mail
  max_age: 30d
accounts:
  protected:
    - postmaster
    - \"@staff\"
playbooks:
  imapd_storm:
    alerts: [ProcNumChkRed]
    command: imapd
    threshold: 90
    limits:
      per_user: 12/h
    steps:
      - archive_mail_file
      - kill_user_proc
";
    assert!(Config::parse(good, "here").is_ok());
    let playbook = "playbooks.imapd_storm";
    for (from, to, wanted) in [
        // Missing: at the mapping that lacks it.
        ("    threshold: 90\n", "", format!("10: {playbook}.threshold: missing")),
        ("    command: imapd\n", "", format!("10: {playbook}.command: missing")),
        // Of a wrong type.
        (
            "host: here",
            "host: [here]",
            "1: host: must be text, not a list; put it in quotes".into(),
        ),
        (
            "mail:\n",
            "mail: 7\nx:\n",
            "2: mail: must be a mapping of keys to values, not a number".into(),
        ),
        (
            "threshold: 90",
            "threshold: lots",
            format!(
                "13: {playbook}.threshold: must be a whole number of at least 1, not the text \"lots\""
            ),
        ),
        (
            "[ProcNumChkRed]",
            "ProcNumChkRed",
            format!("11: {playbook}.alerts: must be a list, not text"),
        ),
        // An item of a list: at its own line.
        (
            "- \"@staff\"",
            "- {a: b}",
            "8: accounts.protected: must be text, not a mapping; put it in quotes".into(),
        ),
        (
            "- kill_user_proc",
            "- reboot",
            format!(
                "18: {playbook}.steps: unknown step \"reboot\"; expected one of archive_mail_file, kill_user_proc"
            ),
        ),
        // Unknown.
        ("  max_age", "  max-age", "4: mail.max-age: unknown key; did you mean max_age?".into()),
        (
            "      per_user",
            "      per_usr",
            format!("15: {playbook}.limits.per_usr: unknown key; did you mean per_user?"),
        ),
        (
            "      per_user",
            "      hourly",
            format!("15: {playbook}.limits.hourly: unknown key; expected one of per_user, total"),
        ),
        // Twice.
        (
            "    threshold: 90\n",
            "    threshold: 90\n    threshold: 91\n",
            "14: duplicate key \"threshold\" (first in line 13)".into(),
        ),
        (
            "accounts:\n",
            "host: there\naccounts:\n",
            "5: duplicate key \"host\" (first in line 1)".into(),
        ),
        // Quantities.
        (
            "30d",
            "30 days",
            "4: mail.max_age: invalid duration \"30 days\" (examples: 30s, 5m, 1h30m)".into(),
        ),
        (
            "12/h",
            "often",
            format!(
                "15: {playbook}.limits.per_user: invalid rate \"often\" (examples: 12/h, 3/15m)"
            ),
        ),
        // Not YAML at all.
        ("host: here", "host: [here", "2: not valid YAML".into()),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let shown = shown(&good.replacen(from, to, 1));
        assert!(shown.first().is_some_and(|first| first.starts_with(&wanted)), "{to:?}: {shown:?}");
    }
}

#[test]
fn a_misspelt_key_that_is_required_is_both_unknown_and_missing() {
    let text = "playbooks:\n  p:\n    alerts: [A]\n    command: x\n    treshold: 9\n    \
                steps: [kill_user_proc]\n";
    let wanted = [
        "2: playbooks.p.threshold: missing",
        "5: playbooks.p.treshold: unknown key; did you mean threshold?",
    ];
    assert_eq!(shown(text), wanted);
}

#[test]
fn faults_are_in_the_order_of_their_lines() {
    let text = "playbooks:\n  p: {alerts: [], command: x, steps: []}\nhost: 7\nparalel: 4\n";
    let shown = shown(text);
    let lines: Vec<_> = shown.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["2", "2", "2", "3", "4"], "{shown:?}");
}

#[test]
fn the_example_has_every_key_and_each_default_is_valid() {
    let example = std::fs::read_to_string(folder().join("../../remediator.yml")).unwrap();
    let keys = Config::keys();
    for key in &keys {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(example.contains(&format!("{name}:")), "{} is not in the example", key.path);
        assert!(!key.meaning.trim().is_empty(), "{}", key.path);
    }
    // What stands in the file and what is the default without it are the same.
    let least = "host: here\nplaybooks:\n  p:\n    alerts: [A]\n    command: x\n    threshold: 9\n    \
                 steps: [kill_user_proc]\n";
    let (mut whole, mut limits) = (least.to_owned(), Vec::new());
    for key in &keys {
        let Fallback::Value(value) = key.default else { continue };
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        match section {
            "" => whole.insert_str(0, &format!("{name}: {value}\n")),
            "playbooks.NAME" => whole.push_str(&format!("    {name}: {value}\n")),
            "playbooks.NAME.limits" => limits.push(format!("{name}: {value}")),
            // Each section once: its first key opens it.
            section => {
                let begin = format!("{section}:\n");
                if !whole.contains(&begin) {
                    whole.insert_str(0, &begin);
                }
                whole = whole.replacen(&begin, &format!("{begin}  {name}: {value}\n"), 1);
            }
        }
    }
    whole.push_str(&format!("    limits: {{{}}}\n", limits.join(", ")));
    assert!(keys.len() > 30, "{} keys", keys.len());
    assert_eq!(Config::parse(&whole, "x"), Config::parse(least, "x"), "{whole}");
}

#[test]
fn the_example_is_good_and_explains_itself() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("remediator.yml");
    let config = Config::read(&example, "elsewhere").unwrap();
    assert_eq!(config.host, "moscow");
    let explained = config.explain();
    for part in [
        "host is \"moscow\"",
        "postmaster",
        "at least 90 processes of exactly \"imapd\"",
        "12 times in 1h for one user and 60 times in 1h for all",
    ] {
        assert!(explained.contains(part), "{part:?} in {explained}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let shown = Config::read(Path::new("/nowhere/remediator.yml"), "x").unwrap_err().to_string();
    assert!(shown.contains("/nowhere/remediator.yml"), "{shown}");
}

#[test]
fn a_fault_quotes_no_secret() {
    for text in [
        "host: [\npassword: hunter2\n  hunter2: hunter2\n",
        "token_file: hunter2\nplaybooks: {}\n",
        "host: {a: 1\n# hunter2\ntoken_file: 'hunter2\n",
        "alertmanager: 'http://user:hunter2 @x'\nplaybooks: {}\n",
    ] {
        let faults = Config::parse(text, "here").unwrap_err();
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(!shown.join("\n").contains("hunter2"), "{shown:?}");
    }
}

#[test]
fn a_command_that_looks_like_a_pattern_is_a_warning() {
    let policy = |command: &str| {
        format!(
            "host: here\nplaybooks:\n  p:\n    alerts: [A]\n    command: '{command}'\n    \
             threshold: 9\n    steps: [kill_user_proc]\n"
        )
    };
    for command in ["python.*", "*", "imap?", "imap[d]", "a|b", "^imapd$", "imapd.+", "/sbin/imapd"]
    {
        let text = policy(command);
        let warnings = Config::parse(&text, "here").unwrap().warnings(&text);
        let shown: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.first().map(|warning| warning.line), Some(5), "{command}: {shown:?}");
        assert!(shown.iter().all(|one| one.starts_with("playbooks.p.command: ")));
    }
    for command in ["imapd", "python3.11", "(sd-pam)", "g++", "my prog", "kworker-x"] {
        let text = policy(command);
        assert_eq!(Config::parse(&text, "here").unwrap().warnings(&text), [], "{command}");
    }
}

#[test]
fn what_the_sandbox_leaves_open_is_explained() {
    let text = "host: here\nsandbox: {read: [/srv/accounts, /srv/x]}\nplaybooks:\n  p:\n    \
                alerts: [A]\n    command: imapd\n    threshold: 9\n    steps: [kill_user_proc]\n";
    let explained = Config::parse(text, "x").unwrap().explain();
    assert!(explained.contains("also reads /srv/accounts, /srv/x.\n"), "{explained}");
    let none = Config::parse(&text.replace("/srv/accounts, /srv/x", ""), "x").unwrap();
    assert!(!none.explain().contains("sandbox"));
}
