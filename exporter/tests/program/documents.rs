//! Manual page, unit and example agree with the program.

use std::path::{Path, PathBuf};

use procstorm_testkit::documents::{assert_exposure, assert_well_formed};
use procstorm_testkit::test_name;
use procstorm_toolkit::web::security::config::WebConfig;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

#[test]
fn the_manual_page_is_well_formed() {
    assert_well_formed(test_name!(), &file("procstorm-exporter.8"));
}

#[test]
fn the_unit_leaves_little_to_attack() {
    assert_exposure(test_name!(), &file("procstorm-exporter.service"), 15);
}

#[test]
fn the_unit_does_not_blind_the_exporter() {
    let unit = read("procstorm-exporter.service");
    for line in ["ProtectProc=default", "ProcSubset=all", "PrivateUsers=no", "DynamicUser=yes"] {
        assert!(unit.lines().any(|found| found == line), "{line} is not in the unit");
    }
}

/// The drop-in gives what loading needs, and nothing else.
#[test]
fn the_drop_in_gives_two_capabilities_and_two_calls() {
    let drop_in = read("procstorm-exporter-bpf.conf");
    let lines: Vec<&str> = drop_in.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "",
        "[Service]",
        "CapabilityBoundingSet=CAP_BPF CAP_PERFMON",
        "AmbientCapabilities=CAP_BPF CAP_PERFMON",
        "SystemCallFilter=bpf capset",
        "LimitMEMLOCK=16M",
    ];
    assert_eq!(lines, expected);
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
