//! The last check before a request that writes to the API server: it is counted, and refused once the Lease is lost.
//!
//! A process may be paused at any point and wake when another one leads. Whatever it was about to do, its next write
//! passes here, and [`Fence`] knows by this process's own clock that the Lease can have expired.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{Either, Ready, ready};
use http::{Method, Request};
use prometheus_client::metrics::{counter::Counter, family::Family};
use tower::{BoxError, Layer, Service};

use crate::metrics::ApiWrite;

/// Until when this process may write, by its own monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    start: Instant,
    /// Microseconds after `start`; [`u64::MAX`] is for ever.
    until: Arc<AtomicU64>,
}

impl Fence {
    /// Lets nothing through until [`Fence::open_until`].
    pub(crate) fn closed() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Lets everything through, for a process that needs no Lease.
    pub(crate) fn open() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Lets writes through up to `deadline`.
    pub(crate) fn open_until(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.start).as_micros();
        self.until
            .store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets nothing through any more.
    pub(crate) fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        until == u64::MAX || self.start.elapsed() < Duration::from_micros(until)
    }
}

/// A write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("did not send {verb} {path}: this process no longer holds the operator's Lease")]
pub(crate) struct NotLeading {
    verb: &'static str,
    path: String,
}

/// Puts a [`Gate`] before a Kubernetes client.
#[derive(Clone, Debug)]
pub(crate) struct GateLayer {
    pub(crate) fence: Fence,
    pub(crate) writes: Family<ApiWrite, Counter>,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            gate: self.clone(),
        }
    }
}

/// Counts writes, and refuses them when the [`Fence`] is closed.
#[derive(Clone, Debug)]
pub(crate) struct Gate<S> {
    inner: S,
    gate: GateLayer,
}

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(verb) = writing_verb(request.method()) {
            let path = request.uri().path();
            if !self.gate.fence.is_open() {
                return Either::Right(ready(Err(NotLeading {
                    verb,
                    path: path.to_owned(),
                }
                .into())));
            }
            self.gate
                .writes
                .get_or_create(&ApiWrite {
                    kind: resource_of(path),
                    verb,
                })
                .inc();
        }
        Either::Left(self.inner.call(request))
    }
}

fn writing_verb(method: &Method) -> Option<&'static str> {
    match method.as_str() {
        "POST" => Some("create"),
        "PUT" => Some("update"),
        "PATCH" => Some("patch"),
        "DELETE" => Some("delete"),
        _ => None,
    }
}

/// The resource a path of the Kubernetes API speaks of, with its subresource but without names:
/// `/apis/ringwright.dev/v1alpha1/namespaces/shop/orderclusters/shop/status` is `orderclusters/status`.
fn resource_of(path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let versions = if parts.next() == Some("api") { 1 } else { 2 };
    let mut parts: Vec<&str> = parts.skip(versions).collect();
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.drain(..2);
    }
    match parts[..] {
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => resource.to_owned(),
        [] => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn the_resource_is_read_from_the_path() {
        for (path, resource) in [
            ("/api/v1/namespaces/shop/configmaps/shop-ring", "configmaps"),
            ("/api/v1/namespaces/shop/secrets", "secrets"),
            ("/api/v1/namespaces/shop", "namespaces"),
            ("/apis/apps/v1/namespaces/shop/statefulsets/shop-0", "statefulsets"),
            (
                "/apis/ringwright.dev/v1alpha1/namespaces/shop/orderclusters/shop/status",
                "orderclusters/status",
            ),
            ("/", "unknown"),
        ] {
            assert_eq!(resource_of(path), resource, "{path}");
        }
    }

    #[tokio::test]
    async fn a_write_is_counted_and_refused_once_the_fence_is_closed_while_reads_go_on() {
        let layer = GateLayer {
            fence: Fence::closed(),
            writes: Family::default(),
        };
        let client = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, BoxError>(()) }));
        let request = |method: Method| {
            Request::builder()
                .method(method)
                .uri("/api/v1/namespaces/a/pods/b")
                .body(())
        };
        let written = ApiWrite {
            kind: "pods".to_owned(),
            verb: "patch",
        };

        client.clone().oneshot(request(Method::GET).unwrap()).await.unwrap();
        let refused = client
            .clone()
            .oneshot(request(Method::PATCH).unwrap())
            .await
            .unwrap_err();
        assert!(refused.is::<NotLeading>());
        assert_eq!(layer.writes.get_or_create(&written).get(), 0);

        layer.fence.open_until(Instant::now() + Duration::from_secs(60));
        client.clone().oneshot(request(Method::PATCH).unwrap()).await.unwrap();
        assert_eq!(layer.writes.get_or_create(&written).get(), 1);

        layer.fence.close();
        assert!(client.oneshot(request(Method::DELETE).unwrap()).await.is_err());
    }
}
