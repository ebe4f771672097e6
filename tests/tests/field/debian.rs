//! The product as it is installed: a Debian booted with systemd as pid 1, the packages, Debian's
//! own Prometheus and Alertmanager, a mail server, and the commands of the README's section
//! Install, run as they are printed. Then storms, while the host's operator restarts, kills,
//! upgrades, reboots and removes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{skip, wait};
use procstorm_tests::field::machine::{Machine, Switch, hindrance};
use procstorm_tests::field::{readme, storms};

use crate::packages;

/// How long anything may take on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs all commands of a part of the README's section Install. Returns what they print.
fn follow(machine: &Machine, title: &str) -> String {
    let blocks = readme::blocks(title).unwrap();
    blocks.iter().map(|block| machine.run(block).map_err(|fault| fault.whole()).unwrap()).collect()
}

fn shown<T>(result: Result<T, Fault>) -> T {
    result.map_err(|fault| fault.whole()).unwrap()
}

/// A host that runs everything, as the README's "On one host" makes it. Its name stands for
/// 127.0.1.1, as on every Debian, and its address is a public one.
fn one_host(suite: &str, switch: &Switch) -> Machine {
    let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\twarsaw.example.org\twarsaw\n";
    let mut machine = shown(Machine::new(suite, "warsaw", switch, "192.0.2.11", hosts));
    std::fs::create_dir(machine.path("packages")).unwrap();
    shown(packages().copy_to(&machine.path("packages")));
    shown(storms::configure_mail(&machine));
    shown(machine.boot());
    shown(storms::prepare(&machine));
    let said = follow(&machine, "On one host");
    assert!(said.matches("ready").count() >= 2, "{said}");
    // What the README's last look sees after 15 s may take longer on a busy machine.
    both_targets_are_up(&machine);
    machine
}

fn both_targets_are_up(machine: &Machine) {
    let query = "promtool query instant http://127.0.0.1:9090 'up{job=~\"procstorm.*\"}'";
    let mut said = String::new();
    let up = wait::until("both targets are up", LIMIT, || {
        said = machine.run(query).map_err(|fault| fault.whole()).unwrap_or_else(|why| why);
        (said.matches("=> 1 @").count() == 2).then_some(())
    });
    assert!(up.is_ok(), "both targets are not up within {LIMIT:?}: {said}");
}

/// A storm is seen, archived, ended and mailed.
fn a_storm_is_ended(machine: &Machine, user: &str) {
    shown(storms::account(machine, user, 2));
    shown(storms::raise(machine, user));
    shown(storms::ended(machine, user));
    assert_eq!(shown(storms::told(machine, user)), 1);
}

/// How many remediations of the user's storms ended well, as the journal has it.
fn recorded(machine: &Machine, user: &str) -> usize {
    let query = format!(
        "SELECT count(*) FROM remediations WHERE user = '{user}' AND summary LIKE 'killed all%'"
    );
    let journal = "sqlite3 -readonly /var/lib/procstorm/journal.sqlite";
    shown(machine.run(&format!("{journal} \"{query}\""))).trim().parse().unwrap()
}

/// What an operator does while a large mail file is being saved; and still nothing is lost, and
/// people are told of each remediation once. Returns how many there were.
fn interrupted(machine: &mut Machine, user: &str, by: impl FnOnce(&mut Machine)) -> usize {
    shown(storms::account(machine, user, 250));
    shown(storms::raise(machine, user));
    shown(storms::begun(machine, user));
    by(machine);
    shown(storms::ended(machine, user));
    // A second mail would come with the next evaluation; one that is on record may be on its way.
    wait::nap(Duration::from_secs(6));
    let mut counts = (0, 0);
    let agreed = wait::until("a mail for each remediation", LIMIT, || {
        counts = (storms::told(machine, user).ok()?, recorded(machine, user));
        (counts.0 == counts.1).then_some(())
    });
    assert!(agreed.is_ok(), "mails of {user}, and remediations on record: {counts:?}");
    let (told, _) = counts;
    shown(machine.run(&format!("rm -f /var/mail/{user} /var/mail/arc/{user}.*")));
    told
}

/// The metric of that name and labels, as the remediator serves it.
fn metric(machine: &Machine, series: &str) -> String {
    let page = shown(machine.run("curl -fsS http://127.0.0.1:9958/metrics"));
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map(|value| value.trim().to_owned()).unwrap_or(format!("no {series} in\n{page}"))
}

fn all_layers_of_the_sandbox_hold(machine: &Machine) {
    for layer in ["capabilities", "landlock", "seccomp"] {
        let series = format!("procstorm_sandbox_enforced{{layer=\"{layer}\"}}");
        assert_eq!(metric(machine, &series), "1", "{layer}");
    }
}

