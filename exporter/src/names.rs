//! Which name each uid is shown by.
//!
//! - A name once known is shown until the name service gives another: a service that fails, or
//!   forgets an account whose processes still run, changes no series.
//! - A uid that has no name is shown as its number, as `ps` does. So is one whose name is empty,
//!   which would be no label at all, or too long for a name, or the name of several users together.
//! - A uid never seen before is waited for, up to a deadline; but not while some other question
//!   is overdue, so that a name service that hangs delays one scan and no more.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use procstorm_processes::folded::{OTHER, SMALL_USERS};
use procstorm_processes::name_service::NameService;

/// How long a scan waits for the names of users that are new.
const DEADLINE: Duration = Duration::from_millis(200);

/// How old a name grows before it is asked for again.
const REFRESH_KNOWN: Duration = Duration::from_secs(300);

/// How long a uid stays a number before its name is asked for again.
const REFRESH_UNKNOWN: Duration = Duration::from_secs(30);

/// How long a name is remembered after the user's last process.
const FORGET: Duration = Duration::from_secs(3600);

/// So many users without a process are remembered at most: who may use many uids (those of
/// `/etc/subuid`, say) could else make us grow.
const MAX_REMEMBERED: usize = 10_000;

/// So many questions are out at most, for the same reason; who finds no room is asked for later.
const MAX_QUESTIONS: usize = 10_000;

/// The longest name that is shown, in bytes: `LOGIN_NAME_MAX` of Linux.
const NAME_MAX: usize = 256;

/// Asks for the name of a uid, and may hang.
type Ask = dyn Fn(u32) -> io::Result<Option<String>> + Send + Sync;

/// The names known so far.
pub struct Names {
    service: NameService,
    ask: Arc<Ask>,
    /// How long a refresh waits, and after which time a question is overdue.
    deadline: Duration,
    known: HashMap<u32, Entry>,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

#[derive(Debug)]
struct Entry {
    text: Arc<str>,
    named: bool,
    /// Since when a question is out.
    asked: Option<Instant>,
    /// When it was last answered.
    answered: Option<Instant>,
    last_seen: Instant,
}

#[derive(Debug)]
struct Answer {
    uid: u32,
    name: io::Result<Option<String>>,
}

impl Names {
    /// No names yet; they will come from `service`.
    #[must_use]
    pub fn new(service: NameService) -> Self {
        Self::asking(service, Arc::new(NameService::name_of))
    }

    fn asking(service: NameService, ask: Arc<Ask>) -> Self {
        let (sender, answers) = channel();
        Self { service, ask, deadline: DEADLINE, known: HashMap::new(), sender, answers }
    }

    /// Brings the names of these users up to date, within the deadline.
    pub fn refresh(&mut self, uids: impl IntoIterator<Item = u32>, now: Instant) {
        while let Ok(answer) = self.answers.try_recv() {
            self.learn(answer, now);
        }
        let mut awaited = 0;
        let patient = self.overdue(now) == 0;
        let mut room = MAX_QUESTIONS.saturating_sub(self.questions());
        for uid in uids {
            let entry = self.known.entry(uid).or_insert_with(|| Entry::unknown(uid, now));
            entry.last_seen = now;
            if room > 0 && entry.asked.is_none() && entry.is_stale(now) {
                room -= 1;
                awaited += usize::from(entry.answered.is_none());
                entry.asked = Some(now);
                let (ask, sender) = (Arc::clone(&self.ask), self.sender.clone());
                self.service.run(move || {
                    sender.send(Answer { uid, name: ask(uid) }).unwrap_or_default();
                });
            }
        }
        if patient {
            self.await_new(awaited, now);
        }
        self.forget(now);
    }

    /// Forgets users whose processes are gone: after a while, and sooner where there are too many.
    fn forget(&mut self, now: Instant) {
        let gone = self.known.iter().filter(|(_, entry)| {
            let away = now.saturating_duration_since(entry.last_seen);
            entry.asked.is_none() && !away.is_zero()
        });
        let mut gone: Vec<_> = gone.map(|(&uid, entry)| (entry.last_seen, uid)).collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(MAX_REMEMBERED);
        for (i, (last_seen, uid)) in gone.into_iter().enumerate() {
            if i < surplus || now.saturating_duration_since(last_seen) >= FORGET {
                self.known.remove(&uid);
            }
        }
    }

    fn await_new(&mut self, mut awaited: usize, now: Instant) {
        let end = Instant::now() + self.deadline;
        while awaited > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(answer) = self.answers.recv_timeout(left) else { return };
            let new = self.known.get(&answer.uid).is_some_and(|entry| entry.answered.is_none());
            awaited -= usize::from(new);
            self.learn(answer, now);
        }
    }

    fn learn(&mut self, Answer { uid, name }: Answer, now: Instant) {
        let Some(entry) = self.known.get_mut(&uid) else { return };
        entry.asked = None;
        entry.answered = Some(now);
        match name {
            Ok(Some(name)) if is_a_users(&name) => {
                entry.text = name.into();
                entry.named = true;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(uid, %error, "the name service cannot resolve this uid"),
        }
    }

    /// How a user is shown: the last known name, else the number.
    #[must_use]
    pub fn text(&self, uid: u32) -> Arc<str> {
        self.known.get(&uid).map_or_else(|| uid.to_string().into(), |entry| Arc::clone(&entry.text))
    }

    /// How many questions have been out for longer than the deadline.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> usize {
        let overdue = |asked| now.saturating_duration_since(asked) >= self.deadline;
        self.known.values().filter(|entry| entry.asked.is_some_and(overdue)).count()
    }

    /// How many questions are out.
    fn questions(&self) -> usize {
        self.known.values().filter(|entry| entry.asked.is_some()).count()
    }

