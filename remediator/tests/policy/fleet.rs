//! A fleet is made of one list of hosts, and each way in which it can be wrong is named with host,
//! file and line.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use procstorm_remediator::args::{Fleet, FleetForm};
use procstorm_remediator::commands::agreement::routes::Routing;
use procstorm_remediator::commands::fleet::check::{Question, report};
use procstorm_remediator::commands::fleet::generate::write;
use procstorm_testkit::forged;
use tempfile::TempDir;

const HOSTS: &str = "- labels: {role: mail}
  targets:
    - moscow:9957
    - kiev:9957
    - nantes:9957
- labels: {role: nis}
  targets: ['brest:9957']
";

const POLICY: &str = "token_file: /etc/procstorm/token
alertmanager: [http://am1:9093, http://am2:9093]
playbooks:
  imapd_storm:
    alerts: [ProcNumChkRed]
    command: imapd
    threshold: 90
    steps: [archive_mail_file, kill_user_proc]
";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A directory with a list of hosts, a policy of role mail, and the shipped rules and routes.
struct World {
    directory: TempDir,
    order: Fleet,
}

impl World {
    fn of(hosts: &str, form: FleetForm) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("policies")).expect("a directory");
        fs::write(at("targets.yml"), hosts).expect("written");
        let policy = match form {
            FleetForm::PerHost => POLICY.to_owned(),
            FleetForm::Templated => POLICY.replace("token_file: /etc/procstorm/token\n", ""),
        };
        fs::write(at("policies/mail.yml"), policy).expect("written");
        let order = Fleet {
            targets: at("targets.yml"),
            policies: at("policies"),
            output: at("out"),
            alertmanager: form,
            base: repository().join("alertmanager/alertmanager.yml"),
            credentials: PathBuf::from("/etc/prometheus/procstorm"),
        };
        Self { directory, order }
    }

    fn made(hosts: &str, form: FleetForm) -> Self {
        let world = Self::of(hosts, form);
        write(&world.order).expect("made");
        world
    }

    fn shipped() -> Self {
        Self::made(HOSTS, FleetForm::PerHost)
    }

    /// Changes a file in one place, or everywhere.
    fn change(self, name: &str, from: &str, to: &str) -> Self {
        let path = self.directory.path().join(name);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{from} is not in {name}:\n{text}");
        fs::write(path, text.replace(from, to)).expect("written");
        self
    }

    fn check(&self) -> Result<String, String> {
        let rules = repository().join("rules");
        let answer = report(&Question {
            fleet: &self.order.targets,
            policies: &self.order.policies,
            rules: &rules,
            alertmanager: &self.order.output.join("alertmanager.yml"),
            listen: &[],
        });
        let short = |text: String| {
            text.replace(&format!("{}/", self.directory.path().display()), "")
                .replace(&format!("{}/", repository().display()), "")
        };
        answer.map(short).map_err(|error| short(error.to_string()))
    }

    fn fault(&self) -> String {
        self.check().expect_err("faulty")
    }

    /// What `fleet` refuses.
    fn refusal(&self) -> String {
        let text = write(&self.order).expect_err("refused").to_string();
        assert!(!self.order.output.exists(), "something was written");
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }

    fn routing(&self) -> Routing {
        Routing::read(&self.order.output.join("alertmanager.yml")).expect("routes")
    }
}

/// The line of a text in which something stands first.
fn line(world: &World, what: &str) -> usize {
    let text = fs::read_to_string(world.order.output.join("alertmanager.yml")).expect("read");
    text.lines().position(|line| line.contains(what)).expect("there") + 1
}

