use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt;

use super::*;
use crate::{latency_histogram, registry};

async fn fetch(router: Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn with(readiness: Readiness) -> Router {
    router(Arc::new(registry("order-api", "0.1.0")), Arc::new(readiness))
}

#[tokio::test]
async fn a_program_whose_checks_pass_is_ready() {
    let readiness = Readiness::default().with_check("ring", || async { Ok::<(), String>(()) });
    assert_eq!(
        fetch(with(readiness), "/readyz").await,
        (StatusCode::OK, r#"{"ready":true}"#.into())
    );
}

#[tokio::test]
async fn a_program_that_is_not_ready_says_why_and_is_alive_all_the_same() {
    let readiness = Readiness::default()
        .with_check("ring", || async { Ok::<(), String>(()) })
        .with_check("broker", || async { Err("no connection since 12 s") })
        .with_check("clock", || async {
            if true {
                panic!("broken check")
            } else {
                Ok::<(), String>(())
            }
        });
    let router = with(readiness);
    let (status, body) = fetch(router.clone(), "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["failing"]["broker"], "no connection since 12 s");
    assert!(
        report["failing"]["readiness"].as_str().unwrap().contains("panicked"),
        "{report}"
    );
    assert!(report["failing"].get("ring").is_none());
    assert_eq!(fetch(router, "/livez").await, (StatusCode::OK, "ok".into()));
}

#[tokio::test]
async fn a_check_that_hangs_has_failed() {
    let readiness = Readiness::default().with_check("database", std::future::pending::<Result<(), String>>);
    let (status, body) = fetch(with(readiness), "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        r#"{"ready":false,"failing":{"database":"no answer within 800 ms"}}"#
    );
}

#[tokio::test]
async fn a_program_that_is_stopping_is_not_ready() {
    let shutdown = CancellationToken::new();
    let router = with(Readiness::default().until(shutdown.clone()));
    assert_eq!(fetch(router.clone(), "/readyz").await.0, StatusCode::OK);
    shutdown.cancel();
    assert_eq!(fetch(router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn metrics_carry_the_build_and_what_was_registered() {
    let mut registry = registry("order-api", "0.1.0");
    let latency = latency_histogram();
    registry.register("request_duration_seconds", "Time to answer", latency.clone());
    latency.observe(0.004);
    let (status, body) = fetch(router(Arc::new(registry), Arc::default()), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"ringwright_build_info{program="order-api",version="0.1.0"} 1"#,
        r#"ringwright_request_duration_seconds_bucket{le="0.0025"} 0"#,
        r#"ringwright_request_duration_seconds_bucket{le="0.005"} 1"#,
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} in\n{body}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = serve(address, Router::new(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("cannot listen on {address}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_shutdown_ends_serving() {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    serve("127.0.0.1:0".parse().unwrap(), Router::new(), shutdown)
        .await
        .unwrap();
}
