//! A system that has no descriptor or no memory to give: the remediator answers or says 503, so that
//! Alertmanager asks again, and recovers by itself.
//!
//! Uids 46100-46109.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post};

const SOON: Duration = Duration::from_secs(60);

/// Sets a soft limit of the running daemon: a number, or `unlimited`.
fn limit(host: &Host, resource: &str, value: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &host.daemon.pid().to_string(), &format!("--{resource}={value}:")]);
    assert!(command.status().unwrap().success());
}

fn alive_and_well(host: &mut Host, uid: u32) -> Result<(), Fault> {
    let answer = wait::until("an alert is taken", SOON, || {
        host.post(&[Post::storm(uid, "none-here")]).ok().filter(|answer| answer.status == 200)
    })?;
    assert_eq!(answer.body, "1 accepted, 0 coalesced, 0 refused\n");
    assert!(host.daemon.exited()?.is_none(), "{}", host.daemon.log());
    assert!(!host.daemon.log().contains("panic"), "{}", host.daemon.log());
    Ok(())
}

#[test]
fn without_memory_an_alert_is_taken_or_answered_503() -> Result<(), Fault> {
    needs_root!();
    let mut host = Host::start("none-here", "", "")?;
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", host.daemon.pid())).unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    limit(&host, "as", &(pages * rustix::param::page_size()).to_string());
    // A group of alerts that takes as much as one request may.
    let large = "x".repeat(400_000);
    for _ in 0..20 {
        let post = Post::storm(46_100, "none-here").with("host", "elsewhere").with("note", &large);
        let status = host.post(&[post])?.status;
        assert!(matches!(status, 200 | 400 | 503), "{status}");
        let status = host.get("/metrics")?.status;
        assert!(matches!(status, 200 | 503), "{status}");
    }
    limit(&host, "as", "unlimited");
    alive_and_well(&mut host, 46_101)
}

#[test]
fn a_limit_of_descriptors_that_sinks_below_what_is_open_is_survived() -> Result<(), Fault> {
    needs_root!();
    let mut host = Host::start("none-here", "", "")?;
    let idle: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(host.address()).unwrap();
            stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.daemon.pid())).unwrap().count();
    limit(&host, "nofile", &(open - 40).to_string());
    alive_and_well(&mut host, 46_102)?;
    limit(&host, "nofile", "1024");
    drop(idle);
    alive_and_well(&mut host, 46_103)
}
