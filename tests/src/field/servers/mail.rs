//! Debian's mail servers.
//!
//! - [`users`]: accounts that log in at all of them.
//! - [`Store`]: where their mail is.
//! - [`dovecot`], [`courier`], [`postfix`]: the servers.
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
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::wait;

use super::LIMIT;
use crate::field::machine::Machine;
use crate::mail_server::imap::PASSWORD;
use crate::mail_server::mbox;

/// The time between two deliveries.
const DELIVERY_PAUSE: Duration = Duration::from_millis(200);

/// Where a user's mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `~/Maildir`: a file for each message.
    Maildirs,
    /// `/var/mail/USER`: one file.
    Mboxes,
}

impl Store {
    /// Gives a user, who has none yet, mail with these numbers.
    pub fn fill(
        self,
        machine: &Machine,
        user: &str,
        numbers: std::ops::Range<u32>,
    ) -> Result<(), Fault> {
        if self == Self::Mboxes {
            // Not by its path: a file system of the machine's own lies over it.
            machine.write("root/mbox", &mbox::mailbox(numbers))?;
            return machine.run(&format!("cat /root/mbox >/var/mail/{user}")).map(drop);
        }
        for number in numbers {
            let file = format!("home/{user}/Maildir/new/{number}.x");
            machine.write(&file, &mbox::message(number))?;
        }
        machine.run(&format!("chown -R {user}: /home/{user}/Maildir")).map(drop)
    }

    /// A user's mail, read message by message.
    pub fn read(self, machine: &Machine, user: &str) -> Result<mbox::Findings, Fault> {
        match self {
            Self::Maildirs => read_maildir(machine, user),
            Self::Mboxes => Ok(mbox::check(&machine.run(&format!("cat /var/mail/{user}"))?)),
        }
    }
}

/// Accounts that log in with the password of all tests, with an empty mbox and an empty Maildir.
pub fn users(machine: &Machine, users: &[&str]) -> Result<(), Fault> {
    for user in users {
        // The limit of a user's processes counts those on all machines here that have this uid.
        let uid = claim_uid();
        machine.run(&format!(
            "useradd --uid {uid} --create-home {user}
             echo {user}:{PASSWORD} | chpasswd
             install -m 660 -o {user} -g mail /dev/null /var/mail/{user}
             install -d -o {user} -g {user} /home/{user}/Maildir \
                 /home/{user}/Maildir/cur /home/{user}/Maildir/new /home/{user}/Maildir/tmp"
        ))?;
    }
    Ok(())
}

/// Starts Dovecot with Debian's settings and, after them, these.
pub fn dovecot(machine: &Machine, store: Store, settings: &str) -> Result<(), Fault> {
    let location = match store {
        Store::Maildirs => "mail_location = maildir:~/Maildir\n",
        // As Debian has it.
        Store::Mboxes => "",
    };
    machine.write(
        "etc/dovecot/local.conf",
        &format!(
            "listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\n\
             mail_max_userip_connections = 1000\n{location}{settings}"
        ),
    )?;
    machine.run("systemctl restart dovecot").map(drop)
}

/// Starts Postfix with Debian's settings and these, `name = value` each.
pub fn postfix(machine: &Machine, settings: &[&str]) -> Result<(), Fault> {
    let settings: String = settings.iter().map(|setting| format!(" '{setting}'")).collect();
    machine
        .run(&format!(
            "postconf -e 'mydestination = $myhostname, localhost' 'inet_interfaces = loopback-only' \
                 'inet_protocols = ipv4'{settings}
             systemctl restart postfix"
        ))
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

/// The user's Maildir, read message by message.
fn read_maildir(machine: &Machine, user: &str) -> Result<mbox::Findings, Fault> {
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
