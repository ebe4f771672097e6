//! `procstorm-remediator suggest` with a real Prometheus that holds a simulated week: it says what the
//! simulation knows.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use procstorm_exporter::fold::SMALL;
use procstorm_testkit::{programs, wait};
use procstorm_tests::prometheus::Prometheus;

const LIMIT: Duration = Duration::from_secs(60);

/// Five minutes: a sample of each series.
const STEP: i64 = 300;

/// A week of them, and some that are older than what is asked for.
const STEPS: i64 = 7 * 24 * 12;

/// A storm: whose, from which step on, for how many, and how many processes.
type Storm = (usize, i64, i64, u64);

/// The last but one is across the end of a day, where the history is asked for in two parts.
const STORMS: [Storm; 6] = [
    (3, 100, 2, 95),
    (3, 400, 1, 130),
    (17, 500, 12, 61),
    (29, 900, 3, 240),
    (17, 1439, 4, 91),
    (44, 1800, 1, 33),
];

/// A user who always has so many.
const STANDING: (usize, u64) = (8, 25);

fn user(index: usize) -> String {
    format!("user{index:02}")
}

fn count(index: usize, step: i64) -> u64 {
    let storm = STORMS
        .iter()
        .find(|(who, from, long, _)| *who == index && (*from..from + long).contains(&step));
    match storm {
        Some((_, _, _, processes)) => *processes,
        None if index == STANDING.0 => STANDING.1,
        None => 2 + u64::try_from(index % 5).unwrap(),
    }
}

/// How many processes root always has, whom the shipped table of exemptions exempts.
const EXEMPT: u64 = 900;

/// The processes of the smallest group that the exporter shows.
const MARK: u64 = 8;

/// A week of fifty users and of root as OpenMetrics, which ends now.
fn week(end: i64) -> String {
    use std::fmt::Write as _;

    let mut text = "# TYPE procstorm_processes gauge\n".to_owned();
    for index in 0..50 {
        for step in 0..STEPS {
            let time = end - (STEPS - step) * STEP;
            writeln!(
                text,
                "procstorm_processes{{host=\"moscow\",role=\"mail\",user=\"{}\",command=\"imapd\"}} {} \
                 {time}",
                user(index),
                count(index, step)
            )
            .unwrap();
        }
    }
    for step in 0..STEPS {
        let time = end - (STEPS - step) * STEP;
        writeln!(
            text,
            "procstorm_processes{{host=\"moscow\",role=\"mail\",user=\"root\",command=\"imapd\"}} \
             {EXEMPT} {time}"
        )
        .unwrap();
    }
    // Many small groups of one user, which are no group.
    for step in 0..STEPS {
        let time = end - (STEPS - step) * STEP;
        writeln!(
            text,
            "procstorm_processes{{host=\"moscow\",role=\"mail\",user=\"user08\",command=\"{SMALL}\"}} 70 \
             {time}"
        )
        .unwrap();
    }
    text.push_str("# TYPE procstorm_scan_min_processes gauge\n");
    for step in 0..STEPS {
        let time = end - (STEPS - step) * STEP;
        writeln!(text, "procstorm_scan_min_processes{{host=\"moscow\"}} {MARK} {time}").unwrap();
    }
    text + "# EOF\n"
}

fn suggest(arguments: &[&str]) -> Output {
    let program = programs::ours("procstorm-remediator").unwrap();
    Command::new(program).arg("suggest").args(arguments).output().unwrap()
}

