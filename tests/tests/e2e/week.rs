//! A simulated week of a host with fifty users and some storms, in two minutes: what the dry run says
//! of it, and that the armed daemon then hits the same people. For `make field`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::{in_a_world_apart, programs, wait};
use procstorm_tests::stack::{Person, Stack, Timing};
use procstorm_tests::storm::Storm;
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

const FIRST_UID: u32 = 45_200;

/// Who storms, in this order, and with how many processes. The first one's storm stands to the end.
const STORMS: [(u32, usize); 4] = [(21, 100), (7, 95), (33, 150), (7, 130)];

fn name(index: u32) -> String {
    format!("user{index:02}")
}

/// How many remediations of a user have ended with this verdict.
fn ended(stack: &Stack, user: &str, verdict: &str) -> usize {
    let all = stack.remediations().unwrap_or_default();
    all.iter().filter(|one| one.user() == user && one.verdict() == verdict).count()
}

fn wait_for(stack: &Stack, user: &str, verdict: &str, times: usize) {
    wait::until(&format!("{verdict} of {user}, {times} times"), LIMIT, || {
        (ended(stack, user, verdict) >= times).then_some(())
    })
    .unwrap_or_else(|fault| panic!("{}\n{}", fault.whole(), stack.remediator.log()));
}

/// No alert of the user fires: the next one is another.
fn wait_for_calm(stack: &Stack, user: &str) {
    wait::until(&format!("no alert of {user}"), LIMIT, || {
        let alerts = stack.prometheus.alerts().ok()?;
        alerts.iter().all(|alert| alert.label("user") != user).then_some(())
    })
    .unwrap();
}

/// Goes through the week. Returns the storm that stands, unless it was ended.
fn week(stack: &Stack, verdict: &str) -> Storm {
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    let mut standing = None;
    for (index, size) in STORMS {
        let user = name(index);
        let storm = Storm::raise(FIRST_UID + index, b"imapd", size).unwrap();
        let times = seen.entry(index).or_default();
        *times += 1;
        wait_for(stack, &user, verdict, *times);
        match standing {
            None => standing = Some(storm),
            Some(_) => {
                drop(storm);
                wait_for_calm(stack, &user);
            }
        }
    }
    standing.unwrap()
}

/// Writes another mode into the policy, and has it reloaded.
fn set_dry_run(stack: &Stack, dry_run: bool) {
    let path = stack.site.remediator_yml();
    let policy = fs::read_to_string(&path).unwrap();
    let from = format!("\ndry_run: {}\n", !dry_run);
    assert_eq!(policy.matches(&from).count(), 1, "{policy}");
    fs::write(&path, policy.replace(&from, &format!("\ndry_run: {dry_run}\n"))).unwrap();
    let reloads = || stack.remediator.log().matches("reloaded").count();
    let before = reloads();
    stack.remediator.signal(Signal::HUP).unwrap();
    wait::until("reloaded", LIMIT, || (reloads() > before).then_some(())).unwrap();
}

/// What `report` says: who was hit, how often, and the largest storm.
fn hits(stack: &Stack, dry_run: bool) -> BTreeMap<String, (u64, u64)> {
    let said = Command::new(programs::ours("procstorm-remediator").unwrap())
        .args(["report", "--json", "--config.file"])
        .arg(stack.site.remediator_yml())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    let hits = report["hits"].as_array().unwrap().iter();
    let of_mode = hits.filter(|hit| hit["dry_run"] == dry_run);
    let read = |hit: &Value| {
        let number = |name: &str| hit[name].as_u64().unwrap();
        (hit["user"].as_str().unwrap().to_owned(), (number("times"), number("largest")))
    };
    of_mode.map(read).collect()
}

