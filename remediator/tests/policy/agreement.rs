//! Policy, rules and routes that do not fit together are told, each fault at its place.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use procstorm_remediator::commands::agreement::routes::Routing;
use procstorm_remediator::commands::agreement::rules::{ReadError, Rules};
use procstorm_remediator::commands::agreement::webhook::{Here, WebAsks};
use procstorm_remediator::commands::agreement::{Place, Playbook, Policy, Verdict, check};
use procstorm_remediator::commands::check::{Others, Question, report};

const RULES: &str = r#"
groups:
  - name: table
    rules:
      - {record: threshold, expr: vector(60), labels: {level: emergency, class: imapd}}
      - {record: threshold, expr: vector(90), labels: {level: red, class: imapd, playbook: imapd_storm}}
  - name: alerts
    rules:
      - alert: ProcNumChkRed
        expr: watched >= limit
        labels: {severity: critical}
"#;

const ROUTES: &str = r#"
route:
  receiver: mail
  group_by: [alertname, host]
  routes:
    - matchers: [playbook="imapd_storm", severity=~"crit.*"]
      receiver: daemon
      group_by: [alertname, host, user, command]
      group_interval: 5s
      repeat_interval: 5m
      continue: true
    - matchers: [alertname="ProcNumChkRed"]
      receiver: mail
receivers:
  - name: mail
    email_configs: [{to: a@example.org}]
  - name: daemon
    webhook_configs: [{url: "http://127.0.0.1:9958/webhook"}]
"#;

/// The three files, to be spoilt one at a time.
struct Files {
    policy: Policy,
    here: Here,
    rules: String,
    routes: String,
}

impl Files {
    fn that_agree() -> Self {
        let playbook = Playbook {
            alerts: vec!["ProcNumChkRed".to_owned()],
            commands: vec!["imapd".to_owned()],
            threshold: 90,
            cooldown: Duration::from_secs(30),
            place: Place { file: PathBuf::from("remediator.yml"), line: 9 },
        };
        let playbooks = BTreeMap::from([("imapd_storm".to_owned(), playbook)]);
        Self {
            policy: Policy { host: "moscow".to_owned(), left_alone: Vec::new(), playbooks },
            here: Here::default(),
            rules: RULES.to_owned(),
            routes: ROUTES.to_owned(),
        }
    }

    fn with_rules(mut self, from: &str, to: &str) -> Self {
        assert!(self.rules.contains(from));
        self.rules = self.rules.replace(from, to);
        self
    }

    fn with_routes(mut self, from: &str, to: &str) -> Self {
        assert!(self.routes.contains(from));
        self.routes = self.routes.replace(from, to);
        self
    }

    fn with_playbook(mut self, change: impl Fn(&mut Playbook)) -> Self {
        self.policy.playbooks.values_mut().for_each(change);
        self
    }

    fn disagreements(&self) -> Vec<String> {
        let (verdict, prefix) = self.verdict();
        let found = verdict.disagreements.into_iter();
        found.map(|one| one.to_string().replace(&prefix, "")).collect()
    }

    /// The verdict, and what stands before the names of the files in it.
    fn verdict(&self) -> (Verdict, String) {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("a.rules.yml"), &self.rules).expect("written");
        let routes = directory.path().join("alertmanager.yml");
        fs::write(&routes, &self.routes).expect("written");
        let rules = Rules::read(directory.path()).expect("rules");
        let routing = Routing::read(&routes).expect("routes");
        let prefix = format!("{}/", directory.path().display());
        (check(&self.policy, &rules, &routing, &self.here), prefix)
    }

    fn with_here(mut self, change: impl Fn(&mut Here)) -> Self {
        change(&mut self.here);
        self
    }

    /// Asserts that nothing is wrong, and one thing cannot be told, which says `what`.
    fn cannot_tell(&self, what: &str) {
        let (verdict, _) = self.verdict();
        assert_eq!(verdict.disagreements, [], "{what}");
        assert_eq!(verdict.unsure.len(), 1, "{what}: {:#?}", verdict.unsure);
        assert!(verdict.unsure.iter().all(|one| one.what.contains(what)), "{:#?}", verdict.unsure);
    }

    fn agrees(&self) {
        let (verdict, _) = self.verdict();
        assert!(verdict.agrees(), "{verdict:#?}");
    }

    /// Asserts that there is exactly one fault, at `place`, that says `what`.
    fn has_one(&self, place: &str, what: &str) {
        let found = self.disagreements();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found.iter().all(|f| f.starts_with(place) && f.contains(what)), "{found:#?}");
    }
}

