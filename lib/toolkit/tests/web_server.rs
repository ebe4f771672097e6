//! The server's bounds: what a hostile or slow client can and cannot do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::{Method, StatusCode};
use procstorm_toolkit::web::{self, Request, Response, Settings, body, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

async fn handler(request: Request) -> Response {
    match request.uri().path() {
        "/fast" => {
            reply::unless_allowed(request.method(), &[Method::GET]).unwrap_or_else(reply::healthy)
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            reply::text(StatusCode::OK, "late\n")
        }
        "/never" => pending().await,
        "/large" => reply::text(StatusCode::OK, vec![b'x'; 64 << 20]),
        "/body" => match body::read(request.into_body(), 10, Duration::from_secs(2)).await {
            Ok(bytes) => reply::text(StatusCode::OK, bytes),
            Err(error) => error.to_response(),
        },
        _ => reply::not_found(),
    }
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

async fn start(settings: Settings) -> Server {
    start_on("127.0.0.1:0", settings).await
}

async fn start_on(address: &str, settings: Settings) -> Server {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let ended = tokio::spawn(web::serve(vec![listener], settings, handler, shutdown));
    Server { address, stop, ended }
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset tells as much as an end.
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap().ok();
    String::from_utf8(text).unwrap()
}

async fn exchange(address: SocketAddr, line: &str) -> String {
    rest(
        send(address, &format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .await,
    )
    .await
}

#[tokio::test]
async fn paths_and_methods() {
    let server = start(Settings::default()).await;
    assert!(exchange(server.address, "GET /fast").await.ends_with("\r\n\r\nhealthy\n"));
    let head = exchange(server.address, "HEAD /fast").await;
    assert!(head.contains("content-length: 8\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let post = exchange(server.address, "POST /fast").await;
    assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD\r\n"), "{post}");
    assert!(exchange(server.address, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    let long = format!("GET /{}", "x".repeat(100_000));
    let refused = exchange(server.address, &long).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 4"), "{refused}");
}

#[tokio::test]
async fn on_the_loopback_the_host_is_named_and_is_this_one() {
    let server = start(Settings::default()).await;
    for (version, headers, status) in [
        ("1.1", "Host: localhost:1\r\n", "200"),
        ("1.1", "Host: 127.0.0.1\r\n", "200"),
        ("1.0", "", "200"),
        ("1.1", "Host: rebound.example\r\n", "403"),
        ("1.0", "Host: rebound.example\r\n", "403"),
        ("1.1", "Host: localhost\r\nOrigin: http://rebound.example\r\n", "403"),
        ("1.1", "", "400"),
        ("1.1", "Host: localhost\r\nHost: localhost\r\n", "400"),
        ("1.1", "Host: local host\r\n", "400"),
    ] {
        let request = format!("GET /fast HTTP/{version}\r\n{headers}Connection: close\r\n\r\n");
        let answer = rest(send(server.address, &request).await).await;
        assert_eq!(answer.get(9..12), Some(status), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let server = start(Settings::default()).await;
    let post = |length: usize, body: &str| {
        format!(
            "POST /body HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    for (request, status) in [
        (post(4, "four"), "200"),
        (post(11, "eleven byte"), "413"),
        (post(9, "four"), "408"),
        (post(9, "").replace("Content-Length: 9", "Transfer-Encoding: chunked") + "zz\r\n", "400"),
    ] {
        let answer = rest(send(server.address, &request).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_head_and_a_slow_handler_are_cut() {
    // A head that is on its way must not be cut because the machine is busy.
    let settings = Settings {
        header_deadline: Duration::from_secs(3),
        request_deadline: Duration::from_millis(200),
        ..Settings::default()
    };
    let server = start(settings).await;
    let slow = rest(send(server.address, "GET /fast HTTP/1.1\r\nHos").await).await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    assert!(exchange(server.address, "GET /never").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let settings = Settings { max_connections: 64, ..Settings::default() };
    let server = start(settings).await;
    let mut idle = Vec::new();
    for i in 0..1000 {
        let head = if i % 2 == 0 { "" } else { "GET /fast HTTP/1.1\r\nHos" };
        idle.push(send(server.address, head).await);
    }
    let answer = timeout(PATIENCE, exchange(server.address, "GET /fast")).await.unwrap();
    assert!(answer.ends_with("healthy\n"), "{answer}");
}

#[tokio::test]
async fn a_reader_that_stops_blocks_nobody_and_is_dropped() {
    let settings = Settings { stall_deadline: Duration::from_millis(200), ..Settings::default() };
    let server = start(settings).await;
    let stalled = send(server.address, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stalled.readable().await.unwrap();
    assert!(exchange(server.address, "GET /fast").await.ends_with("healthy\n"));
    server.stop.send(()).unwrap();
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
    assert!(rest(stalled).await.len() < 64 << 20, "it was cut off");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish() {
    // An address of its own: afterwards its port may be given to a server of the test beside it.
    let server = start_on("127.0.0.77:0", Settings::default()).await;
    let mut flying = send(server.address, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let idle = send(server.address, "").await;
    // The server has certainly taken both once it answers a third.
    exchange(server.address, "GET /fast").await;
    server.stop.send(()).unwrap();
    let mut answer = [0; 12];
    flying.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap().unwrap();
    assert_eq!(rest(idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}
