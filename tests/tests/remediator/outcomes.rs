//! Outcomes reach Alertmanager in order, once each, however long it takes, and whatever it forgets.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
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
use procstorm_testkit::needs_root;
use procstorm_testkit::uids::claim_uid;
use procstorm_tests::host::{Host, Post, Receiver};
use procstorm_tests::storm::Storm;
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
async fn outbox_of(dir: &std::path::Path, receiver: &Receiver, events: &[&str]) -> Outbox {
    let text = format!(
        "host: moscow\n{}\nplaybooks: {{storm: {{alerts: [Storm], command: x, threshold: 1, \
         steps: [kill_user_proc]}}}}",
        receiver.line()
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
        let content = [("event".to_owned(), (*event).to_owned())];
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
        };
        journal.end(id, ending, Timestamp::now()).await.unwrap();
    }
    let (_, force) = watch::channel(Arc::new(Force::new(config, None)));
    let metrics = Metrics::new().unwrap();
    let confirm = Duration::from_millis(100);
    Outbox { journal, force, letters: Arc::new(Notify::new()), metrics, confirm }
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
    let outbox = runtime.block_on(outbox_of(dir.path(), &receiver, &["a", "b"]));
    let delivery = runtime.spawn(outbox.run(stopped));
    receiver.wait_for_posts(2)?;
    // Several confirmations later, there are still two.
    procstorm_testkit::wait::until("time goes by", Duration::from_secs(5), {
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

#[test]
fn one_that_alertmanager_refuses_holds_up_no_other() -> Result<(), Fault> {
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let (stop, stopped) = watch::channel(false);
    receiver.fail(Some(400));
    let outbox = runtime.block_on(outbox_of(dir.path(), &receiver, &["a"]));
    let (journal, letters) = (outbox.journal.clone(), Arc::clone(&outbox.letters));
    let delivery = runtime.spawn(outbox.run(stopped));
    procstorm_testkit::wait::until("the first is dropped", Duration::from_secs(60), || {
        (runtime.block_on(journal.pending()).ok()?.outcomes == 0).then_some(())
    })?;
    receiver.fail(None);
    let second = NewLetter {
        event: "b".to_owned(),
        labels: [("event".to_owned(), "b".to_owned())].into(),
        annotations: BTreeMap::new(),
    };
    let ending = Ending {
        verdict: Verdict::NoneSeen,
        summary: String::new(),
        after: None,
        letter: Some(second),
        watch_until: None,
    };
    runtime.block_on(journal.end(1, ending, Timestamp::now())).unwrap();
    letters.notify_one();
    let posts = receiver.wait_for_posts(1)?;
    assert_eq!(event(&posts[0]), "b");
    stop.send_replace(true);
    runtime.block_on(delivery).unwrap();
    Ok(())
}
