//! Who is connected, and who must leave when a newcomer finds the house full.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The connections of one server, at most so many at once.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    guests: Arc<Mutex<Guests>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Guests {
    /// Counts arrivals and ends of requests: the clock of "who has waited longest".
    clock: u64,
    next_id: u64,
    by_id: HashMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    busy: bool,
    /// Whether a request of it was ever answered: such a one leaves after those who only sit.
    served: bool,
    since: u64,
    leave: Arc<Notify>,
}

impl Roster {
    pub(super) fn new(max: usize) -> Self {
        Self { guests: Arc::default(), max: max.max(1) }
    }

    /// A seat for a newcomer, if need be that of the idlest guest; `None` where all are at work.
    pub(super) fn admit(&self) -> Option<Seat> {
        if self.lock().by_id.len() >= self.max && !self.evict_idlest() {
            return None;
        }
        let leave = Arc::new(Notify::new());
        let mut guests = self.lock();
        let (id, since) = (guests.next_id, guests.tick());
        guests.next_id += 1;
        let guest = Guest { busy: false, served: false, since, leave: Arc::clone(&leave) };
        guests.by_id.insert(id, guest);
        Some(Seat { roster: self.clone(), id, leave })
    }

    /// Tells the guest that has waited longest to leave, and takes it off the list at once. False
    /// if all are at work.
    pub(super) fn evict_idlest(&self) -> bool {
        let mut guests = self.lock();
        let idle = guests.by_id.iter().filter(|(_, guest)| !guest.busy);
        let Some(id) = idle.min_by_key(|(_, guest)| (guest.served, guest.since)).map(|(&id, _)| id)
        else {
            return false;
        };
        if let Some(guest) = guests.by_id.remove(&id) {
            guest.leave.notify_one();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Roster,
    id: u64,
    leave: Arc<Notify>,
}

impl Seat {
    /// Marks the connection as at work until the returned value is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        if let Some(guest) = self.roster.lock().by_id.get_mut(&self.id) {
            guest.busy = true;
        }
        Busy(self)
    }

    /// Is done when the connection must leave.
    pub(super) async fn evicted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.lock().by_id.remove(&self.id);
    }
}

/// That a request is in work.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Seat);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut guests = self.0.roster.lock();
        let since = guests.tick();
        if let Some(guest) = guests.by_id.get_mut(&self.0.id) {
            guest.busy = false;
            guest.served = true;
            guest.since = since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(roster: &Roster, seat: &Seat) -> bool {
        roster.lock().by_id.contains_key(&seat.id)
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_idlest() {
        let roster = Roster::new(3);
        let working = roster.admit().expect("a free seat");
        let regular = roster.admit().expect("a free seat");
        let idler = roster.admit().expect("a free seat");
        let _work = working.busy();
        drop(regular.busy());

        let newcomer = roster.admit().expect("the idler's seat");
        assert!(!seated(&roster, &idler), "it had never asked for anything");
        let second = roster.admit().expect("the newcomer's seat");
        assert!(seated(&roster, &regular), "it was served before");
        assert!(!seated(&roster, &newcomer));
        assert!(seated(&roster, &working) && seated(&roster, &second));
    }

    #[test]
    fn nobody_at_work_is_thrown_out() {
        let roster = Roster::new(1);
        let working = roster.admit().expect("a free seat");
        let work = working.busy();
        assert!(roster.admit().is_none());
        drop(work);
        assert!(roster.admit().is_some());
    }
}
