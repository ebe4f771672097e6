//! A storm of a real user of the machine is none of the stack's: it acts upon its own people alone.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::{in_a_world_apart, programs, wait};
use procstorm_tests::stack::{Person, Stack, Timing};
use procstorm_tests::storm::Storm;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_storm_of_a_real_user_is_left_alone() {
    in_a_world_apart!();
    let dir = tempfile::tempdir().unwrap();
    // The machine's own user, with a uid over alice's: that no lower uid is acted upon does not
    // protect him. We are in a mount namespace of our own.
    let (alice, stranger) = (Person::new("alice", 45_130), 45_131);
    let passwd = dir.path().join("passwd_of_the_machine");
    let real = fs::read_to_string("/etc/passwd").unwrap();
    let line = format!("stranger:x:{stranger}:{stranger}::/nonexistent:/bin/false\n");
    fs::write(&passwd, real + &line).unwrap();
    let mut mount = Command::new(programs::other("mount").unwrap());
    assert!(mount.arg("--bind").arg(&passwd).arg("/etc/passwd").status().unwrap().success());

    let stack = Stack::start(dir.path(), std::slice::from_ref(&alice), Timing::Fast).unwrap();
    let policy = fs::read_to_string(stack.site.remediator_yml()).unwrap();
    assert!(policy.contains("  min_uid: 45130 "), "{policy}");
    let real = Storm::raise(stranger, b"imapd", 120).unwrap();
    let ours = Storm::raise(alice.uid, b"imapd", 120).unwrap();

    // The alerts of both arrive, and one is acted upon.
    let mut verdicts = BTreeMap::new();
    wait::until("a remediation of each that has ended", LIMIT, || {
        for one in stack.remediations().ok()?.iter().filter(|one| one.is_done()) {
            verdicts.insert(one.user().to_owned(), one.verdict().to_owned());
        }
        (verdicts.len() == 2).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{fault}\n{}", stack.remediator.log()));
    let said = |user: &str, verdict: &str| (user.to_owned(), verdict.to_owned());
    let wanted = [said(&stranger.to_string(), "nameless_uid"), said("alice", "none_seen")];
    assert_eq!(verdicts, wanted.into());
    assert_eq!(ours.living().unwrap(), 0);
    assert_eq!(real.living().unwrap(), 120);
}
