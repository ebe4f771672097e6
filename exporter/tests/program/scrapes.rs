//! Scrapes: many at once, late, too many; the other pages; signals.

use std::io::Read;
use std::net::TcpStream;

use flate2::read::GzDecoder;
use procstorm_testkit::needs_root;
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::wait::until_so;
use rustix::process::Signal;

use crate::world::{Program, answer, value};

/// Asks for the metrics and makes sure that the program has taken the request: it answers a later
/// one.
fn scrapes(program: &Program, n: usize, headers: &str) -> Vec<TcpStream> {
    let streams = (0..n).map(|_| program.ask("/metrics", headers)).collect();
    program.get("/-/healthy");
    streams
}

#[test]
fn ten_scrapes_at_once_cost_one_scan() {
    needs_root!();
    let proc = Fixture::new();
    let barrier = proc.barrier(2);
    let program = Program::start(proc.path(), &[]);
    let streams = scrapes(&program, 10, "");
    barrier.pass();
    for stream in streams {
        let (status, _, body) = answer(stream);
        assert_eq!(status, 200);
        assert_eq!(value(&String::from_utf8(body).unwrap(), "procstorm_scans_total"), Some(1));
    }
    let streams = scrapes(&program, 1, "");
    barrier.pass();
    let body = String::from_utf8(answer(streams.into_iter().next().unwrap()).2).unwrap();
    assert_eq!(value(&body, "procstorm_scans_total"), Some(2), "a later one costs its own");
}

#[test]
fn a_scan_that_takes_too_long_is_not_waited_for() {
    needs_root!();
    let proc = Fixture::new();
    let barrier = proc.barrier(2);
    let program = Program::start(proc.path(), &[]);
    let header = "X-Prometheus-Scrape-Timeout-Seconds: 0.3\r\n";
    let (status, _, body) = program.get_with("/metrics", header);
    let body = String::from_utf8(body).unwrap();
    assert_eq!((status, body.as_str()), (503, "the scan was not done within 200 ms\n"));
    barrier.pass();
}

#[test]
fn scrapes_beyond_the_limit_are_told_to_come_again() {
    needs_root!();
    let proc = Fixture::new();
    let barrier = proc.barrier(2);
    let program = Program::start(proc.path(), &["--web.max-requests=2"]);
    let streams = scrapes(&program, 2, "");
    assert_eq!(program.get_with("/metrics", "").0, 503);
    barrier.pass();
    for stream in streams {
        assert_eq!(answer(stream).0, 200);
    }
}

#[test]
fn a_stop_lets_the_scrape_in_flight_finish() {
    needs_root!();
    let proc = Fixture::new();
    let barrier = proc.barrier(2);
    let program = Program::start(proc.path(), &[]);
    let streams = scrapes(&program, 1, "");
    program.signal(Signal::TERM);
    program.logged("stopping");
    barrier.pass();
    for stream in streams {
        assert_eq!(answer(stream).0, 200);
    }
    assert!(program.ended_well());
}

#[test]
fn a_scan_that_hangs_holds_up_no_other_page_no_signal_and_no_end() {
    needs_root!();
    let proc = Fixture::new();
    let _never_passed = proc.barrier(2);
    let program = Program::start(proc.path(), &[]);
    let header = "X-Prometheus-Scrape-Timeout-Seconds: 0.3\r\n";
    assert_eq!(program.get_with("/metrics", header).0, 503);
    program.signal(Signal::HUP);
    program.logged("reloaded");
    assert_eq!(program.get("/-/healthy"), "healthy\n");
    program.signal(Signal::TERM);
    assert!(program.ended_well());
}

#[test]
fn groups_that_are_gone_leave_no_series() {
    needs_root!();
    let proc = Fixture::new();
    proc.process(2, 41000, b"imapd");
    let program = Program::start(proc.path(), &["--collector.min-processes=1"]);
    assert!(program.get("/metrics").contains("command=\"imapd\""));
    std::fs::remove_dir_all(proc.path().join("2")).unwrap();
    assert!(!program.get("/metrics").contains("imapd"));
}

#[test]
fn pages() {
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &["--web.telemetry-path=/m\"etrics"]);
    assert!(program.get("/").contains("href=\"/m&quot;etrics\""));
    assert_eq!(program.get("/-/healthy"), "healthy\n");
    assert_eq!(program.get("/-/ready"), "ready\n");
    assert_eq!(program.get_with("/metrics", "").0, 404);
    std::fs::remove_dir_all(proc.path()).unwrap();
    let (status, _, body) = program.get_with("/-/ready", "");
    assert_eq!(status, 503, "{body:?}");
    assert!(String::from_utf8(body).unwrap().contains("No such file"));
    program.signal(Signal::HUP);
    program.logged("reloaded");
    assert_eq!(program.get("/-/healthy"), "healthy\n");
}

#[test]
fn gzip_when_asked_for() {
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &["--web.disable-exporter-metrics"]);
    let (_, head, body) = program.get_with("/metrics", "Accept-Encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let mut text = String::new();
    GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("procstorm_scan_processes 1\n"), "{text}");
    // Whoever wants OpenMetrics gets what we have, and is told what it is.
    let (_, head, _) =
        program.get_with("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("version=0.0.4"), "{head}");
}

#[test]
fn what_makes_no_sense_stops_the_start() {
    for (flag, told) in [
        ("--web.config.file=/nowhere/web.yml", "/nowhere/web.yml"),
        ("--web.listen-address=nowhere", "cannot listen on nowhere"),
        ("--web.listen-address=:99999", "cannot listen on :99999"),
    ] {
        let output = std::process::Command::new(crate::world::BINARY).arg(flag).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && log.contains(told), "{flag}: {log}");
    }
}

#[test]
fn once_fails_where_its_output_cannot_be_written() {
    let proc = Fixture::new();
    for (file, writable) in [("/dev/full", true), ("/dev/null", false)] {
        let stdout = std::fs::OpenOptions::new().read(true).write(writable).open(file).unwrap();
        let mut command = std::process::Command::new(crate::world::BINARY);
        command.arg("--once").arg("--path.procfs").arg(proc.path()).stdout(stdout);
        let output = command.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && log.contains("cannot write"), "{file}: {log}");
    }
}

#[test]
fn idle_connections_leave_descriptors_for_a_scan() {
    let proc = Fixture::new();
    let script = "ulimit -n 64; exec \"$0\" --web.listen-address 127.0.0.1:0 --path.procfs \"$1\" \
                  \"$2\" \"$3\"";
    let program = Program::spawn(
        std::process::Command::new("sh")
            .args(["-c", script, crate::world::BINARY])
            .arg(proc.path()),
    );
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(program.address()).unwrap()).collect();
    assert!(program.get("/metrics").contains("procstorm_scan_processes 1\n"));
    drop(idle);
}

#[test]
fn scrapes_leak_no_descriptors() {
    let proc = Fixture::new();
    let program = Program::start(proc.path(), &[]);
    let descriptors = || {
        program.get("/metrics");
        std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count()
    };
    let before = descriptors();
    for _ in 0..200 {
        descriptors();
    }
    // One may be the last connection's.
    until_so("no more descriptors than before", || descriptors() <= before + 1);
}
