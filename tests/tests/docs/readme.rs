//! What README and the project's papers say is so: files, modules, and targets of make.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use procstorm_testkit::programs;

fn read(document: &str) -> String {
    fs::read_to_string(programs::project().join(document)).unwrap()
}

fn readme() -> String {
    read("README.md")
}

/// What stands between backticks in a document.
fn code(document: &str) -> impl Iterator<Item = &str> {
    document.split('`').skip(1).step_by(2)
}

#[test]
fn the_files_in_the_documents_are_there() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        let text = read(document);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let code = code(&text).filter(|code| {
            let dirs = ["exporter/", "remediator/", "lib/", "rules/", "alertmanager/", "tests/"];
            let is_path = !code.contains([' ', '*', '\n']);
            is_path && dirs.iter().chain(&["grafana/"]).any(|dir| code.starts_with(dir))
        });
        let mut seen = 0;
        // That the heading is there, too, is a test of all documents' links.
        let files = links.map(|link| link.split_once('#').map_or(link, |(file, _)| file));
        let files = files.filter(|file| !file.is_empty() && !file.starts_with("http"));
        for path in files.chain(code) {
            assert!(programs::project().join(path).exists(), "{document}: {path}");
            seen += 1;
        }
        assert!(seen > 5, "{document} names {seen} files");
    }
}

/// All sources below a directory, as one text.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn the_modules_and_functions_in_the_architecture_are_there() {
    let dirs = ["exporter/src", "remediator/src", "lib"];
    let sources: String = dirs.iter().map(|dir| sources(&programs::project().join(dir))).collect();
    let text = read("ARCHITECTURE.md");
    let mut seen = 0;
    for path in code(&text).filter(|code| code.contains("::")) {
        let in_path = |c: char| c.is_ascii_lowercase() || "_:".contains(c);
        if !path.chars().all(in_path) || path.starts_with("tokio::") {
            continue;
        }
        // The crate's name begins some of them.
        for name in path.split("::").filter(|name| !["toolkit", "processes"].contains(name)) {
            let forms =
                ["fn NAME(", "fn NAME<", "mod NAME;"].map(|form| form.replace("NAME", name));
            let known = ["remediator", "exporter"].contains(&name);
            let there = known || forms.iter().any(|form| sources.contains(form.as_str()));
            assert!(there, "ARCHITECTURE.md: `{path}`: no module or function {name}");
        }
        seen += 1;
    }
    assert!(seen > 10, "ARCHITECTURE.md names {seen} modules and functions");
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
