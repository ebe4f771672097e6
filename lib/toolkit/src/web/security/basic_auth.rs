//! `basic_auth_users`: passwords, kept as bcrypt's hashes.
//!
//! bcrypt is slow by intent, and a scraper shows its password at each scrape. So what was once
//! compared is remembered, under a keyed hash that tells nothing of the password. Comparisons
//! are made one at a time, apart from the thread that serves: guessing costs the guesser's time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use ring::hmac;
use ring::rand::SystemRandom;

use super::super::{Response, reply};
use super::faults::Faults;
use crate::workers::Workers;

/// bcrypt takes twice as long for each step; 16 is some seconds.
const COST_MAX: u32 = 16;

/// How many refused passwords are remembered. Accepted ones are at most as many as users.
const REFUSED_MAX: usize = 100;

/// The users who may send requests: their names, and hashes of their passwords.
#[derive(Clone, Default)]
pub(super) struct Users(BTreeMap<String, String>);

/// Not the hashes.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Users {
    pub(super) fn validate(raw: BTreeMap<String, String>, faults: &mut Faults) -> Self {
        for (name, hash) in &raw {
            let key = format!("basic_auth_users.{name}");
            if name.contains(':') {
                faults.add(&key, "a name cannot hold a colon");
            }
            match HashParts::from_str(hash) {
                Err(_) => faults.add(&key, "not a hash of bcrypt"),
                Ok(parts) if parts.get_cost() > COST_MAX => {
                    let cost = parts.get_cost();
                    faults.add(&key, format_args!("bcrypt's cost {cost} is over {COST_MAX}"));
                }
                Ok(_) => {}
            }
        }
        Self(raw)
    }

    /// Whether there are none: then everybody may speak.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hash to compare with. A user who does not exist costs as much time as one who does.
    fn hash_of(&self, name: &str) -> Option<(&str, bool)> {
        let known = self.0.get(name).map(|hash| (hash.as_str(), true));
        known.or_else(|| self.0.values().next().map(|hash| (hash.as_str(), false)))
    }
}

/// Compares passwords, and remembers what came of it.
pub(super) struct Gate {
    key: Option<hmac::Key>,
    seen: Arc<Mutex<Seen>>,
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
    thread: OnceLock<Workers>,
}

#[derive(Debug, Default)]
struct Seen {
    accepted: HashMap<String, Digest>,
    refused: HashMap<Digest, ()>,
}

type Digest = [u8; 32];

impl Default for Gate {
    fn default() -> Self {
        // Without random numbers nothing is remembered.
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok();
        let (seen, one_at_a_time) = (Arc::default(), Arc::default());
        Self { key, seen, one_at_a_time, thread: OnceLock::new() }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// The thread that compares. Started by the first call, which should be made at the start of the
    /// program: later none may be had.
    pub(super) fn thread(&self) -> &Workers {
        self.thread.get_or_init(|| Workers::start("passwords", 1))
    }

    /// `None` if the request may pass: no user is listed, or its name and password are right.
    pub(super) async fn refuse(&self, users: &Users, headers: &HeaderMap) -> Option<Response> {
        if users.0.is_empty() {
            return None;
        }
        let passes = match credentials(headers) {
            Some((name, password)) => self.accepts(users, &name, password).await,
            None => false,
        };
        (!passes).then(unauthorized)
    }

    async fn accepts(&self, users: &Users, name: &str, password: Vec<u8>) -> bool {
        let Some((hash, known)) = users.hash_of(name) else { return false };
        let digest = self.digest(name, hash, &password);
        if let Some(answer) = digest.and_then(|digest| self.recall(name, &digest)) {
            return answer;
        }
        let turn = Arc::clone(&self.one_at_a_time).lock_owned().await;
        // It may have been compared while we waited.
        if let Some(answer) = digest.and_then(|digest| self.recall(name, &digest)) {
            return answer;
        }
        let (name, hash, seen) = (name.to_owned(), hash.to_owned(), Arc::clone(&self.seen));
        // All of it where a client that hangs up cannot cut it off: bcrypt goes on in any case, and
        // would leave the turn to the next one, and so on, until all cores are busy.
        let compared = self.thread().run(move || {
            let answer = matches!(bcrypt::verify(password, &hash), Ok(true)) && known;
            if let Some(digest) = digest {
                seen.lock().unwrap_or_else(PoisonError::into_inner).remember(name, digest, answer);
            }
            drop(turn);
            answer
        });
        compared.await.unwrap_or(false)
    }

    fn digest(&self, name: &str, hash: &str, password: &[u8]) -> Option<Digest> {
        // No NUL is in a header, so that the parts cannot run into each other.
        let text = [name.as_bytes(), b"\0", hash.as_bytes(), b"\0", password].concat();
        hmac::sign(self.key.as_ref()?, &text).as_ref().try_into().ok()
    }

    fn recall(&self, name: &str, digest: &Digest) -> Option<bool> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.accepted.get(name) == Some(digest) {
            return Some(true);
        }
        seen.refused.contains_key(digest).then_some(false)
    }
}

