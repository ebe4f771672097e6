//! What must hold for any bytes whatever: one function for each kind of input from outside.
//!
//! The same functions are run in two ways: by libFuzzer (`tests/fuzz`, needs `cargo fuzz`), and
//! for a while on the seeds and their mutations by `cargo test` (`tests/tests/fuzzing.rs`).
//! They return nothing and panic where something does not hold.

#![expect(clippy::panic, reason = "a fuzz target fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use procstorm_processes::process::{Command, Stat};
use procstorm_remediator::account::UserName;
use procstorm_remediator::alertmanager::Notification;
use procstorm_remediator::commands::agreement::routes::Routing;
use procstorm_remediator::commands::agreement::rules::Rules;
use procstorm_remediator::policy::Config;
use procstorm_remediator::policy::admit;
use procstorm_remediator::printable::printable;
use procstorm_toolkit::web::security::config::WebConfig;

/// A kind of input from outside, and what must hold for it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its fuzz target and of its folder of seeds.
    pub name: &'static str,
    /// Panics where something does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "stat_line", check: stat_line },
    Target { name: "command_name", check: command_name },
    Target { name: "user_name", check: user_name },
    Target { name: "payload", check: payload },
    Target { name: "config", check: config },
    Target { name: "web_config", check: web_config },
    Target { name: "rules", check: rules },
    Target { name: "routes", check: routes },
];

/// The longest line that an error may give to a log or to Alertmanager.
const ERROR_MAX: usize = 4096;

/// Any line of `/proc/PID/stat`: what is read is what stands there.
pub fn stat_line(line: &[u8]) {
    let Some(stat) = Stat::parse(line) else { return };
    let command = stat.command.as_bytes();
    let enclosed = [b"(".as_slice(), command, b")"].concat();
    let first = line.iter().position(|&b| b == b'(');
    let found = first.and_then(|at| line.get(at..)).is_some_and(|rest| rest.starts_with(&enclosed));
    holds(found, "the command is what the outermost parentheses hold", line);
    let after = first.and_then(|at| line.get(at + enclosed.len()..)).unwrap_or_default();
    holds(!after.contains(&b')'), "it ends at the LAST parenthesis", line);
}

/// Any name that a process gives itself comes out of its stat line whole.
pub fn command_name(name: &[u8]) {
    let head =
        [b"42 (".as_slice(), name, b") S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 "].concat();
    let line = [head.as_slice(), b"3 0 9876 1000 2 3\n"].concat();
    match (Command::new(name), Stat::parse(&line)) {
        (Some(command), Some(stat)) => {
            holds(stat.command == command, "the name is read as it was given", name);
            holds(stat.threads == 3 && stat.start_time == 9876, "the fields behind it too", name);
        }
        (None, None) => {}
        (command, stat) => panic!("{command:?} and {stat:?} of {}", name.escape_ascii()),
    }
    let shown = printable(&String::from_utf8_lossy(name));
    holds(!shown.contains(|c: char| c.is_control()), "what is shown is one line", name);
}

/// Any user's name: one that is taken stays where it is put.
pub fn user_name(name: &[u8]) {
    let Ok(text) = std::str::from_utf8(name) else { return };
    match UserName::new(text) {
        Ok(user) => {
            let spool = Path::new("/var/mail");
            for form in [format!("{user}"), format!(".{user}.pop"), format!("{user}.1795441906")] {
                let path = spool.join(&form);
                holds(path.parent() == Some(spool), "it is a name in the directory", name);
                holds(path.file_name().is_some_and(|f| f == form.as_str()), "of itself", name);
            }
            holds(!text.starts_with(['-', '.']), "neither an option nor hidden", name);
        }
        Err(fault) => is_one_line(&fault.to_string(), name),
    }
}

