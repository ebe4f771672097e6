//! Mail servers: sessions that wait for mail and sessions that rewrite the mailbox are ended, while
//! mail comes in.
//!
//! Judged by the messages themselves, by how long deliveries took, by what the servers logged, and by
//! who was hit: the processes that the daemon's journal names are the user's own.
#![expect(clippy::print_stderr, reason = "the tests print their figures")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use procstorm_testkit::fault::Fault;
use procstorm_testkit::wait;
use procstorm_tests::field::machine::Machine;
use procstorm_tests::field::servers;
use procstorm_tests::field::servers::mail::{self, Deliveries, Store};
use procstorm_tests::mail_server::imap::{Crowd, Expunger, Session};
use procstorm_tests::mail_server::mbox;

use super::{SOON, machine, needs_servers};

const IMAP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 143);
const SMTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 25);

/// The longest that a message may take to be delivered, in seconds, apart from the time in which clients
/// rewrite the mailbox: a lock that a killed session left would hold it up for a minute.
const DELAY_MAX: f64 = 30.0;

const DOVECOT: &str = "Dovecot and Postfix, a uid for each user";

/// Postfix delivers to Maildirs.
const TO_MAILDIRS: [&str; 2] = ["mailbox_command =", "home_mailbox = Maildir/"];

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
    /// How long clients rewrote the mailbox, during which a message may have to wait for its lock.
    rewriting: Duration,
    findings: mbox::Findings,
    sent: BTreeSet<u32>,
}

/// Three clients that rewrite alice's mailbox, each of which has begun.
fn rewriting(machine: &Machine) -> Result<Vec<Expunger>, Fault> {
    let firsts = [1_000_000, 2_000_000, 3_000_000];
    let start = || firsts.map(|first| Expunger::start(IMAP, "alice", first));
    let clients = machine.in_network(start)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    wait::until("the mailbox is rewritten", SOON, || {
        clients.iter().all(|client| client.rewrites() >= 2).then_some(())
    })?;
    Ok(clients)
}

/// Waits until Postfix has nothing left to deliver.
fn wait_for_all_mail(machine: &Machine) -> Result<(), Fault> {
    wait::until("all mail is delivered", SOON, || {
        let queue = machine.run("postqueue -p").ok()?;
        queue.contains("queue is empty").then_some(())
    })
}

/// A storm of alice's sessions: 95 wait for mail and three rewrite the mailbox, while mail comes and
/// 20 sessions of bob's wait beside them. It is ended.
fn storm(machine: &Machine, store: Store, command: &str, playbook: &str) -> Result<Storm, Fault> {
    wait_for_login(machine)?;
    let mut alices = machine.in_network(|| idle("alice", 95))??;
    let mut bobs = machine.in_network(|| idle("bob", 20))??;
    let deliveries = machine.in_network(|| Deliveries::start(SMTP, "alice"))?;
    let begun = Instant::now();
    let clients = rewriting(machine)?;
    let of_alice = servers::pids(machine, "alice", command)?;
    let of_bob = servers::pids(machine, "bob", command)?;
    assert_eq!((of_alice.len(), of_bob.len()), (98, 20), "sessions");

    servers::post(machine, "alice", command, playbook)?;
    let verdict = servers::ended(machine)?;
    for session in &mut alices {
        assert!(session.is_ended(SOON), "a session of alice's lives on");
    }
    for client in clients {
        client.stop()?;
    }
    let rewriting = begun.elapsed();
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
    wait_for_all_mail(machine)?;
    Ok(Storm { verdict, rewriting, findings: store.read(machine, "alice")?, sent })
}

