//! The example configuration is good, and each bad one is refused for the fault it is named after.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use procstorm_remediator::policy::{Config, Fault, LoadError};

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