/// That these are the storms of the week.
fn are_the_storms(hits: &BTreeMap<String, (u64, u64)>) {
    let mut known: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    for (index, size) in STORMS {
        let (times, largest) = known.entry(name(index)).or_default();
        *times += 1;
        *largest = size.max(*largest);
    }
    assert_eq!(hits.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>(), "{hits:?}");
    for (user, (times, largest)) in hits {
        let (known_times, size) = known[user];
        assert_eq!(*times, known_times, "{user} in {hits:?}");
        // A storm may have been counted while it grew.
        let size = u64::try_from(size).unwrap();
        assert!((90..=size).contains(largest), "{user} in {hits:?}");
    }
}

#[test]
#[ignore = "takes minutes; make field runs it"]
fn a_week_in_dry_run_tells_who_is_hit_when_it_is_armed() {
    in_a_world_apart!();
    let dir = tempfile::tempdir().unwrap();
    let people: Vec<_> =
        (0..50).map(|index| Person::new(&name(index), FIRST_UID + index)).collect();
    let stack = Stack::start(dir.path(), &people, Timing::Fast).unwrap();
    // A minute of the week is two seconds here.
    let routes = dir.path().join("alertmanager.yml");
    let shipped = fs::read_to_string(&routes).unwrap();
    let minute = "      group_interval: 4s\n      repeat_interval: 1m\n";
    assert_eq!(shipped.matches(minute).count(), 1, "{shipped}");
    let short = "      group_interval: 1s\n      repeat_interval: 2s\n";
    fs::write(&routes, shipped.replace(minute, short)).unwrap();
    let url = format!("{}/-/reload", stack.alertmanager.url());
    assert_eq!(stack.http.post(&url, &[], Vec::new()).unwrap().status, 200);
    set_dry_run(&stack, true);
    let quiet: Vec<_> = (0..50)
        .filter(|index| STORMS.iter().all(|(who, _)| who != index))
        .map(|index| Storm::raise(FIRST_UID + index, b"imapd", 2).unwrap())
        .collect();

    let standing = week(&stack, "dry_run");
    // Its alert is repeated as often as in a quarter of an hour. (Where a scrape was missed it is a
    // new alert, which is not coalesced, and has no outcome either.)
    let notified = || stack.remediator_metric("procstorm_webhook_alerts_total", "").unwrap_or(0.0);
    let from = notified();
    wait::until("many repeats", LIMIT, || (notified() > from + 14.5).then_some(())).unwrap();
    let taken = stack.remediator_metric("procstorm_outcomes_total", "\"taken\"").unwrap();
    assert!((taken - 4.0).abs() < 0.1, "{taken} outcomes of {} storms", STORMS.len());
    let mails = || {
        let all = stack.mail.mails();
        let subjects = all.iter().map(|mail| mail.subject());
        subjects.filter(|subject| subject.contains("dry run")).collect::<Vec<_>>()
    };
    wait::until("the mails", LIMIT, || (mails().len() >= STORMS.len()).then_some(())).unwrap();
    assert_eq!(mails().len(), STORMS.len(), "{:?}", mails());
    are_the_storms(&hits(&stack, true));
    assert!(hits(&stack, false).is_empty());
    assert_eq!(standing.living().unwrap(), STORMS[0].1);

    // Armed, the storm that still stands is ended first, and then the week comes again.
    set_dry_run(&stack, false);
    wait_for(&stack, &name(STORMS[0].0), "none_seen", 1);
    assert_eq!(standing.living().unwrap(), 0);
    drop(standing);
    for (index, times, size) in [(7, 1, 95), (33, 1, 150), (7, 2, 130)] {
        wait_for_calm(&stack, &name(index));
        let storm = Storm::raise(FIRST_UID + index, b"imapd", size).unwrap();
        wait_for(&stack, &name(index), "none_seen", times);
        assert_eq!(storm.living().unwrap(), 0);
        // It watches for a recurrence, which the next storm of the same user would be.
        wait::until("no remediation is pending", LIMIT, || {
            let pending = stack.remediator_metric("procstorm_remediations_pending", "").ok()?;
            (pending < 0.5).then_some(())
        })
        .unwrap();
    }
    are_the_storms(&hits(&stack, false));
    are_the_storms(&hits(&stack, true));
    for bystander in &quiet {
        assert_eq!(bystander.living().unwrap(), 2);
    }
}
