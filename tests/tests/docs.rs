//! What the README says is so: flags, files, targets of make, metrics.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use procstorm_testkit::programs;
use procstorm_tests::exposition;

fn readme() -> String {
    fs::read_to_string(programs::project().join("README.md")).unwrap()
}

/// The README from a line that begins with `from` to the next that begins with `to`.
fn part(from: &str, to: &str) -> String {
    let readme = readme();
    let lines = readme.lines().skip_while(|line| !line.starts_with(from)).skip(1);
    lines.take_while(|line| !line.starts_with(to)).collect::<Vec<_>>().join("\n")
}

/// The long flags that a text names.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)));
    let flag = |word: &&str| word.starts_with("--") && word.len() > 2;
    words.filter(flag).map(|word| word.trim_end_matches('.').to_owned()).collect()
}

/// The flags of a program's own help, but those that every program has.
fn flags_of(program: &str) -> BTreeSet<String> {
    let output = Command::new(programs::ours(program).unwrap()).arg("--help").output().unwrap();
    let mut flags = BTreeSet::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line = line.trim_start();
        if line.starts_with('-') {
            flags.extend(self::flags(line));
        }
    }
    flags.remove("--help");
    flags.remove("--version");
    flags
}

/// The flags in the first column of a program's table; the others may name those of others.
fn flags_in_readme(program: &str) -> BTreeSet<String> {
    let table = part(&format!("Flags of `{program}`"), "Flags of");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split('|').next()).flat_map(flags).collect()
}

#[test]
fn the_exporters_flags_in_the_readme_are_its_own() {
    assert_eq!(flags_in_readme("procstorm-exporter"), flags_of("procstorm-exporter"));
}

#[test]
fn the_remediators_flags_in_the_readme_are_its_own() {
    assert_eq!(flags_in_readme("procstorm-remediator"), flags_of("procstorm-remediator"));
}

#[test]
fn the_files_in_the_readme_are_there() {
    let readme = readme();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let code = readme.split('`').skip(1).step_by(2).filter(|code| {
        ["exporter/", "remediator/", "rules/", "alertmanager/", "tests/", "grafana/"]
            .iter()
            .any(|dir| code.starts_with(dir))
    });
    let mut seen = 0;
    // That the heading is there, too, is a test of all documents' links.
    let files = links.map(|link| link.split_once('#').map_or(link, |(file, _)| file));
    for path in files.filter(|file| !file.starts_with("http")).chain(code) {
        assert!(programs::project().join(path).exists(), "{path}");
        seen += 1;
    }
    assert!(seen > 5, "the README names {seen} files");
}

#[test]
fn the_targets_of_make_in_the_readme_are_there() {
    let makefile = fs::read_to_string(programs::project().join("Makefile")).unwrap();
    let readme = readme();
    let mut seen = 0;
    for rest in readme.split("make ").skip(1) {
        // Prose may have the word, too: only what is code is meant.
        let before = readme.split_once(rest).unwrap().0;
        if !before.ends_with("`make ") && !before.ends_with("\nmake ") {
            continue;
        }
        let in_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let target = rest.split(|c| !in_name(c)).next().unwrap();
        assert!(makefile.contains(&format!("\n{target}: ")), "make {target}");
        seen += 1;
    }
    assert!(seen > 5, "the README names {seen} targets");
}

#[test]
fn the_exporters_metrics_in_the_readme_are_there() {
    let row = part("| what | names |", "| remediator").replace("{user,command}", "");
    let output =
        Command::new(programs::ours("procstorm-exporter").unwrap()).arg("--once").output().unwrap();
    let lines = exposition::read(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let shown: BTreeSet<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let named: Vec<&str> = row
        .split('`')
        .filter(|word| word.starts_with("procstorm_"))
        .map(|word| word.split('{').next().unwrap_or_default())
        .collect();
    assert!(named.len() > 3, "{named:?}");
    for name in named {
        assert!(shown.contains(name), "{name} is not among {shown:?}");
    }
}

#[test]
fn the_example_of_the_remediators_configuration_is_valid() {
    let text = fs::read_to_string(programs::project().join("remediator/remediator.yml")).unwrap();
    let config = procstorm_remediator::policy::Config::parse(&text, "moscow");
    assert!(config.is_ok(), "{config:?}");
}
