//! A demo that stays up raises a storm each time that it is asked.

use std::process::Command;
use std::time::Duration;

use procstorm_testkit::fault::{Beside as _, Fault, OrFault as _};
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::daemon::Daemon;

/// How long the stack may take to be up, or down again.
const LIMIT: Duration = Duration::from_secs(240);

/// As `make run` and `make storm` do it.
#[test]
fn a_demo_that_stays_up_raises_a_storm_when_it_is_asked() -> Result<(), Fault> {
    // Otherwise it might be other demos of the same user that answer.
    needs_root!();
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let mut stay = Command::new(programs::ours("demo")?);
    stay.arg("--stay");
    let mut stay = Daemon::start("demo", &stay, &dir.path().join("log"))?;
    let up = || stay.log().contains("up until Ctrl-C").then_some(());
    wait::until("the demo is up", LIMIT, up).beside(|| stay.log())?;
    let log = stay.log();
    for place in ["exporter", "/alerts", "remediator", "/sent/*.eml", "remediator.yml"] {
        assert!(log.contains(place), "{place} is not in {log}");
    }
    if log.contains("your other demo") {
        procstorm_testkit::skip!("another demo of root is up, which would answer");
    }
    let asked = Command::new(programs::ours("demo")?).arg("--storm").output();
    let asked = asked.or_fault("cannot ask the demo")?;
    let said = String::from_utf8_lossy(&asked.stdout);
    let fault = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}{fault}{}", stay.log());
    for stage in ["storm raised", "firing", "archived", "proven", "mail", "resolved"] {
        assert!(said.contains(stage), "{stage} is not in {said}");
    }
    assert!(stay.terminate(LIMIT)?.success(), "{}", stay.log());

    let asked = Command::new(programs::ours("demo")?).arg("--storm").output();
    let asked = asked.or_fault("cannot ask the demo")?;
    let fault = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && fault.contains("make run"), "{fault}");
    Ok(())
}
