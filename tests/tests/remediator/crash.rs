//! `kill -9` of the remediator at any instant: what was accepted is done, nothing is done twice,
//! nobody stays stopped, no half-written archive can be seen.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::{Target, survey};
use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::storm::Storm;
use serde_json::Value;

/// How often it is killed, unless `PROCSTORM_KILLS` says otherwise.
const KILLS: u64 = 200;

const SOON: Duration = Duration::from_secs(60);

/// The next of a fixed sequence of numbers (xorshift), so that a failure can be had again.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn kills() -> u64 {
    std::env::var("PROCSTORM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

#[test]
fn killed_at_any_instant_it_loses_nothing_and_repeats_nothing() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let command = b"core-crash";
    let target = Target { uid, command: Command::new(command).unwrap() };
    let receiver = Receiver::start()?;
    let limits =
        "    settle: 0s\n    cooldown: 0s\n    limits: {per_user: 100000/h, total: 100000/h}";
    let mut host = Host::start("core-crash", limits, &receiver.line())?;
    let mut seed = 0x5eed_0001_u64;
    let (mut survived, mut unanswered, mut interrupted) = (0, 0, 0);
    for round in 0..kills() {
        let mail = format!("From alice\n\nmail of round {round}\n");
        host.put_mail(uid, mail.as_bytes())?;
        let storm = Storm::raise(uid, command, 20)?;
        let before = host.remediations()?.len();
        let delay = Duration::from_micros(random(&mut seed) % 180_000);
        let answered = {
            let post = host.post(&[Post::storm(uid, "core-crash")]);
            let begun = Instant::now();
            while begun.elapsed() < delay {
                std::thread::yield_now();
            }
            host.kill()?;
            post.is_ok_and(|answer| answer.status == 200)
        };
        host.restart()?;
        if !answered {
            unanswered += 1;
            host.post(&[Post::storm(uid, "core-crash")])?;
        }
        let all = wait::until(&format!("round {round} is done"), SOON, || {
            let all = host.remediations().ok()?;
            let done = |one: &Value| one["verdict"] != "running";
            (all.len() > before && all.iter().all(done)).then_some(all)
        })
        .inspect_err(|_| eprintln!("{}", host.daemon.log()))?;
        let last = &all[all.len() - 1];
        let verdict = last["verdict"].as_str().unwrap_or_default();
        assert_eq!(all.len(), before + 1, "one alert, one remediation: {all:?}");
        let is_over = matches!(verdict, "none_seen" | "interrupted");
        assert!(is_over, "round {round}: {last}");
        interrupted += u64::from(verdict == "interrupted");
        // Cut off between two signals, it may leave a few: fewer than a storm, and it says so.
        let left = storm.living()?;
        let may_be_left = verdict == "interrupted" && left < 5;
        assert!(left == 0 || may_be_left, "round {round}: {last}\n{}", host.daemon.log());
        // Who was killed just before the cut may still have been dying when they were counted.
        let told = last["after"].as_u64().unwrap();
        let left = u64::try_from(left).unwrap();
        let is_so = if verdict == "interrupted" { left <= told && told < 5 } else { left == told };
        assert!(is_so, "round {round}: {left} left: {last}");
        assert!(survey(Path::new("/proc"), &target).unwrap().stopped.is_empty());
        survived += 1;
    }
    check_archives(&host)?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let posts = receiver.posts();
    let events: BTreeSet<_> =
        posts.iter().map(|post| post["labels"]["event"].as_str().unwrap().to_owned()).collect();
    let done = host.remediations()?.len().min(500);
    assert!(events.len() >= done, "each is told: {} of {done}", events.len());
    eprintln!(
        "kills survived: {survived}; alerts posted again for want of an answer: {unanswered}; \
         kills of processes cut off and found done: {interrupted}; outcomes: {}, posts: {}",
        events.len(),
        posts.len()
    );
    Ok(())
}

/// Each archive is a whole mail, and no mail was saved twice.
fn check_archives(host: &Host) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for path in host.archived()? {
        let text = fs::read_to_string(&path).unwrap();
        let whole = text.starts_with("From alice\n\nmail of round ") && text.ends_with('\n');
        assert!(whole, "{}: {text:?}", path.display());
        assert!(seen.insert(text), "{} was saved before", path.display());
    }
    assert!(!seen.is_empty());
    Ok(())
}

#[test]
fn a_stop_in_the_middle_finishes_the_kill() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("core-stop", "", "")?;
    let storm = Storm::raise(uid, b"core-stop", 60)?;
    host.post(&[Post::storm(uid, "core-stop")])?;
    assert!(host.stop()?.success());
    host.restart()?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(storm.living()?, 0);
    Ok(())
}
