//! `--check` and `explain`, as a person runs them.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use procstorm_testkit::needs_root;
use tempfile::TempDir;

/// Nobody's uid, and it has no name.
const UID: u32 = 44_990;

pub(crate) fn remediator(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_procstorm-remediator");
    Command::new(program).args(arguments).output().expect("it starts")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A file of the project.
fn shipped(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(path).to_str().expect("a path").to_owned()
}

#[test]
fn check_says_that_the_three_files_agree_or_where_they_do_not() {
    let (rules, routes) = (shipped("rules"), shipped("alertmanager/alertmanager.yml"));
    let check = |policy: &str| {
        remediator(&[
            "--check",
            "--config.file",
            policy,
            "--rules",
            &rules,
            "--alertmanager",
            &routes,
        ])
    };
    let policy = shipped("remediator/remediator.yml");
    let good = check(&policy);
    assert!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("the three agree"), "{}", said(&good));

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("renamed.yml");
    let text = fs::read_to_string(&policy).expect("the example").replace("imapd_storm:", "storm:");
    fs::write(&path, text).expect("written");
    let bad = check(path.to_str().expect("a path"));
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    for what in ["is in no policy", "no rule asks for playbook", "procstorm.rules.yml:"] {
        assert!(said(&bad).contains(what), "{what}: {}", said(&bad));
    }
}

#[test]
fn faults_are_said_plainly_and_once_each_with_file_line_and_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bad.yml");
    fs::write(&path, "host: 7\nplaybooks:\n  p: {alerts: [], command: x, steps: [reboot]}\n")
        .expect("written");
    let path = path.to_str().expect("a path");
    let payload = shipped("remediator/remediator.yml");
    for arguments in [
        vec!["--check", "--config.file", path],
        vec!["explain", "--payload", &payload, "--config.file", path],
    ] {
        let output = remediator(&arguments);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = said(&output);
        let starts = [
            format!("{path}:1: host: "),
            format!("{path}:3: playbooks.p.alerts: "),
            format!("{path}:3: playbooks.p.threshold: "),
            format!("{path}:3: playbooks.p.steps: "),
        ];
        assert_eq!(text.lines().count(), starts.len(), "{text}");
        for start in starts {
            assert_eq!(text.lines().filter(|line| line.starts_with(&start)).count(), 1, "{text}");
        }
    }
    let gone = remediator(&["--check", "--config.file", "/nowhere/remediator.yml"]);
    assert_eq!(said(&gone).matches("No such file").count(), 1, "{}", said(&gone));
    assert_eq!(said(&gone).lines().count(), 1, "{}", said(&gone));
}

#[test]
fn check_quotes_no_secret_of_a_faulty_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let (rules, policy) = (shipped("rules"), shipped("remediator/remediator.yml"));
    let path = directory.path().join("alertmanager.yml");
    let good = fs::read_to_string(shipped("alertmanager/alertmanager.yml")).expect("the example");
    let secret = "global:\n  smtp_auth_password: hunter2\n";
    assert!(good.contains("global:\n"));
    let good = good.replace("global:\n", secret);
    for (from, to) in [
        ("  smtp_from", "   smtp_from"),
        ("route:\n", "route: [\n"),
        ("route:\n", "route:\n\tx: y\n"),
        ("global:\n", "hunter2: &a [*b]\nglobal:\n"),
        ("global:\n", "global: {}\nglobal:\n"),
        ("http://127.0.0.1:9958/webhook", "http://me:hunter2@kiev:9958/webhook"),
        ("http://127.0.0.1:9958/webhook", "http://me:hunter2 @kiev:9958/webhook"),
        ("authorization: {type: Bearer, credentials_file", "bearer_token: hunter2, x: {y"),
        ("{type: Bearer, credentials_file: /etc", "{type: Basic, credentials: hunter2, x: /etc"),
        ("receivers:\n", "receivers: hunter2\nx:\n"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replacen(from, to, 1)).expect("written");
        let routes = path.to_str().expect("a path");
        let output = remediator(&[
            "--check",
            "--config.file",
            &policy,
            "--rules",
            &rules,
            "--alertmanager",
            routes,
        ]);
        let text = said(&output);
        assert!(!text.contains("hunter2"), "{to}: {text}");
        assert!(!text.contains("the three agree") || to.contains("bearer_token"), "{to}: {text}");
    }
}

