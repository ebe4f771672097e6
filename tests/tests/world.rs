//! The exporter shows exactly what a made-up /proc holds.

use procstorm_tests::accounts::Accounts;
use procstorm_tests::skip::is_root_or_skip;
use procstorm_tests::world::World;
use procstorm_tests::{exposition, programs};

#[test]
fn a_made_up_proc_is_shown_as_it_is() {
    if !is_root_or_skip("a_made_up_proc_is_shown_as_it_is") {
        return;
    }
    let world = World::new()
        .and_then(|world| world.kernel_thread(b"kthreadd"))
        .and_then(|world| world.user("alice_with_a_long_name", 45_200))
        .and_then(|world| world.processes(b"imapd", 92))
        .and_then(|world| world.zombies(b"imapd", 3))
        .and_then(|world| world.processes(b"a\n\"b\\", 1))
        .and_then(|world| world.user("bob", 45_201))
        .and_then(|world| world.processes(b"imapd", 2))
        .unwrap();
    let people: Vec<_> = world.people().iter().map(|p| (p.name.as_str(), p.uid)).collect();
    let dir = tempfile::tempdir().unwrap();
    let accounts = Accounts::with(&people, dir.path()).unwrap();
    let mut exporter = accounts.command(&programs::ours("procstorm-exporter").unwrap()).unwrap();
    let procfs = format!("--path.procfs={}", world.procfs().display());
    let output = exporter.arg(procfs).arg("--once").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();

    let mut shown: Vec<(String, String, String)> = exposition::read(&text)
        .unwrap()
        .iter()
        .filter(|line| line.name == "procstorm_processes")
        .map(|line| {
            (line.label("user").into(), line.label("command").into(), line.value.to_string())
        })
        .collect();
    shown.sort();
    let row = |user: &str, command: &str, count: &str| (user.into(), command.into(), count.into());
    assert_eq!(
        shown,
        [
            row("alice_with_a_long_name", "a\n\"b\\", "1"),
            row("alice_with_a_long_name", "imapd", "95"),
            row("bob", "imapd", "2"),
            row("root", "init", "1"),
        ]
    );
}
