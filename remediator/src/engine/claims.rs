//! One task for each remediation, however many ask for it: the webhook for every alert, and the regular
//! look at the journal for what nobody pursues.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The remediations that a task pursues.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    claimed: HashSet<i64>,
    /// How many tasks have panicked over a remediation.
    panics: HashMap<i64, u32>,
}

/// The right to pursue one remediation, given back when it is dropped, after a panic too.
#[derive(Debug)]
pub(super) struct Claim {
    id: i64,
    claims: Claims,
}

impl Claims {
    /// The right to pursue `id`; `None` if a task has it.
    pub(super) fn claim(&self, id: i64) -> Option<Claim> {
        self.lock().claimed.insert(id).then(|| Claim { id, claims: self.clone() })
    }

    /// Whether a task pursues `id`.
    pub(super) fn is_claimed(&self, id: i64) -> bool {
        self.lock().claimed.contains(&id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// What it is for.
    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// How many tasks have panicked over it.
    pub(super) fn panics(&self) -> u32 {
        self.claims.lock().panics.get(&self.id).copied().unwrap_or_default()
    }

    /// The right to pursue `next` after this one, which is done, or the same again. `None` if a
    /// task has it: an alert can be coalesced to `next` as soon as the journal knows it.
    pub(super) fn follow(self, next: i64) -> Option<Self> {
        if next == self.id { Some(self) } else { self.claims.claim(next) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.claims.lock();
        state.claimed.remove(&self.id);
        if std::thread::panicking() {
            let panics = state.panics.entry(self.id).or_default();
            *panics = panics.saturating_add(1);
        } else {
            state.panics.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_has_a_remediation_until_it_ends_however_it_ends() {
        let claims = Claims::default();
        let first = claims.claim(1).expect("free");
        assert!(claims.claim(1).is_none());
        let second = first.follow(2).expect("free");
        assert_eq!((second.id(), claims.is_claimed(1), claims.is_claimed(2)), (2, false, true));
        let same = second.follow(2).expect("its own");
        let other = claims.claim(3).expect("free");
        assert!(same.follow(3).is_none(), "another task has it");
        assert!(!claims.is_claimed(2));
        let panicked = std::thread::spawn(move || {
            assert_ne!(other.id(), 3, "in the middle");
        });
        assert!(panicked.join().is_err());
        assert!(!claims.is_claimed(3));
        let third = claims.claim(3).expect("free");
        assert_eq!(third.panics(), 1);
        drop(third);
        assert_eq!(claims.claim(3).map(|claim| claim.panics()), Some(0), "it came to an end");
    }
}
