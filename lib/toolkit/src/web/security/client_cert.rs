//! Which client certificates are good: `client_auth_type` and `client_allowed_sans`.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::faults::Faults;

/// What is demanded of a client, as Go's `crypto/tls` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// No certificate is asked for.
    None,
    /// One is asked for; none, or any, will do.
    Request,
    /// There must be one, of whomever.
    RequireAny,
    /// If there is one, one of the authorities must have signed it.
    VerifyIfGiven,
    /// There must be one that one of the authorities has signed.
    RequireAndVerify,
}

impl Demand {
    pub(super) fn validate(text: Option<&str>, faults: &mut Faults) -> Option<Self> {
        match text {
            None | Some("" | "NoClientCert") => Some(Self::None),
            Some("RequestClientCert") => Some(Self::Request),
            Some("RequireAnyClientCert" | "RequireClientCert") => Some(Self::RequireAny),
            Some("VerifyClientCertIfGiven") => Some(Self::VerifyIfGiven),
            Some("RequireAndVerifyClientCert") => Some(Self::RequireAndVerify),
            Some(other) => {
                let problem = format!(
                    "\"{}\" is not one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven, RequireAndVerifyClientCert",
                    other.escape_debug()
                );
                faults.add("tls_server_config.client_auth_type", problem);
                None
            }
        }
    }

    /// Whether authorities are needed.
    pub(super) fn is_verified(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// `client_allowed_sans`: the texts, one of which must be a name in a client's certificate. `None`
/// where it is absent: then the names are not looked at. An empty list admits no client, as in the
/// toolkit. It is a fault where a client may come without a certificate: that would pass, whatever
/// names are allowed.
pub(super) fn allowed_names(
    raw: Option<Vec<String>>,
    demand: Demand,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let names = raw?;
    if !matches!(demand, Demand::RequireAny | Demand::RequireAndVerify) {
        let problem = "needs client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert: \
                       else a client without a certificate is served";
        faults.add("tls_server_config.client_allowed_sans", problem);
    }
    if names.is_empty() {
        tracing::warn!("client_allowed_sans is an empty list: no client is admitted");
    }
    Some(names)
}

/// What looks at clients' certificates.
pub(super) fn verifier(
    demand: Demand,
    roots: RootCertStore,
    names: Option<Vec<String>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let signed = || WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let inner: Arc<dyn ClientCertVerifier> = match demand {
        Demand::None => Arc::new(NoClientAuth),
        Demand::Request => Arc::new(Unsigned { mandatory: false, provider: provider.clone() }),
        Demand::RequireAny => Arc::new(Unsigned { mandatory: true, provider: provider.clone() }),
        Demand::VerifyIfGiven => signed().allow_unauthenticated().build()?,
        Demand::RequireAndVerify => signed().build()?,
    };
    Ok(match names {
        None => inner,
        Some(names) => Arc::new(Named { names, inner }),
    })
}

/// Takes a certificate of whomever; the client must own its key all the same.
#[derive(Debug)]
struct Unsigned {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Unsigned {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes of the certificates that `inner` takes those that carry one of the names. They are compared
/// as texts: a certificate for `*.example.org` is for no host of that domain.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    inner: Arc<dyn ClientCertVerifier>,
}

/// None of the certificate's names is allowed.
#[derive(Debug, thiserror::Error)]
#[error("none of its names {0:?} is in client_allowed_sans")]
struct NotAllowed(Vec<String>);

/// The subject alternative names of a certificate, as Go writes them: hosts, e-mail addresses and
/// URIs as they stand there, addresses without needless zeros. `None` if it cannot be read.
fn names_in(cert: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (rest, cert) = X509Certificate::from_der(cert).ok()?;
    if !rest.is_empty() {
        return None;
    }
    // An error is an extension that stands there twice.
    let Some(names) = cert.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    names.value.general_names.iter().filter_map(text_of).collect()
}

/// A name as a text, if it is of one of the four kinds; an inner `None` is one that cannot be read.
fn text_of(name: &GeneralName<'_>) -> Option<Option<String>> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some(Some((*text).to_owned()))
        }
        GeneralName::IPAddress(bytes) => Some(address(bytes).map(|address| address.to_string())),
        GeneralName::Invalid(..) => Some(None),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_) => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|it| it.to_canonical())
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(cert, intermediates, now)?;
        let names = names_in(cert).ok_or(CertificateError::BadEncoding)?;
        match names.iter().any(|name| self.names.contains(name)) {
            true => Ok(verified),
            false => Err(CertificateError::Other(OtherError(Arc::new(NotAllowed(names)))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
