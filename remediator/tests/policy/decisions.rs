//! Each refusal by its own case, and what is allowed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use procstorm_processes::folded::{OTHER, SMALL, SMALL_USERS};
use procstorm_processes::process::Command;
use procstorm_remediator::account::standing::Standing;
use procstorm_remediator::account::{Account, Listed, UserName};
use procstorm_remediator::alertmanager::Muted;
use procstorm_remediator::alertmanager::{Alert, Status};
use procstorm_remediator::policy::{
    Authorised, Decision, Facts, History, Identity, Plan, Refusal, admit, decide,
};
use procstorm_remediator::policy::{Config, DryRun, Step};
use proptest::prelude::*;

fn config(extra: &str) -> Config {
    let text = format!(
        "host: moscow
accounts: {{min_uid: 1000, protected: [postmaster]{extra}}}
playbooks:
  imapd_storm: {{alerts: [ProcNumChkRed], command: imapd, threshold: 90,
                steps: [archive_mail_file, kill_user_proc], cooldown: 30s,
                limits: {{per_user: 3/h, total: 5/h}}}}"
    );
    Config::parse(&text, "here").unwrap()
}

/// Labels that differ from an alert's that would be taken.
type Changes<'a> = &'a [(&'a str, &'a str)];

fn alert(changes: Changes<'_>) -> Alert {
    let mut labels: BTreeMap<String, String> = [
        ("alertname", "ProcNumChkRed"),
        ("playbook", "imapd_storm"),
        ("host", "moscow"),
        ("user", "alice"),
        ("command", "imapd"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for (name, value) in changes {
        labels.insert((*name).to_owned(), (*value).to_owned());
    }
    Alert {
        status: Status::Firing,
        labels,
        starts_at: "2026-11-23T13:51:45.789Z".parse().unwrap(),
        fingerprint: "f005e9953eb1eb68".to_owned(),
    }
}

fn now() -> Timestamp {
    "2026-11-23T14:00:00Z".parse().unwrap()
}

fn account(name: &str, uid: u32) -> Identity {
    Identity::Named(Account { name: UserName::new(name).unwrap(), uid })
}

/// Who a request is about.
#[derive(Clone)]
struct Who {
    identity: Identity,
    own_uid: u32,
    standing: Standing,
}

fn alice() -> Who {
    Who { identity: account("alice", 1001), own_uid: 998, standing: Standing::Open }
}

/// A storm of hers, and nothing done before.
fn facts() -> Facts {
    Facts {
        shared_with: Vec::new(),
        living: 95,
        left_alone: 0,
        history: History::default(),
        newcomers: None,
        muted_by: None,
        now: now(),
    }
}

fn authorised(config: &Config, who: &Who) -> Result<Authorised, Refusal> {
    let request = admit(config, &alert(&[]))?;
    let candidate = request.candidate(config, &who.identity, who.own_uid)?;
    candidate.authorise(who.standing.clone())
}

fn judged(config: &Config, facts: &Facts) -> Decision {
    decide(config, authorised(config, &alice()).unwrap(), facts)
}

fn refused(config: &Config, facts: &Facts) -> (&'static str, String) {
    match judged(config, facts) {
        Decision::Refuse(refusal) => (refusal.verdict().label(), refusal.to_string()),
        other @ (Decision::Act(_) | Decision::Wait(_)) => panic!("{other:?}"),
    }
}

/// Why nobody may act on that account, whatever the facts are.
fn barred(config: &Config, who: &Who) -> (&'static str, String) {
    let refusal = authorised(config, who).unwrap_err();
    (refusal.verdict().label(), refusal.to_string())
}

fn planned(config: &Config, facts: &Facts) -> Plan {
    planned_for(config, &alice(), facts)
}

fn planned_for(config: &Config, who: &Who, facts: &Facts) -> Plan {
    match decide(config, authorised(config, who).unwrap(), facts) {
        Decision::Act(plan) => plan,
        other @ (Decision::Wait(_) | Decision::Refuse(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_storm_is_acted_upon_in_the_configured_order() {
    let plan = planned(&config(""), &facts());
    assert_eq!(plan.account(), &Account { name: UserName::new("alice").unwrap(), uid: 1001 });
    assert_eq!(plan.command(), &Command::new(b"imapd").unwrap());
    assert_eq!(plan.steps(), [Step::ArchiveMailFile, Step::KillUserProc]);
    assert!(!plan.is_dry_run());
}

#[test]
fn each_of_several_commands_is_exact() {
    let text = "host: moscow\nplaybooks: {storm: {alerts: [Red], commands: [imapd, imapd-ssl], \
                threshold: 90, steps: [kill_user_proc]}}";
    let config = Config::parse(text, "here").unwrap();
    let asks = |command: &str| {
        let labels = [("alertname", "Red"), ("playbook", "storm"), ("command", command)];
        admit(&config, &alert(&labels)).map(|request| *request.command())
    };
    for command in ["imapd", "imapd-ssl"] {
        assert_eq!(asks(command), Ok(Command::new(command.as_bytes()).unwrap()));
    }
    for command in ["imap", "imapd-", "imapd-ssl2", "IMAPD", ""] {
        let refusal = asks(command).unwrap_err();
        assert_eq!(refusal.verdict().label(), "other_command");
        assert!(refusal.to_string().contains("\"imapd\" or \"imapd-ssl\""), "{refusal}");
    }
    assert!(config.explain().contains("processes of exactly \"imapd\" or \"imapd-ssl\""));
    let odd = text.replace("imapd-ssl", "imapd.*");
    let warnings = Config::parse(&odd, "here").unwrap().warnings(&odd);
    assert_eq!(warnings.len(), 1);
    let warning = warnings.first().unwrap().to_string();
    assert!(warning.contains("not as a pattern"), "{warning}");
}

#[test]
fn an_alert_alone_can_be_refused() {
    let config = config("");
    let long = "x".repeat(300);
    let cases: [(Changes<'_>, &str, &str); 13] = [
        (&[("host", "nantes")], "other_host", "nantes"),
        (&[("host", "")], "other_host", "moscow"),
        (&[("playbook", "")], "no_playbook", "playbook"),
        (&[("playbook", "rm_rf")], "unknown_playbook", "rm_rf"),
        (&[("alertname", "Mine")], "alert_not_allowed", "Mine"),
        (&[("command", "/usr/sbin/imapd")], "other_command", "/usr/sbin/imapd"),
        (&[("command", "a\nb")], "other_command", "\\n"),
        (&[("user", "../root")], "bad_user_name", "../root"),
        // What the exporter adds together.
        (&[("command", SMALL)], "other_command", SMALL),
        (&[("user", SMALL_USERS)], "bad_user_name", SMALL_USERS),
        (&[("user", OTHER)], "bad_user_name", OTHER),
        (&[("user", "postmaster")], "protected_user", "postmaster"),
        (&[("host", &long)], "other_host", "xxx"),
    ];
    for (changes, label, part) in cases {
        let refusal = admit(&config, &alert(changes)).unwrap_err();
        assert_eq!(refusal.verdict().label(), label, "{changes:?}");
        let shown = refusal.to_string();
        assert!(shown.contains(part) && !shown.contains('\n') && shown.len() < 200, "{shown:?}");
    }
    let resolved = Alert { status: Status::Resolved, ..alert(&[]) };
    assert_eq!(admit(&config, &resolved).unwrap_err().verdict().label(), "resolved");
}

#[test]
fn the_wrong_account_is_refused() {
    let config = config("");
    for (identity, label) in [
        (Identity::Unknown, "unknown_user"),
        (Identity::Nameless(1001), "nameless_uid"),
        (Identity::Alias("postmaster".to_owned()), "alias"),
        (account("alice", 0), "root"),
        (account("alice", 999), "system_uid"),
        (account("postmaster", 1001), "protected_user"),
    ] {
        assert_eq!(barred(&config, &Who { identity, ..alice() }).0, label);
    }
    assert_eq!(barred(&config, &Who { own_uid: 1001, ..alice() }).0, "own_uid");
    // Another name of the same uid, or a group's member.
    let standing = Standing::Protected(Listed::Group("staff".to_owned()));
    let (label, text) = barred(&config, &Who { standing, ..alice() });
    assert_eq!((label, text.contains("@staff")), ("protected_user", true), "{text}");
    let (label, text) = barred(&config, &Who { standing: Standing::Excluded, ..alice() });
    assert_eq!((label, text.contains("accounts.only")), ("excluded_user", true), "{text}");
}

#[test]
fn the_least_uid_of_accounts_min_uid_is_a_users() {
    let who = Who { identity: account("alice", 1000), ..alice() };
    let plan = planned_for(&config(""), &who, &facts());
    assert_eq!(plan.account().uid, 1000);
}

#[test]
fn the_configuration_can_allow_its_own_and_nameless_uids() {
    let config = config(", allow_own_uid: true, allow_nameless: true");
    let plan = planned_for(&config, &Who { own_uid: 1001, ..alice() }, &facts());
    assert_eq!(plan.account().uid, 1001);
    let nameless = |uid| Who { identity: Identity::Nameless(uid), ..alice() };
    let plan = planned_for(&config, &nameless(1002), &facts());
    assert_eq!((plan.account().uid, plan.account().name.as_str()), (1002, "alice"));
    assert_eq!(barred(&config, &nameless(0)).0, "root");
}

#[test]
fn a_uid_that_holds_the_mail_of_others_is_acted_on_only_if_the_policy_says_so() {
    let facts = Facts { shared_with: vec!["bob".to_owned(), "a\nb".to_owned()], ..facts() };
    let (label, text) = refused(&config(""), &facts);
    assert_eq!(label, "shared_uid");
    assert!(text.contains("\"bob\"") && !text.contains('\n'), "{text}");
    let _allowed = planned(&config(", allow_shared_uid: true"), &facts);
}

#[test]
fn what_is_no_longer_true_is_not_done() {
    let (label, text) = refused(&config(""), &Facts { living: 89, ..facts() });
    assert_eq!(label, "no_longer_true");
    assert!(text.contains("89") && text.contains("90"), "{text}");
    let contained = Facts { living: 3, left_alone: 150, ..facts() };
    let (label, text) = refused(&config(""), &contained);
    assert_eq!(label, "left_alone");
    assert!(text.contains("150") && text.contains("containers"), "{text}");
    let just_enough = Facts { living: 4, left_alone: 86, ..facts() };
    assert_eq!(refused(&config(""), &just_enough).0, "left_alone");
    let few = Facts { living: 3, left_alone: 86, ..facts() };
    assert_eq!(refused(&config(""), &few).0, "no_longer_true");
    let _at_the_threshold = planned(&config(""), &Facts { living: 90, ..facts() });
}

fn history(seconds_ago: i64, for_user: u32, in_total: u32) -> Facts {
    let last = Some(now() - SignedDuration::from_secs(seconds_ago));
    Facts { history: History { last, for_user, in_total, rehearsed: None }, ..facts() }
}

#[test]
fn what_was_silenced_meanwhile_is_not_done() {
    let facts = Facts { muted_by: Some(Muted::Silence("7-a".to_owned())), ..facts() };
    assert_eq!(
        refused(&config(""), &facts),
        ("silenced", "silence \"7-a\" covers the alert".to_owned())
    );
    let facts = Facts { muted_by: Some(Muted::Inhibition("f0".to_owned())), ..facts };
    assert_eq!(
        refused(&config(""), &facts),
        ("silenced", "alert \"f0\" inhibits the alert".to_owned())
    );
}

#[test]
fn the_cool_down_is_waited_for() {
    let wait = judged(&config(""), &history(10, 3, 5));
    assert_eq!(wait, Decision::Wait(now() + SignedDuration::from_secs(20)));
    let _over = planned(&config(""), &history(30, 1, 1));
    // A clock set back by an hour holds nothing for longer than the cool-down.
    let wait = judged(&config(""), &history(-3600, 1, 1));
    assert_eq!(wait, Decision::Wait(now() + SignedDuration::from_secs(30)));
}

#[test]
fn limits_hold_for_one_user_and_for_all() {
    let (label, text) = refused(&config(""), &history(60, 3, 4));
    assert_eq!(label, "limit_reached");
    assert!(text.contains("alice") && text.contains("per_user"), "{text}");
    let (label, text) = refused(&config(""), &history(60, 2, 5));
    assert_eq!(label, "limit_reached");
    assert!(text.contains("all users") && text.contains("total"), "{text}");
    let _within = planned(&config(""), &history(60, 2, 4));
}

#[test]
fn people_hear_of_a_refusal_once_in_the_limits_window_once_an_hour_or_never() {
    let config = config("");
    let told_in = |facts: &Facts| match judged(&config, facts) {
        Decision::Refuse(refusal) => {
            refusal.told_once_in(&config.playbooks["imapd_storm"].limits).map(|time| time.as_secs())
        }
        other @ (Decision::Act(_) | Decision::Wait(_)) => panic!("{other:?}"),
    };
    assert_eq!(told_in(&history(60, 3, 4)), Some(3600), "per_user: 3/h");
    let mail = Facts { shared_with: vec!["bob".to_owned()], ..facts() };
    assert_eq!(told_in(&mail), Some(3600));
    assert_eq!(told_in(&Facts { living: 1, ..facts() }), None);
    let elsewhere = Facts { living: 1, left_alone: 200, ..facts() };
    assert_eq!(told_in(&elsewhere), Some(3600), "the window of per_user");
    let text = "host: moscow\nplaybooks: {imapd_storm: {alerts: [ProcNumChkRed], command: imapd, \
                threshold: 90, steps: [kill_user_proc], limits: {per_user: 1/15m}}}";
    let config = Config::parse(text, "here").unwrap();
    let refused = judged(&config, &history(60, 1, 1));
    let Decision::Refuse(refusal) = refused else { panic!("{refused:?}") };
    let limits = &config.playbooks["imapd_storm"].limits;
    assert_eq!(refusal.told_once_in(limits).map(|time| time.as_secs()), Some(900));
}

#[test]
fn a_request_names_its_playbook() {
    assert_eq!(admit(&config(""), &alert(&[])).unwrap().name(), "imapd_storm");
}

#[test]
fn a_dry_run_of_the_whole_is_one_of_the_playbook() {
    let config = Config { dry_run: DryRun::All, ..config("") };
    assert!(planned(&config, &facts()).is_dry_run());
}

#[test]
fn an_exception_is_live_and_one_key_stops_them_all() {
    let parse = |whole: &str, own: &str| {
        let text = format!(
            "dry_run: {whole}\nplaybooks: {{p: {{alerts: [A], command: c, threshold: 9, \
             steps: [kill_user_proc], dry_run: {own}}}, q: {{alerts: [A], command: d, threshold: 9, \
             steps: [kill_user_proc]}}}}"
        );
        Config::parse(&text, "moscow").unwrap()
    };
    for (whole, own, live) in [
        ("true", "false", vec![]),
        ("false", "false", vec!["p", "q"]),
        ("false", "true", vec!["q"]),
        ("{except: [p]}", "false", vec!["p"]),
        ("{except: [p]}", "true", vec![]),
        ("{except: [q]}", "false", vec!["q"]),
        ("{except: [q, p]}", "true", vec!["q"]),
    ] {
        let config = parse(whole, own);
        assert_eq!(config.live_playbooks().collect::<Vec<_>>(), live, "{whole} {own}");
        let said = config.explain();
        let is_dry = said.contains("DRY RUN: nothing is killed and nothing is saved");
        assert_eq!(is_dry, live.is_empty(), "{said}");
        assert_eq!(said.matches("  LIVE: it acts.").count(), live.len(), "{said}");
    }
    assert!(parse("true", "false").explain().contains("to arm p alone, `dry_run: {except: [p]}`"));
    assert!(config("").is_dry_run("no such playbook"));
}

#[test]
fn what_an_earlier_dry_run_would_have_killed_is_no_storm_to_the_next() {
    let dry = Config { dry_run: DryRun::All, ..config("") };
    let seen = |newcomers| Facts { newcomers: Some(newcomers), ..facts() };
    let (verdict, why) = refused(&dry, &seen(89));
    assert_eq!(verdict, "no_longer_true");
    assert!(why.contains("would have killed these 95 processes; 89 of them"), "{why}");
    assert!(planned(&dry, &seen(90)).is_dry_run());
    assert!(!planned(&config(""), &seen(0)).is_dry_run(), "a live one kills what lives");
}

proptest! {
    /// Whatever the facts: what is done is a storm of an ordinary user's, within the limits.
    #[test]
    fn nothing_is_ever_done_to_the_wrong(
        uid in prop_oneof![0_u32..1100, any::<u32>()],
        own_uid in prop_oneof![0_u32..1100, any::<u32>()],
        living in prop_oneof![0_u64..200, any::<u64>()],
        name in "alice|postmaster|root|44",
        identity in 0..3,
        for_user in 0_u32..5,
        in_total in 0_u32..8,
        last in proptest::option::of(-100_i64..100),
    ) {
        let config = config("");
        let identity = match identity {
            0 => account(&name, uid),
            1 => Identity::Nameless(uid),
            _ => Identity::Unknown,
        };
        let last = last.map(|seconds| now() - SignedDuration::from_secs(seconds));
        let history = History { last, for_user, in_total, rehearsed: None };
        let who = Who { identity: identity.clone(), own_uid, standing: Standing::Open };
        let facts = Facts { living, history, ..facts() };
        let Ok(authorised) = authorised(&config, &who) else { return Ok(()) };
        let decision = decide(&config, authorised, &facts);
        if let Decision::Act(plan) = decision {
            prop_assert_eq!(identity, account(&name, uid));
            prop_assert!(uid >= 1000 && uid != own_uid && living >= 90 && name != "postmaster");
            prop_assert!(for_user < 3 && in_total < 5);
            prop_assert!(last.is_none_or(|last| now().duration_since(last).as_secs() >= 30));
            prop_assert_eq!(plan.account().uid, uid);
        } else if let Decision::Wait(until) = decision {
            prop_assert!(until > now() && until <= now() + SignedDuration::from_secs(30));
        }
    }
}
