//! Other people's servers on a booted machine, and a remediator with the policy that a recipe of
//! `rules/RECIPES.md` gives for them.
//!
//! - [`remediator`]: installs the packages and starts the daemon with a recipe's policy.
//! - [`post`], [`ended`], [`signalled`], [`outcomes`]: asks the daemon, and what it did.
//! - [`mail`], [`web`], [`login`]: the servers.

pub mod login;
pub mod mail;
pub mod web;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use serde_json::Value;

use crate::field::machine::Machine;
use crate::field::packages::Packages;

/// How long anything may take on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

/// The policy of a recipe, by the recipe's title.
pub fn policy(recipe: &str) -> Result<String, Fault> {
    Ok(block(recipe, "yaml")?.replace("dry_run: true", "dry_run: false"))
}

/// The first block of that language in a recipe.
pub fn block(recipe: &str, language: &str) -> Result<String, Fault> {
    let path = programs::project().join("rules/RECIPES.md");
    let recipes = fs::read_to_string(&path).or_fault("cannot read rules/RECIPES.md")?;
    let section = recipes.split("\n## ").find(|section| section.lines().next() == Some(recipe));
    let fence = format!("```{language}\n");
    let block = section.and_then(|section| section.split_once(&fence)?.1.split_once("```"));
    let (block, _) =
        block.ok_or_else(|| Fault::new(format!("recipe {recipe:?} has no block of {language}")))?;
    Ok(block.to_owned())
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
                "alertname": "ProcNumChkRed", "host": machine.name(), "user": user,
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
