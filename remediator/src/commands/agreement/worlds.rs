//! What is not known of an alert, its user above all, decides now and then which way it goes. Each
//! way is gone here.
//!
//! - [`explore`]: runs a judgement once for each way that the answers can come out.
//! - [`World`]: one of the ways, which a judgement asks whether a matcher matches.

use std::collections::BTreeSet;

use super::matcher::{Answer, Labels, Matcher, Value};

/// So many ways are gone at most.
const WORLDS_MAX: usize = 256;

/// One way in which the answers come out.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    decided: Vec<Decision>,
    /// How many of them this run has made or repeated.
    used: usize,
    /// The labels of which something was assumed that counted.
    pub(super) assumed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Decision {
    matcher: Matcher,
    matches: bool,
    /// Whether the other answer was given in another world.
    both: bool,
}

impl World {
    /// Whether a matcher matches, in this world.
    pub(super) fn matches(&mut self, matcher: &Matcher, labels: &Labels) -> bool {
        let value = labels.get(&matcher.label);
        match matcher.matches(&value) {
            Answer::Yes => self.note(matcher, &value, true),
            Answer::No => self.note(matcher, &value, false),
            Answer::Depends => self.decide(matcher),
        }
    }

    /// What was only assumed shows in what is said.
    fn note(&mut self, matcher: &Matcher, value: &Value, matches: bool) -> bool {
        let assumed = matches!(value, Value::Assumed(_)) && self.depends(matcher, matches);
        if assumed {
            self.assumed.insert(matcher.label.clone());
        }
        matches
    }

    /// Whether another value would have changed the answer.
    fn depends(&self, matcher: &Matcher, matches: bool) -> bool {
        let any = Value::Any { never: Vec::new() };
        matcher.matches(&any) != Answer::from(matches)
    }

    fn decide(&mut self, matcher: &Matcher) -> bool {
        if let Some(matches) = self.follows(matcher) {
            return matches;
        }
        if let Some(decision) = self.decided.get(self.used) {
            self.used = self.used.saturating_add(1);
            return decision.matches;
        }
        self.decided.push(Decision { matcher: matcher.clone(), matches: true, both: false });
        self.used = self.decided.len();
        // A value that cannot be what was decided before is not this one.
        if self.contradicts(matcher)
            && let Some(last) = self.decided.last_mut()
        {
            (last.matches, last.both) = (false, true);
        }
        self.decided.last().is_some_and(|last| last.matches)
    }

    /// What is decided of the same label, in this run.
    fn decided_of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Decision> {
        self.decided.iter().take(self.used).filter(move |one| one.matcher.label == label)
    }

    /// The answer that follows from what was decided before.
    fn follows(&self, matcher: &Matcher) -> Option<bool> {
        self.decided_of(&matcher.label).find_map(|one| {
            if one.matcher.text == matcher.text {
                return Some(one.matches);
            }
            let text = one.matcher.only_value(one.matches)?;
            match matcher.matches_text(text) {
                Answer::Yes => Some(true),
                Answer::No => Some(false),
                Answer::Depends => None,
            }
        })
    }

    /// Whether the one value with which this matches is shut out by what was decided before.
    fn contradicts(&self, matcher: &Matcher) -> bool {
        let Some(text) = matcher.only_value(true) else { return false };
        let before = self.used.saturating_sub(1);
        self.decided_of(&matcher.label).take(before).any(|one| {
            one.matcher.text != matcher.text
                && one.matcher.matches_text(text) == Answer::from(!one.matches)
        })
    }

    /// The conditions of this world, as one would write them; empty where nothing was decided.
    pub(super) fn conditions(&self) -> String {
        let conditions: Vec<String> = self
            .decided
            .iter()
            .map(|one| {
                format!(
                    "{} {}",
                    one.matcher.text,
                    if one.matches { "matches" } else { "does not match" }
                )
            })
            .collect();
        conditions.join(" and ")
    }

    /// The next world to run in; `None` where all are done.
    fn next(mut self) -> Option<Self> {
        while let Some(mut last) = self.decided.pop() {
            if !last.both {
                (last.matches, last.both) = (false, true);
                self.decided.push(last);
                return Some(Self { decided: self.decided, ..Self::default() });
            }
        }
        None
    }
}

/// Runs `judge` in each world. `None` where there are too many.
pub(super) fn explore<T>(mut judge: impl FnMut(&mut World) -> T) -> Option<Vec<(World, T)>> {
    let mut done = Vec::new();
    let mut world = World::default();
    loop {
        if done.len() >= WORLDS_MAX {
            return None;
        }
        let said = judge(&mut world);
        done.push((world.clone(), said));
        match world.next() {
            Some(next) => world = next,
            None => return Some(done),
        }
    }
}
