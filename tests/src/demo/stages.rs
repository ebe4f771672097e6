//! What must be observed, and where: each stage looks at the program, the file or the mail that
//! shows it, and at nothing that stands for it.

use std::fs;
use std::time::Instant;

use crate::demo::COMMAND;
use crate::prometheus::Alert;
use crate::smtp::Mail;
use crate::stack::{Person, Remediation, Stack};
use crate::storm::Storm;

/// One stage of the way.
pub(super) struct Stage<'a> {
    /// Its name in the time line.
    pub(super) name: &'static str,
    /// The stage that must have been told before this one is looked at.
    pub(super) after: Option<&'static str>,
    /// Looks once; says what was seen, if it was.
    pub(super) look: Box<dyn FnMut() -> Option<String> + 'a>,
}

/// What was there before the storm, which is not of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    /// When the storm was raised.
    pub(super) onset: Instant,
    /// The newest remediation before it.
    pub(super) known: i64,
}

/// All stages after the storm was raised, in the order in which they are due.
pub(super) fn all<'a>(
    stack: &'a Stack,
    storm: &'a Storm,
    victim: &'a Person,
    mailbox: &'a [u8],
    since: Since,
) -> Vec<Stage<'a>> {
    let user = victim.name.as_str();
    let stage =
        |name, look: Box<dyn FnMut() -> Option<String> + 'a>| Stage { name, after: None, look };
    vec![
        stage("scraped", Box::new(move || scraped(stack, user, storm.pids().len()))),
        stage("firing", Box::new(move || firing(stack, user))),
        stage("webhook received", Box::new(move || received(stack, user, since))),
        stage("archived", Box::new(move || archived(stack, user, mailbox))),
        stage("killed", Box::new(move || killed(stack, user, since))),
        Stage {
            after: Some("killed"),
            ..stage("proven", Box::new(move || proven(stack, storm, user, since)))
        },
        stage("mail", Box::new(move || mailed(stack, since, |mail| is_alert(mail, user)))),
        stage("mail", Box::new(move || mailed(stack, since, |mail| is_outcome(mail, user)))),
        stage("resolved", Box::new(resolved(stack, user))),
    ]
}

/// Prometheus has the count.
fn scraped(stack: &Stack, user: &str, count: usize) -> Option<String> {
    let series = format!("procstorm_processes{{user=\"{user}\",command=\"{COMMAND}\"}}");
    let found = stack.prometheus.query(&series).ok()?;
    let value = found.first()?.value.to_string();
    (value == count.to_string()).then(|| format!("{series} {value}"))
}

/// Prometheus fires.
fn firing(stack: &Stack, user: &str) -> Option<String> {
    let alert = stack.prometheus.alerts().ok()?.into_iter().find(|alert| {
        alert.fires()
            && alert.label("alertname") == "ProcNumChkRed"
            && alert.label("user") == user
            && alert.label("command") == COMMAND
    })?;
    Some(format!("ProcNumChkRed: {}", alert.annotation("inline").trim_start()))
}

/// The remediator has taken the alert.
fn received(stack: &Stack, user: &str, since: Since) -> Option<String> {
    let remediation = remediation(stack, user, since)?;
    Some(format!("remediation {} of playbook imapd_storm", remediation.id()))
}

/// The first of this storm.
fn remediation(stack: &Stack, user: &str, since: Since) -> Option<Remediation> {
    let is_ours = |one: &Remediation| one.user() == user && one.id() > since.known;
    stack.remediations().ok()?.into_iter().rfind(is_ours)
}

/// A file in the archive is the mail file, byte for byte.
fn archived(stack: &Stack, user: &str, mailbox: &[u8]) -> Option<String> {
    let prefix = format!("{user}.");
    let path = stack.site.archived().ok()?.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && fs::read(path).is_ok_and(|bytes| bytes == mailbox)
    })?;
    Some(format!("as {} ({} bytes, identical)", path.display(), mailbox.len()))
}

/// The remediator says that it has killed.
fn killed(stack: &Stack, user: &str, since: Since) -> Option<String> {
    let remediation = remediation(stack, user, since).filter(Remediation::is_done)?;
    let (before, after) = (remediation.before()?, remediation.after()?);
    let ms = remediation.milliseconds()?;
    Some(format!("{} in {ms} ms ({})", before.saturating_sub(after), remediation.summary()))
}

/// We ourselves find none of the storm's processes alive, and the remediator's verdict agrees.
fn proven(stack: &Stack, storm: &Storm, user: &str, since: Since) -> Option<String> {
    let verdict = remediation(stack, user, since)?.verdict().to_owned();
    let living = storm.living().ok()?;
    (living == 0 && verdict == "none_seen")
        .then(|| format!("0 of {} live, verdict {verdict}", storm.pids().len()))
}

/// A mail has come.
fn mailed(stack: &Stack, since: Since, wanted: impl Fn(&Mail) -> bool) -> Option<String> {
    let is_new = |mail: &Mail| mail.received > since.onset && wanted(mail);
    Some(format!("\"{}\"", stack.mail.find(is_new)?.subject()))
}

fn is_alert(mail: &Mail, user: &str) -> bool {
    mail.subject().contains("ProcNumChkRed") && mail.text().contains(&format!("{user} {COMMAND}"))
}

fn is_outcome(mail: &Mail, user: &str) -> bool {
    mail.subject().contains(&format!("killed all {user} {COMMAND} processes"))
        && mail.text().contains("saved user mail file as")
}

/// Prometheus fired, and does not any more.
fn resolved<'a>(stack: &'a Stack, user: &'a str) -> impl FnMut() -> Option<String> + 'a {
    let mut fired = false;
    move || {
        let alerts = stack.prometheus.alerts().ok()?;
        let of_storm =
            |alert: &Alert| alert.label("user") == user && alert.label("command") == COMMAND;
        let fires = alerts.iter().any(of_storm);
        fired |= fires;
        (fired && !fires).then(|| "no alert of the storm is left".to_owned())
    }
}
