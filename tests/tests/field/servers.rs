//! Real mail and web servers on a booted Debian, with the policies of `rules/RECIPES.md`: a storm of
//! one user is ended, and neither mail nor anybody else comes to harm.
//!
//! Judged by the messages themselves, by how long deliveries took, by what the servers logged, and by
//! who was hit: the processes that the daemon's journal names are the user's own. The mail is in
//! Maildirs; `mail_server` has Dovecot with mboxes.
#![expect(clippy::print_stderr, reason = "the tests print their figures")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{skip, wait};
use procstorm_tests::field::machine::{Machine, Switch, hindrance};
use procstorm_tests::field::servers::{self, Deliveries};
use procstorm_tests::mail_server::imap::{Crowd, Expunger, Session};
use procstorm_tests::mail_server::mbox;

use crate::packages;

const SOON: Duration = Duration::from_secs(120);
const IMAP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 143);
const SMTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 25);

/// The longest that a message may take to be delivered, in seconds: a lock that a killed session
/// left would hold it up for a minute.
const DELAY_MAX: f64 = 30.0;

const DOVECOT: &str = "Dovecot and Postfix, a uid for each user";

/// A machine called moscow, on which the remediator runs with a recipe's policy, and alice and bob
/// have mail.
fn moscow(policy: &str) -> Result<Machine, Fault> {
    let switch = Switch::new()?;
    let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\tmoscow\n";
    let mut machine = Machine::new("servers", "moscow", &switch, "192.0.2.11", hosts)?;
    machine.boot()?;
    servers::mail_users(&machine, &["alice", "bob"])?;
    servers::remediator(&machine, packages(), policy)?;
    Ok(machine)
}

/// So many sessions of the user's that wait for mail.
fn idle(user: &str, count: u32) -> Result<Vec<Session>, Fault> {
    let open = |_| {
        let mut session = Session::open(IMAP, user)?;
        session.idle()?;
        Ok(session)
    };
    (0..count).map(open).collect()
}

/// Waits until the mail server lets the user in.
fn wait_for_login(machine: &Machine) -> Result<(), Fault> {
    let login = || machine.in_network(|| Session::open(IMAP, "bob")).ok()?.ok();
    wait::until("a login", SOON, login).map(drop)
}

/// How a storm ended, the mail after it, and the messages that were sent meanwhile.
struct Storm {
    verdict: String,
    findings: mbox::Findings,
    sent: BTreeSet<u32>,
}

/// A storm of alice's sessions: 95 wait for mail and three rewrite the mailbox, while mail comes and
/// 20 sessions of bob's wait beside them. It is ended.
fn storm(machine: &Machine, command: &str, playbook: &str) -> Result<Storm, Fault> {
    wait_for_login(machine)?;
    let deliveries = machine.in_network(|| Deliveries::start(SMTP, "alice"))?;
    let mut alices = machine.in_network(|| idle("alice", 95))??;
    let mut bobs = machine.in_network(|| idle("bob", 20))??;
    let firsts = [1_000_000, 2_000_000, 3_000_000];
    let rewriting = || firsts.map(|first| Expunger::start(IMAP, "alice", first));
    let clients = machine.in_network(rewriting)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    wait::until("the mailbox is rewritten", SOON, || {
        clients.iter().all(|client| client.rewrites() >= 2).then_some(())
    })?;
    let of_alice = servers::pids(machine, "alice", command)?;
    let of_bob = servers::pids(machine, "bob", command)?;
    assert_eq!((of_alice.len(), of_bob.len()), (98, 20), "sessions");

    servers::post(machine, "alice", command, playbook)?;
    let verdict = servers::ended(machine)?;
    for session in &mut alices {
        assert!(session.is_ended(Duration::from_secs(10)), "a session of alice's lives on");
    }
    for client in clients {
        client.stop()?;
    }
    // Each of alice's sessions was hit, and none of bob's.
    let hit = servers::signalled(machine)?;
    assert!(of_alice.is_subset(&hit), "{of_alice:?} and {hit:?}");
    assert!(hit.is_disjoint(&of_bob), "{of_bob:?} and {hit:?}");
    assert_eq!(servers::pids(machine, "bob", command)?, of_bob, "bob's sessions go on");
    for session in &mut bobs {
        assert!(!session.is_ended(Duration::from_millis(1)), "a session of bob's has ended");
    }

    wait::nap(Duration::from_secs(3));
    let sent = deliveries.stop()?;
    wait::until("all mail is delivered", SOON, || {
        let queue = machine.run("postqueue -p").ok()?;
        queue.contains("queue is empty").then_some(())
    })?;
    Ok(Storm { verdict, findings: servers::read_maildir(machine, "alice")?, sent })
}

/// Nothing is torn, doubled, lost or late.
fn is_whole(machine: &Machine, storm: &Storm, what: &str) -> Result<(), Fault> {
    assert_eq!(storm.verdict, "none_seen", "{what}");
    assert!(storm.findings.is_sound(), "{what}: {:?}", storm.findings);
    let lost: Vec<_> = storm.sent.difference(&storm.findings.whole).collect();
    assert!(lost.is_empty() && storm.sent.len() > 10, "{what}: of {:?} {lost:?}", storm.sent);
    let log = machine.run("journalctl --no-pager -o cat -t postfix/local")?;
    assert!(!log.contains("status=deferred"), "{what}: {log}");
    let delay = |line: &str| line.split_once("delay=")?.1.split(',').next()?.parse::<f64>().ok();
    let delays: Vec<f64> = log.lines().filter_map(delay).collect();
    let longest = delays.iter().copied().fold(0.0, f64::max);
    eprintln!(
        "{what}: {} messages delivered during the storm, none lost, the slowest in {longest} s",
        storm.sent.len()
    );
    assert!(delays.len() >= storm.sent.len() && longest < DELAY_MAX, "{what}: {log}");
    Ok(())
}

