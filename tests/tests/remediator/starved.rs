//! A storm that has taken every pid: the daemon has the threads that it needs from the start.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{in_a_world_apart, skip, wait};
use procstorm_tests::host::{Host, Post};
use procstorm_tests::storm::Storm;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

/// How long a storm may live after the alert.
const ALERT_TO_END: Duration = SOON;

/// Few enough to be taken at once, and more than Linux keeps for itself.
const PID_MAX: &str = "400";

/// Processes that do nothing but fill the table; gone with their value.
struct Filling(Vec<Child>);

impl Filling {
    /// As many as there can be.
    fn begin() -> Self {
        let sleep = || Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
        let mut all = Self(Vec::new());
        while let Ok(child) = sleep() {
            all.0.push(child);
            assert!(all.0.len() < 1000, "the table does not fill");
        }
        all
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap_or_default();
            drop(child.wait());
        }
    }
}

/// Whether a pid namespace has a limit of its own here; before Linux 6.14 it is the machine's.
fn has_own_limit() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
    (major, minor) >= (6, 14)
}

#[test]
fn a_storm_that_has_taken_every_pid_is_archived_and_ended() -> Result<(), Fault> {
    in_a_world_apart!();
    let uid = claim_uid();
    if !has_own_limit() {
        skip!("needs Linux 6.14, where a pid namespace has a limit of its own");
    }
    fs::write("/proc/sys/kernel/pid_max", PID_MAX).unwrap();
    let users = [("alice", uid)];
    let playbook = "    settle: 0s\n    cooldown: 0s";
    // With a group in the list, the name service is asked for more than the user.
    let top = "accounts: {protected: [\"@root\"]}";
    let host = Host::start_among(&users, "starved", playbook, top)?;
    host.wait_until_ready()?;
    let mail = host.put_mail(uid, b"mail")?;
    fs::rename(&mail, mail.with_file_name("alice")).unwrap();
    for round in 1..=2 {
        let storm = Storm::raise(uid, b"starved", 40)?;
        // Longer than threads without work would stay.
        let filling = Filling::begin();
        wait::until("the threads had nothing to do for a while", SOON, {
            let begun = Instant::now();
            move || (begun.elapsed() > Duration::from_secs(12)).then_some(())
        })?;
        assert!(Command::new("true").spawn().is_err(), "the table is not full");
        let begun = Instant::now();
        host.post(&[Post::storm(uid, "starved").with("user", "alice")])?;
        wait::until("the storm is dead", ALERT_TO_END, || {
            (storm.living().unwrap() == 0).then_some(())
        })
        .beside(|| host.daemon.log())?;
        eprintln!("ended in {:?} with the process table full", begun.elapsed());
        assert_eq!(host.get("/-/ready")?.status, 200);
        assert_eq!(host.get("/metrics")?.status, 200);
        drop(filling);
        host.wait_for_verdicts(&vec!["none_seen"; round])?;
    }
    // Had one run into its limit, the storm could still have ended in time.
    for remediation in host.remediations()? {
        assert_eq!(remediation["archive_failures"], json!([]), "{remediation}");
    }
    assert_eq!(host.archived()?.len(), 1, "the second found it identical");
    assert!(!host.daemon.log().contains("panicked"), "{}", host.daemon.log());
    Ok(())
}
