//! The lock that killed processes may have left on a mail file, as a step in the journal.

use procstorm_toolkit::chain::Chain;

use super::note::LockNote;
use crate::steps::run::{Ran, Work};
use crate::stopping::Stopping;

/// The step in the journal that reports a lock on the mail file; no playbook names it.
pub(crate) const LOCK_STEP: &str = "mail_file_lock";

/// Looks for a lock that the killed processes have left on the mail file. It is a step only if there is
/// something to report, and a step of its own: the kill is on record by then, however long the spool
/// takes to answer.
pub(crate) async fn left_lock(work: &Work<'_>) -> Result<Option<LockNote>, Stopping> {
    match work.recorded(LOCK_STEP) {
        Some(Ran::Known(note)) => return Ok(Some(note)),
        Some(Ran::Unread(record)) => return Ok(Some(LockNote::Unknown(record.to_string()))),
        None => {}
    }
    let procfs = work.procfs.to_owned();
    let mailroom = &work.force.mailroom;
    let (note, outcome) =
        match mailroom.left_dotlock(work.account.clone(), procfs, work.abort).await {
            Ok(None) => return Ok(None),
            Ok(Some(lock)) => (LockNote::Left(lock), "left"),
            // The same if the daemon stops: the kill is over, and its outcome does not wait for a start.
            Err(trouble) => (LockNote::Unknown(Chain(&trouble).to_string()), "unknown"),
        };
    let (id, user) = (work.remediation.id, work.account.name.as_str());
    tracing::warn!(remediation = id, user, found = %note, "mail file lock after the kill");
    let step = work.begin_step(LOCK_STEP).await?;
    work.end_step(step, outcome, false, &note).await?;
    Ok(Some(note))
}
