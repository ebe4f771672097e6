//! The shipped dashboard on the whole system, in a real storm: data in each panel.

use std::fs;
use std::time::Duration;

use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::dashboard::Dashboard;
use procstorm_tests::stack::{Person, Stack, Timing};
use procstorm_tests::storm::Storm;

/// The panels that need a dry run.
const DRY: [&str; 3] =
    ["Alert to decision", "What a dry run would have done", "Dry runs over time"];

/// The panel that needs control groups of version 2 with the pids controller, and a user's slice.
const SLICES: &str = "Share of the limit of tasks";

/// The panel that needs TLS.
const CERTIFICATES: &str = "Certificates that expire first";

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn each_panel_shows_data_in_a_real_storm() {
    needs_root!();
    let json = fs::read_to_string(programs::project().join("grafana/procstorm.json")).unwrap();
    let dashboard = Dashboard::read(&json).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let people = [("alice", 46_900), ("bob", 46_901), ("carol", 46_902)];
    let people = people.map(|(name, uid)| Person::new(name, uid));
    let [alice, bob, carol] = &people;
    let stack = Stack::start(dir.path(), &people, Timing::Fast).unwrap();
    stack.site.put_mail(alice, "alice", b"From alice\n", 0o600).unwrap();
    // Some show an event for some seconds only: each has shown data once. The slices have a test of
    // their own, and a test of TLS (remediator/certificates.rs) looks at the certificates.
    let mut missing: Vec<String> = dashboard.empty(&stack.prometheus).unwrap();
    missing.retain(|title| title != SLICES && title != CERTIFICATES);
    let look = |missing: &mut Vec<String>| {
        let empty = dashboard.empty(&stack.prometheus).unwrap();
        missing.retain(|title| empty.contains(title));
    };
    // A storm that a dry run would end.
    stack.dry_run(true).unwrap();
    let dry = Storm::raise(carol.uid, b"imapd", 95).unwrap();
    let shown = wait::until("the dry run on the dashboard", LIMIT, || {
        look(&mut missing);
        let shown = |title: &&str| !missing.iter().any(|one| one == title);
        DRY.iter().all(shown).then_some(())
    });
    assert!(shown.is_ok(), "without data: {missing:?}\n{}", stack.remediator.log());
    drop(dry);
    stack.dry_run(false).unwrap();
    // One storm that is ended, and one that is refused, since its playbook ends another command: it
    // stays to be looked at.
    let _ended = Storm::raise(alice.uid, b"imapd", 95).unwrap();
    let _stays = Storm::raise(bob.uid, b"imapd-ssl", 95).unwrap();
    let full = wait::until("data everywhere", LIMIT, || {
        look(&mut missing);
        missing.is_empty().then_some(())
    });
    assert!(full.is_ok(), "without data: {missing:?}\n{}", stack.remediator.log());
}
