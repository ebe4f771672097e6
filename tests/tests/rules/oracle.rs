//! The shipped rules in a real Prometheus, compared with a literal reading of the original
//! scripts (`procstorm_tests::oracle`) on thousands of random lines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use procstorm_testkit::{programs, wait};
use procstorm_tests::oracle::{self, Said};
use procstorm_tests::prometheus::Prometheus;
use procstorm_tests::scrape_target::ScrapeTarget;

/// How many lines each host has.
const LINES: usize = 4_000;

/// The three hosts, and the role that their targets bear.
const HOSTS: [(&str, Option<&str>); 3] =
    [("moscow", Some("mail")), ("nantes", Some("nis")), ("lyon", None)];

/// What names are made of: the words of the scripts, words beside them, other cases, and all that
/// means something to a regular expression, a quotation or a template.
const PIECES: [&str; 48] = [
    "imapd",
    "sendmail",
    "http",
    "imapd",
    "sendmail",
    "http",
    "Imapd",
    "IMAPD",
    "SendMail",
    "HTTP",
    "imap",
    "d",
    "send",
    "mail",
    "htt",
    "p",
    "s",
    "ypserv",
    "/usr/sbin/",
    "\n",
    "\"",
    "\\",
    "'",
    "`",
    ".",
    ".*",
    "(",
    ")",
    "[",
    "]",
    "^",
    "$",
    "|",
    "+",
    "?",
    "{",
    "}",
    "{{",
    "}}",
    "$1",
    " ",
    "\t",
    "\r",
    "\u{1b}[31m",
    "é",
    "日",
    "%",
    "=",
];

/// Counts on and beside every threshold of the scripts.
const EDGES: [u64; 18] = [9, 10, 11, 19, 20, 21, 29, 30, 31, 39, 40, 41, 59, 60, 61, 89, 90, 91];

/// xorshift64*: the same lines at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.get(self.below(from.len())).unwrap()
    }

    fn name(&mut self, longest: usize) -> String {
        (0..=self.below(longest)).map(|_| self.pick(&PIECES)).collect()
    }

    /// The word that asks for an action is often in it.
    fn command(&mut self) -> String {
        let (before, after) = (self.name(1), self.name(2));
        match self.below(5) {
            0 => format!("{before}imapd{after}"),
            1 => "imapd".to_owned(),
            _ => before + &after,
        }
    }

    fn count(&mut self) -> u64 {
        // Each alert costs Prometheus most of a millisecond: let two lines of three be small.
        match self.below(12) {
            0 => self.below(200).try_into().unwrap(),
            1 if self.below(10) == 0 => 1_000_000 + u64::try_from(self.below(1_000)).unwrap(),
            1..=4 => self.pick(&EDGES),
            _ => self.below(12).try_into().unwrap(),
        }
    }
}

