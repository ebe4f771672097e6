//! The Ansible roles of deploy/ansible, with its example inventory, as Debian's own Ansible runs them
//! over ssh: two hosts with a remediator, one that is only watched, and the host of Prometheus and
//! Alertmanager, from which the playbook is run.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::{programs, skip, wait};
use procstorm_tests::field::machine::{Machine, Switch, hindrance};
use procstorm_tests::field::storms;

use crate::packages;

/// How long anything may take on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

/// The Debian of all machines here.
const SUITE: &str = "ansible";

/// Where the directory deploy/ansible is on the machine that runs the playbook.
const PLACE: &str = "/root/ansible";

/// The hosts that are watched; the first two have a remediator.
const WATCHED: [(&str, &str); 3] =
    [("moscow", "192.0.2.11"), ("kiev", "192.0.2.12"), ("nantes", "192.0.2.13")];

fn shown<T>(result: Result<T, Fault>) -> T {
    result.map_err(|fault| fault.whole()).unwrap()
}

/// All machines.
struct Site {
    watched: Vec<Machine>,
    monitoring: Machine,
    /// Connects them as long as it is there.
    _switch: Switch,
}

/// What a run of the playbook printed, and whether it succeeded.
struct Run {
    succeeded: bool,
    said: String,
}

impl Run {
    /// The numbers of PLAY RECAP: of each host, by name (`ok`, `changed`, `failed`).
    fn recap(&self) -> BTreeMap<&str, BTreeMap<&str, usize>> {
        let (_, recap) = self.said.split_once("PLAY RECAP").unwrap_or_else(|| panic!("{self}"));
        let hosts = recap.lines().filter_map(|line| line.split_once(" : "));
        hosts.map(|(host, text)| (host.trim(), Self::numbers(text))).collect()
    }

