//! Other people's servers on a booted machine, and a remediator with the policy that a recipe of
//! `rules/RECIPES.md` gives for them.
//!
//! - [`remediator`]: installs the packages and starts the daemon with a recipe's policy.
//! - [`mail_users`]: accounts that log in at both mail servers.
//! - [`dovecot`], [`postfix`], [`courier`], [`php_pool`]: the servers.
//! - [`post`], [`ended`], [`signalled`], [`outcomes`]: asks the daemon, and what it did.
//! - [`Deliveries`]: mail that keeps coming while a storm is ended.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use serde_json::Value;

use crate::field::machine::Machine;
use crate::field::packages::Packages;
use crate::mail_server::imap::PASSWORD;
use crate::mail_server::mbox;

/// How long anything may take on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(120);

/// The time between two deliveries.
const DELIVERY_PAUSE: Duration = Duration::from_millis(200);

/// The policy of a recipe, by the recipe's title.
pub fn policy(recipe: &str) -> Result<String, Fault> {
    let path = programs::project().join("rules/RECIPES.md");
    let recipes = fs::read_to_string(&path).or_fault("cannot read rules/RECIPES.md")?;
    let section = recipes.split("\n## ").find(|section| section.lines().next() == Some(recipe));
    let block = section.and_then(|section| section.split_once("```yaml\n")?.1.split_once("```"));
    let (policy, _) = block.ok_or_else(|| Fault::new(format!("no policy of recipe {recipe:?}")))?;
    Ok(policy.replace("dry_run: true", "dry_run: false"))
}

/// Installs the remediator, and starts it with this policy.
pub fn remediator(machine: &Machine, packages: &Packages, policy: &str) -> Result<(), Fault> {
    let dir = machine.path("packages");
    fs::create_dir_all(&dir).or_fault("cannot make /packages")?;
    packages.copy_to(&dir)?;
    machine.run("apt-get install ./procstorm-exporter_*.deb ./procstorm-remediator_*.deb")?;
    machine.write("etc/procstorm/remediator.yml", policy)?;
    machine.write("etc/procstorm/token", "a-token-for-the-loopback\n")?;
    machine.run(
        "chmod 600 /etc/procstorm/token
         install -d -m 0700 -o procstorm -g procstorm /var/mail/arc
         systemctl enable --now procstorm-remediator || {
             journalctl --no-pager -n 30 -o cat -u procstorm-remediator
             exit 1
         }",
    )?;
    wait::until("the remediator answers", LIMIT, || {
        machine.run("curl -fsS http://127.0.0.1:9958/-/healthy").ok()
    })
    .map(drop)
}

/// Accounts that log in with the password of all tests, with an empty mbox and an empty Maildir.
pub fn mail_users(machine: &Machine, users: &[&str]) -> Result<(), Fault> {
    for user in users {
        machine.run(&format!(
            "useradd --create-home {user}
             echo {user}:{PASSWORD} | chpasswd
             install -m 660 -o {user} -g mail /dev/null /var/mail/{user}
             install -d -o {user} -g {user} /home/{user}/Maildir \
                 /home/{user}/Maildir/cur /home/{user}/Maildir/new /home/{user}/Maildir/tmp"
        ))?;
    }
    Ok(())
}

/// Starts Dovecot, for mail in Maildirs.
pub fn dovecot(machine: &Machine) -> Result<(), Fault> {
    machine.write(
        "etc/dovecot/local.conf",
        "listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\n\
         mail_location = maildir:~/Maildir\nmail_max_userip_connections = 1000\n",
    )?;
    machine.run("systemctl restart dovecot").map(drop)
}

/// Starts Postfix, which delivers to Maildirs.
pub fn postfix(machine: &Machine) -> Result<(), Fault> {
    machine
        .run(
            "postconf -e 'mydestination = $myhostname, localhost' 'inet_interfaces = loopback-only' \
                 'inet_protocols = ipv4' 'mailbox_command =' 'home_mailbox = Maildir/'
             systemctl restart postfix",
        )
        .map(drop)
}

/// Puts Courier in the place of Dovecot, from the packages that the machine has.
pub fn courier(machine: &Machine) -> Result<(), Fault> {
    machine
        .run(
            "systemctl disable --now dovecot
             dpkg --purge dovecot-imapd
             dpkg -i /root/courier/courier-imap_*.deb
             sed -i 's/^MAXPERIP=.*/MAXPERIP=1000/; s/^MAXDAEMONS=.*/MAXDAEMONS=1000/' \
                 /etc/courier/imapd
             systemctl restart courier-authdaemon courier-imap",
        )
        .map(drop)
}

/// A pool of php-fpm that runs as the user, with so many processes.
pub fn php_pool(machine: &Machine, user: &str, processes: u32) -> Result<(), Fault> {
    machine.write(
        &format!("etc/php/8.2/fpm/pool.d/{user}.conf"),
        &format!(
            "[{user}]\nuser = {user}\ngroup = {user}\nlisten = /run/php/{user}.sock\n\
             pm = static\npm.max_children = {processes}\n"
        ),
    )?;
    machine.run("systemctl restart php8.2-fpm").map(drop)
}

/// The pids of a user's processes of that name.
pub fn pids(machine: &Machine, user: &str, command: &str) -> Result<BTreeSet<i64>, Fault> {
    let said = machine.run(&format!("pgrep -u {user} -x {command} || true"))?;
    said.split_whitespace().map(|pid| pid.parse().or_fault(said.clone())).collect()
}

