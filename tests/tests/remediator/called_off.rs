//! A step that takes too long when the daemon is told to stop: undone, nobody left stopped, and
//! taken up at the next start.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Command;
use procstorm_remediator::active::Force;
use procstorm_remediator::alertmanager::{Alert, Status};
use procstorm_remediator::engine::{Engine, Parts};
use procstorm_remediator::journal::{Journal, Judged, Receipt, State};
use procstorm_remediator::metrics::Metrics;
use procstorm_remediator::policy::Config;
use procstorm_remediator::policy::admit;
use procstorm_remediator::reach::Reach;
use procstorm_remediator::steps::kill::{Bounds, Target, survey};
use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::opponent::Opponent;
use procstorm_tests::storm::Storm;
use tokio::sync::{Notify, watch};

const SOON: Duration = Duration::from_secs(60);

static UID: LazyLock<u32> = LazyLock::new(claim_uid);

const POLICY: &str = "host: moscow\naccounts: {allow_nameless: true}\nplaybooks: {storm: {alerts: \
                      [Storm], command: core-off, threshold: 5, settle: 0s, cooldown: 0s, steps: \
                      [kill_user_proc]}}";

fn parts(journal: &Journal, bounds: Bounds) -> Parts {
    let config = Config::parse(POLICY, "here").unwrap();
    let (_, force) = watch::channel(Arc::new(Force::new(config, None)));
    Parts {
        procfs: "/proc".into(),
        own_uid: 0,
        bounds,
        force,
        journal: journal.clone(),
        metrics: Metrics::new().unwrap(),
        letters: Arc::new(Notify::new()),
        reach: Reach::default(),
    }
}

fn alert() -> Judged {
    let uid = UID.to_string();
    let labels = [
        ("alertname", "Storm"),
        ("playbook", "storm"),
        ("host", "moscow"),
        ("user", uid.as_str()),
        ("command", "core-off"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let starts_at = Timestamp::now();
    let alert = Alert { status: Status::Firing, labels, starts_at, fingerprint: String::new() };
    Judged { admission: admit(&Config::parse(POLICY, "here").unwrap(), &alert), alert }
}

#[test]
fn a_kill_that_takes_too_long_is_called_off_and_taken_up_again() -> Result<(), Fault> {
    needs_root!();
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let journal = Journal::start(dir.path()).unwrap();

    // It is replaced as fast as it is killed, and this kill would go on for a day.
    let opponent = Opponent::start("respawner", *UID, b"core-off", 50, "0")?;
    let day = Duration::from_secs(86_400);
    let (deadline, rounds, signals) = (day, u32::MAX, u64::MAX);
    // Nor does it end where the respawner has to wait for a processor.
    let confirm_pause = Duration::from_secs(1);
    let endless = Bounds { deadline, rounds, signals, confirm_pause, ..Bounds::default() };
    let id = runtime.block_on(async {
        let engine = Engine::start(parts(&journal, endless));
        let receipts = journal.accept(vec![alert()], Timestamp::now()).await.unwrap();
        let Receipt::Accepted(id) = receipts[0] else {
            return None;
        };
        engine.submit(id);
        let before = opponent.forks();
        let fights = || (opponent.forks() > before + 200).then_some(());
        tokio::task::block_in_place(|| wait::until("a kill without end", SOON, fights)).unwrap();
        engine.finish(Duration::from_secs(2)).await;
        Some(id)
    });
    let id = id.unwrap();
    // Each that is killed is forked anew, the last a little later: nobody is killed any more.
    wait::until("no more kills", SOON, || {
        opponent.fork_none_for(Duration::from_millis(500)).then_some(())
    })?;

    let target = Target { uid: *UID, command: Command::new(b"core-off").unwrap() };
    let proc = ProcDir::open(Path::new("/proc")).unwrap();
    let is_stopped = |pid: i32| proc.stat(pid).ok().flatten().is_some_and(|s| s.state == b'T');
    wait::until("nobody is left stopped", SOON, || {
        let living = survey(Path::new("/proc"), &target).ok()?.living;
        (!living.is_empty() && !living.into_iter().any(is_stopped)).then_some(())
    })?;
    let remediation = runtime.block_on(journal.remediation(id)).unwrap();
    assert_eq!(
        remediation.unwrap().state,
        State::Acting,
        "it is on record as begun, and not as ended"
    );
    drop(opponent);

    let storm = Storm::raise(*UID, b"core-off", 8)?;
    runtime.block_on(async {
        let engine = Engine::start(parts(&journal, Bounds::default()));
        let ended = || (storm.living().ok()? == 0).then_some(());
        tokio::task::block_in_place(|| wait::until("the storm is ended", SOON, ended)).unwrap();
        engine.finish(SOON).await;
    });
    assert!(runtime.block_on(journal.unfinished()).unwrap().is_empty());
    Ok(())
}
