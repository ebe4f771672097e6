//! How long it takes until none of 5,000 processes is left: the remediator's kill beside `pkill`
//! and beside the loop of the original, in the same run. Each is a program that is started for it,
//! so that ours is as a daemon's first kill. The end of a pipe that each process of the storm
//! holds tells when the last of them is gone.
//!
//! With SIGKILL at once (`grace: 0s`), and with SIGTERM first, on which these processes exit.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints its results"
)]

use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use procstorm_testkit::skip::{is_root, skipped};
use procstorm_testkit::{programs, wait};
use procstorm_tests::opponent::Opponent;
use serde_json::Value;

const UID: u32 = 42500;
const COMMAND: &str = "imapd";
const COUNT: usize = 5_000;
/// An odd number, for the median. The original takes its time, and little depends on its last digit.
const ROUNDS: usize = 15;
const ROUNDS_OF_THE_ORIGINAL: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);
/// The time between the start of a storm and its end, in which the kernel finishes what forking
/// 5,000 processes has left it to do.
const SETTLING: Duration = Duration::from_millis(600);

/// The macro `kill_user_proc` of 2000, its `ps` read line by line, one `kill` for each pid, and
/// again until it finds none.
const ORIGINAL: &str = r#"
count=1
while [ $count -gt 0 ]; do
    count=0
    while read -r p u c rest; do
        if [ -z "$rest" ] && [ "$u" = "$1" ] && [ "$c" = "$2" ]; then
            env kill -9 "$p"
            count=$((count + 1))
        fi
    done < <(ps -eo pid,user,comm)
done
"#;

/// A way to end them.
struct Way {
    name: &'static str,
    end: fn(),
    rounds: usize,
}

const WAYS: [Way; 5] = [
    Way { name: "ours, grace: 0s", end: || ours(Duration::ZERO, "exited"), rounds: ROUNDS },
    Way { name: "pkill -9", end: || pkill("-9"), rounds: ROUNDS },
    Way { name: "ours, SIGTERM first", end: || ours(LIMIT, "terminated"), rounds: ROUNDS },
    Way { name: "pkill -TERM", end: || pkill("-TERM"), rounds: ROUNDS },
    Way { name: "the original", end: original, rounds: ROUNDS_OF_THE_ORIGINAL },
];

fn main() {
    if !is_root() {
        skipped("bench kill", "needs root");
        return;
    }
    let mut times = WAYS.map(|_| Vec::new());
    // Taken in turns, so that whatever else the machine does falls on all of them.
    for round in 0..ROUNDS {
        for (way, times) in WAYS.iter().zip(&mut times).filter(|(way, _)| round < way.rounds) {
            times.push(until_none_is_left(way.end));
        }
    }
    println!("kill: {COUNT} processes to none");
    for (way, times) in WAYS.iter().zip(&times) {
        let [least, median, most] = spread(times.iter().copied());
        println!(
            "kill: {}: median of {} {} ms, {} to {} ms",
            way.name,
            way.rounds,
            median.as_millis(),
            least.as_millis(),
            most.as_millis()
        );
    }
    let [killing, pkill, asking, pkill_term, original] = &times;
    ratio("pkill -9", killing, pkill, 0.6);
    ratio("pkill -TERM", asking, pkill_term, 0.6);
    ratio("the original", killing, original, 0.1);
}

/// The least, the median, and the most.
fn spread<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> [T; 3] {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    [*values.first().unwrap(), *values.get(values.len() / 2).unwrap(), *values.last().unwrap()]
}

/// The ratio of the medians, and how far those of single rounds lie apart.
fn ratio(what: &str, ours: &[Duration], theirs: &[Duration], bound: f64) {
    let [_, our_median, _] = spread(ours.iter().copied());
    let [_, their_median, _] = spread(theirs.iter().copied());
    let ratio = our_median.as_secs_f64() / their_median.as_secs_f64();
    let pairs =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64());
    let [least, median, most] = spread(pairs);
    let verdict = if ratio <= bound { "held" } else { "MISSED" };
    println!(
        "kill: ours / {what} = {ratio:.3} (at most {bound}: {verdict}); by round {least:.2} to \
         {most:.2}, median {median:.3}"
    );
}

/// From the start of the way to the end of the last process, whether or not the way itself goes
/// on to make sure.
fn until_none_is_left(end: fn()) -> Duration {
    let storm = Opponent::start("sleepers", UID, COMMAND.as_bytes(), COUNT, "").unwrap();
    wait::nap(SETTLING);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            assert!(storm.are_gone_within(LIMIT), "some are left");
            begun.elapsed()
        });
        end();
        watch.join().unwrap()
    })
}

/// The remediator's kill. All must have ended in the way that the report's key `ended` counts.
fn ours(grace: Duration, ended: &str) {
    let output = Program::new(programs::ours("end_storm").unwrap())
        .args([&UID.to_string(), COMMAND])
        .args(["--deadline-ms", &LIMIT.as_millis().to_string()])
        .args(["--grace-ms", &grace.as_millis().to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(*report.get(ended).unwrap(), COUNT, "{report}");
}

fn pkill(signal: &str) {
    let status = Program::new("pkill")
        .args([signal, "-u", &UID.to_string(), "-x", COMMAND])
        .status()
        .unwrap();
    assert!(status.success());
}

fn original() {
    let status = Program::new("bash")
        .args(["-c", ORIGINAL, "original", &UID.to_string(), COMMAND])
        // It finds some that have exited meanwhile.
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}