#[test]
fn files_that_agree_give_nothing() {
    assert_eq!(Files::that_agree().disagreements(), Vec::<String>::new());
}

#[test]
fn a_playbook_that_no_policy_has() {
    let files = Files::that_agree().with_rules("playbook: imapd_storm", "playbook: imapd_strom");
    let found = files.disagreements();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().any(|f| f == "a.rules.yml:6: playbook \"imapd_strom\" is in no policy"));
    assert!(
        found.iter().any(|f| f == "remediator.yml:9: no rule asks for playbook \"imapd_storm\"")
    );
}

#[test]
fn a_host_threshold_above_the_rules() {
    Files::that_agree()
        .with_playbook(|playbook| playbook.threshold = 91)
        .has_one("remediator.yml:9: ", "acts from 91 on, but a.rules.yml:6 asks for it from 90 on");
    // Below is the host's own business: it recounts, and is asked only from 90 on.
    let lower = Files::that_agree().with_playbook(|playbook| playbook.threshold = 50);
    assert_eq!(lower.disagreements(), Vec::<String>::new());
}

#[test]
fn an_alert_that_no_rule_makes() {
    Files::that_agree()
        .with_playbook(|playbook| playbook.alerts.push("ProcNumChkBlue".to_owned()))
        .has_one("remediator.yml:9: ", "no rule makes the alert \"ProcNumChkBlue\"");
}

#[test]
fn an_alert_that_reaches_no_webhook() {
    for (from, to) in [
        ("receiver: daemon\n      group_by", "receiver: mail\n      group_by"),
        ("playbook=\"imapd_storm\"", "playbook=\"other\""),
        ("crit.*", "crit"),
        ("webhook_configs", "pagerduty_configs"),
    ] {
        Files::that_agree().with_routes(from, to).has_one("a.rules.yml:6: ", "reaches no webhook");
    }
}

#[test]
fn a_route_that_takes_the_alert_first() {
    let earlier = "  routes:\n    - {matchers: [user!=\"\"], receiver: mail}\n";
    Files::that_agree()
        .with_routes("  routes:\n", earlier)
        .has_one("a.rules.yml:6: ", "reaches no webhook");
}

#[test]
fn a_route_that_groups_two_users() {
    Files::that_agree()
        .with_routes("[alertname, host, user, command]", "[alertname, host]")
        .has_one("alertmanager.yml:6: ", "does not group by user, command");
    let all = Files::that_agree().with_routes("[alertname, host, user, command]", "['...']");
    assert_eq!(all.disagreements(), Vec::<String>::new());
}

#[test]
fn a_repeat_that_comes_too_late() {
    Files::that_agree()
        .with_routes("repeat_interval: 5m", "repeat_interval: 1h")
        .has_one("alertmanager.yml:6: ", "notified again after 3600 s");
    // 5m of 5m is 10m: the repeat leaves at the first tick after it.
    Files::that_agree()
        .with_routes("group_interval: 5s", "group_interval: 5m")
        .has_one("alertmanager.yml:6: ", "notified again after 600 s");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = Rules::read(directory.path()).expect_err("no rules");
    assert!(matches!(empty, ReadError::Empty(path) if path == directory.path()));
    let file = directory.path().join("alertmanager.yml");
    for (text, what) in [
        ("route: {receiver: a, group_interval: soon}", "\"soon\" is not a duration"),
        ("route: {receiver: a, matchers: ['a']}", "\"a\" is not a matcher"),
        ("route: {receiver: a, matchers: ['a=~\"(\"']}", "regex parse error"),
        ("route: {receiver: a, matchers: ['a=b']}", "the uppermost route has matchers"),
        ("route: [", "alertmanager.yml"),
    ] {
        fs::write(&file, text).expect("written");
        let error = Routing::read(&file).expect_err(text).to_string();
        assert!(error.contains(what) && error.contains("alertmanager.yml"), "{error}");
    }
}

