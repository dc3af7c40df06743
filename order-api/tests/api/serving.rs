//! The server on a real socket: what is not even HTTP, and the end that loses nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use order_api::config::Config;
use order_api::server::{ServerLimits, serve};
use order_api::service;
use prometheus_client::metrics::gauge::Gauge;
use ring_source::{RingSource, RingSourceConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::shards::ShardedApi;
use crate::support::{ALL, Api, a_user, fresh_key, settings};

/// The time limit of a head, where a test waits for it.
const SOON: Duration = Duration::from_millis(300);
/// More than a slow machine needs.
const LONG: Duration = Duration::from_secs(60);

async fn start(router: Router, idle_timeout: Duration) -> (SocketAddr, CancellationToken, JoinHandle<bool>) {
    start_with(router, idle_timeout, 64).await
}

async fn start_with(
    router: Router,
    idle_timeout: Duration,
    max_connections: usize,
) -> (SocketAddr, CancellationToken, JoinHandle<bool>) {
    let limits = ServerLimits {
        max_connections,
        idle_timeout,
        drain_deadline: LONG,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, limits, Gauge::default(), stop.clone()));
    (address, stop, serving)
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before all is written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_not_http_is_refused_or_dropped_and_never_a_fault_of_ours() {
    let (address, stop, serving) = start(Api::without_shards(settings()).router, SOON).await;
    let long = [b"GET /".as_slice(), &[b'a'; 100_000], b" HTTP/1.1\r\n\r\n"].concat();
    let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(500), b"\r\n"].concat();
    let requests: [&[u8]; 8] = [
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/users/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        &long,
        &many,
    ];
    for request in requests {
        let answer = exchange(address, request).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(
            line.is_empty() || line.contains(" 4"),
            "{line:?} for {:?}",
            String::from_utf8_lossy(&request[..24])
        );
    }
    stop.cancel();
    assert!(serving.await.unwrap());
}

/// Neither of these says yet which HTTP it would be.
#[tokio::test]
async fn who_connects_and_sends_nothing_keeps_nobody_else_out() {
    for beginning in [b"".as_slice(), b"PRI * HT"] {
        let (address, stop, serving) = start_with(Api::without_shards(settings()).router, SOON, 1).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(beginning).await.unwrap();
        let answer = exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        stop.cancel();
        assert!(serving.await.unwrap());
    }
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_given_up() {
    let (address, stop, serving) = start(Api::without_shards(settings()).router, SOON).await;
    let started = tokio::time::Instant::now();
    exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\n").await;
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "closed by the server, after its time limit"
    );
    stop.cancel();
    assert!(serving.await.unwrap());
}

#[tokio::test]
async fn a_request_under_way_is_answered_although_the_server_stops() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = get({
        let (entered, leave) = (entered.clone(), leave.clone());
        move || async move {
            entered.notify_one();
            leave.notified().await;
            "done"
        }
    });
    let (address, stop, serving) = start(Router::new().route("/", handler), LONG).await;
    let request = tokio::spawn(async move { exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await });
    entered.notified().await;
    stop.cancel();
    // No more connections are taken from here on; the request goes on.
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!serving.is_finished());
    leave.notify_one();
    let answer = request.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"),
        "{answer}"
    );
    assert!(serving.await.unwrap());
}

#[tokio::test]
async fn before_the_end_readiness_fails_first_while_requests_are_still_served() {
    let api = Api::without_shards(settings());
    api.get("/readyz").send().await.expect(200);
    api.draining.cancel();
    let reply = api.get("/readyz").send().await.expect(503);
    assert!(reply.json()["failing"]["shutdown"].is_string());
    api.get("/livez").send().await.expect(200);
    let served = api.get("/problems").send().await.expect(200);
    assert_eq!(served.header("connection"), "close");
}

/// Below the ports that the kernel gives to whoever asks for any: no other test gets it before it is used.
async fn unused_address() -> String {
    loop {
        let address = format!("127.0.0.1:{}", rand::random_range(20_000..30_000_u16));
        if TcpListener::bind(&address).await.is_ok() {
            return address;
        }
    }
}

async fn ask(address: &str, request: String) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "nothing listens on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    exchange(address.parse().unwrap(), request.as_bytes()).await
}

#[tokio::test]
async fn the_program_serves_with_what_is_mounted_and_ends_in_order() {
    let api = ShardedApi::start().await;
    let files = api.files.path();
    let ring_dir = tempfile::tempdir().unwrap();
    api.mount_ring(ring_dir.path());
    let (listen, telemetry) = (unused_address().await, unused_address().await);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let config = Config::try_parse_from([
        "order-api".to_owned(),
        format!("--listen={listen}"),
        format!("--telemetry-listen={telemetry}"),
        format!("--ring-dir={}", path(ring_dir.path())),
        format!("--database-credentials-dir={}", path(&files.join("database"))),
        "--database-sslmode=disable".to_owned(),
        format!("--api-keys-dir={}", path(&files.join("keys"))),
        // No broker: the program serves all the same.
        format!("--amqp-url-file={}", path(&files.join("no-broker"))),
        "--shutdown-delay=0.2".to_owned(),
        "--shutdown-deadline=10".to_owned(),
    ])
    .unwrap();
    let source = RingSource::start(RingSourceConfig {
        directory: Some(config.program.ring_dir.clone()),
        config_map: None,
        client: None,
        first_ring_within: Duration::from_secs(10),
    });
    let (source, shutdown) = (source.await.unwrap(), CancellationToken::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { service::run(&config, &source, shutdown).await }
    });

    let body = a_user().to_string();
    let create = format!(
        "POST /v1/users HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ALL}\r\n\
         idempotency-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        fresh_key(),
        body.len()
    );
    let created = ask(&listen, create).await;
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned();
    let metrics = ask(&telemetry, scrape).await;
    let counted = "ringwright_order_api_requests_total{route=\"/v1/users\",method=\"POST\",status=\"201\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("ringwright_order_api_ring_epoch 1\n"), "{metrics}");
    assert!(metrics.contains("ringwright_store_redirects_total 0\n"), "{metrics}");

    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    ended.expect("it ends in time").unwrap().unwrap();
    assert!(TcpStream::connect(&listen).await.is_err());
}
