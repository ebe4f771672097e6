//! What the how-to "Scrape every second" of `alertmanager/INTEGRATIONS.md` gives and costs, beside the
//! shipped configuration: both on the whole system with real storms.
//!
//! - `delay`: the time from the start of a storm to the remediator's request, and until the remediator
//!   has found that none of its processes is left; and where that time goes.
//! - `cost`: the CPU time of each program while 10,000 processes exist and nothing happens.
//!
//! `cargo bench -p procstorm-tests --bench second [-- delay PROFILE SIZE ROUNDS | cost PROFILE SOURCE]`,
//! as root, with the programs built before (`cargo build --release --workspace --bins`). A PROFILE is
//! `shipped` or the interval in which the alerts are evaluated while a scrape is made every second.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "storms begin at any time between two scrapes")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::skip::{is_root, skipped};
use procstorm_testkit::{programs, wait};
use procstorm_tests::crowd::Crowd;
use procstorm_tests::http::Http;
use procstorm_tests::journal;
use procstorm_tests::stack::{Person, Setup, Stack};
use procstorm_tests::storm::Storm;
use serde_json::Value;

/// What the how-to sets.
const DOCUMENTED: &str = "250ms";

/// The first uid of the users who have storms, each one of his own.
const UID: u32 = 47_500;

/// The first uid of the users who do nothing.
const QUIET_UID: u32 = 48_500;

/// So many processes, of so many of them, who run so many commands each: no line and no user reaches a
/// threshold.
const QUIET: (usize, u32, usize) = (10_000, 50, 20);

/// How long the CPU time is counted.
const SPAN: Duration = Duration::from_secs(60);

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<(), Fault> {
    if !is_root() {
        skipped("bench second", "needs root");
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["delay", profile, size, rounds] => {
            let rounds = rounds.parse().or_fault(format!("no number: {rounds}"))?;
            delay(profile, size.parse().or_fault(format!("no number: {size}"))?, rounds)
        }
        ["cost", profile, source] => cost(profile, source),
        [] => {
            for profile in ["shipped", DOCUMENTED] {
                delay(profile, 100, 30)?;
                delay(profile, 1_000, 5)?;
                delay(profile, 10_000, 3)?;
                cost(profile, "bpf")?;
                cost(profile, "procfs")?;
            }
            Ok(())
        }
        _ => Err(Fault::new("usage: second [delay PROFILE SIZE ROUNDS | cost PROFILE SOURCE]")),
    }
}

/// The stack's configuration and flags in a profile. Files that the how-to changes are copied to
/// `dir`.
fn setup(profile: &str, source: &str, dir: &Path) -> Result<Setup, Fault> {
    let exporter = vec![format!("--collector.source={source}")];
    if profile == "shipped" {
        return Ok(Setup { exporter, ..Setup::default() });
    }
    let document = programs::project().join("alertmanager/INTEGRATIONS.md");
    let document = fs::read_to_string(document).or_fault("cannot read the how-to")?;
    let script = document
        .split_once("\n## Scrape every second\n")
        .and_then(|(_, rest)| rest.split_once("\n```sh\n")?.1.split_once("\n```"))
        .map(|(script, _)| script.replace(DOCUMENTED, profile))
        .ok_or_else(|| Fault::new("the how-to has no commands"))?;
    let copy = Command::new("cp")
        .arg("-r")
        .args(["rules", "alertmanager"].map(|name| programs::project().join(name)))
        .arg(dir)
        .status();
    let change = Command::new("sh").args(["-euc", &script]).current_dir(dir).status();
    for done in [copy, change] {
        if !done.or_fault("cannot follow the how-to")?.success() {
            return Err(Fault::new("cannot follow the how-to"));
        }
    }
    Ok(Setup { configuration: Some(dir.to_owned()), exporter, ..Setup::default() })
}

/// A profile in words.
fn words(profile: &str) -> String {
    match profile {
        "shipped" => "scrapes and evaluations every 5 s".to_owned(),
        interval => format!("scrapes every 1 s, alerts evaluated every {interval}"),
    }
}

