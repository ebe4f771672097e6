//! How an Alertmanager is reached: certificates, and who the daemon says it is.
//!
//! - [`Line`]: the connections and the login of one configuration. Its files are read again from time
//!   to time, so that a renewed certificate needs no reload.
//! - [`LineError`]: which file is not what it must be.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use procstorm_toolkit::certificate::Validity;
use procstorm_toolkit::workers::Workers;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::resolver::Resolver;
use crate::policy::Access;

/// What speaks HTTP, with TLS where the address asks for it.
pub(crate) type Http = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// The largest file that is read: a bundle of all public authorities has some 250 KiB.
const FILE_MAX: u64 = 4 << 20;

/// How long the files are taken to be as they were read.
const FRESH: Duration = Duration::from_secs(30);

/// How long the reading of the files may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an Alertmanager cannot be asked: one of the files of `alertmanager_http`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// It does not hold what it must. The text quotes none of it.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Its file system does not answer.
    #[error("the files with certificates and logins could not be read within {PATIENCE:?}")]
    Hangs,
}

/// What a request needs. The login is never shown.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) http: Http,
    pub(crate) login: Option<HeaderValue>,
    /// How long the certificate is valid that it shows, if it shows one.
    certificate: Option<Validity>,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

/// The way to the Alertmanagers of one configuration. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    access: Access,
    resolver: Resolver,
    files: Option<Workers>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    read: Option<(Instant, Contents)>,
}

/// Not what is in it: passwords are.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// The files' contents, in the order of [`Access::files`].
type Contents = Vec<Vec<u8>>;

impl Line {
    /// The way to so many Alertmanagers.
    pub(crate) fn new(access: &Access, members: usize) -> Self {
        let has_files = access.files().next().is_some();
        Self {
            access: access.clone(),
            // One more than there are names that may hang.
            resolver: Resolver::of(members.saturating_add(1)),
            files: has_files.then(|| Workers::start("access", 1)),
            state: Arc::default(),
        }
    }

    /// What a request needs, by the files as they are now or were a short time ago. Where they
    /// cannot be read any more, by what they were last.
    pub(crate) async fn open(&self) -> Result<Open, LineError> {
        let is_fresh = |state: &State| match &state.read {
            Some((at, _)) => self.files.is_none() || at.elapsed() < FRESH,
            None => false,
        };
        if let Some(open) = Some(self.lock()).filter(|state| is_fresh(state)).and_then(known) {
            return Ok(open);
        }
        match self.read_again().await {
            Ok(open) => Ok(open),
            Err(error) => match known(self.lock()) {
                Some(open) => {
                    tracing::warn!(
                        error = %procstorm_toolkit::chain::Chain(&error),
                        "could not read the files of alertmanager_http again; using what they were"
                    );
                    Ok(open)
                }
                None => Err(error),
            },
        }
    }

    /// How long the certificate is valid that is shown now; `None` if there is none, or if nothing was
    /// asked yet.
    pub(crate) fn certificate(&self) -> Option<Validity> {
        known(self.lock())?.certificate
    }

    async fn read_again(&self) -> Result<Open, LineError> {
        let contents = match &self.files {
            None => Vec::new(),
            Some(files) => {
                let paths: Vec<_> = self.access.files().map(Path::to_owned).collect();
                let work = files.run(move || {
                    paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()
                });
                let read = timeout(PATIENCE, work).await.map_err(|_elapsed| LineError::Hangs)?;
                read.map_err(|_panic| LineError::Hangs)??
            }
        };
        let before = self.lock().read.as_ref().is_some_and(|(_, before)| *before == contents);
        let open = match known(self.lock()).filter(|_| before) {
            Some(open) => open,
            None => self.make(&contents)?,
        };
        let mut state = self.lock();
        state.read = Some((Instant::now(), contents));
        state.open = Some(open.clone());
        Ok(open)
    }