#[test]
fn what_was_made_agrees_in_both_forms() {
    for form in [FleetForm::PerHost, FleetForm::Templated] {
        let world = World::made(HOSTS, form);
        let said = world.check().expect("agrees");
        assert!(said.starts_with("targets.yml: 4 hosts, of which 3 have a policy"), "{said}");
        assert!(said.contains("all agree"), "{said}");
        // Made again from what was made, it is the same.
        let path = world.order.output.join("alertmanager.yml");
        let first = fs::read_to_string(&path).expect("read");
        write(&Fleet { base: path.clone(), ..world.order.clone() }).expect("made again");
        assert_eq!(fs::read_to_string(&path).expect("read"), first);
    }
}

#[test]
fn swapped_and_shared_urls_and_tokens_are_named() {
    let world = World::shipped()
        .change("out/alertmanager.yml", "https://moscow:9958", "https://x")
        .change("out/alertmanager.yml", "https://kiev:9958", "https://moscow:9958")
        .change("out/alertmanager.yml", "https://x", "https://kiev:9958");
    let fault = world.fault();
    let (one, other) = (line(&world, "https://kiev:9958"), line(&world, "https://moscow:9958"));
    for (name, at, line, wrong) in [("moscow", 3, one, "kiev"), ("kiev", 4, other, "moscow")] {
        let said = format!(
            "out/alertmanager.yml:{line}: host {name:?} (targets.yml:{at}): {wrong}:9958/webhook is \
             host {wrong:?}, and this is {name:?}"
        );
        assert!(fault.contains(&said), "{said} is not in\n{fault}");
    }

    let world = World::shipped()
        .change("out/alertmanager.yml", "moscow.token", "x.token")
        .change("out/alertmanager.yml", "kiev.token", "moscow.token")
        .change("out/alertmanager.yml", "x.token", "kiev.token");
    let at = line(&world, "https://moscow:9958");
    let said = format!(
        "out/alertmanager.yml:{at}: the receiver of host \"moscow\" has \
         /etc/prometheus/procstorm/kiev.token, the token of host \"kiev\""
    );
    assert!(world.fault().contains(&said), "{}", world.fault());

    let world = World::shipped()
        .change("out/alertmanager.yml", "moscow.token", "all.token")
        .change("out/alertmanager.yml", "kiev.token", "all.token");
    assert!(world.fault().contains("all.token of host \"moscow\""), "{}", world.fault());
}

#[test]
fn tokens_that_are_the_same_in_two_files_are_named() {
    let world = World::of(HOSTS, FleetForm::PerHost);
    let tokens = world.directory.path().join("tokens");
    fs::create_dir(&tokens).expect("a directory");
    for (host, token) in [("moscow", "one-token\n"), ("kiev", "another\n"), ("nantes", "one-token")]
    {
        fs::write(tokens.join(format!("{host}.token")), token).expect("written");
    }
    let order = Fleet { credentials: tokens, ..world.order.clone() };
    write(&order).expect("made");
    let fault = world.fault();
    assert!(
        fault.contains("tokens/nantes.token of host \"nantes\" holds the same token as")
            && !fault.contains("kiev"),
        "{fault}"
    );
    assert!(!fault.contains("one-token"), "{fault}");
}

#[test]
fn a_host_that_is_missing_or_doubled_is_named() {
    let world = World::shipped().change(
        "targets.yml",
        "brest:9957",
        "riga:9957']\n- labels: {role: mail}\n  targets: ['odessa:9957",
    );
    let fault = world.fault();
    assert!(
        fault.contains("host \"odessa\" (targets.yml:9)") && fault.contains("reaches no webhook"),
        "{fault}"
    );

    let world = World::shipped().change("targets.yml", "nantes", "rennes");
    let at = line(&world, "{matchers: ['host=\"nantes\"']");
    let said = format!(
        "out/alertmanager.yml:{at}: a route is for host \"nantes\", which is not in targets.yml"
    );
    assert!(world.fault().contains(&said), "{}", world.fault());

    let doubled = HOSTS.replace("nantes:9957", "Kiev");
    let said = "targets.yml:5: host \"Kiev\" is already in line 4, as \"kiev\"";
    assert_eq!(World::of(&doubled, FleetForm::PerHost).refusal(), said);
    let world = World::shipped().change("targets.yml", "nantes:9957", "Kiev");
    assert!(world.fault().contains(said), "{}", world.fault());
}

