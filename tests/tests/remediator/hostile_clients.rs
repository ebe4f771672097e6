//! Clients that mean harm, against the daemons' real programs: each is refused within bounds of
//! time, memory and descriptors, and a good alert gets through all the while.
//!
//! Uids 46000-46099. All connections stay on the loopback.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it has measured"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::Fault;
use procstorm_testkit::port::free_port;
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::daemon::Daemon;
use procstorm_tests::host::{Host, Post, TOKEN, notification};
use procstorm_tests::http::Http;
use procstorm_tests::toll::Toll;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// How long a server may keep any client, however it behaves.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to raise a horde, or to be rid of it, on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(300);

/// How much more resident memory hostile clients may cost a daemon, in KiB.
const MEMORY_MAX: u64 = 64 * 1024;

/// What a client does when it has sent its request.
#[derive(Clone, Copy)]
enum Then<'a> {
    /// It waits for the answer.
    Wait,
    /// It says that no more will come.
    Finish,
    /// It sends this every half second.
    Trickle(&'a [u8]),
}

/// All that the server says to these bytes until it closes the connection.
fn converse(address: &str, bytes: &[u8], then: Then<'_>) -> String {
    try_to_converse(address, bytes, then, PATIENCE).unwrap_or_else(|error| {
        panic!("{error}: {}", bytes.escape_ascii());
    })
}

