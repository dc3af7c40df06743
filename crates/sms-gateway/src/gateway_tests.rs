use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::*;

const GOOD: &str = "To=%2B353851234567&From=%2B15551230000&Body=Your+order+is+on+its+way";
const PATH: &str = "/2010-04-01/Accounts/AC123/Messages.json";

fn gateway() -> Router {
    router(&mut Registry::default())
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn message(form: &str) -> Request<Body> {
    Request::post(PATH)
        .header("authorization", format!("Basic {}", STANDARD.encode("AC123:token")))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap()
}

fn faults(faults: Value) -> Request<Body> {
    let request = Request::put("/faults").header("content-type", "application/json");
    request.body(Body::from(faults.to_string())).unwrap()
}

async fn messages(router: &Router) -> Vec<Value> {
    let (_, list) = send(router, Request::get("/messages").body(Body::empty()).unwrap()).await;
    list.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_message_is_answered_as_twilio_does_and_kept() {
    let gateway = gateway();
    let (status, answer) = send(&gateway, message(GOOD)).await;
    assert_eq!(status, StatusCode::CREATED);
    let sid = answer["sid"].as_str().unwrap();
    assert!(sid.starts_with("SM") && sid.len() == 34, "{sid}");
    assert_eq!(
        (&answer["status"], &answer["to"]),
        (&json!("queued"), &json!("+353851234567"))
    );
    assert_eq!(
        (&answer["num_segments"], &answer["error_code"]),
        (&json!("1"), &Value::Null)
    );
    let kept = messages(&gateway).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (&kept[0]["sid"], &kept[0]["body"]),
        (&answer["sid"], &json!("Your order is on its way"))
    );
    let (status, _) = send(&gateway, Request::delete("/messages").body(Body::empty()).unwrap()).await;
    assert_eq!((status, messages(&gateway).await.len()), (StatusCode::NO_CONTENT, 0));
}

#[tokio::test]
async fn what_twilio_refuses_is_refused_with_its_codes() {
    let gateway = gateway();
    let long = format!("{GOOD}{}", "!".repeat(1_600));
    let cases = [
        ("To=12345&From=%2B15551230000&Body=x", 21211),
        ("To=%2B15005550001&From=%2B15551230000&Body=x", 21211),
        ("To=%2B0351234567&From=%2B15551230000&Body=x", 21211),
        ("From=%2B15551230000&Body=x", 21604),
        ("To=%2B353851234567&Body=x", 21603),
        ("To=%2B353851234567&From=a+name+too+long&Body=x", 21212),
        ("To=%2B353851234567&From=%2B15551230000", 21602),
        (&long, 21617),
    ];
    for (form, code) in cases {
        let (status, answer) = send(&gateway, message(form)).await;
        assert_eq!(
            (status, &answer["code"], &answer["status"]),
            (StatusCode::BAD_REQUEST, &json!(code), &json!(400)),
            "{form}"
        );
        assert_eq!(
            answer["more_info"],
            json!(format!("https://www.twilio.com/docs/errors/{code}"))
        );
    }
    assert!(messages(&gateway).await.is_empty());
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let mut request = message(GOOD);
    request
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    let (status, answer) = send(&gateway(), request).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!(20001)));
}

#[tokio::test]
async fn a_sender_may_have_a_name_or_a_short_code() {
    for from in ["Tea+Shop", "12345"] {
        let form = format!("To=%2B353851234567&From={from}&Body=x");
        assert_eq!(send(&gateway(), message(&form)).await.0, StatusCode::CREATED, "{from}");
    }
}

#[tokio::test]
async fn without_credentials_a_message_is_refused() {
    for credentials in [
        "",
        "Bearer abc",
        "Basic !!!",
        &format!("Basic {}", STANDARD.encode("AC123:")),
    ] {
        let mut request = message(GOOD);
        request
            .headers_mut()
            .insert("authorization", credentials.parse().unwrap());
        let (status, answer) = send(&gateway(), request).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::UNAUTHORIZED, &json!(20003)),
            "{credentials}"
        );
    }
}

#[tokio::test]
async fn the_next_messages_fail_as_often_as_was_asked() {
    let gateway = gateway();
    let (status, _) = send(&gateway, faults(json!({"fail_next": 2, "status": 429}))).await;
    assert_eq!(status, StatusCode::OK);
    for _ in 0..2 {
        let (status, answer) = send(&gateway, message(GOOD)).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::TOO_MANY_REQUESTS, &json!(20429))
        );
        assert_eq!(answer["message"], "Too Many Requests");
    }
    assert_eq!(send(&gateway, message(GOOD)).await.0, StatusCode::CREATED);
    assert_eq!(messages(&gateway).await.len(), 1, "a message that failed was not taken");
}

#[tokio::test]
async fn faults_that_make_no_sense_are_refused() {
    for wrong in [
        json!({"fail_next": 1, "status": 200}),
        json!({"fail_always": true}),
        json!({"fail_next": -1}),
    ] {
        let (status, answer) = send(&gateway(), faults(wrong.clone())).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::BAD_REQUEST, &json!(20001)),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn answers_are_held_back_for_as_long_as_was_asked() {
    let gateway = gateway();
    send(&gateway, faults(json!({"delay_ms": 150}))).await;
    let start = Instant::now();
    assert_eq!(send(&gateway, message(GOOD)).await.0, StatusCode::CREATED);
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_message_can_be_taken_and_its_answer_be_lost() {
    let gateway = gateway();
    send(&gateway, faults(json!({"accept_then_drop": 1}))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, gateway.clone()).into_future());
    let credentials = STANDARD.encode("AC123:token");
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: sms\r\nauthorization: Basic {credentials}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset: either way without a byte of an answer.
    let _ = tokio::time::timeout(Duration::from_secs(5), connection.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, b"");
    assert_eq!(messages(&gateway).await.len(), 1);
    assert_eq!(
        send(&gateway, message(GOOD)).await.0,
        StatusCode::CREATED,
        "only the one"
    );
    server.abort();
}

#[tokio::test]
async fn other_paths_are_not_found_as_at_twilio() {
    let (status, answer) = send(
        &gateway(),
        Request::get("/2010-04-01/Accounts").body(Body::empty()).unwrap(),
    )
    .await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!(20404)));
}

#[test]
fn long_texts_and_other_scripts_take_more_segments() {
    assert_eq!([160, 161, 306, 307].map(|len| segments(&"a".repeat(len))), [1, 2, 2, 3]);
    assert_eq!([70, 71].map(|len| segments(&"я".repeat(len))), [1, 2]);
}