#[test]
fn a_role_without_a_policy_and_a_playbook_without_a_row_or_route_are_named() {
    let world = World::shipped();
    fs::remove_file(world.order.policies.join("mail.yml")).expect("removed");
    let fault = world.fault();
    assert!(
        fault.contains("targets.yml:3: host \"moscow\" of role \"mail\" has no policy"),
        "{fault}"
    );

    let world = World::shipped().change("policies/mail.yml", "imapd_storm", "ftpd_storm");
    let fault = world.fault();
    assert!(
        fault.contains("and 2 more") && fault.contains("playbook \"imapd_storm\" is in no policy"),
        "{fault}"
    );

    let world = World::shipped().change("policies/mail.yml", "  imapd_storm:", "  ftpd_storm: {alerts: [ProcNumChkRed], command: ftpd, threshold: 90, steps: [kill_user_proc]}\n  imapd_storm:");
    let fault = world.fault();
    assert!(fault.contains("policies/mail.yml:4: host \"moscow\" (targets.yml:3) and 2 more: no rule asks for playbook \"ftpd_storm\""), "{fault}");

    let world = World::shipped().change(
        "out/alertmanager.yml",
        "playbook!=\"\"'",
        "playbook=\"ftpd_storm\"'",
    );
    assert!(world.fault().contains("reaches no webhook"), "{}", world.fault());
}

#[test]
fn a_policy_that_names_another_host_is_named() {
    let world =
        World::shipped().change("policies/mail.yml", "token_file", "host: moscow\ntoken_file");
    let fault = world.fault();
    assert!(
        fault.contains(
            "policies/mail.yml:1: host \"kiev\" (targets.yml:4): host: \"moscow\" would refuse"
        ),
        "{fault}"
    );
    assert!(!fault.contains("host \"moscow\" (targets.yml:3)"), "{fault}");
}

#[test]
fn a_templated_url_with_a_token_or_without_a_bound_is_refused() {
    let world = World::made(HOSTS, FleetForm::Templated);
    let world = world.change(
        "out/alertmanager.yml",
        "          follow_redirects: false\n  # end of the remediators",
        "          authorization: {type: Bearer, credentials_file: /etc/prometheus/all.token}\n  # end of the remediators",
    );
    let fault = world.fault();
    assert!(fault.contains("credentials would go to whatever host the label names"), "{fault}");

    for matcher in [".*", "[a-z0-9].*", ".+[a-z0-9][a-z0-9-]*"] {
        let world = World::made(HOSTS, FleetForm::Templated);
        let world = world.change("out/alertmanager.yml", "[a-z0-9][a-z0-9-]*", matcher);
        assert!(world.fault().contains("which leads elsewhere"), "{matcher}: {}", world.fault());
    }

    // A token in the policy, or a name that the matcher would not take, is refused before.
    let world = World::of(HOSTS, FleetForm::Templated);
    fs::write(world.order.policies.join("mail.yml"), POLICY).expect("written");
    assert!(world.refusal().contains("policies/mail.yml:1: token_file: "), "{}", world.refusal());
    let world = World::of(&HOSTS.replace("kiev:", "192.0.2.7:"), FleetForm::Templated);
    assert!(
        world.refusal().starts_with("targets.yml:4: host \"192.0.2.7\" "),
        "{}",
        world.refusal()
    );
}

