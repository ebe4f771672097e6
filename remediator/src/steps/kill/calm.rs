//! Whether scans that saw no process alive mean that the storm is over. Pure.
//!
//! A process that forks a child and exits can slip past a scan. But it leaves a trace: a process
//! that has died since the last scan, or one that exits while the scan looks at it.

use std::time::Instant;

/// How many scans in which a process slipped away are followed up. Bounded, since a user may well
/// have other processes that come and go, and nothing tells those from the storm.
const SLIPS_MAX: u32 = 50;

/// How many scans that saw a newly dead process are followed up at once. What is not met then is no
/// chain, but dies as soon as it is started, and that can be seen at leisure.
const HASTE_MAX: u32 = 50;

/// What a scan found that saw no process alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    /// Whether one of the storm has died since the scan before, though not by us.
    pub(super) died: bool,
    /// Whether one of the user's had gone before its name was seen.
    pub(super) slipped: bool,
}

/// What is to be done after such a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To look again at once: processes that fork and exit are fast.
    LookAtOnce,
    /// To look again after a pause.
    LookLater,
    /// Nothing: enough scans saw none, since then.
    Over(Instant),
    /// Nothing: no more may be signalled, and they come and go still.
    Restless,
}

/// How calm it has been.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calm {
    /// The scans in a row that saw none, and when the first of them began.
    quiet: u32,
    since: Option<Instant>,
    slips: u32,
    hasty: u32,
    /// The scans that saw one dead when no more could be signalled.
    late: u32,
}

impl Calm {
    /// A process was alive.
    pub(super) fn end(&mut self) {
        (self.quiet, self.since) = (0, None);
    }

    /// No process was alive in a scan that began at `begun`. It takes `confirmations` such scans in
    /// a row that left no doubt. `may_signal` is whether anything could be done if one was met.
    pub(super) fn add(
        &mut self,
        traces: Traces,
        begun: Instant,
        may_signal: bool,
        confirmations: u32,
    ) -> Next {
        if traces.died {
            self.end();
            if may_signal {
                self.hasty = self.hasty.saturating_add(1);
                let is_hasty = self.hasty <= HASTE_MAX;
                return if is_hasty { Next::LookAtOnce } else { Next::LookLater };
            }
            self.late = self.late.saturating_add(1);
            return if self.late > confirmations { Next::Restless } else { Next::LookLater };
        }
        if traces.slipped && may_signal && self.slips < SLIPS_MAX {
            self.end();
            self.slips = self.slips.saturating_add(1);
            return Next::LookAtOnce;
        }
        let since = *self.since.get_or_insert(begun);
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet >= confirmations { Next::Over(since) } else { Next::LookLater }
    }
}

/// How many rounds in a row must leave fewer than the threshold.
const EBB_ROUNDS: u32 = 3;

/// Whether a storm ebbs away: what each round leaves alive, and the next finds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ebb {
    threshold: u64,
    last: u64,
    rounds: u32,
}

impl Ebb {
    /// Without a threshold, 0, none ever does.
    pub(super) fn new(threshold: u64) -> Self {
        Self { threshold, last: 0, rounds: 0 }
    }

    /// A round has left so many. Returns whether the last three left fewer than the threshold, and
    /// none of them more than the one before.
    pub(super) fn add(&mut self, alive: u64) -> bool {
        let has_grown = self.rounds > 0 && alive > self.last;
        self.rounds = match alive < self.threshold {
            true if has_grown => 1,
            true => self.rounds.saturating_add(1),
            false => 0,
        };
        self.last = alive;
        self.rounds >= EBB_ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Traces = Traces { died: false, slipped: false };
    const DIED: Traces = Traces { died: true, slipped: false };
    const SLIPPED: Traces = Traces { died: false, slipped: true };

    /// What follows the last of these scans, the first of which began at `begun`.
    fn after(calm: &mut Calm, begun: Instant, may_signal: bool, scans: &[Traces]) -> Vec<Next> {
        scans.iter().map(|&traces| calm.add(traces, begun, may_signal, 3)).collect()
    }

    #[test]
    fn it_is_over_after_enough_scans_in_a_row_that_saw_none() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        let later = Next::LookLater;
        assert_eq!(after(&mut calm, begun, true, &[NONE, NONE]), [later, later]);
        calm.end();
        let again = begun + std::time::Duration::from_secs(1);
        let seen = after(&mut calm, again, true, &[NONE, NONE, NONE]);
        assert_eq!(seen, [later, later, Next::Over(again)]);
    }

    #[test]
    fn as_long_as_some_of_the_storm_die_it_is_never_over() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        let scans = [NONE, NONE, DIED].repeat(1_000);
        let seen = after(&mut calm, begun, true, &scans);
        assert!(!seen.contains(&Next::Over(begun)) && !seen.contains(&Next::Restless));
        let hasty = seen.iter().filter(|next| **next == Next::LookAtOnce).count();
        assert_eq!(hasty, usize::try_from(HASTE_MAX).expect("fits"), "no processor burns for it");
        // And once nothing can be done about it, that is said soon.
        let seen = after(&mut calm, begun, false, &[NONE, DIED, DIED, DIED, DIED]);
        let later = Next::LookLater;
        assert_eq!(seen, [later, later, later, later, Next::Restless]);
    }

    #[test]
    fn the_dead_of_long_ago_do_not_hinder() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        let seen = after(&mut calm, begun, false, &[DIED, NONE, NONE, NONE]);
        assert_eq!(seen.last(), Some(&Next::Over(begun)));
    }

    #[test]
    fn a_storm_has_ebbed_after_three_rounds_that_leave_few_and_not_more() {
        let over = |threshold, rounds: &[u64]| {
            let mut ebb = Ebb::new(threshold);
            rounds.iter().map(|&alive| ebb.add(alive)).collect::<Vec<_>>()
        };
        assert_eq!(over(90, &[1, 1, 1]), [false, false, true]);
        assert_eq!(over(90, &[89, 12, 3]), [false, false, true]);
        assert_eq!(over(90, &[1, 2, 3, 3, 3]), [false, false, false, false, true], "it grew");
        assert_eq!(over(90, &[1, 1, 90, 1, 1]), [false; 5], "it was one again");
        assert_eq!(over(0, &[1; 9]), [false; 9], "no threshold is known");
    }

    #[test]
    fn a_user_whose_other_processes_come_and_go_does_not_hold_it_up() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        let seen = after(&mut calm, begun, true, &[SLIPPED; 60]);
        let chased = seen.iter().filter(|next| **next == Next::LookAtOnce).count();
        assert_eq!(chased, usize::try_from(SLIPS_MAX).expect("fits"));
        assert!(seen.contains(&Next::Over(begun)));
        // Nor where nothing could be done about it.
        let mut calm = Calm::default();
        let seen = after(&mut calm, begun, false, &[SLIPPED; 3]);
        assert_eq!(seen.last(), Some(&Next::Over(begun)));
    }
}
