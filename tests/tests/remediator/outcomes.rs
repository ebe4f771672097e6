//! Outcomes reach Alertmanager in order, once each, however long it takes, and whatever it forgets.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use procstorm_remediator::active::Force;
use procstorm_remediator::alertmanager::{Alert, Status};
use procstorm_remediator::delivery::Outbox;
use procstorm_remediator::journal::course::Ending;
use procstorm_remediator::journal::letters::NewLetter;
use procstorm_remediator::journal::{Journal, Judged, Receipt};
use procstorm_remediator::metrics::Metrics;
use procstorm_remediator::policy::Config;
use procstorm_remediator::policy::admit;
use procstorm_remediator::verdict::Verdict;
use procstorm_testkit::fault::Fault;
use procstorm_testkit::port::free_port;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::journal;
use procstorm_tests::smtp::{Mail, Sink};
use procstorm_tests::storm::Storm;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use tokio::sync::{Notify, watch};

fn event(post: &Value) -> String {
    post["labels"]["event"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn outcomes_wait_for_an_alertmanager_that_is_down_even_through_a_restart() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let receiver = Receiver::start()?;
    receiver.fail(Some(503));
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let mut host = Host::start("core-o", playbook, &receiver.line())?;
    let mut done = Vec::new();
    for _ in 0..3 {
        let _storm = Storm::raise(uid, b"core-o", 6)?;
        host.post(&[Post::storm(uid, "core-o")])?;
        done.push("none_seen");
        host.wait_for_verdicts(&done)?;
    }
    host.wait_for_metric("procstorm_outcomes_pending", 3.0)?;
    assert!(host.stop()?.success());
    assert!(receiver.posts().is_empty() && receiver.attempts() > 0);
    receiver.fail(None);
    host.restart()?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    let events: Vec<_> = receiver.posts().iter().map(event).collect();
    let ids: Vec<_> = events.iter().map(|event| event.split('-').next().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3"], "in order, once each");
    // Started again, it posts nothing twice.
    host.stop()?;
    host.restart()?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    assert_eq!(receiver.posts().len(), 3);
    Ok(())
}

/// A journal with one outcome in it, and what delivers it.
async fn outbox_of(dir: &Path, line: &str, events: &[&str]) -> Outbox {
    let text = format!(
        "host: moscow\n{}\nplaybooks: {{storm: {{alerts: [Storm], command: x, threshold: 1, \
         steps: [kill_user_proc]}}}}",
        line
    );
    let config = Config::parse(&text, "here").unwrap();
    let journal = Journal::start(dir).unwrap();
    let labels =
        [("host", "moscow"), ("alertname", "Storm"), ("playbook", "storm"), ("command", "x")];
    for (index, event) in events.iter().enumerate() {
        let mut labels: BTreeMap<String, String> =
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        labels.insert("user".to_owned(), format!("u{index}"));
        let starts_at = Timestamp::now();
        let alert = Alert { status: Status::Firing, labels, starts_at, fingerprint: String::new() };
        let judged = Judged { admission: admit(&config, &alert), alert };
        let receipts = journal.accept(vec![judged], Timestamp::now()).await.unwrap();
        let Receipt::Accepted(id) = receipts[0] else { continue };
        let content = [
            ("alertname".to_owned(), "ProcstormOutcome".to_owned()),
            ("event".to_owned(), (*event).to_owned()),
        ];
        let letter = NewLetter {
            event: (*event).to_owned(),
            labels: content.clone().into(),
            annotations: content.into(),
        };
        let ending = Ending {
            verdict: Verdict::NoneSeen,
            summary: String::new(),
            after: Some(0),
            letter: Some(letter),
            watch_until: None,
            dry_run: false,
        };
        journal.end(id, ending, Timestamp::now()).await.unwrap();
    }
    let (_, force) = watch::channel(Arc::new(Force::new(config, None)));
    let metrics = Metrics::new().unwrap();
    let confirm = Duration::from_millis(100);
    let settled = Duration::from_secs(1);
    Outbox { journal, force, letters: Arc::new(Notify::new()), metrics, confirm, settled }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[test]
fn what_alertmanager_has_forgotten_is_posted_again_and_nothing_else() -> Result<(), Fault> {
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let (stop, stopped) = watch::channel(false);
    let outbox = runtime.block_on(outbox_of(dir.path(), &receiver.line(), &["a", "b"]));
    let delivery = runtime.spawn(outbox.run(stopped));
    receiver.wait_for_posts(2)?;
    // Several confirmations later, there are still two.
    wait::until("time goes by", Duration::from_secs(5), {
        let begun = std::time::Instant::now();
        move || (begun.elapsed() > Duration::from_millis(600)).then_some(())
    })?;
    assert_eq!(receiver.posts().len(), 2);
    receiver.forget();
    let posts = receiver.wait_for_posts(4)?;
    assert_eq!(posts[2], posts[0], "unchanged, so that it is the same alert");
    assert_eq!(posts[3], posts[1]);
    stop.send_replace(true);
    runtime.block_on(delivery).unwrap();
    Ok(())
}

/// Adds an outcome to the remediation `id`, as its end does.
async fn write(journal: &Journal, id: i64, event: &str) {
    let content: BTreeMap<_, _> = [("alertname", "ProcstormOutcome"), ("event", event)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let letter =
        NewLetter { event: event.to_owned(), labels: content.clone(), annotations: content };
    let ending = Ending {
        verdict: Verdict::NoneSeen,
        summary: String::new(),
        after: None,
        letter: Some(letter),
        watch_until: None,
        dry_run: false,
    };
    journal.end(id, ending, Timestamp::now()).await.unwrap();
}

#[test]
fn outcomes_that_are_refused_or_cannot_be_read_hold_up_no_other() -> Result<(), Fault> {
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let (stop, stopped) = watch::channel(false);
    receiver.fail(Some(400));
    let outbox = runtime.block_on(outbox_of(dir.path(), &receiver.line(), &["a"]));
    let (journal, letters) = (outbox.journal.clone(), Arc::clone(&outbox.letters));
    let delivery = runtime.spawn(outbox.run(stopped));
    let none_waits = |what: &str| {
        wait::until(what, Duration::from_secs(60), || {
            (runtime.block_on(journal.pending()).ok()?.outcomes == 0).then_some(())
        })
    };
    none_waits("the first is dropped")?;
    // As many as would fill a batch, before one that can be read.
    journal::change(
        dir.path(),
        "INSERT INTO outcomes (remediation, event, created_ms, labels, annotations)
         SELECT 1, 'damaged-' || value, 0, '[', '{}' FROM generate_series(1, 60)",
    )?;
    receiver.fail(None);
    runtime.block_on(write(&journal, 1, "b"));
    letters.notify_one();
    let posts = receiver.wait_for_posts(1)?;
    assert_eq!(event(&posts[0]), "b");
    none_waits("what cannot be read is dropped")?;
    stop.send_replace(true);
    runtime.block_on(delivery).unwrap();
    Ok(())
}

/// An Alertmanager's configuration that mails outcomes at once, through this server.
fn mailing(smtp: &str) -> String {
    format!(
        "global: {{smtp_smarthost: '{smtp}', smtp_from: a@example.org, smtp_require_tls: false}}
route: {{receiver: mail, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1d}}
receivers:
  - name: mail
    email_configs:
      - to: postmaster@example.org
        send_resolved: false
        headers: {{Subject: '{{{{ .CommonLabels.event }}}}'}}
"
    )
}

fn subjects(sink: &Sink) -> Vec<String> {
    let mut subjects: Vec<_> = sink.mails().iter().map(Mail::subject).collect();
    subjects.sort();
    subjects
}

const SOON: Duration = Duration::from_secs(120);

#[test]
fn after_a_crash_of_alertmanager_what_was_mailed_is_not_mailed_again() -> Result<(), Fault> {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sink = Sink::start(None)?;
    let config = files.path().join("alertmanager.yml");
    std::fs::write(&config, mailing(&sink.address().to_string())).unwrap();
    let mut alertmanager = Alertmanager::start(&config, files.path())?;
    let runtime = runtime();
    let (stop, stopped) = watch::channel(false);
    let line = format!("alertmanager: {}", alertmanager.url());
    let outbox = runtime.block_on(outbox_of(dir.path(), &line, &["a", "b"]));
    let (journal, letters) = (outbox.journal.clone(), Arc::clone(&outbox.letters));
    let delivery = runtime.spawn(outbox.run(stopped));
    let mailed =
        |events: &[&str]| wait::until("mails", SOON, || (subjects(&sink) == events).then_some(()));
    mailed(&["a", "b"])?;
    wait::until("both are settled", SOON, || {
        let live = runtime.block_on(journal.live(Timestamp::now())).ok()?;
        live.is_empty().then_some(())
    })?;
    alertmanager.kill()?;
    alertmanager.restart()?;
    // One that it is given now and mails shows that it has had time for the others.
    runtime.block_on(write(&journal, 1, "c"));
    letters.notify_one();
    mailed(&["a", "b", "c"])?;
    stop.send_replace(true);
    runtime.block_on(delivery).unwrap();
    assert_eq!(subjects(&sink), ["a", "b", "c"]);
    Ok(())
}

#[test]
fn after_a_crash_of_alertmanager_what_could_not_be_mailed_is_mailed() -> Result<(), Fault> {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = files.path().join("alertmanager.yml");
    std::fs::write(&config, mailing(&format!("127.0.0.1:{}", free_port()?))).unwrap();
    let mut alertmanager = Alertmanager::start(&config, files.path())?;
    let runtime = runtime();
    let (stop, stopped) = watch::channel(false);
    let line = format!("alertmanager: {}", alertmanager.url());
    let mut outbox = runtime.block_on(outbox_of(dir.path(), &line, &["a"]));
    outbox.settled = SOON;
    let delivery = runtime.spawn(outbox.run(stopped));
    wait::until("a mail fails", SOON, || {
        let name = "alertmanager_notification_requests_failed_total";
        (alertmanager.metric(name, &[("integration", "email")]).ok()? > 0.0).then_some(())
    })?;
    alertmanager.kill()?;
    let sink = Sink::start(None)?;
    std::fs::write(&config, mailing(&sink.address().to_string())).unwrap();
    alertmanager.restart()?;
    wait::until("the mail", SOON, || (subjects(&sink) == ["a"]).then_some(()))?;
    stop.send_replace(true);
    runtime.block_on(delivery).unwrap();
    Ok(())
}

/// Certificates for an Alertmanager and its client, the client's login, and the web configuration.
fn guarded(dir: &Path) -> PathBuf {
    let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    put("ca.crt", &authority.pem());
    for name in ["127.0.0.1", "moscow"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        put(&format!("{name}.crt"), &params.signed_by(&key, &authority).unwrap().pem());
        put(&format!("{name}.key"), &key.serialize_pem());
    }
    put("password", "a good password\n");
    let hash = bcrypt::hash("a good password", 4).unwrap();
    put(
        "web.yml",
        &format!(
            "tls_server_config: {{cert_file: 127.0.0.1.crt, key_file: 127.0.0.1.key, \
             client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}}\n\
             basic_auth_users: {{moscow: '{hash}'}}\n"
        ),
    );
    dir.join("web.yml")
}

#[test]
fn an_outcome_is_mailed_over_https_with_a_certificate_and_a_password() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let files = tempfile::tempdir().unwrap();
    let web = guarded(files.path());
    let sink = Sink::start(None)?;
    let config = files.path().join("alertmanager.yml");
    std::fs::write(&config, mailing(&sink.address().to_string())).unwrap();
    let alertmanager = Alertmanager::start_guarded(&config, files.path(), &web)?;
    let path = files.path().display();
    let top = |password: &str| {
        format!(
            "alertmanager: {}\nalertmanager_http: {{ca_file: {path}/ca.crt, \
             cert_file: {path}/moscow.crt, key_file: {path}/moscow.key, username: moscow, \
             password_file: {path}/{password}}}",
            alertmanager.url()
        )
    };
    std::fs::write(files.path().join("wrong"), "another password\n").unwrap();
    let host = Host::start("core-m", "    settle: 0s", &top("wrong"))?;
    let _storm = Storm::raise(uid, b"core-m", 6)?;
    host.post(&[Post::storm(uid, "core-m")])?;
    host.wait_for_metric("procstorm_outcomes_pending", 1.0)?;
    // A wrong password is no reason to drop anything.
    wait::until("it is refused", SOON, || {
        host.daemon.log().contains("401 Unauthorized").then_some(())
    })?;
    assert!(!host.daemon.log().contains("another password"));
    host.change_policy("core-m", "    settle: 0s", &top("password"))?;
    host.reload()?;
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    wait::until("the mail", SOON, || (subjects(&sink).len() == 1).then_some(()))?;
    let up = format!("procstorm_alertmanager_up{{alertmanager=\"{}\"}}", alertmanager.url());
    host.wait_for_metric(&up, 1.0)
}