#[test]
fn a_forged_host_reaches_nobody() {
    let domains =
        HOSTS.replace("moscow:", "moscow.example.net:").replace("kiev:", "kiev.example.net:");
    for hosts in [HOSTS, &domains] {
        for form in [FleetForm::PerHost, FleetForm::Templated] {
            let world = World::made(hosts, form);
            let routing = world.routing();
            let receivers = |host: &str| {
                let labels = [
                    ("alertname", "ProcNumChkRed"),
                    ("playbook", "imapd_storm"),
                    ("host", host),
                    ("user", "alice"),
                    ("command", "imapd"),
                ];
                let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
                routing.receivers(&BTreeMap::from(owned))
            };
            for host in forged::HOSTS {
                let reached = receivers(host);
                let remediators: Vec<_> = reached
                    .iter()
                    .filter(|name| name.starts_with("remediator") && *name != "remediator-none")
                    .collect();
                assert!(remediators.is_empty(), "{form:?} {host:?}: {reached:?}");
                assert!(reached.contains(&"mail".to_owned()), "{form:?} {host:?}: {reached:?}");
            }
            assert!(receivers("nantes").iter().any(|name| {
                name == if form == FleetForm::PerHost { "remediator-nantes" } else { "remediator" }
            }));
        }
    }
}

#[test]
fn the_lists_for_prometheus_have_each_host_with_its_labels() {
    let hosts = "- targets: ['[2001:db8::1]:9957']\n  labels: {role: mail, __scheme__: http}\n\
                 - targets: ['10.0.0.7:19957']\n  labels: {role: mail, host: kiev, rack: '7'}\n";
    let world = World::made(hosts, FleetForm::PerHost);
    let read = |name: &str| fs::read_to_string(world.order.output.join(name)).expect("read");
    assert_eq!(
        read("procstorm.json"),
        "[\n  {\"labels\":{\"__scheme__\":\"http\",\"host\":\"2001:db8::1\",\"role\":\"mail\"},\
         \"targets\":[\"[2001:db8::1]:9957\"]},\n  {\"labels\":{\"host\":\"kiev\",\"rack\":\"7\",\
         \"role\":\"mail\"},\"targets\":[\"10.0.0.7:19957\"]}\n]\n"
    );
    assert_eq!(
        read("procstorm-remediator.json"),
        "[\n  {\"labels\":{\"host\":\"2001:db8::1\",\"role\":\"mail\"},\
         \"targets\":[\"[2001:db8::1]:9958\"]},\n  {\"labels\":{\"host\":\"kiev\",\"rack\":\"7\",\
         \"role\":\"mail\"},\"targets\":[\"10.0.0.7:9958\"]}\n]\n"
    );
    assert!(read("alertmanager.yml").contains("url: 'https://[2001:db8::1]:9958/webhook'"));
    assert!(read("routes.tsv").contains(
        "host=kiev role=mail user=alice command=imapd \
                                         playbook=imapd_storm\tremediator-kiev,mail\n"
    ));
}

#[test]
fn a_base_without_the_comments_is_refused_with_what_to_write() {
    let world = World::of(HOSTS, FleetForm::PerHost);
    let base = world.directory.path().join("base.yml");
    fs::write(&base, "route: {receiver: mail}\nreceivers: [{name: mail}]\n").expect("written");
    let order = Fleet { base, ..world.order.clone() };
    let refused = write(&order).expect_err("refused").to_string();
    assert!(refused.contains("needs a line \"# begin of the remediators' routes\""), "{refused}");
    assert!(!world.order.output.exists());
}

#[test]
fn a_thousand_hosts_are_made_and_checked() {
    let mut hosts = String::from("- labels: {role: mail}\n  targets:\n");
    for number in 0..1000 {
        hosts.push_str(&format!("    - mail{number:04}:9957\n"));
    }
    let clock = std::time::Instant::now();
    let world = World::made(&hosts, FleetForm::PerHost);
    let made = clock.elapsed();
    assert!(world.check().expect("agrees").contains("1000 hosts, of which 1000 have a policy"));
    println!("1,000 hosts: made in {made:.2?}, checked in {:.2?}", clock.elapsed() - made);
    let world = world.change("out/alertmanager.yml", "https://mail0500:", "https://mail0501:");
    let fault = world.fault();
    assert!(fault.contains("host \"mail0500\" (targets.yml:503)"), "{fault}");
    assert!(!fault.contains("\"mail0499\""), "{fault}");
}

