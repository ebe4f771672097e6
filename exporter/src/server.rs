//! The exporter's pages.
//!
//! [`ROUTES`] is the table of paths and handlers.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use hyper::{Method, StatusCode};
use procstorm_processes::name_service::NameService;
use procstorm_processes::visibility::obstacle;
use procstorm_toolkit::chain::Chain;
use procstorm_toolkit::single_flight::SingleFlight;
use procstorm_toolkit::web::page::STYLE;
use procstorm_toolkit::web::routes::{Access, Route, dispatch};
use procstorm_toolkit::web::security::Security;
use procstorm_toolkit::web::security::config::ConfigError;
use procstorm_toolkit::web::{Request, Response, gzip, page, reply};
use procstorm_toolkit::workers::{Missing, Workers};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::args::Args;
use crate::exposition::{CONTENT_TYPE, Exposition, Web};
use crate::landing::{self, Largest};
use crate::scan::Scanner;
use crate::source::Source;

/// The header in which Prometheus says how long it will wait.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// How much earlier than that we give up, so that our answer still arrives.
const ANSWER_TRAVEL: Duration = Duration::from_millis(100);

/// How long `/-/ready` waits for /proc.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// How long the landing page waits for a scan.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);

/// The path of the metrics, where `--web.telemetry-path` does not name another.
const METRICS: &str = "/metrics";

/// What is answered, and where: the server works from this table, and the documents' tables are
/// made from it.
pub static ROUTES: [Route<Exporter>; 5] = [
    Route {
        path: METRICS,
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "The metrics, compressed with gzip if the client accepts it. `--web.telemetry-path` \
                sets another path.",
        handler: |exporter, request| {
            Box::pin(async move { exporter.metrics(request.headers()).await })
        },
    },
    Route {
        path: "/",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "A page with the largest groups now, and links to the others.",
        handler: |exporter, _request| Box::pin(async move { exporter.landing_page().await }),
    },
    Route {
        path: STYLE,
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "The style of that page.",
        handler: |_exporter, _request| Box::pin(async { page::stylesheet() }),
    },
    Route {
        path: "/-/healthy",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "200 while the program runs.",
        handler: |_exporter, _request| Box::pin(async { reply::healthy() }),
    },
    Route {
        path: "/-/ready",
        method: Method::GET,
        access: Access::ANY_CLIENT,
        about: "200, or 503 and one line that says why the counts would be wrong.",
        handler: |exporter, _request| Box::pin(async move { exporter.ready().await }),
    },
];

/// Answers requests. Clones share all of it.
#[derive(Clone, Debug)]
pub struct Exporter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    telemetry_path: String,
    procfs: PathBuf,
    /// Whether the kernel is asked, and not /proc.
    counts_in_kernel: bool,
    max_requests: usize,
    scrapes: Semaphore,
    scanner: Mutex<Scanner>,
    /// Whether the next scan asks for all names again.
    names_expired: AtomicBool,
    exposition: Exposition,
    security: Option<Arc<Security>>,
    /// The scan under way. Its thread exists from the start, and does nothing else: a storm that
    /// has taken every pid leaves none to be started, and must be counted all the same.
    flight: SingleFlight<Result<Arc<Page>, Failure>>,
    /// What the last scan has found, for the landing page.
    last: Mutex<Option<Largest>>,
    /// The look of `/-/ready` at /proc, on a thread of its own.
    look: SingleFlight<Option<String>>,
}