/// As shipped the exporter reads /proc; with the drop-in, installed as its first lines say, it counts
/// in the kernel, under the unit's whole sandbox, and keeps no right.
fn the_exporter_counts_in_the_kernel_if_it_may(machine: &Machine) {
    let source = "curl -fsS http://127.0.0.1:9957/metrics | grep '^procstorm_scan_source'";
    let by = |source: &str| format!("procstorm_scan_source{{source=\"{source}\"}} 1\n");
    assert_eq!(shown(machine.run(source)), by("procfs"));
    let drop_in = "/usr/share/doc/procstorm-exporter/bpf.conf";
    let commands = shown(machine.run(&format!("sed -n 's/^#  *//; 3,6p' {drop_in}")));
    assert!(commands.contains("daemon-reload"), "{commands}");
    shown(machine.run(&commands));
    assert_eq!(shown(machine.run(source)), by("bpf"));
    let rights =
        "grep -h CapPrm /proc/$(systemctl show -P MainPID procstorm-exporter)/task/*/status";
    let rights = shown(machine.run(rights));
    let kept = |line: &str| u64::from_str_radix(line.trim_start_matches("CapPrm:\t"), 16).unwrap();
    // Before Linux 6.0 it keeps CAP_BPF.
    assert!(rights.lines().all(|line| kept(line) & !(1 << 39) == 0), "{rights}");
}

/// A policy with a fault makes a restart fail, once and for all to see, and changes nothing at a
/// reload.
fn a_faulty_policy_is_refused(machine: &Machine) {
    let policy = "/etc/procstorm/remediator.yml";
    shown(machine.run(&format!("cp {policy} /root/policy; echo 'playbocks: {{}}' >> {policy}")));
    let reload = machine.try_run("systemctl reload procstorm-remediator").unwrap();
    assert!(!reload.status.success(), "a reload of a faulty policy succeeded");
    shown(machine.run("curl -fsS http://127.0.0.1:9958/-/healthy"));
    let restart = machine.try_run("systemctl restart procstorm-remediator").unwrap();
    assert!(!restart.status.success(), "a restart with a faulty policy succeeded");
    let said = shown(machine.run(
        "systemctl is-failed procstorm-remediator; sleep 5; \
                                  systemctl show -P NRestarts procstorm-remediator; \
                                  journalctl -p err --no-pager -u procstorm-remediator",
    ));
    assert!(said.starts_with("failed\n0\n"), "{said}");
    assert!(said.contains("playbocks"), "{said}");
    shown(
        machine.run(&format!("cp /root/policy {policy}; systemctl restart procstorm-remediator")),
    );
}

/// Packages of a higher version, over those that are there.
fn upgrade(machine: &Machine, version: &str) {
    shown(machine.run("rm -f /packages/*.deb"));
    shown(packages().copy_as(version, &machine.path("packages")));
    let blocks = readme::blocks("Upgrade and remove").unwrap();
    shown(machine.run(blocks.first().unwrap()));
    let query = "dpkg-query -W -f '${Version} ' procstorm-exporter procstorm-remediator";
    assert_eq!(shown(machine.run(query)), format!("{version} {version} "));
}

fn all_on_one_host(suite: &str) {
    let switch = shown(Switch::new());
    let mut machine = one_host(suite, &switch);
    all_layers_of_the_sandbox_hold(&machine);
    the_exporter_counts_in_the_kernel_if_it_may(&machine);
    a_storm_is_ended(&machine, "alice");

    let once = |machine: &mut Machine, user: &str, command: &str| {
        let told = interrupted(machine, user, |it| drop(shown(it.run(command))));
        assert_eq!(told, 1, "mails of {user}");
    };
    once(&mut machine, "restarted", "systemctl restart procstorm-remediator");
    let stop = "systemctl stop procstorm-remediator; sleep 2; systemctl start procstorm-remediator";
    once(&mut machine, "stopped", stop);
    once(&mut machine, "killed", "systemctl kill --signal=KILL procstorm-remediator");
    once(&mut machine, "reloaded", "systemctl reload procstorm-remediator procstorm-exporter");
    let mark = "# a line of my own";
    shown(machine.run(&format!("echo '{mark}' >> /etc/default/procstorm-remediator")));
    assert_eq!(interrupted(&mut machine, "upgraded", |it| upgrade(it, "99.1")), 1);
    let kept = shown(machine.run("cat /etc/default/procstorm-remediator"));
    assert!(kept.contains(mark), "{kept}");
    interrupted(&mut machine, "rebooted", |it| {
        shown(it.power_off());
        shown(it.boot());
        // The storm does not survive a reboot, but its user's client comes again: it is ended,
        // though Prometheus and Alertmanager remember the storm of before.
        shown(storms::raise(it, "rebooted"));
    });
    all_layers_of_the_sandbox_hold(&machine);

    let errors =
        "journalctl -p err --no-pager --quiet -u procstorm-remediator -u procstorm-exporter";
    assert_eq!(shown(machine.run(errors)), "", "errors in the journal");
    a_faulty_policy_is_refused(&machine);

    // All the while nothing was wrong with the monitoring itself.
    let mails = shown(machine.run("grep '^Subject:' /var/mail/oncall"));
    for line in mails.lines() {
        assert!(!line.contains("Procstorm"), "{mails}");
    }
    removed(&machine);
}

