//! The client against an API of canned answers.

use std::collections::HashMap;

use store::ReadToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::load::Clock;

const USER: Uuid = Uuid::from_u128(0x1234_5678_0000_8000_8000_0000_0000_0001);

/// A token as an answer carries it.
fn token() -> String {
    ReadToken {
        shard: ring::Ordinal(0),
        term: store::Term(1),
        lsn: store::Lsn(7),
        generation: ring::Generation(1),
    }
    .to_string()
}

/// A client of an API that gives each method and path its answer: status, token and body.
async fn client(answers: &[(&str, u16, &str, &str)]) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers: HashMap<String, String> = answers
        .iter()
        .map(|(request, status, token, body)| {
            let header = if token.is_empty() {
                String::new()
            } else {
                format!("ringwright-token: {token}\r\n")
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n{header}\r\n");
            ((*request).to_owned(), head + body)
        })
        .collect();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let length = stream.read(&mut request).await.unwrap();
            let line = String::from_utf8_lossy(&request[..length]);
            let line = line.split(" HTTP").next().unwrap_or_default();
            stream.write_all(answers[line].as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    let caller = Caller::new(&[address], "key").unwrap();
    Client::new(caller, Recorder::new(Clock::start()))
}

fn user_body() -> String {
    format!(r#"{{"user_id":"{USER}","first_name":"w0","last_name":"Load","version":1}}"#)
}

fn problem(slug: &str) -> String {
    format!(r#"{{"type":"/problems/{slug}"}}"#)
}

#[tokio::test]
async fn a_list_that_denies_its_user_is_a_look_at_the_user() {
    let list = format!("GET /v1/users/{USER}/orders");
    let client = client(&[(&list, 404, "", &problem("user-not-found"))]).await;
    client.population().add_user(USER, &token().parse().unwrap());
    assert_eq!(client.list_orders(0, Mode::Strong).await, Ending::Well);
    assert_eq!(client.list_orders(0, Mode::Session).await, Ending::Well);
    let reads = client.recorder().take().reads;
    assert!(
        reads.iter().all(|read| read.key == USER && read.seen == Sight::Absent),
        "{reads:?}"
    );
    assert_eq!(reads[0].consistency, Consistency::Strong);
    assert!(matches!(&reads[1].consistency, Consistency::Session(tokens) if tokens.len() == 1));
}

#[tokio::test]
async fn an_answer_without_a_token_that_can_be_read_ends_badly() {
    for (said, expected) in [
        ("", Ending::Badly),
        ("nonsense", Ending::Badly),
        (token().as_str(), Ending::Well),
    ] {
        let (read, list) = (format!("GET /v1/users/{USER}"), format!("GET /v1/users/{USER}/orders"));
        let client = client(&[
            (&read, 200, said, &user_body()),
            (&list, 200, said, r#"{"orders":[]}"#),
            ("POST /v1/users", 201, said, &user_body()),
        ])
        .await;
        assert_eq!(client.create_user().await, expected, "creating, by {said:?}");
        assert_eq!(client.get_user(0, Mode::Loose).await, expected, "reading, by {said:?}");
        assert_eq!(
            client.list_orders(0, Mode::Loose).await,
            expected,
            "listing, by {said:?}"
        );
        assert_eq!(
            client.troubles().lines().count(),
            if expected == Ending::Well { 0 } else { 3 }
        );
        // What was answered is on record all the same.
        let history = client.recorder().take();
        assert!(matches!(history.attempts[0].outcome, Outcome::Done(_)));
        assert!(matches!(history.reads[0].seen, Sight::Found { .. }));
    }
}

#[tokio::test]
async fn a_batch_owes_a_token_once_one_of_its_items_went_well() {
    let order = r#"{"order_id":"12345678-0000-8000-8000-000000000002","status":"created","version":1,
        "order_details":{"reference":"w0"}}"#;
    let item = |status: u16, order: &str| format!(r#"{{"results":[{{"status":{status}{order}}}]}}"#);
    for (body, expected) in [
        (item(201, &format!(r#","order":{order}"#)), Ending::Badly),
        (
            item(409, r#","problem":{"type":"/problems/order-state-conflict"}"#),
            Ending::Well,
        ),
    ] {
        let client = client(&[("POST /v1/orders:batch-create", 200, "", &body)]).await;
        client.population().add_user(USER, &ReadTokens::default());
        assert_eq!(client.create_orders(&[0]).await, expected, "{body}");
    }
}

#[tokio::test]
async fn repeats_are_counted_by_whether_they_got_an_answer() {
    let client = client(&[("POST /v1/users", 201, &token(), &user_body())]).await;
    client.create_user().await;
    let repeats = client.repeat_all(2).await;
    assert_eq!((repeats.asked, repeats.answered), (1, 1));
    assert!(repeats.troubles.is_empty());
}
