//! Policy, rules and routes that do not fit together are told, each fault at its place.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use procstorm_remediator::agreement::routes::Routing;
use procstorm_remediator::agreement::rules::{ReadError, Rules};
use procstorm_remediator::agreement::webhook::Here;
use procstorm_remediator::agreement::{Place, Playbook, Policy, Verdict, check};
use procstorm_remediator::check::{Others, Question, report};

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
            command: "imapd".to_owned(),
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
        .has_one("alertmanager.yml:6: ", "told again after 3600 s");
    // 5m of 5m is 10m: the repeat leaves at the first tick after it.
    Files::that_agree()
        .with_routes("group_interval: 5s", "group_interval: 5m")
        .has_one("alertmanager.yml:6: ", "told again after 600 s");
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