/// The same, where the server may be too busy to take the connection, or to close it in time.
fn try_to_converse(
    address: &str,
    bytes: &[u8],
    then: Then<'_>,
    patience: Duration,
) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // Who is refused early may not get all of it out: the answer is what counts.
    let sent = stream.write_all(bytes);
    if sent.is_ok() && matches!(then, Then::Finish) {
        stream.shutdown(Shutdown::Write).ok();
    }
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (start, mut said, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => said.extend(buffer.iter().take(n)),
            // Interrupted: this process was halted and goes on, which ends a wait that has a limit.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Then::Trickle(more) = then {
                    stream.write_all(more).ok();
                }
            }
            Err(_) => break,
        }
        if start.elapsed() >= patience {
            return Err(io::Error::other("kept for ever"));
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The statuses of all answers in what was said; empty if it closed without a word.
fn statuses(said: &str) -> Vec<u16> {
    let number = |rest: &str| rest.get(..3).and_then(|status| status.parse().ok());
    said.split("HTTP/1.").skip(1).filter_map(|one| number(one.get(2..)?)).collect()
}

fn head(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// A post with the right token, of which all else may be wrong.
fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!(
        "Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Connection: close\r\n{headers}"
    );
    [&head("POST /webhook", &headers), body].concat()
}

/// The same with its length.
fn post_whole(headers: &str, body: &[u8]) -> Vec<u8> {
    post(&format!("Content-Length: {}\r\n{headers}", body.len()), body)
}

fn good(uid: u32) -> Vec<u8> {
    notification(&[Post::storm(uid, "gate-none")]).to_string().into_bytes()
}

/// What a daemon took before it was tormented, and that it takes it again afterwards.
struct Before {
    name: &'static str,
    pid: u32,
    toll: Toll,
}

/// A remediator that has opened all that it keeps open.
fn host(changes: &str) -> Result<Host, Fault> {
    let host = Host::start("gate-none", changes, "")?;
    wait::until("ready", LONG, || (host.get("/-/ready").ok()?.status == 200).then_some(()))?;
    Ok(host)
}

impl Before {
    fn of(name: &'static str, daemon: &Daemon) -> Result<Self, Fault> {
        Ok(Self { name, pid: daemon.pid(), toll: Toll::of(daemon.pid())? })
    }

    fn holds_after(&self, daemon: &mut Daemon) -> Result<(), Fault> {
        let mut last = None;
        let calm = wait::until("descriptors are given back", LONG, || {
            let now = Toll::of(self.pid).ok()?;
            last = Some(now);
            // One or two may belong to a request of ours, or to the journal at work.
            (now.descriptors <= self.toll.descriptors + 2).then_some(now)
        });
        let Ok(after) = calm else { panic!("{}: {} -> {last:?}", self.name, self.toll) };
        println!("{}: before: {}\n{0}: after: {after}", self.name, self.toll);
        assert!(daemon.exited()?.is_none(), "it has ended: {}", daemon.log());
        assert!(after.peak <= self.toll.memory + MEMORY_MAX, "{after}");
        assert!(!daemon.log().contains("panic"), "{}", daemon.log());
        Ok(())
    }
}

/// Requests that are no good in whatever way, and with which statuses they may be answered; none
/// is a connection closed without a word.
fn nonsense() -> Vec<(&'static str, Vec<u8>, Vec<u16>)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let many = |count: usize| (0..count).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    let deep = |open: &str| {
        let (head, _) =
            r#"{"version":"4","alerts":[{"annotations":{"x":@}}]}"#.split_once('@').unwrap();
        format!("{head}{}", open.repeat(100_000)).into_bytes()
    };
    let text = String::from_utf8(good(46_000)).unwrap();
    let not_utf8 = text.replace("gate-none", "gate-\u{1}").into_bytes();
    let not_utf8 = not_utf8.iter().map(|&b| if b == 1 { 0xff } else { b }).collect::<Vec<_>>();
    let twice = |key: &str| text.replacen(key, &format!("{key}\"x\",{key}"), 1).into_bytes();
    let labels: String = (0..60_000).map(|i| format!("\"l{i}\":\"v\",")).collect();
    let labels = text.replacen("\"labels\":{", &format!("\"labels\":{{{labels}"), 1).into_bytes();
    let empties =
        format!(r#"{{"version":"4","alerts":[{}{{}}]}}"#, "{},".repeat(300_000)).into_bytes();
    let long = text.replacen("gate-none", &"x".repeat(1 << 19), 1).into_bytes();
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 1000]].concat();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let over = vec![b' '; (1 << 20) + 1];
    let lengths =
        |one: &str, two: &str| format!("Content-Length: {one}\r\nContent-Length: {two}\r\n");
    vec![
        // JSON.
        ("deep arrays", post_whole("", &deep("[")), vec![400]),
        ("deep objects", post_whole("", &deep("{\"a\":")), vec![400]),
        ("not UTF-8", post_whole("", &not_utf8), vec![400]),
        ("a label twice", post_whole("", &twice("\"alertname\":")), vec![400]),
        ("a field twice", post_whole("", &twice("\"status\":")), vec![400]),
        ("60,000 labels", post_whole("", &labels), vec![400]),
        ("300,000 alerts", post_whole("", &empties), vec![400]),
        ("a label of 512 KiB", post_whole("", &long), vec![400, 200]),
        ("over 1 MiB", post_whole("", &over), vec![413]),
        ("10 GiB announced", post("Content-Length: 10737418240\r\n", b"{"), vec![413]),
        // Compressed: never inflated.
        ("gzip", post_whole("Content-Encoding: gzip\r\n", &gzip), vec![415]),
        ("good, called gzip", post_whole("Content-Encoding: gzip\r\n", &good(46_000)), vec![415]),
        ("twice gzip", post_whole("Content-Encoding: gzip, gzip\r\n", &gzip), vec![415]),
        ("gzip in secret", post_whole("", &gzip), vec![400]),
        ("gzip as a transfer", post("Transfer-Encoding: gzip\r\n", &gzip), vec![400, 501]),
        // Chunks and lengths.
        ("no chunk size", post(chunked, b"zz\r\n"), vec![400]),
        ("a negative chunk", post(chunked, b"-1\r\n{}\r\n0\r\n\r\n"), vec![400]),
        ("a chunk of 2^68", post(chunked, b"fffffffffffffffff\r\n{"), vec![400]),
        ("a chunk of 2^63", post(chunked, b"7fffffffffffffff\r\n{"), vec![400, 413]),
        ("an extension of 1 MiB", post(chunked, &[b"1;", &over[..], b"\r\n"].concat()), vec![400]),
        ("bytes after a chunk", post(chunked, b"1\r\n{}}\r\n0\r\n\r\n"), vec![400]),
        ("a trailer of 1 MiB", post(chunked, &[b"0\r\nX: ", &over[..]].concat()), vec![400]),
        ("chunked is not last", post("Transfer-Encoding: chunked, x\r\n", b"{}"), vec![400]),
        ("two lengths", post(&lengths("2", "3"), b"{}x"), vec![400]),
        ("a length of -1", post("Content-Length: -1\r\n", b"{}"), vec![400]),
        ("a length of +2", post("Content-Length: +2\r\n", b"{}"), vec![400]),
        ("a length over 2^64", post("Content-Length: 99999999999999999999\r\n", b"{}"), vec![400]),
        ("a body cut short", post("Content-Length: 100\r\n", b"{}"), vec![400]),
        // Heads.
        ("1,000 headers", head("GET /-/healthy", &many(1000)), vec![431]),
        ("a header of 1 MiB", head("GET /", &format!("X: {}\r\n", "y".repeat(1 << 20))), vec![431]),
        ("a path of 1 MiB", head(&format!("GET /{}", "y".repeat(1 << 20)), ""), vec![414, 431]),
        ("a header without name", head("GET /-/healthy", ": x\r\n"), vec![400]),
        ("a blank before a colon", head("GET /-/healthy", "X : x\r\n"), vec![400]),
        ("a folded header", head("GET /-/healthy", "X: a\r\n b\r\n"), vec![400]),
        ("NUL in a header", head("GET /-/healthy", "X: a\0b\r\n"), vec![400]),
        ("no Host", b"GET /-/healthy HTTP/1.1\r\n\r\n".to_vec(), vec![400]),
        ("two Hosts", head("GET /-/healthy", "Host: localhost\r\n"), vec![400]),
        ("a post with two Hosts", post_whole("Host: localhost\r\n", &good(46_000)), vec![400]),
        ("a target without a slash", head("GET healthy", ""), vec![400]),
        ("a target that is a star", head("GET *", ""), vec![400]),
        ("a target with a user", head("GET http://a@localhost/-/healthy", ""), vec![400]),
        ("a blank in a target", head("GET /-/ healthy", ""), vec![400]),
        ("a form", post_whole("Content-Type: text/plain\r\n", &good(46_000)), vec![415]),
        // What is no HTTP/1.
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), vec![400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![]),
        ("HTTP/7.7", b"GET / HTTP/7.7\r\n\r\n".to_vec(), vec![400, 505]),
        ("TLS", [hello, vec![0x55; 500]].concat(), vec![400]),
        ("NULs", vec![0; 100_000], vec![400]),
        ("0xff", vec![0xff; 100_000], vec![400]),
        ("mail", b"EHLO h\r\nMAIL FROM:<a@h>\r\n".to_vec(), vec![400]),
        ("nothing", Vec::new(), vec![]),
        ("empty lines", b"\r\n".repeat(20_000), vec![400, 431]),
    ]
}