impl Seen {
    fn remember(&mut self, name: String, digest: Digest, answer: bool) {
        if answer {
            self.accepted.insert(name, digest);
            return;
        }
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.insert(digest, ());
    }
}

/// Name and password of a request (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let text = BASE64_STANDARD.decode(text.trim()).ok()?;
    let colon = text.iter().position(|&b| b == b':')?;
    let name = std::str::from_utf8(text.get(..colon)?).ok()?;
    Some((name.to_owned(), text.get(colon.checked_add(1)?..)?.to_vec()))
}

fn unauthorized() -> Response {
    let mut response = reply::text(StatusCode::UNAUTHORIZED, "unauthorized\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let value = HeaderValue::try_from(authorization).expect("a header");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    fn basic(pair: &str) -> HeaderMap {
        headers(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    fn users() -> Users {
        let hash = |password| bcrypt::hash(password, 4).expect("a hash");
        let raw = [("alice", "a:b"), ("bob", "b")].map(|(u, p)| (u.to_owned(), hash(p)));
        let mut faults = Faults::default();
        let users = Users::validate(raw.into(), &mut faults);
        assert_eq!(faults, Faults::default());
        users
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_passes() {
        let (gate, users) = (Gate::default(), users());
        // Twice: compared, and recalled.
        for _ in 0..2 {
            for (sent, passes) in [
                (basic("alice:a:b"), true),
                (basic("alice:a"), false),
                (basic("alice:b"), false),
                (basic("bob:a:b"), false),
                (basic("carol:a:b"), false),
                (basic("carol:b"), false),
                (basic("alice"), false),
                (headers("Bearer alice"), false),
                (headers("Basic ***"), false),
                (HeaderMap::new(), false),
            ] {
                assert_eq!(gate.refuse(&users, &sent).await.is_none(), passes, "{sent:?}");
            }
        }
    }

    #[tokio::test]
    async fn who_hangs_up_leaves_no_comparison_beside_the_next() {
        let hash = bcrypt::hash("b", 8).expect("a hash");
        let (gate, users) = (Gate::default(), Users([("bob".to_owned(), hash)].into()));
        // The first poll gives the comparison to its thread; then the client is gone.
        let sent = basic("bob:b");
        let mut request = Box::pin(gate.refuse(&users, &sent));
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(request.as_mut().poll(context).is_pending())
        });
        assert!(polled.await, "bcrypt takes its time");
        drop(request);
        let _turn = gate.one_at_a_time.lock().await;
        let seen = gate.seen.lock().expect("not poisoned");
        assert!(seen.accepted.contains_key("bob"), "the turn is given back when it is done");
    }

    #[tokio::test]
    async fn a_changed_password_counts_at_once_and_refusals_are_bounded() {
        let (gate, mut users) = (Gate::default(), users());
        assert!(gate.refuse(&users, &basic("bob:b")).await.is_none());
        users.0.insert("bob".to_owned(), bcrypt::hash("new", 4).expect("a hash"));
        assert!(gate.refuse(&users, &basic("bob:b")).await.is_some());
        assert!(gate.refuse(&users, &basic("bob:new")).await.is_none());
        for i in 0..2 * REFUSED_MAX {
            assert!(gate.refuse(&users, &basic(&format!("bob:{i}"))).await.is_some());
        }
        let seen = gate.seen.lock().expect("not poisoned");
        assert!(seen.refused.len() <= REFUSED_MAX && seen.accepted.len() == 1);
    }
}
