//! A name service that does not answer holds up nobody but those whom only it knows.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use procstorm_tests::fault::Fault;
use procstorm_tests::host::{Host, Post};
use procstorm_tests::skip::is_root_or_skip;
use procstorm_tests::storm::Storm;
use procstorm_tests::wait;

const SOON: Duration = Duration::from_secs(60);

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../exporter/tests/program/hang.c");

/// Builds the module into `directory`. Returns its path.
fn build(directory: &Path) -> PathBuf {
    let module = directory.join("libnss_hang.so.2");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wl,-soname,libnss_hang.so.2"])
        .arg(format!("-DHANG_FILE=\"{}\"", directory.join("hang").display()))
        .arg("-o")
        .args([module.as_path(), Path::new(SOURCE)])
        .status();
    assert!(status.unwrap().success());
    module
}

#[test]
fn a_name_service_that_hangs_delays_no_answer_and_nobody_else() -> Result<(), Fault> {
    if !is_root_or_skip("a_name_service_that_hangs_delays_no_answer_and_nobody_else") {
        return Ok(());
    }
    let (known, unknown, quick) = (47_150, 47_151, 47_152);
    let directory = tempfile::tempdir().unwrap();
    let module = build(directory.path());
    let hang = directory.path().join("hang");
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let service = Some(("hang", module.as_path()));
    let host = Host::start_served(&[("quick", quick)], service, "core-n", playbook, "")?;
    let alert = |user: &str| Post::storm(0, "core-n").with("user", user);

    // The name service answers, and the journal learns a uid.
    let first = Storm::raise(known, b"core-n", 6)?;
    host.post(&[alert("nss47150")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(first.living()?, 0);

    fs::write(&hang, "").unwrap();
    let again = Storm::raise(known, b"core-n", 6)?;
    let stuck = Storm::raise(unknown, b"core-n", 6)?;
    let other = Storm::raise(quick, b"core-n", 6)?;
    let answer = host.post(&[alert("nss47151"), alert("nss47150"), alert("quick")])?;
    assert_eq!(answer.body, "3 accepted, 0 coalesced, 0 refused\n");
    for storm in [&other, &again] {
        wait::until("the storm is dead", SOON, || (storm.living().ok()? == 0).then_some(()))
            .map_err(|fault| Fault::new(format!("{}\n{}", fault.whole(), host.daemon.log())))?;
    }
    // Whom nobody knows is left alone, waits, and is not forgotten.
    assert_eq!(stuck.living()?, 6);
    assert!(host.daemon.log().contains("using the uid recorded"), "{}", host.daemon.log());
    let answer = host.post(&[alert("nss47151")])?;
    assert_eq!(answer.body, "0 accepted, 1 coalesced, 0 refused\n");

    fs::remove_file(&hang).unwrap();
    wait::until("the last storm is dead", SOON, || (stuck.living().ok()? == 0).then_some(()))?;
    host.wait_for_verdicts(&["none_seen"; 4])
}

#[test]
fn whoever_may_be_protected_is_left_alone_until_the_name_service_says() -> Result<(), Fault> {
    if !is_root_or_skip("whoever_may_be_protected_is_left_alone_until_the_name_service_says") {
        return Ok(());
    }
    let (protected, other) = (47_160, 47_161);
    let directory = tempfile::tempdir().unwrap();
    let module = build(directory.path());
    let hang = directory.path().join("hang");
    fs::write(&hang, "").unwrap();
    let users = [("alice", protected), ("bob", other)];
    let service = Some(("hang", module.as_path()));
    // Only the service that hangs knows that this is another name of alice's uid.
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let top = "accounts: {min_uid: 1000, allow_nameless: true, protected: [nss47160]}";
    let host = Host::start_served(&users, service, "core-p", playbook, top)?;
    let alices = Storm::raise(protected, b"core-p", 6)?;
    let bobs = Storm::raise(other, b"core-p", 6)?;
    let alert = |user: &str| Post::storm(0, "core-p").with("user", user);
    host.post(&[alert("alice"), alert("bob")])?;
    wait::until("it says that it cannot tell", SOON, || {
        let log = host.daemon.log();
        (log.matches("cannot tell whether the account is protected").count() >= 2).then_some(())
    })?;
    assert_eq!((alices.living()?, bobs.living()?), (6, 6));

    fs::remove_file(&hang).unwrap();
    wait::until("bob's storm is dead", SOON, || (bobs.living().ok()? == 0).then_some(()))?;
    wait::until("alice is refused", SOON, || {
        host.daemon.log().contains("protected_user").then_some(())
    })?;
    assert_eq!(alices.living()?, 6);
    Ok(())
}
