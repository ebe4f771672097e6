//! A poster that hangs up while its alert is being recorded: what is on record is pursued, whoever
//! listens. Alertmanager does so at its time-outs and at each reload.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use procstorm_testkit::fault::{Beside as _, Fault, OrFault as _};
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::host::{Host, Post, TOKEN};
use procstorm_tests::journal;
use procstorm_tests::storm::Storm;
use rustix::net::sockopt::set_socket_linger;

/// Somebody with sqlite3 who holds the journal's write lock, so that no record can be committed.
struct Holder(Child);

impl Holder {
    fn begin(journal: &Path) -> Result<Self, Fault> {
        let mut child = Command::new(programs::other("sqlite3")?)
            .arg(journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fault("cannot start sqlite3")?;
        let script = b".timeout 20000\nBEGIN IMMEDIATE;\nSELECT 'held';\n";
        child.stdin.as_mut().unwrap().write_all(script).or_fault("cannot speak to sqlite3")?;
        let mut line = String::new();
        let mut answer = BufReader::new(child.stdout.as_mut().unwrap());
        answer.read_line(&mut line).or_fault("sqlite3 is mute")?;
        if line.trim() == "held" { Ok(Self(child)) } else { Err(Fault::new(line)) }
    }

    /// Lets go of it.
    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// How a poster ends its connection, once its request is sent.
#[derive(Clone, Copy, Debug)]
enum HangUp {
    Close,
    HalfClose,
    Reset,
}

/// Sends an alert, and returns the connection, on which nothing was answered yet.
fn send(host: &Host, post: &Post) -> Result<TcpStream, Fault> {
    let mut stream = TcpStream::connect(host.address()).or_fault("cannot connect")?;
    let body = procstorm_tests::host::notification(std::slice::from_ref(post)).to_string();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        host.address(),
        body.len()
    );
    stream.write_all(head.as_bytes()).or_fault("cannot send")?;
    stream.write_all(body.as_bytes()).or_fault("cannot send")?;
    Ok(stream)
}

/// Returns what is left of the connection.
fn hang_up(stream: TcpStream, how: HangUp) -> Option<TcpStream> {
    match how {
        HangUp::Close => None,
        HangUp::HalfClose => {
            stream.shutdown(Shutdown::Write).unwrap();
            Some(stream)
        }
        // Closed without lingering, it is reset.
        HangUp::Reset => {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            None
        }
    }
}

#[test]
fn what_is_on_record_is_pursued_though_its_poster_hung_up() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = Host::start("hang-up", "    settle: 0s\n    cooldown: 0s", "")?;
    host.wait_until_ready()?;
    let journal = host.dir().join("state/journal.sqlite");
    let mut expected = Vec::new();
    for round in 0..12 {
        let how = [HangUp::Close, HangUp::HalfClose, HangUp::Reset][round % 3];
        let storm = Storm::raise(uid, b"hang-up", 6)?;
        let holder = Holder::begin(&journal)?;
        let stream = send(&host, &Post::storm(uid, "hang-up"))?;
        // Long enough for the request to reach the journal, where it waits.
        wait::nap(Duration::from_millis(100));
        let rest = hang_up(stream, how);
        wait::nap(Duration::from_millis(100));
        holder.end();
        // No second alert comes: Alertmanager may take the first for delivered.
        host.wait_until_dead(&storm).beside(|| format!("round {round}, {how:?}"))?;
        drop(rest);
        expected.push("none_seen");
        host.wait_for_verdicts(&expected)?;
    }
    let log = host.daemon.log();
    assert!(!log.contains("resumed"), "by the alert itself, not by a later look:\n{log}");
    Ok(())
}

/// Changes the journal of a host whose daemon runs.
fn change_journal_beside(host: &Host, statements: &str) -> Result<(), Fault> {
    journal::change(&host.dir().join("state"), statements)
}

/// A remediation that is unfinished and that no task pursues.
const ABANDONED: &str = "
    UPDATE remediations SET state = 'accepted', verdict = NULL, summary = NULL, acted_ms = NULL,
        ended_ms = NULL;
    DELETE FROM steps;";

#[test]
fn what_nobody_pursues_is_taken_up_with_the_next_alert_and_without_one() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = Host::start("hang-none", "    settle: 0s\n    cooldown: 0s", "")?;
    host.post(&[Post::storm(uid, "hang-none")])?;
    host.wait_for_verdicts(&["no_longer_true"])?;
    for with_alert in [true, false] {
        let storm = Storm::raise(uid, b"hang-none", 6)?;
        change_journal_beside(&host, ABANDONED)?;
        if with_alert {
            let answer = host.post(&[Post::storm(uid, "hang-none")])?;
            assert_eq!(answer.body, "0 accepted, 1 coalesced, 0 refused\n");
        }
        host.wait_until_dead(&storm)?;
        host.wait_for_verdicts(&["none_seen"])?;
    }
    Ok(())
}