/// The shipped default names an Alertmanager on the host itself. In a fleet it runs on one of them at
/// most.
#[test]
fn outcomes_that_go_to_the_host_itself_are_named() {
    for (address, shown) in [
        ("[http://am1:9093, http://am2:9093]", None),
        ("http://127.0.0.1:9093", Some("127.0.0.1:9093")),
        ("http://localhost:9093", Some("localhost:9093")),
        ("'http://[::1]:9093'", Some("[::1]:9093")),
        ("http://localhost.example.org:9093", None),
    ] {
        let world = World::shipped().change(
            "policies/mail.yml",
            "[http://am1:9093, http://am2:9093]",
            address,
        );
        match shown {
            None => {
                assert!(!world.check().expect("agrees").contains("outcomes go to"), "{address}")
            }
            Some(shown) => assert_eq!(
                world.fault(),
                format!(
                    "policies/mail.yml:2: alertmanager: outcomes of moscow, kiev, nantes go to {shown} on \
                     each host itself, and nobody is mailed where no Alertmanager runs: write the \
                     address of Alertmanager as these hosts reach it"
                )
            ),
        }
    }
    // One host may be Alertmanager's: this cannot be seen here.
    let of_kiev = |alertmanager: &str| {
        let world = World::shipped();
        let policy = POLICY.replace("[http://am1:9093, http://am2:9093]", alertmanager);
        fs::write(world.order.policies.join("kiev.yml"), policy).expect("written");
        world
    };
    for alertmanager in ["http://127.0.0.1:9093", "[http://am1:9093, http://127.0.0.1:9093]"] {
        let said = of_kiev(alertmanager).check().expect("agrees");
        let doubt = "Not compared: whether an Alertmanager runs on kiev, where outcomes go to \
                     127.0.0.1:9093 (policies/kiev.yml:2).\n";
        assert!(said.contains(doubt), "{said}");
    }
    // Two cannot both be the one.
    let world = of_kiev("http://127.0.0.1:9093");
    let policy = fs::read(world.order.policies.join("kiev.yml")).expect("read");
    fs::write(world.order.policies.join("moscow.yml"), policy).expect("written");
    let fault = world.fault();
    for host in ["kiev", "moscow"] {
        let said = format!(
            "policies/{host}.yml:2: alertmanager: outcomes of {host} go to 127.0.0.1:9093 on {host} \
             itself, and"
        );
        assert!(fault.contains(&said), "{fault}");
    }
    // Without an address, nothing is posted.
    let world = World::shipped().change(
        "policies/mail.yml",
        "alertmanager: [http://am1:9093, http://am2:9093]\n",
        "",
    );
    let said = world.check().expect("agrees");
    assert!(
        said.contains(
            "and not mailed, since the policy has no alertmanager: moscow, kiev, nantes.\n"
        ),
        "{said}"
    );
}

#[test]
fn who_acts_and_who_only_reports_is_told() {
    let said = World::shipped().check().expect("agrees");
    assert!(said.contains("\n3 hosts: LIVE: moscow, kiev, nantes.\nNot compared"), "{said}");

    let dry = "dry_run: true\ntoken_file";
    let world = World::shipped().change("policies/mail.yml", "token_file", dry);
    let said = world.check().expect("agrees");
    assert!(said.contains("\n3 hosts: dry run.\n") && !said.contains("LIVE"), "{said}");
    fs::write(world.order.policies.join("kiev.yml"), POLICY).expect("written");
    let said = world.check().expect("agrees");
    assert!(said.contains("\n1 host: LIVE: kiev.\n2 hosts: dry run.\n"), "{said}");
    assert!(said.contains("with client_auth_type: RequireAndVerifyClientCert in its"), "{said}");
}