/// Any body: refused in one line, or read within bounds; and what the policy then admits is for
/// this host, this playbook and exactly its command.
pub fn payload(body: &[u8]) {
    let notification = match Notification::parse(body) {
        Ok(notification) => notification,
        Err(error) => return is_one_line(&error.to_string(), body),
    };
    holds((1..=1000).contains(&notification.alerts.len()), "bounded", body);
    for alert in &notification.alerts {
        match admit(&POLICY, alert) {
            Ok(request) => {
                holds(alert.label("host") == "moscow", "for this host", body);
                holds(alert.label("user") == request.user().as_str(), "for this user", body);
                holds(request.command().as_bytes() == b"imapd", "for this command", body);
                holds(request.name() == "imapd_storm", "by this playbook", body);
                holds(alert.label("user") != "postmaster", "not a protected user", body);
            }
            Err(refusal) => is_one_line(&refusal.to_string(), body),
        }
    }
}

/// Any configuration: refused with faults in one line each, or a policy that protects root and can
/// be explained.
pub fn config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Config::parse(text, "moscow") {
        Ok(config) => {
            holds(config.accounts.min_uid > 0, "root is never acted upon", text.as_bytes());
            holds(!config.playbooks.is_empty(), "there is something to do", text.as_bytes());
            for playbook in config.playbooks.values() {
                let is_name = |length: usize| (1..=15).contains(&length);
                let mut names = playbook.commands.iter().map(|command| command.as_bytes().len());
                let are_names = !playbook.commands.is_empty() && names.all(is_name);
                holds(are_names, "a command is named", text.as_bytes());
                holds(playbook.threshold > 0, "one process is no storm", text.as_bytes());
            }
            holds(!config.explain().is_empty(), "it can be explained", text.as_bytes());
        }
        Err(faults) => {
            holds(!faults.is_empty(), "a refusal has its reason", text.as_bytes());
        }
    }
}

/// Any web configuration: refused with its faults in one line, or one that can be served by.
pub fn web_config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Err(faults) = WebConfig::parse(text, Path::new("/nonexistent")) {
        let faults = faults.to_string();
        holds(!faults.contains(char::is_control), "faults are one line", text.as_bytes());
    }
}

/// Any rule file: refused, or read with each playbook's place in it.
pub fn rules(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(rules) = Rules::parse(Path::new("any.rules.yml"), text) else { return };
    for request in &rules.requests {
        let label = request.labels.get("playbook");
        holds(label == Some(&request.playbook), "a playbook is a label", text.as_bytes());
        let line = usize::try_from(request.place.line).unwrap_or(usize::MAX);
        let lines = text.split(['\n', '\r']).count();
        holds((1..=lines).contains(&line), "it stands in the file", text.as_bytes());
    }
}

/// Any routes: refused, or every alert reaches somebody.
pub fn routes(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(routing) = Routing::parse(Path::new("any.yml"), text) else { return };
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = [label("alertname", "ProcNumChkRed"), label("playbook", "imapd_storm")];
    for labels in [BTreeMap::new(), BTreeMap::from(labels)] {
        let reached = routing.receivers(&labels);
        holds(!reached.is_empty(), "every alert reaches somebody", text.as_bytes());
    }
}

static POLICY: LazyLock<Config> = LazyLock::new(|| {
    let text = "host: moscow\naccounts: {protected: [postmaster]}\n\
                playbooks: {imapd_storm: {alerts: [ProcNumChkRed], command: imapd, threshold: 90, \
                steps: [archive_mail_file, kill_user_proc]}}\n";
    match Config::parse(text, "moscow") {
        Ok(config) => config,
        Err(faults) => panic!("the policy of the fuzz targets: {faults:?}"),
    }
});

fn holds(condition: bool, what: &str, input: &[u8]) {
    assert!(condition, "{what}: does not hold for {}", input.escape_ascii());
}

fn is_one_line(error: &str, input: &[u8]) {
    holds(!error.contains(|c: char| c.is_control()), "an error is one line", input);
    holds(!error.is_empty() && error.len() <= ERROR_MAX, "and of a length to be read", input);
}
