//! The exporter shows exactly what a made-up /proc holds.

use std::time::Duration;

use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::exposition;
use procstorm_tests::world::World;

#[test]
fn a_made_up_proc_is_shown_as_it_is() {
    needs_root!();
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
    let accounts = Accounts::only(&people, dir.path()).unwrap();
    let mut exporter = accounts.command(&programs::ours("procstorm-exporter").unwrap()).unwrap();
    let procfs = format!("--path.procfs={}", world.procfs().display());
    exporter.arg(procfs).args(["--once", "--collector.min-processes=1"]);
    // A scan waits for names, but not for long: on a busy machine one may come too late.
    let lines = wait::until("a scan with all names", Duration::from_secs(60), || {
        let text = String::from_utf8(exporter.output().unwrap().stdout).unwrap();
        let lines = exposition::read(&text).unwrap();
        let overdue = lines.iter().find(|line| line.name == "procstorm_scan_overdue_names");
        (overdue.unwrap().value < 1.0).then_some(lines)
    })
    .unwrap();

    let mut shown: Vec<(String, String, String)> = lines
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