/// Removal and purge, as the README prints them.
fn removed(machine: &Machine) {
    shown(machine.run("apt-get remove procstorm-remediator"));
    let state = machine.run("systemctl is-active procstorm-remediator || true");
    assert_eq!(shown(state).trim(), "inactive");
    let blocks = readme::blocks("Upgrade and remove").unwrap();
    let said = shown(machine.run(blocks.last().unwrap()));
    assert!(said.contains("purge keeps /etc/procstorm/remediator.yml"), "{said}");
    let left = "find / -xdev -name '*procstorm*' -not -path '/packages*' -not -path '/proc/*' \
                -not -path '/var/lib/prometheus/*' | sort";
    let left = shown(machine.run(left));
    let expected = ["/etc/procstorm", "/etc/prometheus/procstorm.token", "/var/lib/procstorm"];
    for path in left.lines() {
        // What the operator has made stays.
        let known = expected.contains(&path)
            || path.starts_with("/etc/systemd/system/procstorm-exporter.service.d")
            || path.starts_with("/etc/systemd/system/procstorm-remediator.service.d")
            || path.starts_with("/var/log/");
        assert!(known, "left behind: {path}\n{left}");
    }
    shown(machine.run("test -s /var/lib/procstorm/journal.sqlite; getent passwd procstorm"));
}

/// The README's "On many hosts": one host is watched, another runs Prometheus and Alertmanager.
fn two_hosts(suite: &str) {
    let switch = shown(Switch::new());
    let hosts = "127.0.0.1\tlocalhost\n192.0.2.10\tmonitoring\n192.0.2.11\tmoscow\n";
    let machine = |name: &str, address: &str| {
        let mut machine = shown(Machine::new(suite, name, &switch, address, hosts));
        std::fs::create_dir(machine.path("packages")).unwrap();
        shown(packages().copy_to(&machine.path("packages")));
        shown(storms::configure_mail(&machine));
        shown(machine.boot());
        shown(storms::prepare(&machine));
        machine
    };
    let watched = machine("moscow", "192.0.2.11");
    let monitoring = machine("monitoring", "192.0.2.10");
    // The watched host runs neither.
    shown(watched.run("systemctl disable --now prometheus prometheus-alertmanager"));
    for block in readme::blocks("On many hosts").unwrap() {
        if block.starts_with("# on moscow") {
            shown(watched.run(&block));
        } else {
            let token = std::fs::read_to_string(watched.path("etc/procstorm/token")).unwrap();
            shown(monitoring.write("etc/prometheus/procstorm.token", &token));
            shown(monitoring.run(&block));
        }
    }
    both_targets_are_up(&monitoring);
    shown(storms::account(&watched, "alice", 2));
    shown(storms::raise(&watched, "alice"));
    shown(storms::ended_elsewhere(&watched, "alice", &monitoring));
    // A third host gets no answer: the unit denies its address.
    let stranger = machine("stranger", "192.0.2.12");
    let ask = "curl -sS --max-time 5 http://192.0.2.11:9958/metrics";
    assert!(!stranger.try_run(ask).unwrap().status.success());
    shown(monitoring.run(&ask.replace("-sS --max-time 5", "-fsS --max-time 60")));
}

#[test]
fn debian_12_all_on_one_host_as_the_readme_says() {
    if let Some(why) = hindrance("bookworm") {
        skip!("{why}");
    }
    all_on_one_host("bookworm");
}

#[test]
fn debian_12_on_many_hosts_as_the_readme_says() {
    if let Some(why) = hindrance("bookworm") {
        skip!("{why}");
    }
    two_hosts("bookworm");
}

#[test]
fn debian_13_all_on_one_host_as_the_readme_says() {
    if let Some(why) = hindrance("trixie") {
        skip!("{why}");
    }
    all_on_one_host("trixie");
}
