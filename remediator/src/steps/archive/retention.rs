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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::mark::Mark;
    use super::super::version::Version;
    use super::*;

    const VERSION: Version = Version { dev: 1, ino: 2, size: 10, mtime: (3, 4), ctime: (5, 6) };

    const NOTHING: [u64; 0] = [];

    /// An archive of the mailbox that was whole, of 10 bytes.
    fn stored(second: u64) -> Stored {
        let mark = Mark { form: Form::Mbox, steady: true, version: VERSION };
        let name = format!("alice.{second}");
        Stored { name, second, bytes: 10, allocated: 10, mark: Some(mark) }
    }

    fn torn(second: u64) -> Stored {
        let stored = stored(second);
        Stored { mark: stored.mark.map(|mark| Mark { steady: false, ..mark }), ..stored }
    }

    fn pop(second: u64) -> Stored {
        let stored = stored(second);
        Stored { mark: stored.mark.map(|mark| Mark { form: Form::Pop, ..mark }), ..stored }
    }

    fn unmarked(second: u64) -> Stored {
        Stored { mark: None, ..stored(second) }
    }

    /// The seconds of those that go. It is second 1000.
    fn gone(archives: &[Stored], retention: Retention, marked: bool) -> Vec<u64> {
        surplus(archives, &retention, 1_000, marked).iter().map(|stored| stored.second).collect()
    }

    const NONE: Retention = Retention { keep: None, max_age: None, max_bytes: None };

    #[test]
    fn without_a_limit_all_are_kept() {
        assert_eq!(gone(&[stored(900), stored(3), stored(2)], NONE, true), NOTHING);
    }

    #[test]
    fn so_many_of_each_form_are_kept() {
        let two = Retention { keep: Some(2), ..NONE };
        let archives = [stored(9), pop(8), stored(7), pop(6), stored(5), pop(4), stored(3)];
        assert_eq!(gone(&archives, two, true), [5, 4, 3]);
    }

    #[test]
    fn what_is_older_than_the_age_goes_and_what_is_just_as_old_stays() {
        let aged = Retention { max_age: Some(Duration::from_secs(100)), ..NONE };
        assert_eq!(gone(&[stored(950), stored(900), stored(899)], aged, true), [899]);
        assert_eq!(gone(&[stored(1)], aged, true), NOTHING, "never the newest");
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let fits = |most| Retention { max_bytes: Some(most), ..NONE };
        let archives = [stored(9), stored(8), stored(7), stored(6)];
        assert_eq!(gone(&archives, fits(40), true), NOTHING);
        assert_eq!(gone(&archives, fits(39), true), [6]);
        assert_eq!(gone(&archives, fits(20), true), [7, 6]);
        assert_eq!(gone(&archives, fits(0), true), [8, 7, 6], "never the newest");
    }

    #[test]
    fn what_goes_for_its_age_makes_room() {
        let both =
            Retention { max_age: Some(Duration::from_secs(100)), max_bytes: Some(20), ..NONE };
        assert_eq!(gone(&[stored(950), stored(940), stored(1)], both, true), [1]);
    }

    #[test]
    fn the_newest_that_was_whole_stays_though_torn_ones_came_after() {
        let one = Retention { keep: Some(1), max_bytes: Some(0), ..NONE };
        let archives = [torn(9), torn(8), stored(7), stored(6)];
        assert_eq!(gone(&archives, one, true), [8, 6]);
    }

    #[test]
    fn an_archive_without_a_mark_is_ours_only_where_there_are_no_marks() {
        let one = Retention { keep: Some(1), ..NONE };
        let archives = [unmarked(9), unmarked(8), unmarked(7), unmarked(6)];
        assert_eq!(gone(&archives, one, true), NOTHING);
        // It may be of either form, so twice as many stay.
        assert_eq!(gone(&archives, one, false), [7, 6]);
        let two = Retention { keep: Some(2), ..NONE };
        assert_eq!(gone(&archives, two, false), NOTHING);
        let none = Retention { max_bytes: Some(0), ..NONE };
        assert_eq!(gone(&archives, none, false), [7, 6]);
    }
}
