//! An HTTP server: HTTP/1.1, made for a hostile network.
//!
//! - [`serve`]: takes connections until told to stop, then lets those in flight finish.
//! - [`Settings`]: its bounds.
//! - [`body`]: reads a request's body within a limit and a deadline.
//! - [`guard`]: refuses requests that are malformed, or that another's web page has sent.
//! - [`gzip`]: compressed answers.
//! - [`listen`]: sockets from addresses as Prometheus writes them.
//! - [`page`]: what the pages for people have in common.
//! - [`reply`]: the answers that every server gives: 404, 405, healthy, ready.
//! - [`security`]: TLS and authentication, as `--web.config.file` says.
//! - [`routes`]: what is answered at which path, as one table.
//! - `roster`: the open connections, and which is closed when a new one finds no free slot.
//! - `seldom`: keeps what clients can have logged within bounds.
//! - `stall`: a stream that gives up on a peer that stops reading.
//!
//! When all connection slots are in use, the connection that has been idle longest is closed. A
//! connection with a request in progress is safe only if its handler knows who sent it
//! ([`Standing`]).

pub mod body;
pub mod guard;
pub mod gzip;
pub mod listen;
pub mod page;
pub mod reply;
mod roster;
pub mod routes;
pub mod security;
mod seldom;
mod stall;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use self::guard::{Knows, OwnNames};
pub use self::roster::Standing;
use self::roster::{Roster, Seat};
use self::security::Security;
use self::security::config::WebConfig;
use self::seldom::Seldom;
use self::stall::StallGuard;
use crate::scarcity::allocator::is_short;

/// A request as the handler gets it.
pub type Request = hyper::Request<Incoming>;

/// Who sent a request: in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// An answer as the handler gives it.
pub type Response = hyper::Response<Full<Bytes>>;

/// The longest request head. Prometheus and Alertmanager stay under 1 KiB.
const HEAD_MAX: usize = 16 * 1024;

/// How long no connection is taken when the system has no descriptor left for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a client may take for the head of a request, and keep an idle connection.
    pub header_deadline: Duration,
    /// How long the handler may take for a request, its body included; then the answer is 503.
    pub request_deadline: Duration,
    /// How long a client may take nothing of an answer.
    pub stall_deadline: Duration,
    /// How long requests in flight may take once the server was told to stop.
    pub drain_deadline: Duration,
    /// How many connections are held at once.
    pub max_connections: usize,
    /// TLS and authentication; `None` is plain HTTP without authentication.
    pub security: Option<Arc<Security>>,
    /// What `Host` may be on the loopback.
    pub own_names: OwnNames,
    /// How the handler authenticates a client other than by password; `None`: not at all.
    pub knows: Option<Knows>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_deadline: Duration::from_secs(30),
            request_deadline: Duration::from_secs(30),
            stall_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(10),
            max_connections: 512,
            security: None,
            own_names: OwnNames::default(),
            knows: None,
        }
    }
}

/// Answers each request on `listeners` by `handler` until `shutdown` is done; then takes no more
/// connections, lets requests in flight finish within the drain deadline, and returns. A HEAD
/// request goes to the handler like a GET; its answer's body is not sent. The bounds of `settings` hold
/// for all listeners together: connections to one can use up no more than connections to several.
pub async fn serve<H, F>(
    listeners: Vec<TcpListener>,
    settings: Settings,
    handler: H,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    if let Some(security) = &settings.security {
        security.start()?;
    }
    let (stopping, _) = watch::channel(false);
    let roster = Roster::new(settings.max_connections);
    let told = Arc::new(Seldom::default());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut first = 0;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listeners, &mut first) => match accepted {
                Ok((stream, address)) => {
                    if let Some(seat) = roster.admit() {
                        let (settings, stop) = (settings.clone(), stopping.subscribe());
                        let told = Arc::clone(&told);
                        let talk = Talk { settings, peer: Peer(address), seat, told, stop };
                        connections.spawn(talk.converse(stream, handler.clone()));
                    }
                }
                Err(error) => survive(&error, &roster, &told).await,
            },
            Some(ended) = connections.join_next() => report_panic(ended),
        }
    }
    drop(listeners);
    stopping.send_replace(true);
    drain(connections, settings.drain_deadline).await;
    Ok(())
}

/// The next connection on any of `listeners`. The listener after the one that had the last connection
/// (`first`) is asked first, so that a crowd on one does not keep the others waiting.
async fn accept(
    listeners: &[TcpListener],
    first: &mut usize,
) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let from_first = listeners.iter().enumerate().cycle().skip(*first).take(listeners.len());
        for (index, listener) in from_first {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                *first = index.saturating_add(1);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// An error of `accept(2)` is never a reason to stop: the client has gone, or the system is short
/// of descriptors or memory, which idle connections then give back.
async fn survive(error: &io::Error, roster: &Roster, told: &Seldom) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        if let Some(unsaid) = told.may_say(&error.kind().to_string()) {
            tracing::warn!(%error, unsaid, "cannot accept a connection; closing idle ones");
        }
        roster.make_room();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn drain(mut connections: JoinSet<()>, deadline: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if timeout(deadline, all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "shutdown: closed connections whose requests had not finished"
        );
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task panicked");
    }
}

/// How a client has come to us.
#[derive(Clone, Copy)]
enum Way {
    /// From this machine, perhaps for a web page that is open in a browser here.
    Loopback,
    /// From elsewhere, or by an address that is reached from elsewhere.
    Network,
    /// By TLS: no web page has a certificate for a name of its own that we would show.
    Tls,
}

