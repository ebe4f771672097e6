//! What an outcome says about a kill. Pure.
//!
//! - [`part`], [`end`]: about a kill that was made, or tried.
//! - [`part_dry`], [`end_dry`]: about one that would be.

use super::{Changed, KillVerdict, Other, Replacement, Report, Source, Traced};
use crate::counted::counted;
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
    let count = u64::try_from(pids.len()).unwrap_or(u64::MAX);
    let summary = format!("dry run: would kill {}", processes(count, &subject.whose()));
    End { after: subject.before, ..End::of(Verdict::DryRun, summary) }
}

/// What a kill came to, in one line. Each clause follows from the report's counts, which may say more
/// than the verdict does: a kill that failed in its second round has killed in the first.
fn killed(report: &Report, whose: &str, before: &str) -> String {
    let Report { matched, threshold, left, .. } = report;
    let ended = report.ended();
    let killed = format!("killed {}", processes(ended, whose));
    match &report.verdict {
        KillVerdict::NoneSeenForMs(_) if is_quiet(report) => match ended {
            // All are the ones that exited under our hands, and no others.
            _ if ended == *matched && ended > 0 => format!("killed all {whose} processes"),
            0 => format!("no {whose} processes are left: none was killed, all ended otherwise"),
            _ => {
                let others = matched.saturating_sub(ended);
                let others = format!("{ended} were killed, {others} ended otherwise");
                format!("no {whose} processes are left: {others}")
            }
        },
        KillVerdict::Evaded => {
            format!("killed {ended} of {matched} {whose} processes{}", let_go(report))
        }
        KillVerdict::LeftAlone | KillVerdict::NoneSeenForMs(_) => {
            format!("{killed}{}", let_go(report))
        }
        KillVerdict::BelowThreshold => {
            let back = report.replacement_count;
            let below = match left {
                Some(left) if left < threshold => {
                    format!("{left} live, below the threshold of {threshold}")
                }
                Some(_) | None => alive(*left),
            };
            format!("{killed}; {back} came back meanwhile and {below}")
        }
        KillVerdict::NoLongerTrue if has_hit(report) => format!("{killed}; {}", alive(*left)),
        KillVerdict::NoLongerTrue => {
            format!("no {whose} processes were left to kill, of {before} before")
        }
        KillVerdict::Respawning => format!("{killed}, but new ones appear: {}", alive(*left)),
        KillVerdict::Stuck => format!("{killed}; {} do not exit", some(report.stuck_count)),
        KillVerdict::Denied => {
            format!("{killed}; no right to signal {} others", some(report.denied))
        }
        KillVerdict::Unfinished => {
            format!("{killed}; the kill reached its limit of time or signals, {}", alive(*left))
        }
        KillVerdict::Aborted => format!("{killed}; the kill was called off, {}", alive(*left)),
        KillVerdict::Blind => unfit(report, whose, "other users' processes are hidden from us"),
        KillVerdict::Refused(why) | KillVerdict::Failed(why) => unfit(report, whose, why),
    }
}

/// So many processes of that user and command.
fn processes(count: u64, whose: &str) -> String {
    counted(count, &format!("{whose} process"), &format!("{whose} processes"))
}

/// How a kill ends that cannot go on, or could not begin.
fn unfit(report: &Report, whose: &str, why: &str) -> String {
    if !has_hit(report) {
        return format!("did not kill {whose} processes: {why}");
    }
    let (ended, matched) = (report.ended(), report.matched);
    format!("killed {ended} of {matched} {whose} processes, then the kill failed: {why}")
}

/// Whether any process was sent a signal that ends it, or exited by one.
fn has_hit(report: &Report) -> bool {
    report.asked > 0 || report.signalled > 0 || report.ended() > 0
}

/// Whether no process lives on that the report knows of, whatever its name, owner or namespace.
fn is_quiet(report: &Report) -> bool {
    let Report { nested, changed, released, stuck_count, denied, left, .. } = report;
    [*nested, *changed, *released, *stuck_count, *denied, left.unwrap_or(0)] == [0; 6]
}

/// Those that live on, by the reason why: a clause for each reason.
fn let_go(report: &Report) -> String {
    let clauses = [
        (report.changed, "had another name or owner when they were stopped, and were let go"),
        (report.nested, "in other pid namespaces were left alone"),
        (report.released, "were let go alive"),
        (report.stuck_count, "do not exit"),
        (report.denied, "may not be signalled"),
        (report.left.unwrap_or(0), "live"),
    ];
    let told = clauses.iter().filter(|(count, _)| *count > 0);
    told.map(|(count, clause)| format!("; {count} {clause}")).collect()
}

/// A count; of none that is known, the verdict alone says that there are some.
fn some(count: u64) -> String {
    if count == 0 { "some".to_owned() } else { count.to_string() }
}

/// So many live; or how many is not known, which is not none.
fn alive(left: Option<u64>) -> String {
    left.map_or_else(|| "how many live is unknown".to_owned(), |left| format!("{left} live"))
}