/// Nothing is torn, doubled, lost or late.
fn is_whole(machine: &Machine, storm: &Storm, what: &str) -> Result<(), Fault> {
    assert_eq!(storm.verdict, "none_seen", "{what}");
    assert!(storm.findings.is_sound(), "{what}: {:?}", storm.findings);
    let lost: Vec<_> = storm.sent.difference(&storm.findings.whole).collect();
    assert!(lost.is_empty() && storm.sent.len() > 10, "{what}: of {:?} {lost:?}", storm.sent);
    let locks = machine.run("find /var/mail -maxdepth 1 -name '*.lock'")?;
    assert_eq!(locks, "", "{what}: locks");
    let delivered = delivered(machine)?;
    assert_eq!(delivered.deferred, 0, "{what}: {}", delivered.log);
    eprintln!(
        "{what}: {} messages delivered during the storm, none lost, the slowest in {} s",
        storm.sent.len(),
        delivered.longest
    );
    assert!(delivered.count >= storm.sent.len(), "{what}: {}", delivered.log);
    let limit = DELAY_MAX + storm.rewriting.as_secs_f64();
    assert!(delivered.longest < limit, "{what}, limit {limit}: {}", delivered.log);
    Ok(())
}

/// What Postfix logged of deliveries.
struct Delivered {
    log: String,
    count: usize,
    deferred: usize,
    /// How long the slowest took, in seconds.
    longest: f64,
}

fn delivered(machine: &Machine) -> Result<Delivered, Fault> {
    let log = machine.run("journalctl --no-pager -o cat -t postfix/local")?;
    let delay = |line: &str| line.split_once("delay=")?.1.split(',').next()?.parse::<f64>().ok();
    let longest = log.lines().filter_map(delay).fold(0.0, f64::max);
    let (count, deferred) =
        (log.matches("status=sent").count(), log.matches("status=deferred").count());
    Ok(Delivered { log, count, deferred, longest })
}

/// What Dovecot says: that each that was hit was alice's, and that each that died was hit.
fn dovecots_log_agrees(machine: &Machine) -> Result<(), Fault> {
    let log = machine.run("journalctl --no-pager -o cat -t dovecot")?;
    let hit = servers::signalled(machine)?;
    for pid in &hit {
        let said = log.lines().any(|line| line.contains(&format!("imap(alice)<{pid}>")));
        assert!(said, "Dovecot knows no session {pid} of alice's:\n{log}");
        let other = format!("imap(bob)<{pid}>");
        assert!(!log.contains(&other), "{pid} was bob's:\n{log}");
    }
    for bad in ["Panic:", "Corrupted", "corrupted"] {
        assert!(!log.contains(bad), "{bad}:\n{log}");
    }
    // And each that it saw die was hit by us.
    let died = |line: &str| {
        line.split_once("child ")?.1.split_once(" killed with signal")?.0.parse::<i64>().ok()
    };
    let died: BTreeSet<i64> = log.lines().filter_map(died).collect();
    assert!(died.is_subset(&hit), "{died:?} and {hit:?}");
    eprintln!("Dovecot: {} sessions hit, each alice's, {} by SIGKILL", hit.len(), died.len());
    Ok(())
}

#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn dovecot_with_maildirs_and_postfix() -> Result<(), Fault> {
    needs_servers!();
    let machine = machine("moscow", &servers::policy(DOVECOT)?)?;
    Store::Maildirs.fill(&machine, "alice", 1..300)?;
    mail::postfix(&machine, &TO_MAILDIRS)?;
    mail::dovecot(&machine, Store::Maildirs, "")?;
    let storm = storm(&machine, Store::Maildirs, "imap", "session_storm")?;
    is_whole(&machine, &storm, "Dovecot with Maildirs")?;
    dovecots_log_agrees(&machine)
}

