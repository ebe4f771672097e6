//! The demo: a real storm on the whole stack, told as a time line.
//!
//! - [`stages`]: what must be observed, and where.
//! - [`victim`]: whose processes the storm is made of.

mod stages;
mod victim;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait;

use crate::interrupt::Interrupt;
use crate::stack::{Stack, Timing};
use crate::storm::Storm;

/// How many processes the storm has: over the shipped threshold of 90.
const STORM: usize = 100;

/// What the storm's processes are called.
const COMMAND: &str = "imapd";

/// How long the whole way may take, from the storm to the last mail.
const LIMIT: Duration = Duration::from_secs(90);

/// The size of the mail file: enough to see that it is copied, not enough to wait for.
const MAILBOX: usize = 1 << 20;

/// Shows the whole way on a stack below `dir`, which must be empty. Fails unless each stage was
/// really observed.
pub fn show(dir: &Path, interrupt: &Interrupt) -> Result<(), Fault> {
    let chosen = victim::choose(COMMAND)?;
    let victim = &chosen.person;
    say("starting Alertmanager, remediator, exporter, Prometheus ...")?;
    let stack = Stack::start(dir, std::slice::from_ref(victim), Timing::Shipped)?;
    say_where(&stack, dir)?;
    let mailbox = victim::mailbox(victim, MAILBOX);
    stack.site.put_mail(victim, &victim.name, &mailbox, 0o600)?;

    say("seconds since onset")?;
    let storm = Storm::raise(victim.uid, COMMAND.as_bytes(), STORM)?;
    let onset = Instant::now();
    let raised = format!("{STORM} {COMMAND} processes of {} (uid {})", victim.name, victim.uid);
    tell(Duration::ZERO, "storm raised", &raised)?;
    let mut waiting = stages::all(&stack, &storm, victim, &mailbox);
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
                Some(seen) => tell(onset.elapsed(), stage.name, &seen)?,
                None => rest.push(stage),
            }
        }
        waiting = rest;
        wait::pause();
    }
    say("every stage was observed; cleaning up")
}

/// Keeps the stack up, without a storm, until somebody interrupts.
pub fn stay(dir: &Path, interrupt: &Interrupt) -> Result<(), Fault> {
    let victim = victim::choose(COMMAND)?;
    say("starting Alertmanager, remediator, exporter, Prometheus ...")?;
    let mut stack = Stack::start(dir, std::slice::from_ref(&victim.person), Timing::Shipped)?;
    say_where(&stack, dir)?;
    say("up until Ctrl-C")?;
    while !interrupt.came() {
        if let Some(ended) = stack.ended()? {
            return Err(Fault::new(format!("{ended} ended by itself")));
        }
        wait::pause();
    }
    say("cleaning up")
}

fn say_where(stack: &Stack, dir: &Path) -> Result<(), Fault> {
    say(&format!("all files are below {}", dir.display()))?;
    for (name, url) in [
        ("exporter", format!("{}/metrics", stack.exporter_url())),
        ("Prometheus", stack.prometheus.alerts_page()),
        ("Alertmanager", stack.alertmanager.alerts_page()),
        ("remediator", format!("{}/", stack.remediator_url())),
    ] {
        say(&format!("  {name:<13} {url}"))?;
    }
    say("")
}

fn tell(since: Duration, stage: &str, seen: &str) -> Result<(), Fault> {
    say(&format!("{:6.2}  {stage:<17} {seen}", since.as_secs_f64()))
}

fn say(line: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).or_fault("nobody listens")
}
