//! Which archives of a user are no longer kept. Pure: it is given what there is.

use std::collections::HashMap;

use super::form::Form;
use super::vault::Stored;
use crate::policy::Retention;

/// Those of a user's `archives` (the newest first) to be removed, the oldest last. Never the
/// newest of a form, nor the newest that its mail file left unchanged while it was copied.
///
/// An archive without a mark may be of either form. It is taken for one of ours only where the
/// file system has no marks (`marked` is false), and then twice as many are kept.
pub(super) fn surplus<'a>(
    archives: &'a [Stored],
    retention: &Retention,
    now_epoch: u64,
    marked: bool,
) -> Vec<&'a Stored> {
    let ours = || archives.iter().filter(|stored| !marked || stored.mark.is_some());
    let mut seen: HashMap<Option<Form>, Seen> = HashMap::new();
    let mut left = Vec::new();
    let mut surplus = Vec::new();
    for stored in ours() {
        let form = stored.mark.map(|mark| mark.form);
        let seen = seen.entry(form).or_default();
        let forms = if form.is_none() { 2 } else { 1 };
        let newest = seen.count < forms;
        let steady = stored.mark.is_some_and(|mark| mark.steady);
        let newest_steady = steady && !seen.steady;
        seen.count += 1;
        seen.steady |= steady;
        if newest || newest_steady {
            left.push((stored, true));
            continue;
        }
        let too_many = retention.keep.is_some_and(|keep| seen.count > u64::from(keep) * forms);
        let too_old = retention
            .max_age
            .is_some_and(|age| stored.second.saturating_add(age.as_secs()) < now_epoch);
        if too_many || too_old {
            surplus.push(stored);
        } else {
            left.push((stored, false));
        }
    }
    let mut bytes = left.iter().fold(0_u64, |sum, (s, _)| sum.saturating_add(s.allocated));
    for (stored, protected) in left.into_iter().rev() {
        if !protected && retention.max_bytes.is_some_and(|most| bytes > most) {
            bytes = bytes.saturating_sub(stored.allocated);
            surplus.push(stored);
        }
    }
    surplus.sort_unstable_by_key(|stored| std::cmp::Reverse(stored.second));
    surplus
}

/// What was met of a form so far.
#[derive(Default)]
struct Seen {
    count: u64,
    steady: bool,
}
