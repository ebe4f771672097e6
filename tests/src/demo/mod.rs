//! The demo: a real storm on the whole stack, told as a time line.
//!
//! - `requests`: how a demo that stays up is asked for a storm.
//! - [`stages`]: what must be observed, and where.
//! - [`victim`]: whose processes the storm is made of.

mod requests;
mod stages;
mod victim;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;

use crate::interrupt::Interrupt;
use crate::stack::{Person, Remediation, Stack, Timing};
use crate::storm::Storm;
use requests::Requests;
use stages::Since;

/// How many processes the storm has: over the shipped threshold of 90.
const STORM: usize = 100;

/// What the storm's processes are called.
const COMMAND: &str = "imapd";

/// How long the whole way may take, from the storm to the last mail.
const LIMIT: Duration = Duration::from_secs(120);

/// The size of the mail file: enough to see that it is copied, not enough to wait for.
const MAILBOX: usize = 1 << 20;

/// Shows the whole way on a stack below `dir`, which must be empty. Fails unless each stage was
/// really observed.
pub fn show(dir: &Path, interrupt: &Interrupt) -> Result<(), Fault> {
    let chosen = victim::choose(COMMAND)?;
    say("starting Alertmanager, remediator, exporter, Prometheus ...")?;
    let stack = Stack::start(dir, std::slice::from_ref(&chosen.person), Timing::Shipped)?;
    say_where(&stack)?;
    storm(&stack, &chosen.person, 0, interrupt, &mut say)?;
    say("every stage was observed; cleaning up")
}

/// Keeps the stack up until somebody interrupts. Raises a storm whenever [`ask`] wants one.
pub fn stay(dir: &Path, interrupt: &Interrupt) -> Result<(), Fault> {
    let victim = victim::choose(COMMAND)?;
    let requests = Requests::listen()?;
    say("starting Alertmanager, remediator, exporter, Prometheus ...")?;
    let mut stack = Stack::start(dir, std::slice::from_ref(&victim.person), Timing::Shipped)?;
    say_where(&stack)?;
    say(match requests {
        Some(_) => "up until Ctrl-C; to raise a storm, run this in another terminal: make storm",
        None => "up until Ctrl-C; `make storm` raises storms on your other demo, which was first",
    })?;
    let mut storms = 0;
    while !interrupt.came() {
        if let Some(ended) = stack.ended()? {
            return Err(Fault::new(format!("{ended} ended by itself")));
        }
        if let Some(mut request) = requests.as_ref().and_then(Requests::next) {
            let mut both = |line: &str| {
                request.say(line);
                say(line)
            };
            let done = storm(&stack, &victim.person, storms, interrupt, &mut both);
            request.end(&done);
            if let Err(fault) = done {
                say(&format!("{}; still up until Ctrl-C", fault.whole()))?;
            }
            storms += 1;
        }
        wait::pause();
    }
    say("cleaning up")
}

/// Has the demo that stays up raise a storm, and tells what becomes of it.
pub fn ask() -> Result<(), Fault> {
    requests::ask(say)
}

/// Raises the storm of that number, from 0, and tells each stage that is observed. Fails unless all
/// are.
fn storm(
    stack: &Stack,
    victim: &Person,
    number: usize,
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    // One after another: what comes while the last is still watched for would be its recurrence.
    wait::until("the last storm is over", LIMIT, || {
        let pending = stack.remediator_metric("procstorm_remediations_pending", "").ok()?;
        (pending < 0.5 || interrupt.came()).then_some(())
    })?;
    let mailbox = victim::mailbox(victim, MAILBOX, number);
    stack.site.put_mail(victim, &victim.name, &mailbox, 0o600)?;
    let known = stack.remediations()?.iter().map(Remediation::id).max().unwrap_or_default();

    say("seconds since onset")?;
    let storm = Storm::raise(victim.uid, COMMAND.as_bytes(), STORM)?;
    let onset = Instant::now();
    let raised = format!("{STORM} {COMMAND} processes of {} (uid {})", victim.name, victim.uid);
    say(&told(Duration::ZERO, "storm raised", &raised))?;
    let mut waiting = stages::all(stack, &storm, victim, &mailbox, Since { onset, known });
    while !waiting.is_empty() {
        if interrupt.came() {
            return Err(Fault::new("interrupted"));
        }
        if onset.elapsed() > LIMIT {
            let missing: Vec<&str> = waiting.iter().map(|stage| stage.name).collect();
            return Err(Fault::new(format!("not observed: {}", missing.join(", "))));
        }
        let names: Vec<&str> = waiting.iter().map(|stage| stage.name).collect();
        let mut rest = Vec::new();
        for mut stage in waiting {
            let due = stage.after.is_none_or(|earlier| !names.contains(&earlier));
            match due.then(|| (stage.look)()).flatten() {
                Some(seen) => say(&told(onset.elapsed(), stage.name, &seen))?,
                None => rest.push(stage),
            }
        }
        waiting = rest;
        wait::pause();
    }
    Ok(())
}

fn say_where(stack: &Stack) -> Result<(), Fault> {
    for (name, place) in [
        ("exporter", format!("{}/", stack.exporter_url())),
        ("Prometheus", stack.prometheus.alerts_page()),
        ("Alertmanager", stack.alertmanager.alerts_page()),
        ("remediator", format!("{}/", stack.remediator_url())),
        ("mails", format!("{}/*.eml", stack.site.mails().display())),
        ("policy", stack.site.remediator_yml().display().to_string()),
        ("archive", stack.site.archive().display().to_string()),
    ] {
        say(&format!("  {name:<13} {place}"))?;
    }
    say("")
}

fn told(since: Duration, stage: &str, seen: &str) -> String {
    format!("{:6.2}  {stage:<17} {seen}", since.as_secs_f64())
}

fn say(line: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).or_fault("nobody listens")
}
