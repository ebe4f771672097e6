//! X.509, as far as a fleet needs it: an authority, certificates for servers and for clients, and
//! what is in those that exist.
//!
//! - [`Key`]: a private key (ECDSA on P-256), made or read.
//! - [`Certificate`]: one that exists, with what has to be known of it.
//! - [`authority`], [`sign`]: make one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, date_time_ymd,
};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::CertificatesError;

/// How an authority of this command is called; the first bytes of its key's digest follow. So two of
/// them have two names, and the right one is found for each certificate.
const AUTHORITY: &str = "procstorm fleet authority ";

/// The longest common name that X.509 allows (RFC 5280, ub-common-name-length).
const COMMON_NAME_MAX: usize = 64;

/// The last second that the ASN.1 of a certificate can write: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a certificate's owner is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A host's name.
    Dns(String),
    /// A host's address.
    Address(IpAddr),
    /// Something that cannot be mistaken for a host.
    Uri(String),
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Server,
    Client,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) names: BTreeSet<Name>,
    pub(super) purpose: Purpose,
}

/// From when to when something is good, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) begin: i64,
    pub(super) end: i64,
}

impl Span {
    /// When a third of it is left: then it is renewed.
    pub(super) fn due(self) -> i64 {
        self.end.saturating_sub(self.end.saturating_sub(self.begin) / 3)
    }
}

/// A private key. It has no `Debug` that shows it, and leaves this process as a file alone.
#[derive(Debug)]
pub(super) struct Key(KeyPair);

impl Key {
    pub(super) fn generate() -> Result<Self, CertificatesError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// A key as [`pem`](Self::pem) writes it; else what is wrong.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let read = std::str::from_utf8(bytes).ok().and_then(|text| {
            KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256).ok()
        });
        read.map(Self)
            .ok_or("is not a private key in PEM as this command makes it (PKCS 8, ECDSA on P-256)")
    }

    pub(super) fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The public half, as it stands in a certificate.
    pub(super) fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }
}

/// A certificate that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    der: CertificateDer<'static>,
    /// The public key that it certifies.
    pub(super) key: Vec<u8>,
    /// Its owner's name, for people.
    pub(super) subject: String,
    issuer: String,
    names: BTreeSet<Name>,
    /// What it is good for; `None` for both, neither or something else.
    purpose: Option<Purpose>,
    is_authority: bool,
    pub(super) span: Span,
}

impl Certificate {
    /// All that are in a file, or what is wrong with it.
    pub(super) fn read_all(bytes: &[u8]) -> Result<Vec<Self>, &'static str> {
        let read = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
        let all = read.map_err(|_error| "is not PEM")?;
        let all: Option<Vec<_>> = all.into_iter().map(Self::of).collect();
        match all {
            Some(all) if all.is_empty() => Err("has no certificate in it"),
            Some(all) => Ok(all),
            None => Err("has a certificate in it that cannot be read"),
        }
    }

    fn of(der: CertificateDer<'static>) -> Option<Self> {
        let (rest, read) = X509Certificate::from_der(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = match read.subject_alternative_name().ok()? {
            None => BTreeSet::new(),
            // One of another kind is none of ours, and shows as a difference.
            Some(names) => names.value.general_names.iter().filter_map(name_of).collect(),
        };
        let usage = read.extended_key_usage().ok()?;
        let purpose =
            usage.and_then(|usage| match (usage.value.server_auth, usage.value.client_auth) {
                (true, false) => Some(Purpose::Server),
                (false, true) => Some(Purpose::Client),
                (true, true) | (false, false) => None,
            });
        let certificate = Self {
            key: read.public_key().subject_public_key.data.to_vec(),
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names,
            purpose,
            is_authority: read.is_ca(),
            span: Span {
                begin: read.validity().not_before.timestamp(),
                end: read.validity().not_after.timestamp(),
            },
            der: der.clone(),
        };
        Some(certificate)
    }

    pub(super) fn pem(&self) -> String {
        let block = |line: &[u8]| format!("{}\n", String::from_utf8_lossy(line));
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.der);
        let lines: String = text.as_bytes().chunks(64).map(block).collect();
        format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
    }

    /// Whether the owner of this public key has signed it.
    pub(super) fn is_signed_by(&self, public: &[u8]) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public);
        key.verify(read.tbs_certificate.as_ref(), &read.signature_value.data).is_ok()
    }

    /// Whether it is an authority that this command has made.
    pub(super) fn is_authority_of_ours(&self) -> bool {
        self.is_authority && claims(&self.subject) && self.is_signed_by(&self.key)
    }

    /// Whether it claims that an authority of this command has signed it.
    pub(super) fn claims_our_authority(&self) -> bool {
        claims(&self.issuer)
    }

    /// Whether it is for this owner, and for nothing else.
    pub(super) fn is_for(&self, subject: &Subject) -> bool {
        !self.is_authority && self.names == subject.names && self.purpose == Some(subject.purpose)
    }
}

fn claims(name: &str) -> bool {
    name.strip_prefix("CN=").is_some_and(|name| name.starts_with(AUTHORITY))
}

fn name_of(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(text) => Some(Name::Dns((*text).to_owned())),
        GeneralName::URI(text) => Some(Name::Uri((*text).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(Name::Address)
        }
        GeneralName::Invalid(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_) => None,
    }
}

/// A certificate of an authority for itself.
pub(super) fn authority(key: &Key, span: Span) -> Result<Certificate, CertificatesError> {
    let mut params = issuer_of(key);
    within(&mut params, span)?;
    let made = params.self_signed(&key.0)?;
    Certificate::of(made.der().clone()).ok_or(CertificatesError::Unreadable)
}

/// A certificate by this authority for the owner of `key`.
pub(super) fn sign(
    authority: &Key,
    key: &Key,
    subject: &Subject,
    span: Span,
) -> Result<Certificate, CertificatesError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(subject.common_name.chars().take(COMMON_NAME_MAX).collect());
    for name in &subject.names {
        params.subject_alt_names.push(match name {
            Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Name::Address(address) => SanType::IpAddress(*address),
            Name::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match subject.purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    within(&mut params, span)?;
    let issuer = issuer_of(authority);
    let made = params.signed_by(&key.0, &Issuer::from_params(&issuer, &authority.0))?;
    Certificate::of(made.der().clone()).ok_or(CertificatesError::Unreadable)
}

/// What is the same each time that this key signs.
fn issuer_of(key: &Key) -> CertificateParams {
    let digest = digest::digest(&digest::SHA256, key.public());
    let number: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = called(format!("{AUTHORITY}{number}"));
    // It signs certificates of servers and clients, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn called(name: String) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// Sets the time, and a number that no other certificate of the same key has: a renewed one keeps
/// its key, and rcgen would number it by that.
fn within(params: &mut CertificateParams, span: Span) -> Result<(), CertificatesError> {
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).ok().filter(|_| seconds <= LAST_SECOND);
        let after = Duration::from_secs(seconds.ok_or(CertificatesError::NoTime)?);
        Ok::<_, CertificatesError>(date_time_ymd(1970, 1, 1) + after)
    };
    (params.not_before, params.not_after) = (time(span.begin)?, time(span.end)?);
    let mut number = [0; 16];
    SystemRandom::new().fill(&mut number).map_err(|_error| CertificatesError::NoChance)?;
    params.serial_number = Some(SerialNumber::from_slice(&number));
    Ok(())
}
