//! A real mail server under a storm: no session is ended in the middle of rewriting a mailbox, and
//! clients that come back are told from a storm.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{in_a_world_apart, skip, wait};
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::mail_server::imap::{Expunger, Reconnecter, Session};
use procstorm_tests::mail_server::{Dovecot, mbox};

const SOON: Duration = Duration::from_secs(60);
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
    // As on a host of mail: whoever has a mailbox may lock it.
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
        .map(|first| Expunger::start(server, uid, *first))
        .collect::<Result<_, _>>()?;
    wait::until("the mailbox is rewritten", SOON, || {
        clients.iter().all(|client| client.rewrites() >= 2).then_some(())
    })?;
    let verdict = end_storm(host, uid)?;
    assert_eq!(verdict, "none_seen", "{}", host.daemon.log());
    for session in &mut waiting {
        assert!(session.is_ended(Duration::from_secs(5)), "a session lives on");
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
        let mut session = Session::open(server, uid)?;
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
    let uid = 44_860;
    let (host, dovecot) = world(ALL_ALONE, &receiver.line(), uid)?;
    host.put_mail(uid, mbox::mailbox(1..9).as_bytes())?;
    let mut waiting = idle(dovecot.address(), uid, 60)?;
    let stubborn = Reconnecter::start(dovecot.address(), uid)?;
    let verdict = end_storm(&host, uid)?;
    assert!(["none_seen", "below_threshold"].contains(&verdict.as_str()), "{verdict}");
    for session in &mut waiting {
        assert!(session.is_ended(Duration::from_secs(5)), "a session lives on");
    }
    let posts = receiver.wait_for_posts(1)?;
    assert_eq!(posts[0]["labels"]["severity"], "info", "{posts:?}");
    assert!(stubborn.sessions() > 1);
    stubborn.stop()?;
    dovecot.stop()
}