    fn make(&self, contents: &Contents) -> Result<Open, LineError> {
        let mut http = HttpConnector::new_with_resolver(self.resolver.clone());
        http.enforce_http(false);
        let (tls, certificate) = self.tls(contents)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Open { http, login: self.login(contents)?, certificate })
    }

    /// TLS, and how long the certificate is valid that it shows. One that is not valid is used all the
    /// same: this host's clock may be wrong.
    fn tls(&self, contents: &Contents) -> Result<(ClientConfig, Option<Validity>), LineError> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = self.file(self.access.ca_file.as_deref(), contents) {
            for certificate in ca.certificates()? {
                roots.add(certificate).map_err(|error| ca.fault(error))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| LineError::Content {
                path: self.access.ca_file.clone().unwrap_or_default(),
                problem: error.to_string(),
            })?
            .with_root_certificates(roots);
        let own = self.file(self.access.cert_file.as_deref(), contents);
        let key = self.file(self.access.key_file.as_deref(), contents);
        match (own, key) {
            (Some(own), Some(key)) => {
                let chain = own.certificates()?;
                let validity = Validity::of(&chain).map_err(|error| own.fault(error))?;
                if let Some(complaint) = validity.complaint(SystemTime::now()) {
                    tracing::warn!(
                        file = %own.path.display(),
                        problem = complaint,
                        "certificate is not valid by the clock of this host: Alertmanager refuses it"
                    );
                }
                let tls = builder
                    .with_client_auth_cert(chain, key.private_key()?)
                    .map_err(|error| key.fault(error))?;
                Ok((tls, Some(validity)))
            }
            _ => Ok((builder.with_no_client_auth(), None)),
        }
    }

    /// The value of the header `Authorization`.
    fn login(&self, contents: &Contents) -> Result<Option<HeaderValue>, LineError> {
        let password = self.file(self.access.password_file.as_deref(), contents);
        let (text, file) = match (&self.access.username, password) {
            (Some(name), Some(file)) => {
                let login = format!("{name}:{}", file.secret()?);
                (format!("Basic {}", STANDARD.encode(login)), file)
            }
            _ => match self.file(self.access.credentials_file.as_deref(), contents) {
                Some(file) => (format!("Bearer {}", file.secret()?), file),
                None => return Ok(None),
            },
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_quoted| file.fault("it holds characters that a header cannot have"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// One of the files, with what was in it.
    fn file<'a>(&'a self, path: Option<&'a Path>, contents: &'a Contents) -> Option<File<'a>> {
        let path = path?;
        let place = self.access.files().position(|file| file == path)?;
        Some(File { path, bytes: contents.get(place)? })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known(state: MutexGuard<'_, State>) -> Option<Open> {
    state.open.clone()
}

fn read(path: &Path) -> Result<Vec<u8>, LineError> {
    let fault = |error| LineError::Read { path: path.to_owned(), source: Arc::new(error) };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fault)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
    match u64::try_from(bytes.len()) {
        Ok(0..=FILE_MAX) => Ok(bytes),
        _ => Err(fault(io::Error::other(format!("it is larger than {FILE_MAX} bytes")))),
    }
}

#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl File<'_> {
    fn fault(&self, problem: impl ToString) -> LineError {
        LineError::Content { path: self.path.to_owned(), problem: problem.to_string() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, LineError> {
        let read = CertificateDer::pem_slice_iter(self.bytes).collect::<Result<Vec<_>, _>>();
        match read {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.fault("there is no certificate in it"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, LineError> {
        PrivateKeyDer::from_pem_slice(self.bytes).map_err(|error| self.fault(error))
    }

    /// Its only line.
    fn secret(&self) -> Result<&str, LineError> {
        let text = std::str::from_utf8(self.bytes).map_err(|_quoted| self.fault("is not text"))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() || text.contains(['\r', '\n']) {
            return Err(self.fault("must hold one line"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(dir: &Path, bearer: &str) -> Access {
        let file = dir.join("bearer");
        std::fs::write(&file, bearer).expect("a file");
        Access { credentials_file: Some(file), ..Access::default() }
    }

    #[tokio::test]
    async fn a_secret_that_has_changed_is_used_and_one_that_is_gone_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let access = access(dir.path(), "first\n");
        let line = Line::new(&access, 1);
        let login = |open: Open| open.login.expect("a login");
        assert_eq!(login(line.open().await.expect("open")), "Bearer first");
        std::fs::write(dir.path().join("bearer"), "second\n").expect("a file");
        assert_eq!(login(line.read_again().await.expect("open")), "Bearer second");
        std::fs::remove_file(dir.path().join("bearer")).expect("removed");
        line.lock().read = None;
        assert_eq!(login(line.open().await.expect("open")), "Bearer second");
    }

    #[tokio::test]
    async fn the_validity_is_that_of_the_certificate_which_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| Some(dir.path().join(name));
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(dir.path().join("key"), key.serialize_pem()).expect("a file");
        let issue = |year| {
            let names = vec!["moscow".to_owned()];
            let mut params = rcgen::CertificateParams::new(names).expect("a name");
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let own = params.self_signed(&key).expect("a certificate").pem();
            std::fs::write(dir.path().join("crt"), own).expect("a file");
        };
        let access = Access { cert_file: at("crt"), key_file: at("key"), ..Access::default() };
        let line = Line::new(&access, 1);
        let end = || line.certificate().map(|validity| validity.not_after);
        assert_eq!(end(), None);
        issue(2200);
        line.open().await.expect("open");
        assert_eq!(end(), Some(7_258_118_400));
        issue(2021);
        line.read_again().await.expect("one that has expired is used, as the clock may be wrong");
        assert_eq!(end(), Some(1_609_459_200));
        let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(dir.path().join("crt"), torn).expect("a file");
        let fault = line.read_again().await.expect_err("torn").to_string();
        assert!(fault.contains("/crt: certificate 1 of 1 in it cannot be read: "), "{fault}");
        assert_eq!(end(), Some(1_609_459_200), "the one before is still shown");
    }

    #[tokio::test]
    async fn a_faulty_file_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in ["", "\n", "one-secret\ntwo", "one-secret\u{7}"] {
            let line = Line::new(&access(dir.path(), text), 1);
            let fault = line.open().await.expect_err("faulty").to_string();
            assert!(fault.contains("/bearer: ") && !fault.contains("one-secret"), "{fault}");
        }
        let own = Access { ca_file: Some(dir.path().join("absent")), ..Access::default() };
        let fault = Line::new(&own, 1).open().await.expect_err("absent").to_string();
        assert!(fault.starts_with("cannot read /") && fault.ends_with("/absent"), "{fault}");
    }
}
