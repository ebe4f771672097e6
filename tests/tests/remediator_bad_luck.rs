//! Bad luck: a clock that was wrong, a policy that was changed at the worst moment, a journal that
//! comes late, an Alertmanager that takes its time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use procstorm_remediator::journal::Journal;
use procstorm_tests::fault::Fault;
use procstorm_tests::host::{Host, Post};
use procstorm_tests::skip::is_root_or_skip;
use procstorm_tests::storm::Storm;
use procstorm_tests::wait;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const SOON: Duration = Duration::from_secs(20);

/// Changes the journal of a host whose daemon is stopped.
fn change_journal(host: &Host, statements: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let journal = Journal::start(&host.dir().join("state")).unwrap();
    let statements = statements.to_owned();
    runtime
        .block_on(journal.write(move |transaction| Ok(transaction.execute_batch(&statements)?)))
        .unwrap();
    runtime.block_on(journal.close());
}

/// Leaves a storm as a daemon does that is killed between SIGSTOP and SIGKILL.
fn stop_all(storm: &Storm) -> Result<(), Fault> {
    for pid in storm.pids() {
        let pidfd = pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(pidfd, Signal::STOP).unwrap();
    }
    wait::until("all are stopped", SOON, || {
        (storm.stopped().unwrap() == storm.pids().len()).then_some(())
    })
}

/// The last remediation is in the middle of its kill.
const CUT_OFF: &str = "
    UPDATE remediations SET state = 'acting', ended_ms = NULL, watch_ms = NULL, verdict = NULL;
    UPDATE steps SET ended_ms = NULL, outcome = NULL, good = NULL, detail = NULL
        WHERE name = 'kill_user_proc';";

#[test]
fn whoever_was_stopped_goes_on_even_if_the_policy_was_changed_since() -> Result<(), Fault> {
    if !is_root_or_skip("whoever_was_stopped_goes_on_even_if_the_policy_was_changed_since") {
        return Ok(());
    }
    let uid = 42_010;
    let mut host = Host::start("luck-a", "    settle: 0s\n    cooldown: 0s", "")?;
    let first = Storm::raise(uid, b"luck-a", 8)?;
    host.post(&[Post::storm(uid, "luck-a")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    drop(first);
    for command in ["luck-z"] {
        let storm = Storm::raise(uid, b"luck-a", 8)?;
        host.stop()?;
        change_journal(&host, CUT_OFF);
        stop_all(&storm)?;
        host.change_policy(command, "", "")?;
        host.restart()?;
        wait::until(&format!("{command}: all go on"), SOON, || {
            (storm.stopped().unwrap() == 0).then_some(())
        })
        .inspect_err(|_| eprintln!("{}", host.daemon.log()))?;
        host.wait_for_metric("procstorm_remediations_pending", 0.0)?;
    }
    Ok(())
}

