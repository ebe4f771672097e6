//! What the README says is so: files and targets of make.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use procstorm_testkit::programs;

fn readme() -> String {
    fs::read_to_string(programs::project().join("README.md")).unwrap()
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
fn the_example_of_the_remediators_configuration_is_valid() {
    let text = fs::read_to_string(programs::project().join("remediator/remediator.yml")).unwrap();
    let config = procstorm_remediator::policy::Config::parse(&text, "moscow");
    assert!(config.is_ok(), "{config:?}");
}
