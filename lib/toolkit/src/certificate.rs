//! From when to when a certificate is valid, for a metric and for the log.
//!
//! - [`Validity`]: of a certificate and of those that it is sent with.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// From when to when a chain of certificates is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second: the latest one of all certificates in the chain.
    pub not_before: i64,
    /// The last second: the earliest one of all certificates in the chain.
    pub not_after: i64,
}

/// Why it is not known how long a chain is valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate {place} of {count} in it cannot be read: {problem}")]
pub struct Unreadable {
    place: usize,
    count: usize,
    problem: String,
}

impl Validity {
    /// The validity of a whole chain: every certificate in it must be valid. Fails if one cannot be read.
    pub fn of(chain: &[CertificateDer<'_>]) -> Result<Self, Unreadable> {
        let mut all = Self { not_before: i64::MIN, not_after: i64::MAX };
        for (place, certificate) in chain.iter().enumerate() {
            let fault = |problem: String| Unreadable {
                place: place.saturating_add(1),
                count: chain.len(),
                problem,
            };
            let (rest, read) =
                X509Certificate::from_der(certificate).map_err(|error| fault(error.to_string()))?;
            if !rest.is_empty() {
                return Err(fault(format!("{} bytes follow it", rest.len())));
            }
            let validity = read.validity();
            all.not_before = all.not_before.max(validity.not_before.timestamp());
            all.not_after = all.not_after.min(validity.not_after.timestamp());
        }
        Ok(all)
    }

    /// Why others refuse it at `now`, if they do.
    #[must_use]
    pub fn complaint(&self, now: SystemTime) -> Option<String> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let now = i64::try_from(seconds).unwrap_or(i64::MAX);
        match now {
            now if now > self.not_after => Some(format!("expired on {}", date(self.not_after))),
            now if now < self.not_before => {
                Some(format!("not valid before {}", date(self.not_before)))
            }
            _ => None,
        }
    }
}

/// As people read it, in UTC.
fn date(seconds: i64) -> String {
    match ASN1Time::from_timestamp(seconds) {
        Ok(time) => time.to_string(),
        Err(_out_of_range) => format!("second {seconds} of the epoch"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(begin: i32, end: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["moscow".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(begin, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_chain_is_valid_while_all_of_it_is() {
        let chain = [certificate(2020, 2031), certificate(2021, 2030)];
        let valid = Validity::of(&chain).expect("valid");
        assert_eq!(valid, Validity { not_before: 1_609_459_200, not_after: 1_893_456_000 });
        let at = |seconds| valid.complaint(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!((at(1_609_459_200), at(1_893_456_000)), (None, None));
        let early = at(1_609_459_199).expect("too early");
        assert!(early.starts_with("not valid before ") && early.contains("2021"), "{early}");
        let late = at(1_893_456_001).expect("too late");
        assert!(late.starts_with("expired on ") && late.contains("2030"), "{late}");
    }

    #[test]
    fn what_is_no_certificate_is_named_by_its_place() {
        let whole = certificate(2020, 2030);
        let torn = CertificateDer::from(whole.split_last().expect("bytes").1.to_vec());
        let fault = Validity::of(&[whole.clone(), torn]).expect_err("torn").to_string();
        assert!(fault.starts_with("certificate 2 of 2 in it cannot be read: "), "{fault}");
        let long = CertificateDer::from([whole.as_ref(), b"xx"].concat());
        let fault = Validity::of(&[long]).expect_err("longer").to_string();
        assert!(fault.ends_with("2 bytes follow it"), "{fault}");
    }
}