/// Milliseconds since the onset of a storm.
struct Course {
    /// The scrape that saw it began.
    scraped: f64,
    /// The evaluation that saw this began.
    fired: f64,
    /// The remediator had the request.
    requested: f64,
    /// It began to act.
    acted: f64,
    /// The mail file was saved.
    archived: f64,
    /// None of the processes was left, as several scans showed.
    ended: f64,
}

fn delay(profile: &str, size: usize, rounds: u32) -> Result<(), Fault> {
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let changed = tempfile::tempdir().or_fault("no directory")?;
    let people: Vec<_> = (0..rounds).map(|n| Person::new(&format!("user{n}"), UID + n)).collect();
    let stack = Stack::start_as(dir.path(), &people, &setup(profile, "auto", changed.path())?)?;
    let mut courses = Vec::new();
    for (person, round) in people.iter().zip(0..) {
        stack.site.put_mail(person, &person.name, &vec![b'm'; 100_000], 0o600)?;
        // Storms begin at any time between two scrapes: 37 and 100 have no common divisor.
        thread::sleep(Duration::from_millis(50) * (round * 37 % 100));
        let storm = Storm::raise(person.uid, b"imapd", size)?;
        courses.push(course(&stack, person, &storm)?);
    }
    let mailed = || {
        let mails = stack.mail.mails();
        let has_line = |person: &Person| {
            let line = format!("{} imapd", person.name);
            let red = mails.iter().filter(|mail| mail.subject().contains("ProcNumChkRed"));
            red.into_iter().any(|mail| mail.text().lines().any(|text| text.contains(&line)))
        };
        people.iter().filter(|person| has_line(person)).count()
    };
    // Whether all are mailed is a result, too.
    wait::until("all mails", Duration::from_secs(15), || (mailed() == people.len()).then_some(()))
        .ok();
    println!(
        "second: {}, {size} processes: {rounds} storms, {} of them in red mails",
        words(profile),
        mailed()
    );
    let spread = |name: &str, of: fn(&Course) -> f64| {
        let [least, median, most] = spread(courses.iter().map(of));
        println!("second:   {name}: median {median:.2} s ({least:.2} to {most:.2})");
    };
    spread("onset to request", |course| course.requested);
    spread("onset to none seen", |course| course.ended);
    spread("  onset to scrape", |course| course.scraped);
    spread("  scrape to evaluation", |course| course.fired - course.scraped);
    spread("  evaluation to request", |course| course.requested - course.fired);
    spread("  request to action", |course| course.acted - course.requested);
    spread("  archive", |course| course.archived - course.acted);
    spread("  kill and proof", |course| course.ended - course.archived);
    Ok(())
}

/// Waits for the end of a storm, and reads from Prometheus and the remediator's journal how it came.
fn course(stack: &Stack, person: &Person, storm: &Storm) -> Result<Course, Fault> {
    let user = &person.name;
    let remediation = wait::until(&format!("the end of {user}'s storm"), LIMIT, || {
        let all = stack.remediations().ok()?;
        all.into_iter().find(|one| one.user() == user && one.is_done())
    })
    .or_fault(stack.remediator.log())?;
    if remediation.verdict() != "none_seen" {
        return Err(Fault::new(format!("{user}: {}", remediation.summary())));
    }
    let times = format!(
        "SELECT (SELECT min(received_ms) FROM alerts WHERE remediation = r.id), acted_ms,
            (SELECT ended_ms FROM steps WHERE remediation = r.id AND name = 'archive_mail_file'),
            ended_ms FROM remediations r WHERE id = {}",
        remediation.id()
    );
    let said = journal::read(&stack.site.state(), &times)?.join("\n");
    let times: Vec<f64> = said.split('|').filter_map(|ms| ms.parse().ok()).collect();
    let [requested, acted, archived, ended] = *times.as_slice() else {
        return Err(Fault::new(format!("{user}: the journal says {said:?}")));
    };
    let labels = format!("user=\"{user}\",command=\"imapd\"");
    let scraped = first(stack, &format!("procstorm_processes{{{labels}}}"), 90.0)?;
    let fired = format!("ALERTS{{alertname=\"ProcNumChkRed\",playbook!=\"\",{labels}}}");
    let fired = first(stack, &fired, 1.0)?;
    #[expect(clippy::as_conversions, reason = "milliseconds since 1970 fit")]
    let onset = storm.onset().as_millisecond() as f64;
    let since = |ms: f64| (ms - onset) / 1000.0;
    Ok(Course {
        scraped: since(scraped),
        fired: since(fired),
        requested: since(requested),
        acted: since(acted),
        archived: since(archived),
        ended: since(ended),
    })
}