#[test]
fn the_files_that_are_shipped_agree() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (rules, alertmanager) = (root.join("rules"), root.join("alertmanager/alertmanager.yml"));
    let others = Others { rules: &rules, alertmanager: &alertmanager };
    let policy = root.join("remediator/remediator.yml");
    let question = |policy| Question {
        policy,
        machine: "moscow",
        listen: &[],
        web_config: None,
        others: Some(others),
    };
    let said = report(&question(&policy)).expect("they agree");
    assert!(said.contains("the three agree"), "{said}");

    let directory = tempfile::tempdir().expect("a directory");
    let raised = directory.path().join("remediator.yml");
    let text = fs::read_to_string(&policy).expect("the example");
    assert!(text.contains("threshold: 90"));
    fs::write(&raised, text.replace("threshold: 90", "threshold: 100")).expect("written");
    let error = report(&question(&raised)).expect_err("above the rule's").to_string();
    assert!(error.contains("acts from 100 on") && error.contains("asks for it from 90"), "{error}");
    let place = error.strip_prefix(&format!("{}:", raised.display())).expect("the file first");
    let line: usize = place.split(':').next().expect("a line").parse().expect("a number");
    let first = text.lines().position(|line| line.trim() == "imapd_storm:").expect("there");
    assert!((first + 1..=first + 2).contains(&line), "line {line}, the playbook is at {first}");
}

const ROW: &str = "      - {record: threshold, expr: vector(90), labels: {level: red, class: imapd, playbook: imapd_storm}}\n";

/// A table of two roles, of which each has its own playbook.
fn of_two_roles() -> Files {
    let row = |role: &str, playbook: &str, count: u32| {
        format!(
            "      - {{record: threshold, expr: vector({count}), labels: {{level: red, class: imapd, \
             role: {role}, playbook: {playbook}}}}}\n"
        )
    };
    let rows = row("mail", "imapd_storm", 90) + &row("web", "httpd_storm", 50);
    Files::that_agree().with_rules(ROW, &rows)
}

#[test]
fn what_belongs_to_another_role_is_not_this_host_s() {
    of_two_roles().agrees();
    // Of its own role it is.
    of_two_roles()
        .with_rules("role: web", "role: mail")
        .has_one("a.rules.yml:7: ", "playbook \"httpd_storm\" is in no policy");
    // Where both roles ask for it, the host may be of either.
    let both = of_two_roles().with_rules("httpd_storm", "imapd_storm");
    let (verdict, _) = both.verdict();
    assert!(verdict.agrees(), "{verdict:#?}");
    assert_eq!(verdict.role.as_deref(), Some("mail"));
    assert!(verdict.notes.iter().any(|one| one.what.starts_with("for a host of role web: ")));
}

#[test]
fn what_belongs_to_another_host_is_not_this_host_s() {
    let alert = "      - alert: ProcNumChkRed\n";
    let other =
        "      - {alert: Httpd, expr: 'x{host=\"nantes\"} > 9', labels: {playbook: httpd_storm}}\n";
    Files::that_agree().with_rules(alert, &(other.to_owned() + alert)).agrees();
    Files::that_agree()
        .with_rules(alert, &(other.replace("nantes", "moscow") + alert))
        .has_one("a.rules.yml:9: ", "playbook \"httpd_storm\" is in no policy");
}

#[test]
fn an_empty_playbook_asks_for_nothing() {
    Files::that_agree()
        .with_rules("labels: {level: emergency,", "labels: {playbook: '', level: emergency,")
        .agrees();
    Files::that_agree()
        .with_rules("labels: {severity: critical}", "labels: {severity: critical, playbook: ''}")
        .has_one("a.rules.yml:6: ", "no alert that may name playbook \"imapd_storm\"");
}

#[test]
fn an_alert_that_asks_itself_is_that_alert_alone() {
    let asking = "labels: {severity: critical, playbook: imapd_storm}";
    let direct =
        Files::that_agree().with_rules(ROW, "").with_rules("labels: {severity: critical}", asking);
    direct.cannot_tell("only vector(N) is understood");
    direct
        .with_rules("alert: ProcNumChkRed", "alert: ProcNumChkBlue")
        .disagreements()
        .iter()
        .find(|one| one.contains("alert \"ProcNumChkBlue\" asks for playbook"))
        .expect("it may not name it");
}

#[test]
fn labels_that_the_daemon_refuses() {
    for (label, what) in [
        ("host: nantes", "sets host=\"nantes\""),
        ("command: sendmail", "sets command=\"sendmail\""),
        ("user: ''", "takes its label user away"),
    ] {
        Files::that_agree()
            .with_rules("{severity: critical}", &format!("{{severity: critical, {label}}}"))
            .has_one("a.rules.yml:9: ", what);
    }
    Files::that_agree()
        .with_rules("{severity: critical}", "{severity: critical, host: '{{ $labels.host }}'}")
        .agrees();
}

