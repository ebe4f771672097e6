//! A daemon's life: several addresses, reloads that fail or hang, and an end that cuts nobody off.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::time::Duration;

use hyper::StatusCode;
use procstorm_toolkit::lifecycle::{Lifecycle, Order};
use procstorm_toolkit::systemd::notice::Notifier;
use procstorm_toolkit::web::{Request, Response, Settings, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn handler(request: Request) -> Response {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    reply::text(StatusCode::OK, "served\n")
}

/// A daemon on as many addresses as asked for.
async fn start(addresses: usize, settings: Settings) -> (Lifecycle, Vec<SocketAddr>) {
    let mut listeners = Vec::new();
    for _ in 0..addresses {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let lifecycle = Lifecycle::start(listeners, settings, handler, Notifier::default()).unwrap();
    lifecycle.ready();
    (lifecycle, addresses)
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    rest(stream).await
}

/// All that comes until the daemon closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_connections_of_all_addresses_share_one_limit() {
    let settings = Settings { max_connections: 2, ..Settings::default() };
    let (lifecycle, addresses) = start(2, settings).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(addresses[0]).await.unwrap();
        // Once it has answered, the daemon has certainly accepted the connection.
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        idle.push(stream);
    }
    assert!(ask(addresses[1], GET).await.ends_with("served\n"));
    // The first of them had to go, though nobody else has come to its address.
    rest(idle.remove(0)).await;
    timeout(PATIENCE, lifecycle.drain()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing_and_one_that_hangs_does_not_delay_the_end() {
    let (mut lifecycle, addresses) = start(1, Settings::default()).await;
    let (give, mut orders) = mpsc::channel(4);
    let (say, said) = blocking::channel::<()>();
    let (release, hold) = blocking::channel::<()>();
    let hold = std::sync::Mutex::new((hold, 0));
    let reload = move || {
        let mut hold = hold.lock().unwrap();
        hold.1 += 1;
        say.send(()).unwrap();
        if hold.1 == 2 {
            assert!(hold.0.recv().is_err(), "released at the end of the test");
        }
        Err(io::Error::other("faulty"))
    };
    let obeyed = tokio::spawn(async move {
        let obeyed = lifecycle.obey(&mut orders, reload).await;
        (lifecycle, obeyed)
    });
    give.send(Order::Reload).await.unwrap();
    let said = tokio::task::spawn_blocking(move || {
        said.recv_timeout(PATIENCE).unwrap();
        said
    });
    let said = said.await.unwrap();
    assert!(ask(addresses[0], GET).await.ends_with("served\n"), "it serves as before");
    give.send(Order::Reload).await.unwrap();
    tokio::task::spawn_blocking(move || said.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    give.send(Order::Stop).await.unwrap();
    let (lifecycle, obeyed) = timeout(PATIENCE, obeyed).await.unwrap().unwrap();
    obeyed.unwrap();
    timeout(PATIENCE, lifecycle.drain()).await.unwrap().unwrap();
    drop(release);
}

#[tokio::test]
async fn requests_in_flight_are_answered_at_the_end() {
    let (lifecycle, addresses) = start(2, Settings::default()).await;
    let mut slow = TcpStream::connect(addresses[1]).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // The slow request has been accepted before this one, which is answered.
    assert!(ask(addresses[1], GET).await.ends_with("served\n"));
    timeout(PATIENCE, lifecycle.drain()).await.unwrap().unwrap();
    assert!(rest(slow).await.ends_with("served\n"));
}

#[tokio::test]
async fn the_end_of_the_orders_is_an_order_to_stop() {
    let (mut lifecycle, _) = start(1, Settings::default()).await;
    let (give, mut orders) = mpsc::channel::<Order>(1);
    drop(give);
    let reload = || Ok::<(), io::Error>(());
    timeout(PATIENCE, lifecycle.obey(&mut orders, reload)).await.unwrap().unwrap();
    timeout(PATIENCE, lifecycle.drain()).await.unwrap().unwrap();
}
