//! What people read is in plain English: the documents hold none of the phrases that had to be
//! decoded. Each stands here beside the words that replace it, which a failure shows.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use procstorm_testkit::programs;

/// A phrase, in small letters and as whole words, and what to write instead.
const PHRASES: [(&str, &str); 57] = [
    // Verbs of telling, for a state or a value.
    ("is told", "is notified, is set to, knows"),
    ("are told", "are notified, are set to, know"),
    ("was told", "was notified, was set to"),
    ("were told", "were notified, were set to"),
    ("been told", "been notified, been set to"),
    ("not told", "unknown, not notified"),
    ("tells of", "reports, shows"),
    ("told of", "notified of, shown"),
    ("is asked of", "is requested from"),
    ("was asked of", "was requested from"),
    ("is said of", "is reported about"),
    ("bids", "requires, asks"),
    // Programs are not persons.
    ("whoever", "each client that, everybody who"),
    ("who speaks", "which client sent the request"),
    ("who may speak", "which clients may send requests"),
    ("speaks for ever", "keeps firing"),
    ("who has no", "if you have no"),
    ("who knows the", "requests must carry the"),
    ("is blind to", "does not see"),
    // Old or literary words.
    ("anew", "again"),
    ("upon", "on"),
    ("for ever", "forever, without end"),
    ("thereupon", "then"),
    ("therein", "in it"),
    ("thereof", "of it"),
    ("hence", "so, therefore"),
    ("oftener", "more often"),
    ("heeds", "follows, reads"),
    ("lest", "so that ... not"),
    ("besides", "also"),
    ("of late", "recently"),
    ("aught", "anything"),
    ("ere", "before"),
    ("bears", "has, carries"),
    ("somebody in the bite", "a process in this batch"),
    ("without an heir", "without a child"),
    ("in heaps", "in large numbers"),
    ("in a crowd", "when half of the slots are in use"),
    ("ends badly", "fails"),
    ("ended badly", "failed"),
    ("ends well", "succeeds"),
    ("ended well", "succeeded"),
    ("is ill", "has a problem"),
    // Sentences that leave the reader to find the subject.
    ("all stays as it was", "still using the previous configuration"),
    ("it stays as it was", "it does not change"),
    ("no more is forgotten", "pruning failed"),
    ("called off", "aborted"),
    ("left for the next start", "the next start resumes"),
    ("let processes go on", "resume (SIGCONT) processes"),
    ("looked out for", "watched for"),
    ("took too long", "timed out"),
    ("takes too long to", "times out"),
    ("is no key", "unknown key"),
    ("is no span", "is not a duration"),
    ("is no notification", "is not a notification"),
    ("what is missing of", "the missing parts of"),
    ("its time was over", "the deadline passed"),
];

/// What people read beside the code's own texts: by the ends of the files' names.
const DOCUMENTS: [&str; 13] = [
    ".md",
    ".8",
    ".service",
    ".socket",
    ".default",
    ".sysusers",
    ".yml",
    ".tmpl",
    ".tsv",
    ".sh",
    ".json",
    ".spec",
    "Makefile",
];

/// Directories whose files are data of tests, builds, or the history as it was written.
const LEFT_OUT: [&str; 6] = ["target", ".git", "fuzz", "config", "node_modules", "CHANGELOG.md"];

fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            documents(&entry.path(), found);
        } else if kind.is_file() && DOCUMENTS.iter().any(|end| name.ends_with(end)) {
            found.push(entry.path());
        }
    }
}

/// A text as small letters in words, without the marks of comments, each with its line.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let letters = |c: char| c.is_alphanumeric() || "-_'".contains(c);
        for word in line.split(|c| !letters(c)).filter(|word| !word.is_empty()) {
            words.push((number + 1, word.to_lowercase()));
        }
    }
    words
}

/// The phrases in a text: the line, the phrase, and what to write instead.
fn faults(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let words = words(text);
    let mut faults = Vec::new();
    for (phrase, plain) in PHRASES {
        let parts: Vec<&str> = phrase.split(' ').collect();
        for found in words.windows(parts.len()) {
            if found.iter().map(|(_, word)| word).eq(parts.iter()) {
                faults.extend(found.first().map(|(line, _)| (*line, phrase, plain)));
            }
        }
    }
    faults
}

#[test]
fn a_phrase_is_found_across_lines_and_comment_marks() {
    let text = "# The daemon\n# is\n#   told that.\nWhoever!\nWithout sharing, howhoever\n";
    let found: Vec<_> = faults(text).into_iter().map(|(line, phrase, _)| (line, phrase)).collect();
    assert_eq!(found, [(2, "is told"), (4, "whoever")]);
}

#[test]
fn the_documents_are_in_plain_english() {
    let project = programs::project();
    let mut files = Vec::new();
    documents(project, &mut files);
    assert!(files.len() > 40, "{} documents", files.len());
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(project).unwrap().display();
        for (line, phrase, plain) in faults(&text) {
            complaints.push(format!("{name}:{line}: \"{phrase}\"; write: {plain}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