#[test]
fn what_delays_an_alert_is_told() {
    let alert = "        expr: watched >= limit\n";
    let with =
        |more: &str| Files::that_agree().with_rules(alert, &format!("{alert}        {more}\n"));
    with("for: 1h").has_one("a.rules.yml:9: ", "add up to 1h");
    with("keep_firing_for: 1d").has_one("a.rules.yml:9: ", "keep_firing_for");
    let short = with("for: 1m");
    short.agrees();
    assert!(short.verdict().0.notes.iter().any(|one| one.what.contains("add up to 1m")));
    let group = |more: &str| {
        Files::that_agree().with_rules("name: alerts\n", &format!("name: alerts\n    {more}\n"))
    };
    group("interval: 2h").has_one("a.rules.yml:10: ", "add up to 2h");
    group("query_offset: 2h").has_one("a.rules.yml:10: ", "add up to 2h");
    group("limit: 1").cannot_tell("limit: where over 1 alerts");
    group("limit: 0").agrees();
    Files::that_agree()
        .with_routes("group_interval: 5s", "group_wait: 1h\n      group_interval: 5s")
        .has_one("alertmanager.yml:6: ", "group_wait");
}

#[test]
fn the_url_is_held_against_this_host_s_daemon() {
    let at = |url: &str| Files::that_agree().with_routes("http://127.0.0.1:9958/webhook", url);
    let open = |files: Files| files.with_here(|here| here.listen = vec![":9958".to_owned()]);
    for url in ["http://moscow:9958/webhook", "http://moscow.example.org:9958/webhook"] {
        open(at(url)).agrees();
        at(url).cannot_tell("is not on loopback");
        let loopback = |here: &mut Here| {
            here.listen = vec!["127.0.0.1:9958".to_owned(), "[::1]:9958".to_owned()]
        };
        let found = at(url).with_here(loopback).disagreements();
        assert!(found.iter().any(|one| one.contains("does not listen on moscow")), "{found:?}");
    }
    for url in ["http://192.0.2.7:9958/webhook", "http://mail.example.org:9958/webhook"] {
        open(at(url)).cannot_tell("is not in the files");
    }
    for (url, what) in [
        ("http://kiev:9958/webhook", "another host"),
        ("http://127.0.0.1:9959/webhook", "not a port of this host's daemon"),
        ("http://127.0.0.1/webhook", "not a port of this host's daemon"),
        ("http://127.0.0.1:9958/", "not the daemon's page"),
    ] {
        let found = open(at(url)).disagreements();
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|one| one.contains("reaches no webhook of this host")));
        assert!(
            found.iter().any(|one| one.starts_with("alertmanager.yml:18: ") && one.contains(what)),
            "{found:#?}"
        );
    }
    // Alertmanager is elsewhere, so that its loopback is not this machine's.
    let away = Files::that_agree().with_here(|here| here.alertmanagers = vec!["kiev".to_owned()]);
    assert!(away.disagreements().iter().any(|one| one.contains("Alertmanager's own machine")));
}

#[test]
fn another_host_s_url_is_known_by_the_routes() {
    let kiev = "    - matchers: [alertname=\"ProcNumChkRed\"]\n";
    let route =
        format!("    - {{matchers: ['host=\"kiev.example.org\"'], receiver: mail}}\n{kiev}");
    let found = Files::that_agree()
        .with_routes(kiev, &route)
        .with_routes("http://127.0.0.1:9958", "http://kiev.example.org:9958")
        .disagreements();
    assert!(found.iter().any(|one| one.contains("is host \"kiev.example.org\"")), "{found:#?}");
}

#[test]
fn tokens_are_compared_where_both_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    fs::write(path("ours"), "the-secret-of-moscow\n").expect("written");
    fs::write(path("same"), "the-secret-of-moscow").expect("written");
    fs::write(path("other"), "the-secret-of-nantes\n").expect("written");
    let with = |auth: &str| {
        let config = format!("/webhook\", http_config: {{{auth}}}");
        Files::that_agree()
            .with_routes("/webhook\"", &config)
            .with_here(|here| here.token_file = Some(path("ours")))
    };
    let file =
        |name: &str| format!("authorization: {{credentials_file: '{}'}}", path(name).display());
    with(&file("same")).agrees();
    with("authorization: {credentials: the-secret-of-moscow}").agrees();
    for auth in [file("other"), "bearer_token: the-secret-of-nantes".to_owned(), String::new()] {
        let found = with(&auth).disagreements();
        assert_eq!(found.len(), 1, "{auth}: {found:?}");
        assert!(
            found.iter().all(|one| one.contains("token") && !one.contains("secret-of")),
            "{found:?}"
        );
    }
    let gone = with(&file("gone"));
    gone.agrees();
    assert!(
        gone.verdict().0.notes.iter().any(|one| one.what.contains("the tokens are not compared"))
    );
}