/// When the series first had at least this value, in milliseconds since 1970.
fn first(stack: &Stack, series: &str, least: f64) -> Result<f64, Fault> {
    let result = stack.prometheus.result("query", &[("query", &format!("{series}[5m]"))])?;
    let samples = result.as_array().into_iter().flatten();
    let samples = samples.filter_map(|series| series.get("values")?.as_array());
    let reached = samples.flatten().filter_map(|sample| {
        let value: f64 = sample.get(1).and_then(Value::as_str)?.parse().ok()?;
        (value >= least).then(|| sample.get(0).and_then(Value::as_f64))?
    });
    let first = reached.min_by(f64::total_cmp);
    Ok(first.ok_or_else(|| Fault::new(format!("{series} never was {least}")))? * 1000.0)
}

fn cost(profile: &str, source: &str) -> Result<(), Fault> {
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let changed = tempfile::tempdir().or_fault("no directory")?;
    let stack = Stack::start_as(
        dir.path(),
        &[Person::new("user0", UID)],
        &setup(profile, source, changed.path())?,
    )?;
    let (processes, users, commands) = QUIET;
    let _quiet = Crowd::gather(processes, QUIET_UID, users, commands)?;
    wait::until("a scrape of all of them", LIMIT, || {
        let sum = format!("sum(procstorm_processes{{command=~\"held-.*\"}}) == {processes}");
        (!stack.prometheus.query(&sum).ok()?.is_empty()).then_some(())
    })?;
    let counted_by = format!("procstorm_scan_source{{source=\"{source}\"}} == 1");
    if stack.prometheus.query(&counted_by)?.is_empty() {
        return Err(Fault::new(format!("the exporter does not count by {source}")));
    }
    let programs = [
        ("exporter", stack.exporter.pid()),
        ("Prometheus", stack.prometheus.daemon.pid()),
        ("Alertmanager", stack.alertmanager.daemon.pid()),
        ("remediator", stack.remediator.pid()),
    ];
    let begun = Instant::now();
    let stored = samples(&stack)?;
    let before = programs.map(|(_, pid)| cpu_seconds(pid));
    thread::sleep(SPAN);
    let after = programs.map(|(_, pid)| cpu_seconds(pid));
    let span = begun.elapsed().as_secs_f64();
    let stored = (samples(&stack)? - stored) / span;
    let mut shares = Vec::new();
    for (((name, _), before), after) in programs.iter().zip(before).zip(after) {
        shares.push(format!("{name} {:.2} %", (after? - before?) / span * 100.0));
    }
    println!(
        "second: {}, {} quiet processes in {} groups, counted by {source}: {}; {stored:.0} samples a second",
        words(profile),
        processes,
        commands * usize::try_from(users).unwrap_or_default(),
        shares.join(", ")
    );
    Ok(())
}

/// How many samples Prometheus has stored so far, by its own metrics.
fn samples(stack: &Stack) -> Result<f64, Fault> {
    let page = Http::new()?.get(&format!("{}/metrics", stack.prometheus.url()))?;
    let name = "prometheus_tsdb_head_samples_appended_total";
    let series = page.body.lines().filter(|line| line.starts_with(name));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// The CPU time of all threads of a process so far, also of those that have ended: proc(5), `utime`
/// and `stime`, which count ticks of 10 ms.
fn cpu_seconds(pid: u32) -> Result<f64, Fault> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).or_fault(format!("no {pid}"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}
