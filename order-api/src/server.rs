//! The HTTP server: bounded connections, a time limit for a request's head, and an end that loses no accepted request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A head with more than this is no request of a shop.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
/// Whoever has sent nothing that is a request for so much longer than the time for a head is no client. (HTTP/1 gives up the
/// head by itself; before it is known which of the two is spoken, nobody does.)
const SILENCE_GRACE: Duration = Duration::from_secs(1);
/// Streams of one HTTP/2 connection; the admission bounds the sum over all connections.
const MAX_STREAMS: u32 = 128;

/// What the server is given.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Most open connections.
    pub max_connections: usize,
    /// How long a connection may wait until the head of its next request is there; the first has a second more.
    pub idle_timeout: Duration,
    /// How long connections may take to end once the server stops.
    pub drain_deadline: Duration,
}

/// Serves `router` until `stop`; then takes no more connections and lets those there are end their requests. Tells
/// whether all did in time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    connections: Gauge,
    stop: CancellationToken,
) -> bool {
    let builder = Arc::new(connection_builder(&limits));
    let service = TowerToHyperService::new(router.map_request(|request: Request<Incoming>| request.map(Body::new)));
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.max_connections));
    while let Some((stream, permit)) = stop.run_until_cancelled(accept(&listener, &room)).await {
        let (builder, service, watcher) = (builder.clone(), service.clone(), graceful.watcher());
        let connections = connections.clone();
        tokio::spawn(async move {
            connections.inc();
            let spoken = CancellationToken::new();
            let service = {
                let spoken = spoken.clone();
                service_fn(move |request| {
                    spoken.cancel();
                    service.call(request)
                })
            };
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let silent = async {
                if tokio::time::timeout(limits.idle_timeout + SILENCE_GRACE, spoken.cancelled())
                    .await
                    .is_ok()
                {
                    std::future::pending::<()>().await;
                }
            };
            // Clients that vanish or talk nonsense are no event of ours.
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended");
                },
                () = silent => tracing::debug!("a connection brought no request"),
            }
            connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    tracing::info!(connections = graceful.count(), "accepting no more connections");
    tokio::time::timeout(limits.drain_deadline, graceful.shutdown())
        .await
        .is_ok()
}

fn connection_builder(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

/// The next connection for which there is room.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit in the end.
    let permit = room.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: waiting to fill a packet only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, permit);
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Errors of one connection pass at once; out of file descriptors it takes a moment until some are free.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
