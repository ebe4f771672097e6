//! A real mail server under a storm: no session is ended in the middle of rewriting a mailbox, and
//! clients that come back are told from a storm.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{in_a_world_apart, skip, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::mail_server::imap::{Crowd, Expunger, Reconnecter, Session};
use procstorm_tests::mail_server::{Dovecot, mbox};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const MESSAGES: u32 = 1_000;
const ALL_ALONE: &str = "    settle: 0s\n    cooldown: 0s\n";

/// Ends the test that this stands in unless there is a mail server here, and runs it in a world
/// apart.
macro_rules! with_a_mail_server {
    () => {
        if Dovecot::tree().is_none() {
            skip!("needs Dovecot: `tests/tools.sh test`, as root, unpacks one");
        }
        in_a_world_apart!();
    };
}

/// A remediator for storms of `imap`, and a Dovecot with the mailboxes that it saves.
fn world(playbook: &str, top: &str, uid: u32) -> Result<(Host, Dovecot), Fault> {
    let host = Host::start("imap", playbook, top)?;
    let spool = host.dir().join("mail");
    // As on a mail host: each owner of a mailbox may lock it.
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o1777)).unwrap();
    let dovecot = Dovecot::start(&Dovecot::tree().unwrap(), &spool, uid)?;
    Ok((host, dovecot))
}

/// What a storm and its end did to a mailbox.
#[derive(Debug)]
struct Harm {
    findings: mbox::Findings,
    lock: bool,
}

impl Harm {
    fn is_none(&self) -> bool {
        self.findings.is_sound() && !self.lock
    }
}

/// Three clients rewrite a mailbox, twelve wait for mail; then the storm that they are is ended.
fn round(host: &Host, dovecot: &Dovecot, uid: u32) -> Result<Harm, Fault> {
    let mailbox = host.put_mail(uid, mbox::mailbox(1..MESSAGES).as_bytes())?;
    let server = dovecot.address();
    let mut waiting = idle(server, uid, 12)?;
    let firsts = [1, 2, 3].map(|client| client * 1_000_000);
    let clients: Vec<_> = firsts
        .iter()
        .map(|first| Expunger::start(server, &uid.to_string(), *first))
        .collect::<Result<_, _>>()?;
    wait::until("the mailbox is rewritten", SOON, || {
        clients.iter().all(|client| client.rewrites() >= 2).then_some(())
    })?;
    let verdict = end_storm(host, uid)?;
    assert_eq!(verdict, "none_seen", "{}", host.daemon.log());
    for session in &mut waiting {
        assert!(session.is_ended(SOON), "a session lives on");
    }
    for client in clients {
        client.stop()?;
    }
    let text = fs::read_to_string(&mailbox).unwrap();
    Ok(Harm { findings: mbox::check(&text), lock: mailbox.with_extension("lock").exists() })
}

/// Posts the alert, and returns the verdict that follows.
fn end_storm(host: &Host, uid: u32) -> Result<String, Fault> {
    let before = host.verdicts()?.len();
    host.post(&[Post::storm(uid, "imap")])?;
    wait::until("the storm is over", SOON, || {
        host.verdicts().ok()?.get(before).filter(|verdict| *verdict != "running").cloned()
    })
}

fn idle(server: std::net::SocketAddr, uid: u32, count: u32) -> Result<Vec<Session>, Fault> {
    let open = |_| {
        let mut session = Session::open(server, &uid.to_string())?;
        session.idle()?;
        Ok(session)
    };
    (0..count).map(open).collect()
}

fn rounds(grace: &str, first_uid: u32, count: u32) -> Result<Vec<Harm>, Fault> {
    let playbook = format!("{ALL_ALONE}    grace: {grace}");
    let (host, dovecot) = world(&playbook, "", first_uid)?;
    let harms = (0..count).map(|round| self::round(&host, &dovecot, first_uid + round));
    let harms = harms.collect::<Result<Vec<_>, _>>();
    if harms.is_err() {
        eprintln!("{}\n{}", dovecot.log(), host.daemon.log());
    }
    dovecot.stop()?;
    harms
}

#[test]
fn a_mail_server_that_rewrites_a_mailbox_leaves_it_whole() -> Result<(), Fault> {
    with_a_mail_server!();
    let harms = rounds("2s", 44_800, 6)?;
    assert!(harms.iter().all(Harm::is_none), "{harms:?}");
    Ok(())
}