/// What is told apart: script, host, user, command.
type Line = (&'static str, String, String, String);

/// One host's page, and what the scripts say of its lines, at `expected`.
fn page(host: &str, dice: &mut Dice, expected: &mut BTreeMap<Line, (Said, u64)>) -> String {
    let mut page = String::from("# TYPE procstorm_processes gauge\n");
    for number in 0..LINES {
        // The number makes each line another user's; every tenth user has a wild name as well.
        let wild = if number % 10 == 0 { dice.name(2) } else { String::new() };
        let user = format!("u{number}{wild}");
        let (command, count) = (dice.command(), dice.count());
        let (quoted_user, quoted) = (escaped(&user), escaped(&command));
        writeln!(
            page,
            "procstorm_processes{{user=\"{quoted_user}\",command=\"{quoted}\"}} {count}"
        )
        .unwrap();
        let line = |script| (script, host.to_owned(), user.clone(), command.clone());
        let said = [
            ("Emergency", oracle::emergency(host, count, &command)),
            ("Red", oracle::red(host, count, &command)),
        ];
        for (script, said) in said {
            if said != Said::default() {
                expected.insert(line(script), (said, count));
            }
        }
    }
    page
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// What the rules say: the diagnostic log, the alerts, and whether they ask for an action.
fn observed(prometheus: &Prometheus) -> BTreeMap<Line, (Said, u64)> {
    let mut all = BTreeMap::<Line, (Said, u64)>::new();
    for sample in prometheus.query("user_command_class:procstorm_processes:logged").unwrap() {
        let script = if sample.label("level") == "red" { "Red" } else { "Emergency" };
        let host = sample.label("host").to_owned();
        let line = (script, host, sample.label("user").into(), sample.label("command").into());
        let count = format!("{}", sample.value).parse().unwrap();
        all.entry(line).or_insert((Said::default(), count)).0.logged = true;
    }
    for alert in prometheus.alerts().unwrap() {
        let script = match alert.label("alertname") {
            "ProcNumChkEmergency" => "Emergency",
            "ProcNumChkRed" => "Red",
            _ => continue,
        };
        assert!(alert.fires(), "an alert waits");
        let [host, user, command] = ["host", "user", "command"].map(|name| alert.label(name));
        let line = (script, host.to_owned(), user.to_owned(), command.to_owned());
        let count = alert.annotation("count").parse().unwrap();
        let (said, _) = all.entry(line).or_insert((Said::default(), count));
        assert!(!said.mailed, "two {script} alerts of one line: {host} {user:?} {command:?}");
        said.mailed = true;
        said.acted = alert.label("playbook") == "imapd_storm";
        assert_eq!(said.acted, !alert.label("playbook").is_empty(), "no other playbook");
        assert_eq!(alert.annotation("inline"), format!("{count:4} {user} {command}"));
    }
    all
}

fn configuration(port: u16) -> String {
    let rules = programs::project().join("rules/procstorm.rules.yml");
    let mut targets = String::new();
    for (host, role) in HOSTS {
        let role = role.map(|role| format!(", role: {role}")).unwrap_or_default();
        writeln!(
            targets,
            "      - targets: ['127.0.0.1:{port}']\n        \
                    labels: {{host: {host}, __metrics_path__: /{host}{role}}}"
        )
        .unwrap();
    }
    format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n  - job_name: procstorm\n    static_configs:\n{targets}",
        rules.display()
    )
}

#[test]
fn the_rules_say_what_the_scripts_said() {
    let mut dice = Dice(0x0B5E_55ED_2000_0428);
    let mut expected = BTreeMap::new();
    let pages = HOSTS.map(|(host, _)| (format!("/{host}"), page(host, &mut dice, &mut expected)));
    let target = ScrapeTarget::serve(pages).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    fs::write(&config, configuration(target.port())).unwrap();
    let prometheus = Prometheus::start(&config, dir.path()).unwrap();

    let all_scraped = format!("sum(scrape_samples_scraped) == {}", LINES * HOSTS.len());
    wait::until("three scrapes of all lines", Duration::from_secs(120), || {
        prometheus.query(&all_scraped).is_ok_and(|found| !found.is_empty()).then_some(())
    })
    .unwrap();
    // The lines never change, so what the rules say settles with the next evaluation.
    let settled = wait::until("the scripts' alerts", Duration::from_secs(120), || {
        let observed = observed(&prometheus);
        (observed == expected).then_some(observed)
    });
    let observed = settled.unwrap_or_else(|_| observed(&prometheus));
    let different: Vec<_> = expected
        .iter()
        .filter(|(line, said)| observed.get(line) != Some(said))
        .chain(observed.iter().filter(|(line, _)| !expected.contains_key(line)))
        .collect();
    let count = |what: fn(&Said) -> bool| observed.values().filter(|(said, _)| what(said)).count();
    println!(
        "oracle: {} lines on {} hosts: {} logged, {} alerts, {} of them with a playbook; {} \
         differences",
        LINES * HOSTS.len(),
        HOSTS.len(),
        count(|said| said.logged),
        count(|said| said.mailed),
        count(|said| said.acted),
        different.len(),
    );
    assert!(count(|said| said.acted) > 100, "the lines are worth comparing");
    let shown: Vec<_> = different.iter().take(10).collect();
    assert!(different.is_empty(), "the first of {}: {shown:#?}", different.len());
}
