//! What an outcome says about a kill. Pure.
//!
//! - [`part`], [`end`]: about a kill that was made, or tried.
//! - [`part_dry`], [`end_dry`]: about one that would be.

use super::{Changed, KillVerdict, Other, Replacement, Report, Source, Traced};
use crate::outcome::{End, Part, Subject};
use crate::verdict::Verdict;

/// How many pids a mail names; the journal has them all.
const PIDS_TOLD: usize = 200;

/// What a kill did, in several lines.
#[must_use]
pub fn part(report: &Report) -> Part {
    let mut lines = Vec::new();
    kill_lines(report, &mut lines);
    Part { lines, ..Part::default() }
}

/// Where the storm comes from.
#[must_use]
pub fn source_part(source: &Source) -> Part {
    let Source { uid, process } = source;
    Part { lines: vec![origin(*uid, process)], ..Part::default() }
}

/// What a dry run would kill.
#[must_use]
pub fn part_dry(pids: &[i32]) -> Part {
    Part { lines: vec![format!("would kill pids {}", listed(pids))], ..Part::default() }
}

/// How a remediation ends that killed, or tried to.
#[must_use]
pub fn end(subject: &Subject<'_>, report: &Report) -> End {
    End {
        verdict: Verdict::from(&report.verdict),
        severity: report.severity(),
        summary: killed(report, &subject.whose(), &subject.before_told()),
        after: report.living(),
    }
}

/// How a dry run ends that would kill these.
#[must_use]
pub fn end_dry(subject: &Subject<'_>, pids: &[i32]) -> End {
    let (count, whose) = (pids.len(), subject.whose());
    let summary = format!("dry run: would kill {count} {whose} processes");
    End { after: subject.before, ..End::of(Verdict::DryRun, summary) }
}

fn killed(report: &Report, whose: &str, before: &str) -> String {
    let Report { matched, nested, changed, threshold, .. } = report;
    let ended = report.ended();
    match &report.verdict {
        // All are the ones that exited under our hands, and no others.
        KillVerdict::NoneSeenForMs(_) if ended == *matched && *nested == 0 && *changed == 0 => {
            format!("killed all {whose} processes")
        }
        KillVerdict::NoneSeenForMs(_) if *nested == 0 && *changed == 0 => {
            let others = matched.saturating_sub(ended);
            format!("no {whose} processes are left: {ended} were killed, {others} ended otherwise")
        }
        KillVerdict::Evaded => {
            format!(
                "killed {ended} of {matched} {whose} processes; {changed} had another name or \
                 owner when they were stopped, and were let go"
            )
        }
        KillVerdict::LeftAlone | KillVerdict::NoneSeenForMs(_) => {
            format!(
                "killed {ended} {whose} processes; {nested} in other pid namespaces were left \
                 alone"
            )
        }
        KillVerdict::BelowThreshold => {
            let back = report.replacement_count;
            format!(
                "killed {ended} {whose} processes; most were ended, {back} came back meanwhile and \
                 {}, below the threshold of {threshold}",
                alive(report.left)
            )
        }
        KillVerdict::NoLongerTrue => {
            format!("no {whose} processes were left to kill, of {before} before")
        }
        KillVerdict::Respawning => {
            format!("killed {ended} {whose} processes, but new ones appear: {}", alive(report.left))
        }
        KillVerdict::Stuck => {
            let stuck = report.stuck_count;
            format!("killed {ended} {whose} processes; {stuck} do not exit")
        }
        KillVerdict::Denied => {
            let denied = report.denied;
            format!("killed {ended} {whose} processes; no right to signal {denied} others")
        }
        KillVerdict::Unfinished | KillVerdict::Aborted => {
            format!("killed {ended} {whose} processes; time was over, {}", alive(report.left))
        }
        KillVerdict::Blind => {
            format!("did not kill {whose} processes: other users' are hidden from us")
        }
        KillVerdict::Refused(why) | KillVerdict::Failed(why) => {
            format!("did not kill {whose} processes: {why}")
        }
    }
}

/// So many live; or how many is not known, which is not none.
fn alive(left: Option<u64>) -> String {
    left.map_or_else(|| "how many live is unknown".to_owned(), |left| format!("{left} live"))
}