#[test]
fn nonsense_on_the_wire_is_refused() -> Result<(), Fault> {
    needs_root!();
    let mut host = host("")?;
    host.post(&[Post::storm(46_001, "gate-none")])?;
    let before = Before::of("remediator, nonsense", &host.daemon)?;
    let mut wrong = Vec::new();
    for (what, bytes, allowed) in nonsense() {
        let start = Instant::now();
        let ends =
            ["a chunk of 2^63", "a body cut short", "gzip as a transfer", "nothing", "empty lines"];
        let then = if ends.contains(&what) { Then::Finish } else { Then::Wait };
        let said = converse(host.address(), &bytes, then);
        let said_statuses = statuses(&said);
        // Who is still sending when refused may find the connection reset, and the answer lost.
        let silent = said.is_empty() && (allowed.is_empty() || bytes.len() > 1 << 16);
        let fits = said_statuses.first().is_some_and(|s| allowed.contains(s)) || silent;
        // Not before the deadline of a head: for what is nonsense from its beginning.
        if !fits || start.elapsed() > Duration::from_secs(25) {
            let shown: String = said.chars().take(100).collect();
            wrong.push(format!("{what}: {:?}, {shown:?}", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Only the two that were good but for their size were taken: nothing slipped through.
    let taken = host.remediations()?;
    assert!(taken.iter().all(|one| !one.to_string().contains("46000")), "{taken:?}");
    assert_eq!(
        host.post(&[Post::storm(46_002, "gate-none")])?.body,
        "1 accepted, 0 coalesced, 0 refused\n"
    );
    before.holds_after(&mut host.daemon)
}

#[test]
fn methods_and_paths_beside_the_table_lead_nowhere() -> Result<(), Fault> {
    needs_root!();
    let host = host("")?;
    let ask = |line: &str| {
        let authorization = format!("Authorization: Bearer {TOKEN}\r\nConnection: close\r\n");
        statuses(&converse(host.address(), &head(line, &authorization), Then::Wait))
    };
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "BREW"] {
        assert_eq!(ask(&format!("{method} /webhook")), [405], "{method}");
        assert_eq!(ask(&format!("{method} /")), [405], "{method}");
    }
    for target in
        ["/webhook/", "//webhook", "/../etc/passwd", "/%2e%2e/", "/Webhook", "/remediations", "*"]
    {
        let found = ask(&format!("GET {target}"));
        assert!(found == [404] || found == [400], "{target}: {found:?}");
    }
    for target in ["/remediations/", "/remediations/-1", "/remediations/1/2", "/remediations/%31"] {
        assert_eq!(ask(&format!("GET {target}")), [404], "{target}");
    }
    assert!(matches!(ask("CONNECT elsewhere:25").as_slice(), [400 | 404 | 405]));
    // What is answered is what was asked, in order.
    let twenty = [head("GET /-/healthy", ""), head("GET /nowhere", "")].concat().repeat(20);
    let last = head("GET /-/healthy", "Connection: close\r\n");
    let answers = statuses(&converse(host.address(), &[twenty, last].concat(), Then::Wait));
    assert_eq!(answers, [[200, 404].repeat(20), vec![200]].concat());
    // A client that must be told to go on is told no before it sends the body.
    let expects = head("POST /webhook", "Expect: 100-continue\r\nContent-Length: 9\r\n");
    assert_eq!(statuses(&converse(host.address(), &expects, Then::Wait)), [401]);
    Ok(())
}

#[test]
fn the_slow_and_the_endless_are_cut_off() -> Result<(), Fault> {
    needs_root!();
    let mut host = host("")?;
    host.post(&[Post::storm(46_010, "gate-none")])?;
    let before = Before::of("remediator, slow", &host.daemon)?;
    let address = host.address();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let unknown = head("POST /webhook", chunked);
    // What is sent, what then comes every half second, and the answer; closed without one for a
    // head that never ends.
    // So much at a time that the end is reached long before the deadline of a body.
    let more = [b"100000\r\n", &vec![b' '; 1 << 20][..], b"\r\n"].concat();
    let cases: [(&str, Vec<u8>, Then<'_>, &[u16]); 7] = [
        ("an idle connection", Vec::new(), Then::Wait, &[]),
        ("a slow head", b"GET / HTTP/1.1\r\n".to_vec(), Then::Trickle(b"X: y\r\n"), &[408]),
        ("a slow body", post("Content-Length: 1000\r\n", b"{"), Then::Trickle(b" "), &[408]),
        ("slow chunks", post(chunked, b"1\r\n{\r\n"), Then::Trickle(b"1\r\n \r\n"), &[408]),
        ("an endless body", post(chunked, b""), Then::Trickle(&more), &[413]),
        ("endless, unknown", unknown.clone(), Then::Trickle(b"1\r\n \r\n"), &[401]),
        ("slow, unknown", unknown, Then::Trickle(b"1"), &[401]),
    ];
    thread::scope(|scope| {
        for (what, bytes, then, wanted) in &cases {
            scope.spawn(move || {
                let start = Instant::now();
                let said = statuses(&converse(address, bytes, *then));
                println!("{what}: {said:?} after {:.1} s", start.elapsed().as_secs_f32());
                assert!(
                    said == *wanted || (said.is_empty() && *wanted == [408]),
                    "{what}: {said:?}"
                );
            });
        }
        let answer = host.post(&[Post::storm(46_011, "gate-none")]);
        assert_eq!(answer.unwrap().body, "1 accepted, 0 coalesced, 0 refused\n");
    });
    before.holds_after(&mut host.daemon)
}

/// So many hostile connections at once, each renewed 10 s after the server has closed it, until told
/// to stop: 1,000 new ones a second at most.
struct Horde {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

/// How often one hostile client comes back, so that every horde ends.
const RETURNS: usize = 20;

impl Horde {
    /// `page` is what those ask for who never read an answer.
    fn unleash(count: usize, address: &str, page: &str) -> Self {
        let needed = u64::try_from(count).unwrap() + 1000;
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|now| now < needed) {
            let mut raised = limit;
            raised.current = Some(needed);
            raised.maximum = limit.maximum.map(|maximum| maximum.max(needed));
            setrlimit(Resource::Nofile, raised).unwrap();
        }
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let address: SocketAddr = address.parse().unwrap();
        let page = head(&format!("GET {page}"), "").repeat(100);
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&opened));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for number in 0..count {
                    tokio::spawn(torment(number, address, page.clone(), Arc::clone(&counter)));
                    if number % 100 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                while !stopped.load(Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { stop, opened, thread: Some(thread) }
    }

    fn opened(&self) -> usize {
        self.opened.load(Relaxed)
    }
}

impl Drop for Horde {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// One hostile client of one of five kinds: silent; a head or a body that trickles; requests that
/// come in a heap, whose answers are never read; a wrong token again and again.
async fn torment(number: usize, address: SocketAddr, heap: Vec<u8>, opened: Arc<AtomicUsize>) {
    let (first, then): (Vec<u8>, &[u8]) = match number % 5 {
        0 => (Vec::new(), b""),
        1 => (b"POST /webhook HTTP/1.1\r\nX: ".to_vec(), b"y"),
        2 => {
            (head("POST /webhook", "Authorization: Bearer wrong\r\nContent-Length: 9999\r\n"), b"y")
        }
        3 => (heap, b""),
        _ => (head("GET /-/healthy", ""), b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    };
    for round in 0..RETURNS {
        if round > 0 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        // Many addresses of the loopback, since one has not ports enough.
        let own = format!("127.0.1.{}:0", 1 + number % 200).parse().unwrap();
        let Ok(socket) = TcpSocket::new_v4() else { return };
        if socket.bind(own).is_err() {
            return;
        }
        let Ok(mut stream) = socket.connect(address).await else { continue };
        opened.fetch_add(1, Relaxed);
        if stream.write_all(&first).await.is_err() {
            continue;
        }
        let mut byte = [0];
        loop {
            let pause = Duration::from_secs(1);
            if then.is_empty() && number % 5 == 3 {
                // Does not read: only an error tells that it was thrown out.
                tokio::time::sleep(pause).await;
                if stream.write_all(b"GET / HTTP/1.1\r\n").await.is_err() {
                    break;
                }
                continue;
            }
            match tokio::time::timeout(pause, stream.read(&mut byte)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => {}
                Err(_) => {
                    if stream.write_all(then).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// How often a good client tries again when its connection is taken from it, as Alertmanager does.
const TRIES: u32 = 50;

/// The answer to a good request, and how many tries and how long it took.
fn insist(request: &[u8], address: &str) -> (Vec<u16>, u32, Duration) {
    let start = Instant::now();
    for attempt in 1..=TRIES {
        // A connection that the full queue of the listener has lost is one in vain.
        let said = try_to_converse(address, request, Then::Wait, Duration::from_secs(20));
        let said = statuses(&said.unwrap_or_default());
        if !said.is_empty() {
            return (said, attempt, start.elapsed());
        }
    }
    (Vec::new(), TRIES, start.elapsed())
}

/// 10,000 at once: the first shall be answered as the last. What it takes is printed.
#[test]
fn a_good_alert_gets_through_ten_thousand_hostile_connections() -> Result<(), Fault> {
    needs_root!();
    let mut host = host("    limits: {total: 1000/h}")?;
    host.post(&[Post::storm(46_020, "gate-none")])?;
    let before = Before::of("remediator, 10,000", &host.daemon)?;
    let horde = Horde::unleash(10_000, host.address(), "/metrics");
    wait::until("10,000 have connected", LONG, || (horde.opened() >= 10_000).then_some(()))?;
    let mut times = Vec::new();
    let mut tries = 0;
    let start = Instant::now();
    for uid in 46_021..46_041 {
        let (status, attempts, took) = insist(&post_whole("", &good(uid)), host.address());
        assert_eq!(status, [200], "{uid} after {attempts} tries in {took:?}");
        tries += attempts;
        times.push(took);
    }
    times.sort();
    let peak = Toll::of(host.daemon.pid())?;
    println!(
        "remediator, 10,000: {} connections in all; during: {peak}\nremediator, 10,000: 20 good \
         alerts, {tries} tries, answered within median {:?}, max {:?}; all in {:?}",
        horde.opened(),
        times.get(times.len() / 2).unwrap(),
        times.last().unwrap(),
        start.elapsed(),
    );
    drop(horde);
    wait::until("all 20 are on record", LONG, || {
        let seen = host.remediations().ok()?;
        (46_021..46_041)
            .all(|uid| seen.iter().any(|one| one.to_string().contains(&uid.to_string())))
            .then_some(())
    })?;
    before.holds_after(&mut host.daemon)
}

/// The exporter's program on a free port.
fn exporter(dir: &std::path::Path) -> Result<(Daemon, String), Fault> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut command = Command::new(programs::ours("procstorm-exporter")?);
    command.arg(format!("--web.listen-address={address}"));
    let mut daemon = Daemon::start("procstorm-exporter", &command, &dir.join("log"))?;
    let (http, url) = (Http::new()?, format!("http://{address}/-/healthy"));
    daemon.ready(|| http.is_ok(&url))?;
    Ok((daemon, address))
}

#[test]
fn a_scrape_gets_through_a_thousand_hostile_connections() -> Result<(), Fault> {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, address) = exporter(dir.path())?;
    let scrape = head("GET /metrics", "Connection: close\r\n");
    assert_eq!(insist(&scrape, &address).0, [200]);
    let before = Before::of("exporter, 1,000", &daemon)?;
    let horde = Horde::unleash(1000, &address, "/-/healthy");
    wait::until("1,000 have connected", LONG, || (horde.opened() >= 1000).then_some(()))?;
    for _ in 0..5 {
        let (status, tries, took) = insist(&scrape, &address);
        println!("exporter, 1,000: {status:?} after {tries} tries in {took:?}");
        assert_eq!(status, [200]);
    }
    drop(horde);
    assert!(fs::read_to_string(dir.path().join("log")).unwrap().lines().count() < 1000);
    before.holds_after(&mut daemon)
}