/// Why a scrape failed.
#[derive(Clone, Debug)]
pub struct Failure {
    text: String,
    /// Whether the system was short of something that it may have again soon.
    passes: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

/// One exposition, compressed when first asked for.
#[derive(Debug)]
struct Page {
    text: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Exporter {
    /// An exporter as the command line describes it; `source` is where its counts come from, and
    /// `security` that of its server. Starts the threads that a scan needs: [`check_threads`](Self::check_threads) says whether they could be
    /// had.
    #[must_use]
    pub fn new(args: &Args, source: Source, security: Option<Arc<Security>>) -> Self {
        let counts_in_kernel = source.is_kernel();
        let scanner = Scanner::new(args.scan_settings(), source, NameService::default());
        let permits = match args.max_requests {
            0 => Semaphore::MAX_PERMITS,
            n => n.min(Semaphore::MAX_PERMITS),
        };
        let inner = Inner {
            telemetry_path: args.telemetry_path.clone(),
            procfs: args.procfs.clone(),
            counts_in_kernel,
            max_requests: args.max_requests,
            scrapes: Semaphore::new(permits),
            scanner: Mutex::new(scanner),
            names_expired: AtomicBool::new(false),
            exposition: Exposition::new(!args.disable_exporter_metrics),
            security,
            flight: SingleFlight::on(Workers::start("scan", 1)),
            last: Mutex::default(),
            look: SingleFlight::on(Workers::start("ready", 1)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Fails if not all threads could be had that a scan and the web configuration need.
    pub fn check_threads(&self) -> Result<(), Missing> {
        self.inner.flight.check()?;
        self.inner.look.check()?;
        self.inner.security.as_ref().map_or(Ok(()), |security| security.start())
    }

    /// Asks for all names again at the next scan, and reads the web configuration again: fails with
    /// its faults, and then the previous one stays in force. Does not wait for a scan under way.
    /// Blocks.
    pub fn reload(&self) -> Result<(), ConfigError> {
        self.inner.names_expired.store(true, Ordering::Relaxed);
        self.inner.security.as_ref().map_or(Ok(()), |security| security.reload())
    }

    /// The metrics as text, from a scan of their own. Blocks. Fails where /proc cannot be read.
    pub fn render(&self) -> Result<Vec<u8>, Failure> {
        self.inner.render()
    }

    /// The answer to one request.
    pub fn answer(&self, request: Request) -> impl Future<Output = Response> + Send + use<> {
        let exporter = self.clone();
        async move {
            let path = request.uri().path();
            let telemetry_path = &exporter.inner.telemetry_path;
            let path = match path {
                path if path == telemetry_path => METRICS,
                // They are somewhere else.
                METRICS => return reply::not_found(),
                path => path,
            };
            let path = path.to_owned();
            dispatch(&ROUTES, &path, exporter, request).await
        }
    }

    /// The largest groups, of a scan that is not old, or else of one that is made for it; if that
    /// takes too long, of the last one, which says how old it is.
    async fn landing_page(&self) -> Response {
        let last = self.inner.last();
        let largest = match last {
            Some(last) if last.is_fresh() => Ok(last),
            last => match self.scan_for_page().await {
                Ok(largest) => Ok(largest),
                Err(why) => last.ok_or(why),
            },
        };
        let path = &self.inner.telemetry_path;
        page::answer(landing::page(path, largest.as_ref().map_err(String::as_str)))
    }

    async fn scan_for_page(&self) -> Result<Largest, String> {
        let busy = |_| "too many scrapes are under way".to_owned();
        let _permit = self.inner.scrapes.try_acquire().map_err(busy)?;
        match timeout(PAGE_PATIENCE, self.scan()).await {
            Ok(Some(Ok(_page))) => self.inner.last().ok_or_else(|| "no scan was made".to_owned()),
            Ok(Some(Err(failure))) => Err(failure.to_string()),
            Ok(None) => Err("the scan panicked".to_owned()),
            Err(_) => Err(format!("the scan was not done within {PAGE_PATIENCE:?}")),
        }
    }

    async fn ready(&self) -> Response {
        if self.inner.counts_in_kernel {
            return reply::ready(None);
        }
        let procfs = self.inner.procfs.clone();
        let look = self.inner.look.run(move || obstacle(&procfs));
        let obstacle = match timeout(READY_PATIENCE, look).await {
            Ok(Some(obstacle)) => obstacle,
            Ok(None) => Some("the look at /proc panicked".to_owned()),
            Err(_) => Some(format!("/proc does not answer within {READY_PATIENCE:?}")),
        };
        reply::ready(obstacle.as_deref())
    }

    async fn metrics(&self, headers: &HeaderMap) -> Response {
        let Ok(_permit) = self.inner.scrapes.try_acquire() else {
            let limit = self.inner.max_requests;
            let text = format!("too many concurrent scrapes (limit {limit})\n");
            return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
        };
        let scan = self.scan();
        let scan = match scrape_timeout(headers) {
            None => scan.await,
            Some(patience) => match timeout(patience, scan).await {
                Ok(scan) => scan,
                Err(_) => return too_late(patience),
            },
        };
        match scan {
            Some(Ok(page)) => page.to_response(headers),
            Some(Err(failure)) => {
                let status = match failure.passes {
                    true => StatusCode::SERVICE_UNAVAILABLE,
                    false => StatusCode::INTERNAL_SERVER_ERROR,
                };
                reply::text(status, format!("{failure}\n"))
            }
            None => reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the scan panicked\n"),
        }
    }

    /// A scan, or that which is under way.
    fn scan(&self) -> impl Future<Output = Option<Result<Arc<Page>, Failure>>> + use<'_> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .flight
            .run(move || Ok(Arc::new(Page { text: inner.render()?.into(), gzip: OnceLock::new() })))
    }
}

impl Page {
    fn to_response(&self, headers: &HeaderMap) -> Response {
        let zipped = gzip::is_accepted(headers.get_all(ACCEPT_ENCODING));
        let body = match zipped {
            true => self.gzip.get_or_init(|| gzip::compress(&self.text)).clone(),
            false => self.text.clone(),
        };
        let mut response = reply::content(StatusCode::OK, CONTENT_TYPE, body);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if zipped {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

impl Inner {
    /// What the last scan has found.
    fn last(&self) -> Option<Largest> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn render(&self) -> Result<Vec<u8>, Failure> {
        let mut scanner = self.scanner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.names_expired.swap(false, Ordering::Relaxed) {
            scanner.expire_names();
        }
        let scan = scanner.scan();
        drop(scanner);
        let scan = scan
            .map_err(|error| Failure { text: Chain(&error).to_string(), passes: error.passes() })?;
        let web = self.security.as_ref().map(|security| Web {
            is_valid: security.is_valid(),
            certificate: security.certificate(),
        });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Largest::of(&scan));
        self.exposition
            .render(&scan, web)
            .map_err(|error| Failure { text: Chain(&error).to_string(), passes: false })
    }
}

/// How long Prometheus will wait, less what our answer needs on its way.
fn scrape_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(SCRAPE_TIMEOUT)?.to_str().ok()?.parse().ok()?;
    let patience =
        Duration::try_from_secs_f64(seconds).ok().filter(|patience| !patience.is_zero())?;
    Some(patience.saturating_sub(ANSWER_TRAVEL).max(patience / 2))
}

fn too_late(patience: Duration) -> Response {
    let text = format!("the scan was not done within {} ms\n", patience.as_millis());
    reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
}