#[test]
fn a_url_that_is_a_template_must_be_bounded() {
    let template = Files::that_agree()
        .with_routes("http://127.0.0.1:9958/webhook\"", "https://{{ .CommonLabels.host }}:9958/webhook\", http_config: {tls_config: {cert_file: a, key_file: b}}")
        .with_here(|here| {
            here.listen = vec![":9958".to_owned()];
            here.web = Some(WebAsks { tls: true, password: false, certificate: true });
        });
    template.has_one("alertmanager.yml:18: ", "host=\"evil:1\"");
    let bounded = template.with_routes(
        "severity=~\"crit.*\"",
        "severity=~\"crit.*\", 'host=~\"[a-z0-9][a-z0-9-]*\"'",
    );
    bounded.agrees();
    let leaking = bounded.with_routes("http_config: {", "http_config: {bearer_token: x, ");
    leaking.has_one("alertmanager.yml:18: ", "credentials would go to whatever host");
}

#[test]
fn the_web_configuration_counts() {
    let asks = |tls, password, certificate| {
        move |here: &mut Here| here.web = Some(WebAsks { tls, password, certificate })
    };
    let with = |tls, password, certificate| {
        Files::that_agree().with_here(asks(tls, password, certificate))
    };
    with(false, false, false).agrees();
    with(true, false, false).has_one("alertmanager.yml:18: ", "write https");
    with(false, true, false).has_one("alertmanager.yml:18: ", "basic_auth_users");
    let https = |files: Files| files.with_routes("http://127", "https://127");
    https(with(true, false, false)).agrees();
    https(with(true, false, true)).has_one("alertmanager.yml:18: ", "client certificate");
    https(with(false, false, false)).has_one("alertmanager.yml:18: ", "write http");
    https(Files::that_agree()).cannot_tell("--web.config.file");
}

#[test]
fn a_url_in_a_file_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("url");
    let with = || {
        let key = format!("url_file: '{}'", file.display());
        Files::that_agree().with_routes("url: \"http://127.0.0.1:9958/webhook\"", &key)
    };
    with().cannot_tell("url_file");
    fs::write(&file, "http://127.0.0.1:9958/webhook\n").expect("written");
    with().agrees();
    fs::write(&file, "http://127.0.0.1:9959/webhook\n").expect("written");
    assert_eq!(with().disagreements().len(), 2);
}

#[test]
fn two_hosts_whose_urls_are_swapped() {
    let route = |host: &str| {
        format!(
            "    - {{matchers: [host=\"{host}\"], receiver: to-{host}, group_by: ['...'], \
             group_interval: 5s, repeat_interval: 5m, continue: true}}\n"
        )
    };
    let receiver = |host: &str, url: &str| {
        format!(
            "  - {{name: to-{host}, webhook_configs: [{{url: 'http://{url}:9958/webhook'}}]}}\n"
        )
    };
    let fleet = |moscow: &str, kiev: &str| {
        Files::that_agree()
            .with_routes("  routes:\n", &format!("  routes:\n{}{}", route("moscow"), route("kiev")))
            .with_routes(
                "receivers:\n",
                &format!("receivers:\n{}{}", receiver("moscow", moscow), receiver("kiev", kiev)),
            )
            .with_here(|here| here.listen = vec![":9958".to_owned()])
    };
    fleet("moscow", "kiev").agrees();
    // By the last route, which is for all, it arrives on Alertmanager's own machine alone.
    fleet("kiev", "moscow").cannot_tell("is for \"moscow\" alone, and leads to another host");
    let away = |here: &mut Here| here.alertmanagers = vec!["192.0.2.9".to_owned()];
    fleet("moscow", "kiev").with_here(away).agrees();
    let found = fleet("kiev", "moscow").with_here(away).disagreements();
    assert!(found.iter().any(|one| one.contains("reaches no webhook of this host")), "{found:#?}");
    assert!(
        found.iter().any(|one| one.contains("kiev:9958/webhook is host \"kiev\"")),
        "{found:#?}"
    );
}
