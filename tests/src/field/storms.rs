//! Accounts with mail files, storms of theirs, and what became of both.

use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::wait;

use crate::field::machine::Machine;

/// How long a storm may live, from its onset to the mail of its end, on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Configures a mail server that delivers to mboxes. Call it before the machine boots: OpenSMTPD that
/// is restarted while it still starts can end without a word, and nobody gets mail.
pub fn configure_mail(machine: &Machine) -> Result<(), Fault> {
    machine.write(
        "etc/smtpd.conf",
        "table aliases file:/etc/aliases\nlisten on localhost\n\
         action \"local\" mbox alias <aliases>\nmatch for any action \"local\"\n",
    )?;
    machine.write("etc/aliases", "root: oncall\nprometheus: oncall\n")
}

/// Adds an account that reads root's mail and a program called imapd, and waits until the mail
/// server answers.
pub fn prepare(machine: &Machine) -> Result<(), Fault> {
    machine.run("useradd --create-home oncall; cp /bin/sleep /usr/local/bin/imapd")?;
    let greeting =
        "exec 3<>/dev/tcp/127.0.0.1/25; read -t 10 -r line <&3; grep '^220 ' <<<\"$line\"";
    wait::until("the mail server answers", LIMIT, || machine.run(greeting).ok()).map(drop).map_err(
        |fault| {
            let log = machine.run("systemctl status opensmtpd || true; journalctl -b -u opensmtpd");
            Fault::new(format!("{}\n{}", fault.whole(), log.unwrap_or_default()))
        },
    )
}

/// Makes an account with a mail file of that many MiB, which is as old as mail is.
pub fn account(machine: &Machine, user: &str, mebibytes: usize) -> Result<(), Fault> {
    let script = format!(
        "id {user} >/dev/null 2>&1 || useradd --create-home {user}
         (echo 'From friend@example.org Sat Apr 29 10:00:00 2000'; head -c {mebibytes}M /dev/urandom) \
             >/var/mail/{user}
         chown {user}:mail /var/mail/{user}
         chmod 640 /var/mail/{user}
         touch -d '2000-04-29 10:00:00.123456789 UTC' /var/mail/{user}"
    );
    machine.run(&script).map(drop)
}

/// Raises a storm of 150.
pub fn raise(machine: &Machine, user: &str) -> Result<(), Fault> {
    let script = format!(
        "setsid setpriv --reuid {user} --regid {user} --init-groups sh -c \
             'for i in $(seq 150); do imapd 3600 & done' >/dev/null 2>&1 </dev/null"
    );
    machine.run(&script).map(drop)
}

/// How many processes of the storm live.
pub fn alive(machine: &Machine, user: &str) -> Result<usize, Fault> {
    let said = machine.run(&format!("pgrep -c -u {user} -x imapd || true"))?;
    said.trim().parse().map_err(|error| Fault::new(format!("{said:?}: {error}")))
}

/// Waits until a remediation of this user has begun.
pub fn begun(machine: &Machine, user: &str) -> Result<(), Fault> {
    let ask = "curl -sS http://127.0.0.1:9958/api/v1/remediations";
    wait::until(&format!("a remediation of {user} begins"), LIMIT, || {
        let said = machine.run(ask).ok()?;
        said.contains(&format!("\"user\":\"{user}\"")).then_some(())
    })
    .map_err(|fault| with_logs(fault, machine, machine))
}

/// Waits until the storm is over, its mail file is saved as it is, and people were told so.
pub fn ended(machine: &Machine, user: &str) -> Result<(), Fault> {
    ended_elsewhere(machine, user, machine)
}

/// The same, where people are told on another machine.
pub fn ended_elsewhere(machine: &Machine, user: &str, mail: &Machine) -> Result<(), Fault> {
    let why = |fault| with_logs(fault, machine, mail);
    wait::until(&format!("the storm of {user} ends"), LIMIT, || {
        (alive(machine, user).ok()? == 0).then_some(())
    })
    .map_err(why)?;
    wait::until(&format!("people are told of {user}"), LIMIT, || {
        (told_of(machine, user, mail).ok()? > 0).then_some(())
    })
    .map_err(why)?;
    saved(machine, user).map_err(why)
}

/// The same fault, and what those who took part in it have logged.
fn with_logs(fault: Fault, machine: &Machine, mail: &Machine) -> Fault {
    let log = machine
        .run(
            "curl -sS 'http://127.0.0.1:9958/api/v1/remediations?limit=2'; echo
             journalctl --no-pager -n 40 -u 'procstorm-*' -o short-iso",
        )
        .unwrap_or_default();
    let mailed = mail
        .run(
            "set +e
             journalctl --no-pager -n 40 -u prometheus-alertmanager -u opensmtpd -o short-iso
             grep '^Subject:' /var/mail/oncall
             smtpctl show queue
             curl -sS http://127.0.0.1:9093/api/v2/alerts",
        )
        .unwrap_or_default();
    Fault::new(format!("{}\n{log}\non {}:\n{mailed}", fault.whole(), mail.name()))
}

/// How many mails say that all of the user's processes were killed.
pub fn told(machine: &Machine, user: &str) -> Result<usize, Fault> {
    told_of(machine, user, machine)
}

fn told_of(machine: &Machine, user: &str, mail: &Machine) -> Result<usize, Fault> {
    let name = machine.name();
    let subject = format!("^Subject:.*{name}: .*killed all {user} imapd processes");
    let said = mail.run(&format!("grep -c -E '{subject}' /var/mail/oncall || true"))?;
    said.lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| Fault::new(format!("no mail yet: {said}")))
}

/// That the archive holds the user's mail file: bytes, owner, mode and times. A fault otherwise.
pub fn saved(machine: &Machine, user: &str) -> Result<(), Fault> {
    let script = format!(
        "saved=$(find /var/mail/arc -type f -name '*{user}*' | sort | tail -1)
         test -n \"$saved\" || {{ echo 'nothing of {user} is archived'; ls -lR /var/mail/arc; exit 1; }}
         cmp /var/mail/{user} \"$saved\"
         diff <(stat -c '%U:%G %a %y' /var/mail/{user}) <(stat -c '%U:%G %a %y' \"$saved\")"
    );
    machine.run(&script).map(drop)
}