/// One connection, until it ends, is evicted, or the server stops.
struct Talk {
    settings: Settings,
    peer: Peer,
    seat: Seat,
    told: Arc<Seldom>,
    stop: watch::Receiver<bool>,
}

impl Talk {
    async fn converse<H, F>(self, stream: TcpStream, handler: H)
    where
        H: Fn(Request) -> F,
        F: Future<Output = Response>,
    {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        // Where it is not known, all is checked.
        let way = match stream.local_addr() {
            Ok(own) if !own.ip().to_canonical().is_loopback() => Way::Network,
            Ok(_) | Err(_) => Way::Loopback,
        };
        let stream = StallGuard::new(stream, self.settings.stall_deadline);
        let tls = match &self.settings.security {
            Some(security) => security.current().await.tls(),
            None => None,
        };
        let Some(tls) = tls else { return self.http(stream, way, handler).await };
        let handshake =
            timeout(self.settings.header_deadline, TlsAcceptor::from(tls).accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.seat.evicted() => return,
            () = self.stopped() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, Way::Tls, handler).await,
            Ok(Err(error)) => self.tell_of_handshake(&security::reason(&error)),
            Err(_) => self.tell_of_handshake("timed out"),
        }
    }

    /// A client that is refused here learns little, so that the log must say why; each reason seldom,
    /// since everybody who can connect can have it said.
    fn tell_of_handshake(&self, reason: &str) {
        if let Some(unsaid) = self.told.may_say(reason) {
            tracing::warn!(peer = %self.peer.0, reason, unsaid, "TLS handshake failed");
        }
    }

    async fn http<S, H, F>(self, stream: S, way: Way, handler: H)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        H: Fn(Request) -> F,
        F: Future<Output = Response>,
    {
        let service = service_fn(|request| async {
            Ok::<_, Infallible>(self.answer(request, way, &handler).await)
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.settings.header_deadline)
                .max_header_size(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer.0, %error, "connection closed");
                    }
                    return;
                }
                () = self.seat.evicted() => return,
                () = self.stopped(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// The handler's answer, to clients that may use the server. The connection of one that may not
    /// does not count as at work, and so is closed when others need the slot.
    async fn answer<H, F>(&self, request: Request, way: Way, handler: &H) -> Response
    where
        H: Fn(Request) -> F,
        F: Future<Output = Response>,
    {
        let config = match &self.settings.security {
            Some(security) => Some((security, security.current().await)),
            None => None,
        };
        let (head, body) = request.into_parts();
        let refusal = self.refusal(&head, way, config.as_ref()).await;
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.seat.standing());
        let mut response = match refusal {
            Some(refusal) => refusal,
            // Whatever it would take may be what ends the program.
            None if is_short() => reply::short_of_memory(),
            None => {
                let _busy = self.seat.busy();
                timeout(self.settings.request_deadline, handler(request))
                    .await
                    .unwrap_or_else(|_| reply::too_slow())
            }
        };
        if let Some((_, config)) = config {
            config.add_headers(response.headers_mut());
        }
        // When half the connection slots are in use, each connection is closed after one response,
        // so that clients that pipeline requests cannot hold slots.
        if self.seat.is_crowded() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Why the handler is not asked, if it is not.
    async fn refusal(
        &self,
        head: &Parts,
        way: Way,
        config: Option<&(&Arc<Security>, Arc<WebConfig>)>,
    ) -> Option<Response> {
        if let Some(fault) = guard::malformed(head) {
            return Some(reply::closing(StatusCode::BAD_REQUEST, format!("{fault}\n")));
        }
        // Unauthenticated clients must not use up the limit of the authenticated ones.
        let known = self.settings.knows.as_ref().is_some_and(|all| all.knows(&head.headers));
        let mut trusted = known || matches!(way, Way::Tls);
        if let Some((security, config)) = config {
            if !known && let Some(refusal) = security.limit(config, &head.method) {
                return Some(refusal);
            }
            let refusal = security.refuse(config, &head.headers);
            // Many may wait for a password to be compared.
            match timeout(self.settings.request_deadline, refusal).await {
                Ok(None) => trusted |= config.asks_for_password(),
                Ok(refusal) => return refusal,
                Err(_) => return Some(reply::too_slow()),
            }
        }
        let loopback = matches!(way, Way::Loopback) && !trusted;
        let reason = guard::foreign(head, loopback, &self.settings.own_names)?;
        if let Some(unsaid) = self.told.may_say("foreign") {
            tracing::warn!(peer = %self.peer.0, reason, unsaid, "refused a request");
        }
        Some(reply::closing(StatusCode::FORBIDDEN, format!("{reason}\n")))
    }

    async fn stopped(&self) {
        // An error means that the server is gone, which is to stop.
        self.stop.clone().wait_for(|stop| *stop).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_on_one_listener_does_not_keep_another_waiting() {
        let limit = Duration::from_secs(60);
        let crowded = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let quiet = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (crowded_at, quiet_at) = (crowded.local_addr(), quiet.local_addr());
        let (crowded_at, quiet_at) = (crowded_at.expect("bound"), quiet_at.expect("bound"));
        let mut waiting = Vec::new();
        for address in [crowded_at, crowded_at, crowded_at, quiet_at] {
            waiting.push(TcpStream::connect(address).await.expect("queued"));
        }
        let (listeners, mut first) = ([crowded, quiet], 0);
        let mut at = Vec::new();
        for _ in 0..4 {
            let accepted = timeout(limit, accept(&listeners, &mut first)).await;
            let (stream, _) = accepted.expect("in time").expect("accepted");
            at.push(stream.local_addr().expect("connected"));
        }
        assert_eq!(at, [crowded_at, quiet_at, crowded_at, crowded_at]);
    }
}