/// What Dovecot says of each that was hit: that it was alice's, and that it shut down in order.
fn dovecots_log_agrees(machine: &Machine) -> Result<(), Fault> {
    let log = machine.run("journalctl --no-pager -o cat -t dovecot")?;
    let hit = servers::signalled(machine)?;
    for pid in &hit {
        let said = log.lines().any(|line| line.contains(&format!("imap(alice)<{pid}>")));
        assert!(said, "Dovecot knows no session {pid} of alice's:\n{log}");
        let other = format!("imap(bob)<{pid}>");
        assert!(!log.contains(&other), "{pid} was bob's:\n{log}");
    }
    for bad in ["killed with signal", "Panic:", "Corrupted", "corrupted"] {
        assert!(!log.contains(bad), "{bad}:\n{log}");
    }
    eprintln!("Dovecot: {} sessions hit, each alice's", hit.len());
    Ok(())
}

/// Mail that alice has before the storm.
fn put_mail(machine: &Machine) -> Result<(), Fault> {
    for number in 1..300 {
        machine.write(&format!("home/alice/Maildir/new/{number}.x"), &mbox::message(number))?;
    }
    machine.run("chown -R alice: /home/alice/Maildir").map(drop)
}

#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn dovecot_with_maildirs_and_postfix() -> Result<(), Fault> {
    if let Some(why) = hindrance("servers") {
        skip!("{why}");
    }
    let machine = moscow(&servers::policy(DOVECOT)?)?;
    put_mail(&machine)?;
    servers::postfix(&machine)?;
    servers::dovecot(&machine)?;
    let storm = storm(&machine, "imap", "session_storm")?;
    is_whole(&machine, &storm, "Dovecot")?;
    dovecots_log_agrees(&machine)
}

/// And a client that reconnects at once is named with Courier's master, which lives on.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn courier_with_maildirs() -> Result<(), Fault> {
    if let Some(why) = hindrance("servers") {
        skip!("{why}");
    }
    // On a busy machine it takes long until all clients are back.
    let policy = servers::policy("Courier")?;
    assert!(policy.contains("grace: 2s"), "{policy}");
    let policy = policy.replace("grace: 2s", "grace: 2s\n    settle: 100s");
    let machine = moscow(&policy)?;
    put_mail(&machine)?;
    servers::postfix(&machine)?;
    servers::courier(&machine)?;
    let masters = servers::pids(&machine, "root", "couriertcpd")?;
    let storm = storm(&machine, "imapd", "imapd_storm")?;
    is_whole(&machine, &storm, "Courier")?;

    let crowd = machine.in_network(|| Crowd::start(IMAP, "bob", 100, Duration::ZERO))??;
    servers::post(&machine, "bob", "imapd", "imapd_storm")?;
    wait::until("Courier's master is named", SOON, || {
        let told = servers::outcomes(&machine).ok()?;
        told.contains("(couriertcpd) of uid 0 starts them").then_some(())
    })?;
    crowd.stop()?;
    // Beside those that it has just forked for a connection.
    let now = servers::pids(&machine, "root", "couriertcpd")?;
    assert!(now.is_superset(&masters) && !masters.is_empty(), "{masters:?} and {now:?}");
    Ok(())
}

/// What the recipe for a web host says that a playbook for php-fpm would do.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn a_pool_of_php_fpm_is_called_pre_forking_and_its_master_lives() -> Result<(), Fault> {
    if let Some(why) = hindrance("servers") {
        skip!("{why}");
    }
    let policy = servers::policy("Courier")?
        .replace("imapd_storm", "php_storm")
        .replace("command: imapd", "command: php-fpm8.2")
        .replace("threshold: 90", "threshold: 10");
    let machine = moscow(&policy)?;
    servers::php_pool(&machine, "alice", 12)?;
    let count = || Some(servers::pids(&machine, "alice", "php-fpm8.2").ok()?.len());
    wait::until("the pool is up", SOON, || count().filter(|count| *count == 12))?;
    let master = servers::pids(&machine, "root", "php-fpm8.2")?;
    let of_www = servers::pids(&machine, "www-data", "php-fpm8.2")?;
    servers::post(&machine, "alice", "php-fpm8.2", "php_storm")?;
    let verdict = servers::ended(&machine)?;
    assert_eq!(verdict, "respawning");
    let told = servers::outcomes(&machine)?;
    for part in ["a pre-forking server", "limit the pool", "do not end it"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(servers::pids(&machine, "root", "php-fpm8.2")?, master, "the master lives");
    assert_eq!(servers::pids(&machine, "www-data", "php-fpm8.2")?, of_www, "the other pool lives");
    wait::until("the pool is up again", SOON, || count().filter(|count| *count == 12)).map(drop)
}