/// The agents that deliver to mboxes, as Postfix is set to use them.
const TO_MBOXES: [(&str, &str); 2] = [
    // As Debian sets it if procmail is installed.
    ("procmail", r#"mailbox_command = procmail -a "$EXTENSION""#),
    ("Postfix", "mailbox_command ="),
];

/// A machine with Debian's settings for mboxes, and the recipe's locks if they are wanted.
fn with_mboxes(setting: &str, with_locks: bool) -> Result<Machine, Fault> {
    let machine = machine("moscow", &servers::policy(DOVECOT)?)?;
    Store::Mboxes.fill(&machine, "alice", 1..300)?;
    mail::postfix(&machine, &[setting])?;
    mail::dovecot(&machine, Store::Mboxes, "")?;
    if with_locks {
        machine.run(&servers::block(DOVECOT, "bash")?)?;
    }
    wait_for_login(&machine)?;
    Ok(machine)
}

#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn dovecot_with_mboxes_and_postfix_and_procmail() -> Result<(), Fault> {
    needs_servers!();
    for (agent, setting) in TO_MBOXES {
        let machine = with_mboxes(setting, true)?;
        let storm = storm(&machine, Store::Mboxes, "imap", "session_storm")?;
        is_whole(&machine, &storm, &format!("Dovecot with mboxes, delivery by {agent}"))?;
        dovecots_log_agrees(&machine)?;
        // The archive is a mailbox like any other.
        let findings = mbox::check(&machine.run("cat /var/mail/arc/alice*")?);
        assert!(findings.is_sound() && findings.messages > 10, "{agent}: {findings:?}");
        machine.in_network(|| Session::open(IMAP, "alice"))??;
    }
    Ok(())
}

/// Without any storm: three clients rewrite the mailbox all the time while mail comes.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn mail_to_a_busy_mbox_is_deferred_with_debians_locks_and_not_with_the_recipes() -> Result<(), Fault>
{
    needs_servers!();
    for (agent, setting) in TO_MBOXES {
        let machine = with_mboxes(setting, true)?;
        let clients = rewriting(&machine)?;
        let deliveries = machine.in_network(|| Deliveries::start(SMTP, "alice"))?;
        wait::nap(Duration::from_secs(30));
        let sent = deliveries.stop()?;
        for client in clients {
            client.stop()?;
        }
        wait_for_all_mail(&machine)?;
        let delivered = delivered(&machine)?;
        eprintln!(
            "{agent}, the recipe's locks: of {} messages {} deferred, the slowest in {} s",
            sent.len(),
            delivered.deferred,
            delivered.longest
        );
        assert_eq!(delivered.deferred, 0, "{agent}: {}", delivered.log);
        let findings = Store::Mboxes.read(&machine, "alice")?;
        assert!(findings.is_sound(), "{agent}: {findings:?}");
        let lost: Vec<_> = sent.difference(&findings.whole).collect();
        assert!(lost.is_empty() && sent.len() > 10, "{agent}: of {sent:?} {lost:?}");
    }

    // The control. The clients are not waited for: each waits minutes for a lock.
    let (_, setting) = TO_MBOXES[1];
    let machine = with_mboxes(setting, false)?;
    let _deliveries = machine.in_network(|| Deliveries::start(SMTP, "alice"))?;
    let start = || [1_000_000, 2_000_000, 3_000_000].map(|it| Expunger::start(IMAP, "alice", it));
    let _clients = machine.in_network(start)?;
    wait::until("mail is deferred with Debian's locks", SOON, || {
        (delivered(&machine).ok()?.deferred > 0).then_some(())
    })
}

/// And a client that reconnects at once is named with Courier's master, which lives on.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn courier_with_maildirs() -> Result<(), Fault> {
    needs_servers!();
    // On a busy machine it takes long until all clients are back.
    let policy = servers::policy("Courier")?;
    assert!(policy.contains("grace: 2s"), "{policy}");
    let policy = policy.replace("grace: 2s", "grace: 2s\n    settle: 100s");
    let machine = machine("moscow", &policy)?;
    Store::Maildirs.fill(&machine, "alice", 1..300)?;
    mail::postfix(&machine, &TO_MAILDIRS)?;
    mail::courier(&machine)?;
    let masters = servers::pids(&machine, "root", "couriertcpd")?;
    let storm = storm(&machine, Store::Maildirs, "imapd", "imapd_storm")?;
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