fn kill_lines(report: &Report, lines: &mut Vec<String>) {
    let mut line = format!(
        "killed {} processes in {} ms, {} rounds",
        report.ended(),
        report.elapsed.as_millis(),
        report.rounds
    );
    if report.asked > 0 {
        line.push_str(&format!(": {} by SIGTERM, {} by SIGKILL", report.terminated, report.exited));
    }
    if let KillVerdict::NoneSeenForMs(ms) = report.verdict {
        line.push_str(&format!("; none seen for {ms} ms"));
    }
    lines.push(line);
    if report.gone > 0 {
        lines.push(format!("{} ended otherwise before they were killed", report.gone));
    }
    if report.nested > 0 {
        lines.push(format!(
            "{} live in pid namespaces that are not this host's own, and were left alone",
            report.nested
        ));
    }
    if let Some(first) = report.changed_to.first() {
        lines.push(format!(
            "{} had another name or owner when they were stopped, and were let go: {}{}",
            report.changed,
            changed(first),
            if report.changed > 1 { ", and others" } else { "" }
        ));
    }
    if let Some(first) = report.zombies.first() {
        lines.push(format!(
            "{} are dead but not reaped, pid {} by its parent {}{}",
            report.zombie_count,
            first.pid,
            first.parent,
            named(report.careless.iter().find(|one| one.pid == first.parent))
        ));
    }
    if !report.stuck.is_empty() {
        lines.push(format!("do not exit: pids {}", listed(&report.stuck)));
    }
    if let Some(Traced { pid, tracer }) = report.traced.first() {
        lines.push(format!(
            "{} of them are traced, pid {pid} by {}{}: end the tracer, and they exit",
            report.traced.len(),
            tracer.pid,
            named(Some(tracer))
        ));
    }
    if let Some(first) = report.replacements.first() {
        lines.push(format!(
            "{} appeared during the kill, pid {} from parent {} ({})",
            report.replacement_count, first.pid, first.parent, first.parent_command
        ));
        lines.push(origin(report.uid, first));
    }
}

/// A process's command and uid, in brackets.
fn named(one: Option<&Other>) -> String {
    one.map(|one| format!(" ({}, uid {})", one.command, one.uid)).unwrap_or_default()
}

/// Programs that start a process for each connection, by the names of their masters.
const PER_CONNECTION: [&str; 6] = ["dovecot", "couriertcpd", "sshd", "master", "inetd", "xinetd"];

/// Programs that keep a number of processes ready, by the beginnings of their masters' names.
const PRE_FORKING: [&str; 6] = ["php-fpm", "apache2", "httpd", "uwsgi", "gunicorn", "nginx"];

/// Where those that appeared come from, and what that means: a person must not end a master that
/// serves everybody.
pub(crate) fn origin(uid: u32, first: &Replacement) -> String {
    let Replacement { parent, parent_command, parent_uid, .. } = first;
    let whose = format!("pid {parent} ({parent_command})");
    match parent_uid {
        None => "their parent has exited; see what else the user runs".to_owned(),
        Some(_) if *parent == 1 => {
            "their parent has exited, or init starts them; see what else the user runs".to_owned()
        }
        Some(own) if *own == uid && uid != 0 => {
            format!("{whose} is the user's own process and starts them: end it first")
        }
        Some(other) => {
            let is_pre_forking = PRE_FORKING.iter().any(|name| parent_command.starts_with(name));
            // The master belongs to root. A process of its pool that has children runs a program
            // for a request (CGI).
            let kind = if is_pre_forking && *other == 0 {
                "a pre-forking server, which keeps a number of them ready: limit the pool"
            } else if is_pre_forking {
                "a web server that starts one for each request, so a client repeats its requests: \
                 block the client or switch the program off"
            } else if PER_CONNECTION.contains(&parent_command.as_str()) {
                "a server that starts one for each connection, so a client reconnects: stop the \
                 client or lock the account"
            } else {
                "see \"Servers that start new ones\" in the runbook"
            };
            format!(
                "{whose} of uid {other} starts them and may serve other users: do not end it; \
                 {kind}"
            )
        }
    }
}

/// What one that was let go is by now.
fn changed(one: &Changed) -> String {
    let Changed { pid, uid, command } = one;
    match uid {
        Some(uid) => format!("pid {pid} is now {command:?} of uid {uid}"),
        None => format!("pid {pid} has exited since"),
    }
}

fn listed(pids: &[i32]) -> String {
    let shown: Vec<_> = pids.iter().take(PIDS_TOLD).map(ToString::to_string).collect();
    let more = pids.len().saturating_sub(PIDS_TOLD);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(" "))
}
