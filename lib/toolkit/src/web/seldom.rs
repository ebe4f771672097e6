//! What anybody who can connect can have logged, kept within bounds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same is said.
const EVERY: Duration = Duration::from_secs(30);

/// How many different messages are counted apart; all beyond them count as one.
const KINDS_MAX: usize = 32;

/// Says whether something may be logged: each kind of it once in a while.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: Mutex<HashMap<String, Said>>,
}

#[derive(Debug)]
struct Said {
    last: Instant,
    /// How often it was not said since.
    unsaid: u64,
}

impl Seldom {
    /// `None` if something of this kind was said a moment ago; else how often it was not said since
    /// the last time.
    pub(super) fn may_say(&self, kind: &str) -> Option<u64> {
        self.may_say_at(kind, Instant::now())
    }

    fn may_say_at(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if said.len() < KINDS_MAX || said.contains_key(kind) { kind } else { "" };
        match said.get_mut(kind) {
            None => {
                said.insert(kind.to_owned(), Said { last: now, unsaid: 0 });
                Some(0)
            }
            Some(said) if now.saturating_duration_since(said.last) >= EVERY => {
                said.last = now;
                Some(std::mem::take(&mut said.unsaid))
            }
            Some(said) => {
                said.unsaid = said.unsaid.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said_once_in_a_while_with_how_often_it_was_not() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.may_say_at("a", start), Some(0));
        assert_eq!(seldom.may_say_at("b", start), Some(0));
        assert_eq!(seldom.may_say_at("a", start), None);
        assert_eq!(seldom.may_say_at("a", start + EVERY / 2), None);
        assert_eq!(seldom.may_say_at("a", start + EVERY), Some(2));
        assert_eq!(seldom.may_say_at("b", start + EVERY), Some(0));
    }

    #[test]
    fn a_thousand_kinds_are_said_within_bounds_of_lines_and_memory() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let said = (0..1000).filter(|i| seldom.may_say_at(&i.to_string(), start).is_some());
        assert_eq!(said.count(), KINDS_MAX + 1);
        assert_eq!(seldom.said.lock().expect("not poisoned").len(), KINDS_MAX + 1);
    }
}