#[test]
fn what_it_says_of_a_week_is_what_the_week_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let end = Timestamp::now().as_second() / STEP * STEP;
    fs::write(at("week.txt"), week(end)).unwrap();
    let made = Command::new(programs::other("promtool").unwrap())
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(at("week.txt"))
        .arg(at("prometheus"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let config = at("prometheus.yml");
    let text =
        format!("global: {{evaluation_interval: 1s}}\nrule_files: ['{}']\n", rules.display());
    fs::write(&config, text).unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    // The exemptions are evaluated after the thresholds.
    let table = || {
        prometheus.query("role_class:procstorm_processes:threshold").unwrap().len() >= 9
            && prometheus.query("procstorm_processes:exemption").unwrap().len() >= 4
    };
    wait::until("the tables of thresholds and exemptions", LIMIT, || table().then_some(()))
        .unwrap();

    let said = suggest(&["--prometheus", prometheus.url(), "--step", "5m", "--since", "8d"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    assert!(!text.contains("has not loaded"), "{text}");
    assert!(text.contains("1 group is left out: the table of exemptions exempts it."), "{text}");
    assert!(!text.contains("root"), "{text}");
    assert!(!text.contains(SMALL) && !text.contains("exporters"), "{text}");
    for threshold in [15_u64, 20, 30, 40, 60, 90, 120, 150, 200, 300] {
        let storms = || STORMS.iter().filter(|storm| storm.3 >= threshold);
        let mut users: BTreeSet<_> = storms().map(|storm| storm.0).collect();
        let mut alerts = storms().count();
        if STANDING.1 >= threshold {
            users.insert(STANDING.0);
            alerts += 1;
        }
        let wanted = [threshold.to_string(), users.len().to_string(), alerts.to_string()];
        let is_it = |line: &&str| line.split_whitespace().take(3).eq(wanted.iter());
        assert!(text.lines().any(|line| is_it(&line)), "{wanted:?} in\n{text}");
    }
    let now = |threshold: &str, level: &str| {
        text.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.first() == Some(&threshold) && words.last() == Some(&level)
        })
    };
    assert!(now("60", "emergency") && now("90", "red"), "{text}");
    let largest = text.lines().find(|line| line.contains("user29")).unwrap();
    assert!(largest.trim_start().starts_with("240  user29  imapd    moscow"), "{largest}");
    let row = "- {record: 'role_class:procstorm_processes:threshold', expr: vector(300), labels: \
               {level: red, role: mail, class: imapd, playbook: imapd_storm}}";
    assert!(text.contains(row), "{text}");
    let little = suggest(&["--prometheus", prometheus.url(), "--step", "5m", "--least", "3"]);
    let little = String::from_utf8(little.stdout).unwrap();
    assert!(little.contains("fewer than 8 processes"), "{little}");
    let has_row = |threshold: &str| {
        little.lines().any(|line| line.split_whitespace().next() == Some(threshold))
    };
    assert!(!has_row("5") && has_row("10"), "{little}");
    // At a threshold that two may reach, and with what is asked for alone.
    let two = suggest(&["--prometheus", prometheus.url(), "--step", "5m", "--hits", "2"]);
    let two = String::from_utf8(two.stdout).unwrap();
    assert!(two.contains(&row.replace("300", "120")), "{two}");
    assert_eq!(two.matches("- {record: ").count(), 2, "{two}");
}

#[test]
fn what_is_not_prometheus_or_has_no_history_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    fs::write(&config, "global: {}\n").unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();
    let empty = suggest(&["--prometheus", prometheus.url()]);
    let text = String::from_utf8(empty.stdout).unwrap();
    assert!(empty.status.success(), "{}", String::from_utf8_lossy(&empty.stderr));
    assert!(text.contains("nothing is suggested") && text.contains("has not loaded"), "{text}");
    let elsewhere = format!("{}/nowhere", prometheus.url());
    for (arguments, wanted) in [
        (vec!["--prometheus", "http://127.0.0.1:1"], "cannot ask http://127.0.0.1:1/api/v1/rules"),
        (vec!["--prometheus", elsewhere.as_str()], "404"),
        (vec!["--prometheus", "http://me:hunter2@x"], "must not hold a password"),
        (vec!["--prometheus", "https://127.0.0.1:1"], "--ca-file: needed for https://"),
        (vec!["--prometheus", prometheus.url(), "--username", "me"], "each needs the other"),
        (vec!["--prometheus", prometheus.url(), "--since", "91d"], "at most 90d"),
        (vec!["--prometheus", prometheus.url(), "--step", "1s"], "at least 5s"),
    ] {
        let said = suggest(&arguments);
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && error.contains(wanted), "{arguments:?}: {error}");
        // clap quotes the whole argument in its own error.
        assert!(!error.contains("hunter2") || wanted.contains("password"), "{error}");
    }
}

/// The most steps in one question whose answer this Prometheus keeps small: what is asked for beyond is
/// more than the program reads.
const STEPS_MAX: i64 = 400;

/// A Prometheus with one standing group, whose answers are too large if they are of too many steps.
/// Returns its address, and how many questions it answered in full.
fn talkative() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            reader.read_line(&mut line).unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap() > 2 {
                header.clear();
            }
            let number = |name: &str| -> Option<i64> {
                let rest = line.split(&format!("&{name}=")).nth(1)?;
                rest.split(['&', ' ']).next()?.parse().ok()
            };
            let body = match (number("start"), number("end"), number("step")) {
                (Some(start), Some(end), Some(step)) if (end - start) / step <= STEPS_MAX => {
                    count.fetch_add(1, Ordering::Relaxed);
                    let times = (start..=end).step_by(usize::try_from(step).unwrap());
                    let values: Vec<_> = times.map(|time| format!("[{time},\"100\"]")).collect();
                    format!(
                        "{{\"data\":{{\"result\":[{{\"metric\":{{\"role\":\"mail\",\"host\":\"moscow\",\
                         \"user\":\"alice\",\"command\":\"imapd\"}},\"values\":[{}]}}]}}}}",
                        values.join(",")
                    )
                }
                (Some(_), Some(_), Some(_)) => " ".repeat(65 << 20),
                _ if line.contains("/rules") => "{\"data\":{\"groups\":[]}}".to_owned(),
                _ => "{\"data\":{\"result\":[]}}".to_owned(),
            };
            // The program may have read enough.
            let length = body.len();
            drop(write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    });
    (address, answered)
}

#[test]
fn a_history_that_is_too_large_for_one_answer_is_asked_for_in_smaller_pieces() {
    let (address, answered) = talkative();
    let said = suggest(&["--prometheus", &address, "--since", "1d", "--step", "30s"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    // 2,880 steps; 1,440 and 720 at once are too many.
    assert_eq!(answered.load(Ordering::Relaxed), 8, "{text}");
    let of_90 = text.lines().find(|line| line.split_whitespace().next() == Some("90")).unwrap();
    let words: Vec<_> = of_90.split_whitespace().collect();
    assert_eq!(words, ["90", "1", "1"], "one alert across all pieces");
}
