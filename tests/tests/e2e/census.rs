//! What the exporter shows is what `ps` shows, group by group.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::{in_a_world_apart, programs, wait};
use procstorm_tests::daemon::Daemon;
use procstorm_tests::exposition;
use procstorm_tests::http::Http;
use procstorm_tests::storm::Storm;

const ALICE: u32 = 45_010;
const NAMELESS: u32 = 45_011;

/// Processes by user and command.
type Groups = BTreeMap<(String, String), u64>;

/// `ps -eo user:32,comm | sort | uniq -c`, without threads of the kernel, and without ps itself.
fn by_ps(accounts: &Accounts) -> Groups {
    let mut ps = accounts.command(&programs::other("ps").unwrap()).unwrap();
    let output =
        ps.args(["-N", "-p", "2", "--ppid", "2", "-o", "user:32=,comm="]).output().unwrap();
    let mut groups = Groups::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (user, command) = line.split_once(' ').unwrap();
        let command = command.trim_start();
        let command = command.strip_suffix(" <defunct>").unwrap_or(command);
        *groups.entry((user.to_owned(), command.to_owned())).or_default() += 1;
    }
    let ourselves = ("root".to_owned(), "ps".to_owned());
    if groups.get(&ourselves) == Some(&1) {
        groups.remove(&ourselves);
    }
    groups
}

fn by_exporter(http: &Http, url: &str) -> Groups {
    let lines = exposition::read(&http.get(url).unwrap().body).unwrap();
    let series = lines.iter().filter(|line| line.name == "procstorm_processes");
    let group = |line: &exposition::Line| {
        ((line.label("user").to_owned(), line.label("command").to_owned()), whole(line.value))
    };
    series.map(group).collect()
}

fn whole(value: f64) -> u64 {
    value.to_string().parse().unwrap()
}

#[test]
fn the_exporter_shows_what_ps_shows() {
    in_a_world_apart!();
    let dir = tempfile::tempdir().unwrap();
    // ps would cut a name of over 8 characters if it were not asked for 32.
    let accounts = Accounts::only(&[("alice_of_procstorm", ALICE)], dir.path()).unwrap();
    let _storms = [
        Storm::raise(ALICE, b"imapd", 12).unwrap(),
        Storm::raise(ALICE, b"fifteen_letters", 3).unwrap(),
        Storm::raise(ALICE, b"im apd) S 1", 4).unwrap(),
        Storm::raise(NAMELESS, b"imapd", 5).unwrap(),
    ];
    let mut command = accounts.command(&programs::ours("procstorm-exporter").unwrap()).unwrap();
    command.arg("--collector.min-processes=1");
    let http = Http::new().unwrap();
    let (_exporter, url) = Daemon::serve("procstorm-exporter", command, dir.path(), &http).unwrap();
    let url = format!("{url}/metrics");

    // Other programs come and go: the two must agree, in one moment, about every group that ps
    // sees the same before and after.
    let mut last = String::new();
    let same = wait::until("a moment in which both see the same", Duration::from_secs(120), || {
        let before = by_ps(&accounts);
        let shown = by_exporter(&http, &url);
        let after = by_ps(&accounts);
        let moved = |group: &(String, String)| before.get(group) != after.get(group);
        let still = |groups: &Groups| -> Groups {
            groups.clone().into_iter().filter(|(group, _)| !moved(group)).collect()
        };
        last = format!("ps: {:#?}\nexporter: {:#?}", still(&before), still(&shown));
        (still(&before) == still(&shown)).then_some(shown)
    });
    let shown = same.unwrap_or_else(|fault| panic!("{fault}\n{last}"));
    for (user, command, count) in [
        ("alice_of_procstorm", "imapd", 12),
        ("alice_of_procstorm", "fifteen_letters", 3),
        ("alice_of_procstorm", "im apd) S 1", 4),
        ("45011", "imapd", 5),
    ] {
        assert_eq!(shown.get(&(user.to_owned(), command.to_owned())), Some(&count), "{command}");
    }
}

#[test]
fn the_exporter_ends_with_success_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let command = Command::new(programs::ours("procstorm-exporter").unwrap());
    let http = Http::new().unwrap();
    let (mut exporter, _url) =
        Daemon::serve("procstorm-exporter", command, dir.path(), &http).unwrap();
    assert!(exporter.terminate(Duration::from_secs(60)).unwrap().success(), "{}", exporter.log());
}
