//! Manual page, unit and README agree with the program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use procstorm_remediator::journal::Journal;
use procstorm_testkit::documents::{assert_exposure, assert_well_formed};
use procstorm_testkit::test_name;

const BINARY: &str = env!("CARGO_BIN_EXE_procstorm-remediator");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

#[test]
fn the_manual_page_is_well_formed() {
    assert_well_formed(test_name!(), &file("procstorm-remediator.8"));
}

#[test]
fn the_unit_leaves_little_to_attack_and_does_not_blind() {
    let unit = read("procstorm-remediator.service");
    for line in ["ProtectProc=default", "ProcSubset=all", "PrivateUsers=no"] {
        assert!(unit.lines().any(|found| found == line), "{line} is not in the unit");
    }
    // 2.1: 0.2 of it for RestrictSUIDSGID, which it cannot have.
    assert_exposure(test_name!(), &file("procstorm-remediator.service"), 21);
}

#[test]
fn the_units_filters_leave_what_the_daemon_itself_calls() {
    let unit = read("procstorm-remediator.service");
    let settings: Vec<_> = unit.lines().filter_map(|line| line.split_once('=')).collect();
    // With it systemd answers ENOSYS to openat2(2), by which every mail file is opened.
    assert!(settings.contains(&("RestrictSUIDSGID", "no")));
    let filters = settings.iter().filter(|(key, _)| *key == "SystemCallFilter");
    let allowed: BTreeSet<_> = filters
        .filter(|(_, names)| !names.starts_with('~'))
        .flat_map(|(_, names)| names.split(' '))
        .collect();
    // No group of systemd 252 holds these.
    for call in
        ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]
    {
        assert!(allowed.contains(call), "{call} is not allowed by name");
    }
}

#[test]
fn each_setting_of_the_units_has_a_reason_above_it() {
    let units = [".service", ".socket", "-port.service"];
    let units = units.map(|unit| read(&format!("procstorm-remediator{unit}")));
    let mut reasoned = false;
    for line in units.iter().flat_map(|unit| unit.lines()) {
        match line {
            "" => reasoned = false,
            line if line.starts_with('#') => reasoned = true,
            line if line.starts_with('[') => reasoned = true,
            line => assert!(reasoned, "{line} has no reason"),
        }
    }
}

#[test]
fn the_queries_in_the_readme_work() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let journal = Journal::start(place.path()).unwrap();
    runtime.block_on(journal.probe()).unwrap();
    let database = rusqlite::Connection::open(place.path().join("journal.sqlite")).unwrap();
    let readme = read("README.md");
    let queries: Vec<_> = readme
        .split("sqlite3 -readonly -box journal.sqlite \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(queries.len() >= 3);
    for query in queries {
        assert!(database.prepare(query).is_ok(), "{query}: {:?}", database.prepare(query).err());
    }
}

#[test]
fn the_query_for_refusals_tells_all_of_them() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let journal = Journal::start(place.path()).unwrap();
    runtime.block_on(journal.probe()).unwrap();
    let database = rusqlite::Connection::open(place.path().join("journal.sqlite")).unwrap();
    // Two that were refused at once, one long ago; two that were accepted and then refused; one
    // that acted, and one that is not finished.
    database
        .execute_batch(
            "CREATE TEMP TABLE now AS SELECT unixepoch() * 1000 AS ms;
             INSERT INTO alerts (received_ms, fingerprint, starts_at, status, host, user, command,
                                 playbook, labels, decision, refusal, reason)
             SELECT ms - age, 'f', '', 'firing', 'h', 'u', 'c', 'p', '{}', 'refused',
                    'other_command', 'one'
             FROM now, (SELECT 1 AS age UNION ALL SELECT 2 UNION ALL SELECT 90000000);
             INSERT INTO remediations (playbook, user, command, state, accepted_ms, due_ms,
                                       acted_ms, ended_ms, verdict, summary)
             SELECT 'p', who, 'c', state, ms, ms, iif(acted, ms, NULL), NULL, verdict,
                    who
             FROM now, (SELECT 'root' AS who, 'done' AS state, 0 AS acted, 'root' AS verdict
                        UNION ALL SELECT 'bob', 'done', 0, 'silenced'
                        UNION ALL SELECT 'alice', 'done', 1, 'none_seen'
                        UNION ALL SELECT 'eve', 'accepted', 0, NULL);
             UPDATE remediations SET ended_ms = accepted_ms WHERE verdict IS NOT NULL;",
        )
        .unwrap();
    let readme = read("README.md");
    let (_, query) = readme.split_once("# Why nothing was done").unwrap();
    let query = query.split('"').nth(1).unwrap();
    let mut statement = database.prepare(query).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let told: BTreeSet<(String, u32)> =
        statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    let wanted = [("other_command", 2), ("root", 1), ("silenced", 1)];
    assert_eq!(told, wanted.map(|(why, times)| (why.to_owned(), times)).into());
}

#[test]
fn the_readme_has_the_fields_of_the_json() {
    use procstorm_remediator::web::status::view::RemediationView;
    let remediation = RemediationView {
        id: 1,
        started: String::new(),
        user: String::new(),
        command: String::new(),
        playbook: String::new(),
        dry_run: false,
        before: None,
        after: None,
        verdict: String::new(),
        summary: String::new(),
        archives: Vec::new(),
        archive_failures: Vec::new(),
        milliseconds: None,
    };
    let json = serde_json::to_value(remediation).unwrap();
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## The JSON\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for field in json.as_object().unwrap().keys() {
        assert!(section.contains(&format!("`{field}`")), "{field} is not in the README");
    }
}

#[test]
fn check_explains_the_example_and_names_faults() {
    let check = |file: &Path| {
        let mut command = Command::new(BINARY);
        command.arg("--check").arg("--config.file").arg(file).output().unwrap()
    };
    let good = check(&file("remediator.yml"));
    assert!(good.status.success());
    assert!(String::from_utf8(good.stdout).unwrap().contains("Playbook imapd_storm: when"));
    let place = tempfile::tempdir().unwrap();
    let doubtful = place.path().join("remediator.yml");
    let text = read("remediator.yml").replace("[postmaster]", "[root, nosuchuser, \"@nogroups\"]");
    std::fs::write(&doubtful, text).unwrap();
    let told = String::from_utf8(check(&doubtful).stdout).unwrap();
    for (part, wanted) in [("\"nosuchuser\"", true), ("\"nogroups\"", true), ("\"root\"", false)] {
        let is_told = told.lines().any(|line| line.contains("warning") && line.contains(part));
        assert_eq!(is_told, wanted, "{part} in {told}");
    }
    let bad = check(&file("tests/config/threshold_is_zero.yml"));
    assert!(!bad.status.success());
    let told = String::from_utf8(bad.stderr).unwrap();
    assert!(
        told.contains("threshold_is_zero.yml:6: playbooks.imapd_storm.threshold: must"),
        "{told}"
    );
}
