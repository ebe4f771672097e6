//! The open connections, and which of them is closed when a new one finds no free slot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// So many connections are closed when the system is short of descriptors or memory.
const ROOM: usize = 4;

/// How long fewer connections are held after that.
const CRAMPED_FOR: Duration = Duration::from_secs(10);

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
    /// How many there may be for now, and since when: the system was short of something.
    cramped: Option<(usize, Instant)>,
}

#[derive(Debug)]
struct Guest {
    busy: bool,
    /// Whether the handler knows who asks: then the request in work is not cut off.
    vouched: bool,
    /// Whether a request of it was ever answered: such a one leaves after those who only sit, as
    /// long as these have half of the seats.
    served: bool,
    since: u64,
    leave: Arc<Notify>,
}

impl Roster {
    pub(super) fn new(max: usize) -> Self {
        Self { guests: Arc::default(), max: max.max(1) }
    }

    /// A seat for a newcomer, if need be that of the idlest guest; `None` where all are at work for
    /// an authenticated client.
    pub(super) fn admit(&self) -> Option<Seat> {
        if self.is_full() && !self.evict_idlest() {
            return None;
        }
        let leave = Arc::new(Notify::new());
        let mut guests = self.lock();
        let (id, since) = (guests.next_id, guests.tick());
        guests.next_id += 1;
        let guest =
            Guest { busy: false, vouched: false, served: false, since, leave: Arc::clone(&leave) };
        guests.by_id.insert(id, guest);
        Some(Seat { roster: self.clone(), id, leave })
    }

    /// Tells the guest that has waited longest to leave, and takes it off the list at once; where
    /// none waits, one that is at work for an unauthenticated client, since a crowd of those that
    /// send requests all the time would keep all others out. False if all others are authenticated.
    /// Those who were served before stay where they can, but not if they fill the house: then all
    /// newcomers would have to share what is left, and leave before they have said what they want.
    pub(super) fn evict_idlest(&self) -> bool {
        let mut guests = self.lock();
        let newcomers = guests.by_id.values().filter(|guest| !guest.busy && !guest.served).count();
        let spared = newcomers >= self.max / 2;
        let movable = guests.by_id.iter().filter(|(_, guest)| !(guest.busy && guest.vouched));
        let idlest =
            movable.min_by_key(|(_, guest)| (guest.busy, spared && guest.served, guest.since));
        let Some(id) = idlest.map(|(&id, _)| id) else { return false };
        if let Some(guest) = guests.by_id.remove(&id) {
            guest.leave.notify_one();
        }
        true
    }

    fn is_full(&self) -> bool {
        let mut guests = self.lock();
        if guests.cramped.is_some_and(|(_, since)| since.elapsed() >= CRAMPED_FOR) {
            guests.cramped = None;
        }
        let max = guests.cramped.map_or(self.max, |(max, _)| max.min(self.max));
        guests.by_id.len() >= max
    }

    /// Closes some connections, and holds fewer for a while: after an error that says no
    /// descriptor is left, the server must leave some to the rest of the program.
    pub(super) fn make_room(&self) {
        let guests = self.lock().by_id.len();
        let max = guests.saturating_sub(ROOM).max(1);
        self.lock().cramped = Some((max, Instant::now()));
        for _ in max..guests {
            self.evict_idlest();
        }
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

    /// For the handler of its requests.
    pub(super) fn standing(&self) -> Standing {
        Standing { roster: self.roster.clone(), id: self.id }
    }

    /// Whether half of the seats are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.roster.lock().by_id.len() >= self.roster.max.div_ceil(2)
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

/// By this a handler says that it knows who asks: in each request's extensions. Such a request is
/// not cut off when newcomers need seats.
#[derive(Clone, Debug)]
pub struct Standing {
    roster: Roster,
    id: u64,
}

impl Standing {
    /// Vouches for who sent the request in work.
    pub fn vouch(&self) {
        if let Some(guest) = self.roster.lock().by_id.get_mut(&self.id) {
            guest.vouched = true;
        }
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
            guest.vouched = false;
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
    fn those_who_were_served_do_not_keep_newcomers_out() {
        let roster = Roster::new(4);
        let regulars: Vec<_> = (0..4).map(|_| roster.admit().expect("a free seat")).collect();
        regulars.iter().for_each(|seat| drop(seat.busy()));
        let first = roster.admit().expect("a regular's seat");
        let second = roster.admit().expect("another's");
        assert!(seated(&roster, &first) && seated(&roster, &second));
        assert_eq!(regulars.iter().filter(|seat| seated(&roster, seat)).count(), 2);
    }

    #[test]
    fn a_shortage_makes_room_and_the_room_is_not_taken_at_once() {
        let roster = Roster::new(10);
        let seats: Vec<_> = (0..10).map(|_| roster.admit().expect("a free seat")).collect();
        roster.make_room();
        let left = || seats.iter().filter(|seat| seated(&roster, seat)).count();
        assert_eq!(left(), 6);
        let _newcomer = roster.admit().expect("a seat of another");
        assert_eq!(left(), 5);
        roster.lock().cramped = Some((6, Instant::now() - CRAMPED_FOR));
        let _newcomer = roster.admit().expect("a free seat");
        assert_eq!(left(), 5, "the shortage is over");
    }

    #[test]
    fn nobody_known_at_work_is_thrown_out() {
        let roster = Roster::new(2);
        let known = roster.admit().expect("a free seat");
        let unknown = roster.admit().expect("a free seat");
        let (work, _pestering) = (known.busy(), unknown.busy());
        known.standing().vouch();
        let newcomer = roster.admit().expect("the seat of the unknown");
        assert!(seated(&roster, &known) && !seated(&roster, &unknown));
        let _more = newcomer.busy();
        newcomer.standing().vouch();
        assert!(roster.admit().is_none());
        drop(work);
        assert!(roster.admit().is_some());
    }
}
