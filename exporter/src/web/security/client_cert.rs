//! Which client certificates are good: `client_auth_type` and `client_allowed_sans`.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::config::Faults;

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

/// `client_allowed_sans`: names of hosts and addresses, one of which a client's certificate must
/// carry.
pub(super) fn allowed_names(
    raw: Vec<String>,
    faults: &mut Faults,
) -> Option<Vec<ServerName<'static>>> {
    let mut names = Vec::new();
    for text in raw {
        match ServerName::try_from(text.clone()) {
            Ok(name) => names.push(name),
            Err(_) => {
                let problem = format!("\"{}\" is no host name and no address", text.escape_debug());
                faults.add("tls_server_config.client_allowed_sans", problem);
                return None;
            }
        }
    }
    Some(names)
}

/// What looks at clients' certificates.
pub(super) fn verifier(
    demand: Demand,
    roots: RootCertStore,
    names: Vec<ServerName<'static>>,
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
    Ok(if names.is_empty() { inner } else { Arc::new(Named { names, inner }) })
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

/// Takes of the certificates that `inner` takes those that carry one of the names.
#[derive(Debug)]
struct Named {
    names: Vec<ServerName<'static>>,
    inner: Arc<dyn ClientCertVerifier>,
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
        let parsed = ParsedCertificate::try_from(cert)?;
        match self.names.iter().any(|name| verify_server_name(&parsed, name).is_ok()) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
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