/// A policy for `sleep` processes of a uid without a name, and what Alertmanager would post.
struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["spool", "archive"] {
            fs::create_dir(at(name)).expect("made");
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(at("archive"), permissions).expect("ours alone");
        let policy = format!(
            "host: here\nstate: {0}/state\nmail: {{spool: {0}/spool, archive: {0}/archive, reserve: 0B}}\n\
             accounts: {{allow_nameless: true}}\nplaybooks:\n  nap: {{alerts: [Naps], command: sleep, \
             threshold: 2, steps: [archive_mail_file, kill_user_proc]}}\n",
            directory.path().display()
        );
        fs::write(at("remediator.yml"), policy).expect("written");
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn explain(&self, labels: &str) -> Output {
        let alert = format!(
            r#"{{"status":"firing","labels":{{{labels}}},"startsAt":"2026-11-23T13:51:45.789Z"}}"#
        );
        fs::write(self.at("post.json"), format!(r#"{{"version":"4","alerts":[{alert}]}}"#))
            .expect("written");
        let (policy, payload) = (self.at("remediator.yml"), self.at("post.json"));
        let text = |path: &Path| path.to_str().expect("a path").to_owned();
        remediator(&["explain", "--payload", &text(&payload), "--config.file", &text(&policy)])
    }
}

/// Sleeping processes that end with their guard.
struct Sleepers(Vec<Child>);

impl Sleepers {
    fn start(uid: u32, count: usize) -> Self {
        let sleeper = |_| {
            let mut command = Command::new("sleep");
            command.arg("600").uid(uid).gid(uid).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().expect("it starts")
        };
        let sleepers = Self((0..count).map(sleeper).collect());
        for child in &sleepers.0 {
            // The kernel gives it its name a moment after it was started.
            let name = format!("/proc/{}/comm", child.id());
            let begun = Instant::now();
            while fs::read(&name).expect("it lives") != b"sleep\n" {
                assert!(begun.elapsed() < Duration::from_secs(60), "it is not called sleep");
                std::thread::yield_now();
            }
        }
        sleepers
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().and_then(|()| child.wait()).ok();
        }
    }
}

const LABELS: &str =
    r#""host":"here","playbook":"nap","alertname":"Naps","command":"sleep","user":"44990""#;

#[test]
fn explain_says_which_pids_and_files_and_touches_neither() {
    needs_root!();
    let scene = Scene::new();
    let mailbox = scene.at("spool/44990");
    fs::write(&mailbox, "From a\n").expect("written");
    std::os::unix::fs::chown(&mailbox, Some(UID), Some(UID)).expect("the user's");
    let mut sleepers = Sleepers::start(UID, 2);

    let output = scene.explain(LABELS);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Playbook nap would run: 2 processes of uid 44990 live."), "{text}");
    for child in &sleepers.0 {
        assert!(text.contains(&format!(" {}", child.id())), "pid {}: {text}", child.id());
    }
    let file = format!("would save user mail file {} as ", mailbox.display());
    assert!(text.contains(&file) && text.contains(" (7 bytes)"), "{text}");
    for child in &mut sleepers.0 {
        assert_eq!(child.try_wait().expect("ours"), None, "it lives");
    }
    assert_eq!(fs::read_dir(scene.at("archive")).expect("there").count(), 0);
    assert!(!scene.at("state").exists(), "no journal is made");
}

#[test]
fn explain_makes_no_archive_directory_and_judges_others_mail_as_the_daemon_does() {
    needs_root!();
    let uid = UID + 2;
    let (labels, scene) = (LABELS.replace("44990", &uid.to_string()), Scene::new());
    fs::remove_dir(scene.at("archive")).expect("it was empty");
    let _sleepers = Sleepers::start(uid, 2);
    let missing = format!("{} does not exist yet", scene.at("archive").display());
    let text = said(&scene.explain(&labels));
    assert!(text.contains("Playbook nap would run") && text.contains(&missing), "{text}");
    assert!(!scene.at("archive").exists(), "it would be root's, and closed to the daemon");

    let mailbox = scene.at("spool/bob");
    fs::write(&mailbox, "From a\n").expect("written");
    std::os::unix::fs::chown(&mailbox, Some(uid), Some(uid)).expect("the user's");
    let text = said(&scene.explain(&labels));
    assert!(text.contains("Nothing would be done: ") && text.contains("\"bob\""), "{text}");
    let policy = fs::read_to_string(scene.at("remediator.yml")).expect("there");
    let policy = policy.replace("[archive_mail_file, kill_user_proc]", "[archive_mail_file]");
    fs::write(scene.at("remediator.yml"), policy).expect("written");
    let text = said(&scene.explain(&labels));
    assert!(text.contains("Playbook nap would run"), "it ends nobody's processes: {text}");
    assert!(!scene.at("archive").exists());
}

#[test]
fn explain_says_why_nothing_would_be_done() {
    let scene = Scene::new();
    for (from, to, why) in [
        ("here", "there", "the alert is for host \"there\", this is \"here\""),
        ("nap", "other", "there is no playbook \"other\""),
        ("Naps", "Other", "alert \"Other\" may not name playbook \"nap\""),
        ("sleep", "/bin/sleep", "is not exactly"),
        ("44990", "../etc/passwd", "begins with '-' or '.'"),
        ("44990", "44991", "0 processes live, below the threshold of 2"),
        ("44990", "root", "uid 0"),
    ] {
        let output = scene.explain(&LABELS.replace(from, to));
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("Nothing would be done: ") && text.contains(why), "{why}: {text}");
    }
}

#[test]
fn explain_names_a_file_that_is_no_notification() {
    let scene = Scene::new();
    let output = scene.explain("\"user\":7");
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("post.json: not an Alertmanager notification"), "{text}");
}

#[test]
fn check_says_whom_the_lists_cover_on_this_machine_and_what_of_them_covers_nobody() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("remediator.yml");
    let playbook = "playbooks: {storm: {alerts: [A], command: imapd, threshold: 90, \
                    steps: [kill_user_proc]}}";
    let accounts = "accounts: {protected: [\"@daemon\", root], only: [root, nosuchuser]}";
    fs::write(&path, format!("host: here\n{accounts}\n{playbook}\n")).expect("a policy");
    let output = remediator(&["--check", "--config.file", path.to_str().expect("a path")]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    for part in [
        "Of all others, only these are acted on: root, nosuchuser.",
        "accounts.protected covers:\n  @daemon (gid 1; the group lists ",
        "\n  root (uid 0",
        "\n  nosuchuser (none on this machine)\n",
        "warning: accounts.only: there is no account \"nosuchuser\" on this machine; the entry \
         allows nobody",
        "warning: accounts.only: root has uid 0, and uids below 1000 (accounts.min_uid) are never",
        "warning: accounts.only: root is protected as well",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}