    /// Asks again for all names at the next refresh.
    pub fn expire(&mut self) {
        for entry in self.known.values_mut() {
            entry.answered = None;
        }
    }
}

/// Whether a name can be shown as that of one user.
fn is_a_users(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && name != OTHER && name != SMALL_USERS
}

impl Entry {
    fn unknown(uid: u32, now: Instant) -> Self {
        let text = uid.to_string().into();
        Self { text, named: false, asked: None, answered: None, last_seen: now }
    }

    fn is_stale(&self, now: Instant) -> bool {
        let lifetime = if self.named { REFRESH_KNOWN } else { REFRESH_UNKNOWN };
        self.answered.is_none_or(|answered| now.saturating_duration_since(answered) >= lifetime)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A name service that says what the test puts into it.
    fn scripted() -> (Names, Arc<Mutex<io::Result<Option<String>>>>) {
        let says = Arc::new(Mutex::new(Ok(None)));
        let script = Arc::clone(&says);
        let ask = move |_| match &*script.lock().expect("not poisoned") {
            Ok(name) => Ok(name.clone()),
            Err(_) => Err(io::Error::other("down")),
        };
        let mut names = Names::asking(NameService::default(), Arc::new(ask));
        // It always answers, so a caller waits for the answer.
        names.deadline = Duration::from_secs(60);
        (names, says)
    }

    /// Refreshes until the answer to a question for a name known before has come.
    fn settle(names: &mut Names, now: Instant) {
        names.refresh([7], now);
        let answer = names.answers.recv_timeout(names.deadline).expect("an answer");
        names.learn(answer, now);
    }

    #[test]
    fn a_known_name_outlives_the_service_and_follows_its_changes() {
        let (mut names, says) = scripted();
        let say = |name| *says.lock().expect("not poisoned") = name;
        let mut now = Instant::now();
        say(Ok(Some("alice".to_owned())));
        names.refresh([7], now);
        assert_eq!(&*names.text(7), "alice");
        for (name, shown) in [
            (Err(io::Error::other("down")), "alice"),
            (Ok(None), "alice"),
            (Ok(Some("alicia".to_owned())), "alicia"),
        ] {
            say(name);
            now += REFRESH_KNOWN;
            settle(&mut names, now);
            assert_eq!(&*names.text(7), shown);
        }
    }

    #[test]
    fn a_uid_without_a_name_is_its_number_until_it_has_one() {
        let (mut names, says) = scripted();
        let now = Instant::now();
        names.refresh([7], now);
        assert_eq!(&*names.text(7), "7");
        *says.lock().expect("not poisoned") = Ok(Some("alice".to_owned()));
        names.refresh([7], now);
        assert_eq!(&*names.text(7), "7", "not asked for yet");
        settle(&mut names, now + REFRESH_UNKNOWN);
        assert_eq!(&*names.text(7), "alice");
    }

    #[test]
    fn a_service_that_hangs_delays_one_scan() {
        let (release, hold) = channel::<()>();
        let hold = Mutex::new(hold);
        let ask = move |_| {
            let end = hold.lock().expect("not poisoned").recv();
            assert!(end.is_err());
            Ok(Some("late".to_owned()))
        };
        let mut names = Names::asking(NameService::default(), Arc::new(ask));
        let start = Instant::now();
        names.refresh([1, 2], start);
        assert_eq!(&*names.text(1), "1");
        // From now on it never answers.
        names.deadline = Duration::from_secs(3600);
        let later = start + names.deadline;
        assert_eq!(names.overdue(later), 2);
        names.refresh(0..10, later);
        assert_eq!(&*names.text(9), "9", "it did not wait again");
        drop(release);
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_no_name() {
        let (mut names, says) = scripted();
        for (uid, name) in [
            (1, String::new()),
            (2, "x".repeat(NAME_MAX + 1)),
            (3, OTHER.to_owned()),
            (4, SMALL_USERS.to_owned()),
        ] {
            *says.lock().expect("not poisoned") = Ok(Some(name));
            names.refresh([uid], Instant::now());
            assert_eq!(*names.text(uid), uid.to_string());
        }
    }

    #[test]
    fn however_many_users_come_and_go_few_are_remembered() {
        let (mut names, _) = scripted();
        let start = Instant::now();
        for scan in 0..30 {
            names.refresh(scan * 1000..(scan + 1) * 1000, start + Duration::from_secs(scan.into()));
        }
        let waiting = names.known.values().filter(|entry| entry.asked.is_some()).count();
        assert!(names.known.len() <= 1000 + waiting + MAX_REMEMBERED);
        assert!(names.known.contains_key(&28_000), "the last to go are the last to be forgotten");
    }

    #[test]
    fn a_service_that_hangs_has_a_bounded_number_of_questions_to_answer() {
        let (release, hold) = channel::<()>();
        let hold = Mutex::new(hold);
        let ask = move |_| {
            let end = hold.lock().expect("not poisoned").recv();
            assert!(end.is_err());
            Ok(None)
        };
        let mut names = Names::asking(NameService::default(), Arc::new(ask));
        let n = u32::try_from(MAX_QUESTIONS).expect("small") + 1000;
        let now = Instant::now();
        names.refresh(0..n, now);
        assert_eq!(names.questions(), MAX_QUESTIONS);
        names.refresh(n..2 * n, now + FORGET);
        assert_eq!(names.questions(), MAX_QUESTIONS);
        drop(release);
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let (mut names, _) = scripted();
        let now = Instant::now();
        names.refresh(0..100, now);
        names.refresh([7], now + FORGET);
        assert_eq!(names.known.len(), 1);
    }
}
