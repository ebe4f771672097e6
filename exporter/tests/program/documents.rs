//! Manual page, unit and example agree with the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use procstorm_toolkit::web::security::config::WebConfig;

use crate::world::{BINARY, ProcFixture, Program, tool};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The words that begin with two dashes.
fn flags(text: &str) -> BTreeSet<String> {
    text.split(|c: char| c.is_whitespace() || c == '=')
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned())
        .collect()
}

#[test]
fn the_manual_page_has_exactly_the_flags_and_metrics_of_the_program() {
    let page = read("procstorm-exporter.8");
    let help = Command::new(BINARY).arg("--help").output().unwrap().stdout;
    let options: String = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl Fl "))
        .map(|line| format!("--{line}\n"))
        .collect();
    assert_eq!(flags(&options), flags(&String::from_utf8(help).unwrap()));

    let proc = ProcFixture::new();
    let exposition = Program::start(proc.path(), &[]).get("/metrics");
    let metrics =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for metric in metrics.filter(|metric| metric.starts_with("procstorm_")) {
        assert!(page.contains(metric), "{metric} is not in the manual page");
    }
}

#[test]
fn the_manual_page_is_well_formed() {
    let Some(mandoc) = tool("the_manual_page_is_well_formed", "mandoc") else { return };
    let lint = Command::new(mandoc)
        .args(["-T", "lint", "-W", "warning"])
        .arg(file("procstorm-exporter.8"))
        .output()
        .unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn the_unit_leaves_little_to_attack() {
    let test = "the_unit_leaves_little_to_attack";
    let Some(analyze) = tool(test, "systemd-analyze") else { return };
    let unit = file("procstorm-exporter.service");
    let security = Command::new(analyze)
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(unit)
        .output()
        .unwrap();
    let told = [security.stdout, security.stderr].concat();
    assert!(security.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn the_unit_does_not_blind_the_exporter() {
    let unit = read("procstorm-exporter.service");
    for line in ["ProtectProc=default", "ProcSubset=all", "PrivateUsers=no", "DynamicUser=yes"] {
        assert!(unit.lines().any(|found| found == line), "{line} is not in the unit");
    }
}

#[test]
fn the_example_is_valid_but_for_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("server.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    std::fs::copy(file("web.example.yml"), path("web.yml")).unwrap();
    WebConfig::read(&path("web.yml")).unwrap();
}
