//! How long it takes until none of 5,000 processes is left: ours beside `pkill` and beside the
//! loop of the original, in the same run. The judge is the end of a pipe that each of them holds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and tells"
)]

use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use procstorm_processes::process::Command;
use procstorm_remediator::steps::kill::{Bounds, Target, end_storm};
use procstorm_testkit::needs_root;
use procstorm_tests::opponent::Opponent;

const UID: u32 = 42500;
const COMMAND: &str = "imapd";
const COUNT: usize = 5_000;
/// An odd number, for the median. The original takes its time, and little depends on its last digit.
const ROUNDS: usize = 15;
const ROUNDS_OF_THE_ORIGINAL: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);

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

/// The ways to end them.
const WAYS: [fn(); 3] = [ours, pkill, original];

fn main() {
    needs_root!();
    let mut times = WAYS.map(|_| Vec::new());
    // Taken in turns, so that whatever else the machine does falls on all of them.
    for round in 0..ROUNDS {
        let ways = if round < ROUNDS_OF_THE_ORIGINAL { WAYS.len() } else { WAYS.len() - 1 };
        for (way, times) in WAYS.iter().zip(&mut times).take(ways) {
            times.push(until_none_is_left(*way));
        }
    }
    let [ours, pkill, original] = times.map(|mut times| {
        times.sort_unstable();
        times.swap_remove(times.len() / 2)
    });
    println!(
        "kill: {COUNT} processes to none, median of {ROUNDS} (the original: \
         {ROUNDS_OF_THE_ORIGINAL}):"
    );
    println!(
        "kill: ours {} ms, pkill {} ms, the original {} ms",
        ms(ours),
        ms(pkill),
        ms(original)
    );
    ratio("pkill", ours, pkill, 0.6);
    ratio("the original", ours, original, 0.1);
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}

fn ratio(what: &str, ours: Duration, theirs: Duration, bound: f64) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let verdict = if ratio <= bound { "held" } else { "MISSED" };
    println!("kill: ours / {what} = {ratio:.3} (at most {bound}: {verdict})");
}

/// From the start of the way to the end of the last process, whether or not the way itself goes
/// on to make sure.
fn until_none_is_left(way: fn()) -> Duration {
    let storm = Opponent::start("sleepers", UID, COMMAND.as_bytes(), COUNT, "").unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            assert!(storm.are_gone_within(LIMIT), "some are left");
            begun.elapsed()
        });
        way();
        watch.join().unwrap()
    })
}

fn ours() {
    let target = Target { uid: UID, command: Command::new(COMMAND.as_bytes()).unwrap() };
    let bounds = Bounds { deadline: LIMIT, ..Bounds::default() };
    let report = end_storm(Path::new("/proc"), &target, &bounds, &AtomicBool::new(false));
    assert_eq!(report.exited, u64::try_from(COUNT).unwrap(), "{:?}", report.verdict);
}

fn pkill() {
    let status =
        Program::new("pkill").args(["-9", "-u", &UID.to_string(), "-x", COMMAND]).status().unwrap();
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