    fn numbers(text: &str) -> BTreeMap<&str, usize> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, number)| (name, number.parse().unwrap())).collect()
    }

    fn of(&self, host: &str, number: &str) -> usize {
        let recap = self.recap();
        let found = recap.get(host).and_then(|numbers| numbers.get(number));
        *found.unwrap_or_else(|| panic!("no {number} of {host}: {self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

impl Site {
    fn boot() -> Self {
        let switch = shown(Switch::new());
        let mut hosts = "127.0.0.1\tlocalhost\n192.0.2.10\tmonitoring\n".to_owned();
        for (name, address) in WATCHED {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        let machine = |name: &str, address: &str| {
            let mut machine = shown(Machine::new(SUITE, name, &switch, address, &hosts));
            shown(storms::configure_mail(&machine));
            shown(machine.boot());
            shown(storms::prepare(&machine));
            machine
        };
        let monitoring = machine("monitoring", "192.0.2.10");
        let watched: Vec<Machine> =
            WATCHED.iter().map(|(name, address)| machine(name, address)).collect();
        // Both of the monitoring host are started by the playbook; elsewhere they are not wanted.
        let stop = "systemctl disable --now prometheus prometheus-alertmanager";
        for machine in &watched {
            shown(machine.run(stop));
        }
        let site = Self { watched, monitoring, _switch: switch };
        site.let_ansible_in();
        site.lay_out();
        site
    }

    /// The one key of the machine that runs the playbook opens all others.
    fn let_ansible_in(&self) {
        shown(self.monitoring.run(
            "install -d -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519",
        ));
        let key = shown(self.monitoring.run("cat /root/.ssh/id_ed25519.pub"));
        let everywhere = self.watched.iter().chain([&self.monitoring]);
        for machine in everywhere {
            shown(machine.write("root/.ssh/authorized_keys", &key));
            shown(
                machine
                    .run("chown -R root: /root/.ssh; chmod -R go= /root/.ssh; systemctl start ssh"),
            );
        }
        shown(self.monitoring.run(
            "ssh-keyscan -t ed25519 moscow kiev nantes 192.0.2.10 >>/root/.ssh/known_hosts 2>/dev/null
             test $(wc -l </root/.ssh/known_hosts) = 4",
        ));
    }

    /// Copies the roles and the packages, and makes certificates, as the README says.
    fn lay_out(&self) {
        let place = self.monitoring.path(PLACE);
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(programs::project().join("deploy/ansible"))
            .arg(&place)
            .status();
        assert!(copied.unwrap().success());
        std::fs::create_dir(place.join("packages")).unwrap();
        shown(packages().copy_to(&place.join("packages")));
        // As one Prometheus of a pair, which is more than one alone.
        shown(self.monitoring.run(&format!(
            "cd {PLACE}; echo 'procstorm_monitoring_replica: b' \
             >>inventory/group_vars/procstorm_monitoring.yml"
        )));
        shown(
            self.monitoring
                .run(&format!("cd {PLACE}; apt-get install ./packages/procstorm-remediator_*.deb")),
        );
        for changed in [1, 0] {
            let run = self.run("certificates.yml", "");
            assert!(run.succeeded, "{run}");
            assert_eq!(run.of("localhost", "changed") > 0, changed > 0, "{run}");
        }
    }

    /// Runs the playbook for all machines, with these arguments.
    fn play(&self, arguments: &str) -> Run {
        let version = env!("CARGO_PKG_VERSION");
        self.run("site.yml", &format!("-e procstorm_version={version} {arguments}"))
    }

    fn run(&self, playbook: &str, arguments: &str) -> Run {
        // The machines have no sudo, and need none: Ansible comes as root.
        let command = format!(
            "cd {PLACE}; ANSIBLE_NOCOLOR=1 ansible-playbook {playbook} -e ansible_become=false \
             {arguments}"
        );
        let output = self.monitoring.try_run(&command).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        Run { succeeded: output.status.success(), said }
    }

    fn host(&self, name: &str) -> &Machine {
        self.watched.iter().find(|machine| machine.name() == name).unwrap()
    }

    /// The pid of a host's remediator, in the machine.
    fn pid(&self, host: &str) -> String {
        let pid = shown(self.host(host).run("systemctl show -P MainPID procstorm-remediator"));
        assert_ne!(pid.trim(), "0", "no remediator runs on {host}");
        pid
    }

    /// The version of a host's package.
    fn version(&self, host: &str) -> String {
        shown(self.host(host).run("dpkg-query -W -f '${Version}' procstorm-remediator"))
    }

    /// All exporters and remediators are scraped, and Alertmanager.
    fn all_are_scraped(&self) {
        let query =
            "promtool query instant http://127.0.0.1:9090 'up{job=~\"procstorm.*|alertmanager\"}'";
        let mut said = String::new();
        let up = wait::until("six targets are up", LIMIT, || {
            said =
                self.monitoring.run(query).map_err(|fault| fault.whole()).unwrap_or_else(|why| why);
            (said.matches("=> 1 @").count() == 6).then_some(())
        });
        assert!(up.is_ok(), "not all targets are up within {LIMIT:?}: {said}");
    }

    /// Prometheus evaluates the rules by the path of the second of a pair, and sends no label of its own.
    fn is_the_second_of_a_pair(&self) {
        let ask = |path: &str| {
            shown(self.monitoring.run(&format!("curl -sS http://127.0.0.1:9090/api/v1/{path}")))
        };
        assert!(ask("rules").contains("/etc/procstorm/fleet-b/rules/procstorm.rules.yml"));
        let configuration = ask("status/config");
        assert!(configuration.contains("replica: b"), "{configuration}");
        assert!(configuration.contains("action: labeldrop"), "{configuration}");
    }
}

const POLICY: &str = "/etc/procstorm/remediator.yml";

#[test]
#[ignore = "boots four machines: make field"]
fn the_roles_install_check_arm_and_upgrade_a_fleet() {
    if let Some(why) = hindrance(SUITE) {
        skip!("{why}");
    }
    let site = Site::boot();
    println!("ansible: lint");
    lint(&site);

    println!("ansible: check mode on empty hosts");
    let run = site.play("--check");
    assert!(run.succeeded, "{run}");
    let installed = site.host("moscow").run("dpkg-query -W procstorm-exporter 2>/dev/null");
    assert!(installed.is_err(), "check mode installed the exporter");

    println!("ansible: the first run");
    let run = site.play("");
    assert!(run.succeeded, "{run}");
    site.all_are_scraped();
    site.is_the_second_of_a_pair();
    println!("ansible: the second run");
    let run = site.play("");
    assert!(run.succeeded, "{run}");
    for host in ["moscow", "kiev", "nantes", "monitoring"] {
        assert_eq!(run.of(host, "changed"), 0, "{host}: {run}");
    }
    println!("ansible: check mode with a change");
    a_check_changes_nothing(&site);
    println!("ansible: a broken policy");
    a_broken_policy_is_refused(&site);
    println!("ansible: armed, and a storm");
    armed_hosts_end_a_storm(&site);
    println!("ansible: an upgrade with a broken canary");
    a_broken_canary_ends_an_upgrade(&site);
    println!("ansible: an upgrade");
    shown(packages().copy_as("99.2", &site.monitoring.path(PLACE).join("packages")));
    let run = site.play("-e procstorm_version=99.2");
    assert!(run.succeeded, "{run}");
    for host in ["moscow", "kiev"] {
        assert_eq!(site.version(host), "99.2");
    }
    site.all_are_scraped();
}

/// With the rules of ansible-lint's profile for production, and with those of yamllint.
fn lint(site: &Site) {
    shown(site.monitoring.run(&format!(
        "cd {PLACE}; yamllint --strict . && ansible-lint --offline --nocolor -q 2>&1"
    )));
}

fn a_check_changes_nothing(site: &Site) {
    let policy = shown(site.host("moscow").run(&format!("sha256sum {POLICY}")));
    let pid = site.pid("moscow");
    let run = site.play("--check --diff -e procstorm_remediator_dry_run=false");
    assert!(run.succeeded, "{run}");
    assert!(run.of("moscow", "changed") > 0, "{run}");
    assert_eq!(run.of("nantes", "changed"), 0, "{run}");
    assert!(run.said.contains("+dry_run: false"), "{run}");
    // What `procstorm-remediator --check` says of the new policy.
    assert!(run.said.contains("Never acted on: root"), "{run}");
    assert_eq!(shown(site.host("moscow").run(&format!("sha256sum {POLICY}"))), policy);
    assert_eq!(site.pid("moscow"), pid);
}

fn a_broken_policy_is_refused(site: &Site) {
    let policy = shown(site.host("moscow").run(&format!("sha256sum {POLICY}")));
    let broken = "playbocks: {}\n";
    shown(site.monitoring.write(&format!("{PLACE}/policies/broken.yml"), broken));
    for mode in ["--check", ""] {
        let run = site.play(&format!(
            "{mode} -e procstorm_remediator_policy_file={PLACE}/policies/broken.yml"
        ));
        assert!(!run.succeeded, "{run}");
        assert!(run.said.contains("playbocks"), "{run}");
        assert!(run.said.contains("keeps the policy that it has"), "{run}");
        assert_eq!(run.of("moscow", "failed"), 1, "{run}");
        // The canary is the only host that was tried.
        assert!(!run.recap().contains_key("kiev"), "{run}");
        assert_eq!(shown(site.host("moscow").run(&format!("sha256sum {POLICY}"))), policy);
        shown(site.host("moscow").run("systemctl is-active procstorm-remediator"));
    }
}

fn armed_hosts_end_a_storm(site: &Site) {
    let (moscow, pid) = (site.host("moscow"), site.pid("moscow"));
    let variables = "inventory/group_vars/mail_servers.yml";
    shown(site.monitoring.run(&format!(
        "cd {PLACE}; sed -i 's/^procstorm_remediator_dry_run: true/procstorm_remediator_dry_run: false/' \
         {variables}"
    )));
    let run = site.play("");
    assert!(run.succeeded, "{run}");
    assert_eq!(site.pid("moscow"), pid, "the change needs no restart: {run}");
    shown(storms::account(moscow, "alice", 2));
    shown(storms::raise(moscow, "alice"));
    shown(storms::ended_elsewhere(moscow, "alice", &site.monitoring));
}

fn a_broken_canary_ends_an_upgrade(site: &Site) {
    let pid = site.pid("kiev");
    shown(packages().copy_broken("99.1", &site.monitoring.path(PLACE).join("packages")));
    let run = site.play("-e procstorm_version=99.1 -e procstorm_remediator_verify_retries=3");
    assert!(!run.succeeded, "{run}");
    assert_eq!(run.of("moscow", "failed"), 1, "{run}");
    assert!(!run.recap().contains_key("kiev"), "{run}");
    assert_eq!(site.version("moscow"), "99.1");
    assert_eq!(site.version("kiev"), env!("CARGO_PKG_VERSION"));
    assert_eq!(site.pid("kiev"), pid);
}
