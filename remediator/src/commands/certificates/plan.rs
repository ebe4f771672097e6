//! What has to be made: decided from what there is, the time, and who needs a certificate. Nothing
//! here reads or writes a file.
//!
//! - [`settle`]: the authority: the one that signs, the one that will, and those before.
//! - [`judge`]: whether a certificate stays.
//!
//! An authority is followed by another before it ends. Every machine must trust the new one before
//! it meets a certificate of it, so the new one is announced first: from when a third of the old
//! one's time is left, both are in `ca.crt`. It signs after a third of the time of the certificates,
//! since by then they were renewed, and `ca.crt` with them, or they would end. The old one stays in
//! `ca.crt` until its end.

use super::CertificatesError;
use super::x509::{Certificate, Key, Span, Subject, authority};

/// How far before now everything begins, in seconds: a host whose clock is a day late works.
const BACKDATED: i64 = DAY;

/// Seconds of a day.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// The time, and how long what is made lasts, all in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) now: i64,
    pub(super) leaf: i64,
    pub(super) authority: i64,
}

impl Times {
    fn span(self, length: i64) -> Span {
        Span { begin: self.now.saturating_sub(BACKDATED), end: self.now.saturating_add(length) }
    }

    /// When a certificate that this authority signs now begins and ends.
    pub(super) fn leaf_of(self, authority: &Certificate) -> Span {
        let span = self.span(self.leaf);
        Span { end: span.end.min(authority.span.end), ..span }
    }

    /// How long an authority is known before it signs.
    fn overlap(self) -> i64 {
        self.leaf / 3
    }
}

/// What was found of the authority.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// `ca.key`.
    pub(super) key: Option<Key>,
    /// `ca.next.key`.
    pub(super) next: Option<Key>,
    /// `ca.crt`.
    pub(super) bundle: Vec<Certificate>,
}

/// What happens to the authority in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// There was none.
    Founded,
    Stays,
    /// The next one is in `ca.crt` from now on.
    Announced,
    /// The next one signs from now on.
    Followed,
    /// Both at once, since the old one ends too soon.
    Hurried,
}

/// The authority as it is to be.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) course: Course,
    pub(super) key: Key,
    pub(super) certificate: Certificate,
    /// The key of the next one, until it signs.
    pub(super) next: Option<Key>,
    /// All that is trusted: the one that signs first.
    pub(super) bundle: Vec<Certificate>,
}

/// What is wrong with files of the authority: the file's name, and what.
pub(super) type Fault = (&'static str, String);

/// Decides about the authority. The inner error is a list of faults.
pub(super) fn settle(
    held: Held,
    times: Times,
) -> Result<Result<Settled, Vec<Fault>>, CertificatesError> {
    let faults = faults_of(&held, times.now);
    if !faults.is_empty() {
        return Ok(Err(faults));
    }
    let Held { key, next, bundle } = held;
    let of = |key: &Key| bundle.iter().find(|one| one.key == key.public()).cloned();
    let lasting = times.span(times.authority);
    let is_new = key.is_none();
    let (mut key, mut next) = match key {
        Some(key) => (key, next),
        None => (Key::generate()?, None),
    };
    let mut certificate = match of(&key) {
        Some(certificate) => certificate,
        None => authority(&key, lasting)?,
    };
    // What a run left that was killed after it had put the next key in its place.
    next = next.filter(|next| next.public() != key.public());
    let mut course = if is_new { Course::Founded } else { Course::Stays };
    if next.is_none() && certificate.span.due() <= times.now {
        next = Some(Key::generate()?);
        course = Course::Announced;
    }
    let mut following = None;
    if let Some(next_key) = next.take() {
        let announced = match of(&next_key) {
            Some(certificate) => certificate,
            None => authority(&next_key, lasting)?,
        };
        let known = times.now.saturating_sub(announced.span.begin).saturating_sub(BACKDATED);
        let left = certificate.span.end.saturating_sub(times.now);
        if known >= times.overlap() || left <= times.overlap() {
            course = match course {
                Course::Announced => Course::Hurried,
                Course::Founded | Course::Stays | Course::Followed | Course::Hurried => {
                    Course::Followed
                }
            };
            following = Some(std::mem::replace(&mut certificate, announced));
            key = next_key;
        } else {
            following = Some(announced);
            next = Some(next_key);
        }
    }
    let mut trusted = vec![certificate.clone()];
    for one in following.into_iter().chain(bundle) {
        if one.span.end > times.now && !trusted.contains(&one) {
            trusted.push(one);
        }
    }
    Ok(Ok(Settled { course, key, certificate, next, bundle: trusted }))
}

/// What a person must look at before anything is made.
fn faults_of(held: &Held, now: i64) -> Vec<Fault> {
    let mut faults = Vec::new();
    for one in &held.bundle {
        if !one.is_authority_of_ours() {
            let what = format!(
                "holds a certificate of {:?}, which this command has not made: keep other \
                 authorities in a file of their own",
                one.subject
            );
            faults.push(("ca.crt", what));
        } else if one.span.begin > now {
            faults.push(("ca.crt", BEHIND.to_owned()));
        }
    }
    match &held.key {
        Some(key) => {
            let is_in = held.bundle.iter().any(|one| one.key == key.public());
            if !is_in && !held.bundle.is_empty() {
                let what = "is not the key of an authority in ca.crt: restore both from one backup";
                faults.push(("ca.key", what.to_owned()));
            }
        }
        None if held.bundle.is_empty() && held.next.is_none() => {}
        None => {
            let what = "is missing, and ca.crt or ca.next.key is there: restore it from the backup; \
                        to begin with a new authority, move the whole directory away";
            faults.push(("ca.key", what.to_owned()));
        }
    }
    faults
}

const BEHIND: &str = "begins in the future: set this machine's clock";

/// A certificate and its key, as they were found.
#[derive(Debug, Default)]
pub(super) struct Pair {
    pub(super) key: Option<Key>,
    pub(super) certificate: Option<Certificate>,
}

/// Whether a certificate stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stays,
    /// There is none yet.
    New,
    /// Less than a third of its time is left.
    Due,
    /// It is for other names.
    Renamed,
}

/// Decides about one certificate. `trusted` are all authorities that ca.crt names, also those that
/// have ended. The error says what is wrong, after the path without its ending.
pub(super) fn judge(
    pair: &Pair,
    subject: &Subject,
    trusted: &[Certificate],
    now: i64,
) -> Result<Verdict, String> {
    let (key, certificate) = match (&pair.key, &pair.certificate) {
        (None, None) => return Ok(Verdict::New),
        // The run that made it was killed, or a person wants a new certificate for the same key.
        (Some(_), None) => return Ok(Verdict::New),
        (None, Some(_)) => {
            return Err(".key is missing: restore it, or delete the .crt too for a new pair".into());
        }
        (Some(key), Some(certificate)) => (key, certificate),
    };
    if certificate.key != key.public() {
        return Err(".crt is not for the key in .key: delete both for a new pair".into());
    }
    // An authority that has ended is no longer in ca.crt, and neither has a certificate of it lasted.
    let was_ours = certificate.span.end <= now && certificate.claims_our_authority();
    let is_ours = trusted.iter().any(|one| certificate.is_signed_by(&one.key));
    if !is_ours && !was_ours {
        return Err(".crt is not signed by an authority in ca.crt: move it and its key away".into());
    }
    if certificate.span.begin > now {
        return Err(format!(".crt {BEHIND}"));
    }
    Ok(if !certificate.is_for(subject) {
        Verdict::Renamed
    } else if certificate.span.due() <= now {
        Verdict::Due
    } else {
        Verdict::Stays
    })
}