fn kill_lines(report: &Report, lines: &mut Vec<String>) {
    let mut line = format!(
        "killed {} in {} ms, {}",
        counted(report.ended(), "process", "processes"),
        report.elapsed.as_millis(),
        counted(report.rounds, "round", "rounds")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const VERDICTS: [fn() -> KillVerdict; 13] = [
        || KillVerdict::NoneSeenForMs(100),
        || KillVerdict::BelowThreshold,
        || KillVerdict::Respawning,
        || KillVerdict::Stuck,
        || KillVerdict::Denied,
        || KillVerdict::Blind,
        || KillVerdict::LeftAlone,
        || KillVerdict::Evaded,
        || KillVerdict::NoLongerTrue,
        || KillVerdict::Aborted,
        || KillVerdict::Unfinished,
        || KillVerdict::Refused("because".to_owned()),
        || KillVerdict::Failed("because".to_owned()),
    ];

    /// Reports of a verdict, with each counter zero and not, in all combinations.
    fn reports(verdict: fn() -> KillVerdict) -> impl Iterator<Item = Report> {
        (0..1_u32 << 10).map(move |bits| {
            let of = |bit: u32, count: u64| if bits & (1 << bit) == 0 { 0 } else { count };
            let mut report = Report::idle(verdict(), Duration::from_millis(5));
            (report.exited, report.terminated) = (of(0, 31), of(1, 32));
            (report.gone, report.changed, report.stuck_count) = (of(2, 33), of(3, 34), of(4, 35));
            (report.released, report.nested) = (of(5, 36), of(6, 37));
            (report.denied, report.replacement_count) = (of(7, 38), of(8, 39));
            report.left = [None, Some(0), Some(40), Some(90)]
                [usize::try_from(bits % 3 + u32::from(bits & (1 << 9) != 0)).unwrap_or(0)];
            report.threshold = 80;
            report.signalled = report.exited + report.stuck_count;
            report.asked = report.terminated + report.released;
            report.matched = report.ended()
                + report.gone
                + report.changed
                + report.stuck_count
                + report.released;
            report
        })
    }

    #[test]
    fn one_of_a_kind_is_in_the_singular() {
        let mut report = Report::idle(KillVerdict::NoneSeenForMs(100), Duration::from_millis(5));
        (report.exited, report.matched, report.rounds) = (1, 2, 1);
        let mut lines = Vec::new();
        kill_lines(&report, &mut lines);
        assert_eq!(lines, ["killed 1 process in 5 ms, 1 round; none seen for 100 ms"]);
        report.verdict = KillVerdict::Aborted;
        let told = killed(&report, "alice imapd", "2");
        assert!(told.starts_with("killed 1 alice imapd process; "), "{told}");
        (report.exited, report.rounds) = (2, 3);
        kill_lines(&report, &mut lines);
        assert_eq!(lines[1], "killed 2 processes in 5 ms, 3 rounds");
    }

    #[test]
    fn each_sentence_about_a_kill_is_true_of_its_numbers() {
        let mut sentences = 0;
        for report in VERDICTS.into_iter().flat_map(reports) {
            let told = killed(&report, "alice imapd", "95");
            let says = |text: &str| told.contains(text);
            let lives = [report.changed, report.nested, report.released, report.stuck_count]
                .iter()
                .any(|count| *count > 0)
                || report.left.is_some_and(|left| left > 0);
            let what = format!("{told:?} of {report:?}");
            let ended = report.ended();
            if says("killed all") {
                assert!(ended > 0 && ended == report.matched && !lives, "{what}");
            }
            if says("did not kill") || says("none was killed") || says("were left to kill") {
                assert_eq!(ended, 0, "{what}");
            }
            if says("did not kill") || says("were left to kill") {
                assert_eq!((report.signalled, report.asked), (0, 0), "{what}");
            }
            if says("are left") {
                assert!(!lives, "{what}");
            }
            if says("ended otherwise") && ended > 0 {
                assert!(says(&format!("{} ended otherwise", report.gone)), "{what}");
            }
            if says("below the threshold") {
                assert!(report.left.is_some_and(|left| left < report.threshold), "{what}");
            }
            // Each number is the one of its clause, and nothing is said of none.
            for (clause, count) in [
                ("had another name", report.changed),
                ("in other pid", report.nested),
                ("were let go alive", report.released),
                ("do not exit", report.stuck_count),
                ("may not be signalled", report.denied),
                ("came back meanwhile", report.replacement_count),
                ("live", report.left.unwrap_or(0)),
            ] {
                let Some(at) = told.find(&format!(" {clause}")) else { continue };
                let number = told[..at].rsplit(' ').next().unwrap_or_default();
                let is_vague = number == "some" && count == 0 || told[at..].contains("is unknown");
                assert!(number == count.to_string() || is_vague, "{clause}: {number}: {what}");
            }
            let all_or_number = says("killed all")
                || told.strip_prefix("killed ").is_none_or(|rest| {
                    rest.split(' ').next().is_some_and(|number| number == ended.to_string())
                });
            assert!(all_or_number, "{what}");
            sentences += 1;
        }
        assert_eq!(sentences, 13 << 10);
    }

    #[test]
    fn a_kill_that_fails_after_its_first_round_has_killed() {
        let mut report =
            Report::idle(KillVerdict::Failed("no descriptors".to_owned()), Duration::ZERO);
        (report.matched, report.signalled, report.exited) = (90, 50, 50);
        assert_eq!(
            killed(&report, "alice imapd", "95"),
            "killed 50 of 90 alice imapd processes, then the kill failed: no descriptors"
        );
        report.exited = 0;
        let told = killed(&report, "alice imapd", "95");
        assert!(told.starts_with("killed 0 of 90"), "they may exit in a moment: {told}");
        report.signalled = 0;
        let told = killed(&report, "alice imapd", "95");
        assert_eq!(told, "did not kill alice imapd processes: no descriptors");
    }
}