/// The same often enough to be believed, and the control: SIGKILL at once does harm mailboxes.
#[test]
#[ignore = "takes four minutes: `make field` runs it"]
fn twenty_mailboxes_stay_whole_that_sigkill_would_tear() -> Result<(), Fault> {
    with_a_mail_server!();
    for (grace, uid) in [("2s", 44_820), ("0s", 44_840)] {
        let harms = rounds(grace, uid, 20)?;
        let count = |is: fn(&Harm) -> bool| harms.iter().filter(|harm| is(harm)).count();
        let locked = count(|harm| harm.lock);
        let torn = count(|harm| !harm.findings.torn.is_empty());
        let doubled = count(|harm| !harm.findings.doubled.is_empty());
        eprintln!("grace {grace}: of 20 mailboxes {locked} locked, {torn} torn, {doubled} doubled");
        assert_eq!(harms.iter().all(Harm::is_none), grace == "2s", "{harms:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_comes_back_at_once_is_no_storm() -> Result<(), Fault> {
    with_a_mail_server!();
    let receiver = Receiver::start()?;
    let uid = claim_uid();
    let (host, dovecot) = world(ALL_ALONE, &receiver.line(), uid)?;
    host.put_mail(uid, mbox::mailbox(1..9).as_bytes())?;
    let mut waiting = idle(dovecot.address(), uid, 60)?;
    let stubborn = Reconnecter::start(dovecot.address(), &uid.to_string(), Duration::ZERO)?;
    let verdict = end_storm(&host, uid)?;
    assert!(["none_seen", "below_threshold"].contains(&verdict.as_str()), "{verdict}");
    for session in &mut waiting {
        assert!(session.is_ended(SOON), "a session lives on");
    }
    let posts = receiver.wait_for_posts(1)?;
    assert_eq!(posts[0]["labels"]["severity"], "info", "{posts:?}");
    assert!(stubborn.sessions() > 1);
    stubborn.stop()?;
    dovecot.stop()
}

/// The processes of a storm, by Dovecot's limit: well over the threshold.
const CROWD: u32 = 150;

/// What people are told of a storm.
#[derive(Debug)]
struct Told {
    verdict: String,
    severity: String,
    summary: String,
    description: String,
}

fn told(posts: &[Value]) -> Vec<Told> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let part = |post: &Value, path| post.pointer(path).map(text).unwrap_or_default();
    let told = |post: &Value| Told {
        verdict: part(post, "/labels/verdict"),
        severity: part(post, "/labels/severity"),
        summary: part(post, "/annotations/summary"),
        description: part(post, "/annotations/description"),
    };
    posts.iter().map(told).collect()
}

/// A hundred and fifty clients that all reconnect after `pause`, until the limit is reached.
/// Returns the verdicts of all remediations and what people are told.
fn crowd(pause: Duration, uid: u32) -> Result<(Vec<String>, Vec<Told>), Fault> {
    let receiver = Receiver::start()?;
    let playbook =
        "    threshold: 90\n    settle: 10s\n    cooldown: 3s\n    limits: {per_user: 4/h}";
    let (host, dovecot) = world(playbook, &receiver.line(), uid)?;
    let mailbox = host.put_mail(uid, mbox::mailbox(1..200).as_bytes())?;
    let crowd = Crowd::start(dovecot.address(), &uid.to_string(), CROWD, pause)?;
    let before = crowd.sessions();
    host.post(&[Post::storm(uid, "imap")])?;
    let over = wait::until("the limit is reached", Duration::from_secs(600), || {
        let verdicts = host.verdicts().ok()?;
        (verdicts.last()? == "limit_reached").then_some(verdicts)
    });
    let verdicts = over.map_err(|fault| {
        Fault::new(format!("{}\n{:?}\n{}", fault.whole(), host.verdicts(), host.daemon.log()))
    })?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let came_back = crowd.sessions() - before;
    eprintln!("after {pause:?}: {came_back} sessions came back; {verdicts:?}");
    assert!(came_back >= CROWD, "{came_back}");
    crowd.stop()?;
    dovecot.stop()?;
    let text = fs::read_to_string(&mailbox).unwrap();
    let harm = Harm { findings: mbox::check(&text), lock: mailbox.with_extension("lock").exists() };
    assert!(harm.is_none(), "{harm:?}");
    Ok((verdicts, told(&receiver.posts())))
}

/// What holds of both: the limit ends it, and is the last outcome, critical. Each outcome but the first
/// names Dovecot and a client that reconnects. No two in a row are alike, unless the later one names a
/// lock: on a busy machine sessions still expunge when their grace is over, and a lock is always told.
fn is_as_an_administrator_wants_it(verdicts: &[String], told: &[Told]) {
    assert_eq!(verdicts.len(), 5, "the limit holds: {verdicts:?}");
    let last = told.last().unwrap();
    assert_eq!((last.verdict.as_str(), last.severity.as_str()), ("limit_reached", "critical"));
    assert!(last.summary.contains("limits.per_user"), "{last:?}");
    let label = |one: &Told| (one.verdict.clone(), one.severity.clone());
    for (one, next) in told.iter().zip(told.iter().skip(1)) {
        let names_lock = next.summary.contains(".lock is there");
        assert!(names_lock || label(one) != label(next), "{told:#?}");
    }
    // Only what comes first may pass for the end of it.
    for again in told.iter().skip(1) {
        assert_ne!(again.severity, "info", "{told:#?}");
        let description = &again.description;
        assert!(description.contains("(dovecot) of uid 0 starts them"), "{description}");
        assert!(description.contains("do not end it"), "{description}");
        assert!(description.contains("a client reconnects"), "{description}");
    }
}

/// New sessions still come when the grace is over, and get SIGKILL. On a slow machine that may tear the
/// mailbox, and then this test fails: so it is not part of `make test`.
#[test]
#[ignore = "takes two minutes: `make field` runs it"]
fn clients_that_all_reconnect_at_once_are_ended_within_limits_and_named() -> Result<(), Fault> {
    with_a_mail_server!();
    let (verdicts, told) = crowd(Duration::ZERO, 44_870)?;
    is_as_an_administrator_wants_it(&verdicts, &told);
    // Where a login takes long, a scan may see none for a moment.
    let respawning = verdicts.iter().filter(|verdict| *verdict == "respawning").count();
    assert!(respawning >= 1, "{verdicts:?}");
    let told = told.iter().find(|told| told.verdict == "respawning").unwrap();
    assert_eq!(told.severity, "critical");
    assert!(told.summary.contains("but new ones appear"), "{told:?}");
    Ok(())
}

#[test]
fn clients_that_all_reconnect_after_a_second_are_called_a_recurrence() -> Result<(), Fault> {
    with_a_mail_server!();
    let (verdicts, told) = crowd(Duration::from_secs(1), 44_871)?;
    is_as_an_administrator_wants_it(&verdicts, &told);
    let again = told.get(1).unwrap();
    assert!(again.summary.contains("the storm had come back, recurrence"), "{told:#?}");
    Ok(())
}

/// A session that is killed in the middle of rewriting a mailbox leaves its lock: real Dovecot's.
#[test]
fn a_lock_that_a_killed_session_leaves_is_named_with_pid_and_age() -> Result<(), Fault> {
    with_a_mail_server!();
    let receiver = Receiver::start()?;
    let uid = claim_uid();
    let (host, dovecot) = world(&format!("{ALL_ALONE}    grace: 0s"), &receiver.line(), uid)?;
    let mailbox = host.put_mail(uid, mbox::mailbox(1..MESSAGES).as_bytes())?;
    let lock = mailbox.with_extension("lock");
    let _waiting = idle(dovecot.address(), uid, 12)?;
    let client = Expunger::start(dovecot.address(), &uid.to_string(), 1_000_000)?;
    // Stopped while it holds the lock, so that the kill finds it at that.
    let holder = wait::until("a session holds the lock", SOON, || {
        let pid: i32 = fs::read_to_string(&lock).ok()?.split(':').next()?.trim().parse().ok()?;
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        pidfd_send_signal(&pidfd, Signal::STOP).ok()?;
        wait::nap(Duration::from_millis(100));
        if lock.exists() {
            return Some(pid);
        }
        pidfd_send_signal(&pidfd, Signal::CONT).ok()?;
        None
    })?;
    assert_eq!(end_storm(&host, uid)?, "none_seen", "{}", host.daemon.log());
    client.stop()?;
    let told = told(&receiver.wait_for_posts(1)?);
    let one = told.first().unwrap();
    assert_eq!(one.severity, "warning", "{one:?}");
    assert!(one.summary.ends_with(&format!("lock {} is there", lock.display())), "{one:?}");
    let line = one.description.lines().find(|line| line.starts_with("lock file ")).unwrap();
    let (_, age) = line.split_once("is there (").unwrap();
    assert!(age.split_once(" s old").unwrap().0.parse::<u32>().is_ok(), "{line}");
    assert!(line.contains(&format!("holds pid {holder}, which no longer runs")), "{line}");
    assert!(lock.exists(), "it is named, and left to a person");
    dovecot.stop()
}