#[test]
fn the_times_of_the_routes_stay_as_the_base_has_them() {
    for form in [FleetForm::PerHost, FleetForm::Templated] {
        let world = World::of(HOSTS, form);
        let shipped = fs::read_to_string(&world.order.base).expect("read");
        let base = world.directory.path().join("base.yml");
        let changed = shipped.replacen("group_interval: 4s", "group_interval: 800ms", 1).replacen(
            "repeat_interval: 1m\n",
            "repeat_interval: 50s\n",
            1,
        );
        fs::write(&base, &changed).expect("written");
        let order = Fleet { base: base.clone(), ..world.order.clone() };
        write(&order).expect("made");
        let made = fs::read_to_string(order.output.join("alertmanager.yml")).expect("read");
        let times =
            "      group_wait: 0s\n      group_interval: 800ms\n      repeat_interval: 50s\n";
        assert_eq!(made.matches(times).count(), 1, "{made}");

        // Two routes of which each has another cannot both be kept.
        let end = "    # end of the remediators' routes";
        let other = format!(
            "    - {{matchers: [host=\"kiev\"], receiver: remediator, group_interval: 3s}}\n{end}"
        );
        fs::write(&base, changed.replacen(end, &other, 1)).expect("written");
        let refused = write(&order).expect_err("refused").to_string();
        assert!(
            refused.contains("group_interval: \"3s\", and line ")
                && refused.contains(" has \"800ms\": all routes"),
            "{refused}"
        );
        let line = changed.lines().position(|line| line == end).expect("there") + 1;
        assert!(refused.contains(&format!("base.yml:{line}: ")), "{refused}");
        fs::write(&base, changed.replacen("800ms", "soon", 1)).expect("written");
        let refused = write(&order).expect_err("refused").to_string();
        assert!(refused.contains("group_interval: \"soon\" is not a duration"), "{refused}");
    }
}

#[test]
fn the_table_keeps_the_rows_that_reach_no_remediator() {
    let world = World::shipped();
    let read = || fs::read_to_string(world.order.output.join("routes.tsv")).expect("read");
    let made = read();
    let shipped = fs::read_to_string(repository().join("alertmanager/routes.tsv")).expect("read");
    let to_remediator = |line: &&str| line.contains("remediator,") && line.contains('\t');
    assert!(shipped.lines().any(|line| to_remediator(&line)), "{shipped}");
    for row in shipped.lines() {
        let stays = !row.split('\t').nth(1).is_some_and(|reached| reached.contains("remediator"));
        let count = made.lines().filter(|line| *line == row).count();
        assert_eq!(count, usize::from(stays), "{row}");
    }
    let own =
        "host=kiev role=mail user=alice command=imapd playbook=imapd_storm\tremediator-kiev,mail\n";
    assert_eq!(made.matches(own).count(), 1, "{made}");
    // From what was made, in either form, the rows of the form before go.
    let base = world.order.output.join("alertmanager.yml");
    write(&Fleet { base: base.clone(), ..world.order.clone() }).expect("made again");
    assert_eq!(read(), made);
    let policy = POLICY.replace("token_file: /etc/procstorm/token\n", "");
    fs::write(world.order.policies.join("mail.yml"), policy).expect("written");
    let order = Fleet { base, alertmanager: FleetForm::Templated, ..world.order.clone() };
    write(&order).expect("made in the other form");
    assert_eq!(
        read(),
        made.replace("\tremediator-moscow,", "\tremediator,")
            .replace("\tremediator-kiev,", "\tremediator,")
            .replace("\tremediator-nantes,", "\tremediator,")
    );
}

#[test]
fn a_base_that_is_missing_is_told_with_the_option_that_names_another() {
    let world = World::of(HOSTS, FleetForm::PerHost);
    let order = Fleet { base: world.directory.path().join("none.yml"), ..world.order.clone() };
    let refused = write(&order).expect_err("refused").to_string();
    assert!(refused.ends_with("none.yml (name Alertmanager's configuration, which the receivers and routes are written into, with --base)"), "{refused}");
    assert!(!order.output.exists());
}