/// Posts the alert for a storm as Alertmanager does.
pub fn post(machine: &Machine, user: &str, command: &str, playbook: &str) -> Result<(), Fault> {
    let alert = serde_json::json!({
        "version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "remediator",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "truncatedAlerts": 0,
        "alerts": [{
            "status": "firing",
            "labels": {
                "alertname": "ProcNumChkRed", "host": "moscow", "user": user,
                "command": command, "playbook": playbook,
            },
            "annotations": {}, "startsAt": "2026-11-23T13:51:45.789Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "f005e9953eb1eb68",
        }],
    });
    machine.write("root/alert.json", &alert.to_string())?;
    machine
        .run(
            "curl -fsS -H 'Content-Type: application/json' -H 'Authorization: Bearer a-token-for-the-loopback' \
                 --data @/root/alert.json http://127.0.0.1:9958/webhook",
        )
        .map(drop)
}

/// Waits for the first remediation to end, and returns its verdict. Others may follow it.
pub fn ended(machine: &Machine) -> Result<String, Fault> {
    let verdict = wait::until("the storm is over", LIMIT, || {
        let page = machine.run("curl -fsS 'http://127.0.0.1:9958/api/v1/remediations?limit=500'");
        let page: Value = serde_json::from_str(&page.ok()?).ok()?;
        let first = page.pointer("/remediations")?.as_array()?.last()?;
        let verdict = first.get("verdict")?.as_str()?.to_owned();
        (verdict != "running").then_some(verdict)
    });
    verdict.map_err(|fault| {
        let log = machine.run("journalctl --no-pager -n 30 -u 'procstorm-*' -o short-iso");
        Fault::new(format!("{}\n{}", fault.whole(), log.unwrap_or_default()))
    })
}

/// The pids that the daemon's journal says were signalled, in all kills.
pub fn signalled(machine: &Machine) -> Result<BTreeSet<i64>, Fault> {
    let mut found = BTreeSet::new();
    for line in journal(machine, "SELECT detail FROM steps WHERE name = 'kill_user_proc'")?.lines()
    {
        let detail: Value = serde_json::from_str(line).or_fault(line.to_owned())?;
        collect(&detail, &mut found);
    }
    Ok(found)
}

/// The pids below a key of that name, wherever it stands.
fn collect(value: &Value, found: &mut BTreeSet<i64>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_array()) {
                    ("pids", Some(pids)) => found.extend(pids.iter().filter_map(Value::as_i64)),
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What people are told, all of it as one text.
pub fn outcomes(machine: &Machine) -> Result<String, Fault> {
    journal(machine, "SELECT annotations FROM outcomes")
}

fn journal(machine: &Machine, query: &str) -> Result<String, Fault> {
    machine.run(&format!("sqlite3 -readonly /var/lib/procstorm/journal.sqlite \"{query}\""))
}

/// The user's Maildir, read message by message.
pub fn read_maildir(machine: &Machine, user: &str) -> Result<mbox::Findings, Fault> {
    let mut all = String::new();
    for dir in ["cur", "new"] {
        let dir = machine.path(&format!("home/{user}/Maildir/{dir}"));
        for entry in fs::read_dir(&dir).or_fault("cannot list the Maildir")?.flatten() {
            let text = fs::read(entry.path()).or_fault("cannot read a message")?;
            let text = String::from_utf8_lossy(&text).replace('\r', "");
            all.push_str(&format!("From x@example.org\n{}\n\n", text.trim_end()));
        }
    }
    Ok(mbox::check(&all))
}

/// Mail to one user, a message at a time, until it is stopped.
#[derive(Debug)]
pub struct Deliveries {
    thread: JoinHandle<Result<BTreeSet<u32>, Fault>>,
    stop: Arc<AtomicBool>,
}

impl Deliveries {
    /// Starts them. Call it in the machine's network.
    #[must_use]
    pub fn start(server: SocketAddr, user: &str) -> Self {
        let (stop, user) = (Arc::<AtomicBool>::default(), user.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut sent = BTreeSet::new();
            for number in mbox::DELIVERED..mbox::DELIVERED + 1_000 {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                deliver(server, &user, number)?;
                sent.insert(number);
                wait::nap(DELIVERY_PAUSE);
            }
            Ok(sent)
        });
        Self { thread, stop }
    }

    /// Ends them. Returns the numbers of the messages that the server has taken.
    pub fn stop(self) -> Result<BTreeSet<u32>, Fault> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| Fault::new("the deliveries have panicked"))?
    }
}

/// Hands one message to a mail server.
fn deliver(server: SocketAddr, user: &str, number: u32) -> Result<(), Fault> {
    let stream = TcpStream::connect(server).or_fault("no connection to the mail server")?;
    stream.set_read_timeout(Some(LIMIT)).or_fault("no time-out")?;
    let mut stream = BufReader::new(stream);
    let message = mbox::message(number).replace('\n', "\r\n");
    let steps = [
        String::new(),
        "HELO client\r\n".to_owned(),
        "MAIL FROM:<x@example.org>\r\n".to_owned(),
        format!("RCPT TO:<{user}@localhost>\r\n"),
        "DATA\r\n".to_owned(),
        format!("{message}.\r\n"),
        "QUIT\r\n".to_owned(),
    ];
    for step in steps {
        stream.get_mut().write_all(step.as_bytes()).or_fault("the mail server hung up")?;
        let mut line = String::new();
        stream.read_line(&mut line).or_fault("the mail server does not answer")?;
        if !line.starts_with(['2', '3']) {
            return Err(Fault::new(format!("the mail server says {line:?}")));
        }
    }
    Ok(())
}
