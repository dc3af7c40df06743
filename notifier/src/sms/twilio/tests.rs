//! Against a small HTTP server that can do what the development gateway cannot: end the connection, say nothing.

use std::future::{pending, ready};

use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::*;

fn answer(body: &str) -> Answer {
    serde_json::from_str(body).unwrap()
}

#[test]
fn answers_are_judged_by_whether_the_message_may_have_been_taken() {
    let judged = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), &answer(body));
    assert_eq!(
        judged(201, r#"{"sid":"SM1","status":"queued"}"#),
        Handover::Taken {
            reference: Some("SM1".to_owned())
        }
    );
    assert!(matches!(judged(200, "{}"), Handover::Ambiguous(_)));
    assert!(matches!(
        judged(201, r#"{"status":"failed","error_code":30006}"#),
        Handover::Refused(_)
    ));
    assert!(matches!(
        judged(400, r#"{"code":21211,"status":400}"#),
        Handover::Refused(_)
    ));
    for ours in [r#"{"code":21212}"#, r#"{"code":21408}"#, "{}"] {
        assert!(matches!(judged(400, ours), Handover::NotTaken(_)), "{ours}");
    }
    for status in [301, 401, 403, 404, 429] {
        assert!(matches!(judged(status, "{}"), Handover::NotTaken(_)), "{status}");
    }
    for status in [408, 500, 502, 503, 504] {
        assert!(matches!(judged(status, "{}"), Handover::Ambiguous(_)), "{status}");
    }
}

/// Reads each request up to `until`, answers it with the given bytes or ends the connection without.
struct Provider {
    twilio: Twilio,
    /// Something each time the head of a request has arrived.
    heads: mpsc::UnboundedReceiver<()>,
    /// What was read of each request.
    requests: mpsc::UnboundedReceiver<String>,
    folder: tempfile::TempDir,
}

impl Provider {
    async fn start(reply: Option<&'static str>) -> Self {
        Self::reading("Body=", reply).await
    }

    async fn reading(until: &'static str, reply: Option<&'static str>) -> Self {
        crate::tls::install_crypto_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port())
            .parse()
            .unwrap();
        let (arrived, heads) = mpsc::unbounded_channel();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = read_up_to("\r\n\r\n", &mut stream, String::new()).await;
                let _ = arrived.send(());
                request = read_up_to(until, &mut stream, request).await;
                let _ = seen.send(request);
                if let Some(reply) = reply {
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let (account_file, token_file) = (folder.path().join("account"), folder.path().join("token"));
        std::fs::write(&account_file, "AC1\n").unwrap();
        std::fs::write(&token_file, "secret\n").unwrap();
        let config = TwilioConfig {
            base_url,
            account_file,
            token_file,
            from: "+15005550006".to_owned(),
        };
        Self {
            twilio: Twilio::new(config).await.unwrap(),
            heads,
            requests,
            folder,
        }
    }

    /// Sends a message whose row can be marked.
    async fn send(&self) -> Handover {
        self.twilio.send(&text(), ready(Ok(())).boxed()).await.unwrap()
    }

    /// Sends a message whose row must not be marked.
    async fn send_in_vain(&self) -> Handover {
        let begin = async { panic!("begun though nothing could be sent") };
        self.twilio.send(&text(), begin.boxed()).await.unwrap()
    }
}

/// Reads on until the text contains `end`, or the connection ends.
async fn read_up_to(end: &str, stream: &mut TcpStream, mut text: String) -> String {
    let mut part = [0; 4096];
    while !text.contains(end) {
        match stream.read(&mut part).await {
            Ok(length @ 1..) => text.push_str(std::str::from_utf8(&part[..length]).unwrap()),
            _ => break,
        }
    }
    text
}

fn text() -> Text {
    Text {
        to: "+4915112345678".to_owned(),
        body: "Grüße & more".to_owned(),
    }
}

#[tokio::test]
async fn the_request_is_the_one_the_api_documents() {
    let reply = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"sid\":\"SM7\"}";
    let mut provider = Provider::reading("more", Some(reply)).await;
    assert_eq!(
        provider.send().await,
        Handover::Taken {
            reference: Some("SM7".to_owned())
        }
    );
    let request = provider.requests.recv().await.unwrap();
    assert!(
        request.starts_with("POST /2010-04-01/Accounts/AC1/Messages.json HTTP/1.1\r\n"),
        "{request}"
    );
    for header in [
        "authorization: Basic QUMxOnNlY3JldA==",
        "content-type: application/x-www-form-urlencoded",
        "content-length: 69",
    ] {
        assert!(request.contains(&format!("{header}\r\n")), "{request}");
    }
    assert!(
        request.ends_with("To=%2B4915112345678&From=%2B15005550006&Body=Gr%C3%BC%C3%9Fe+%26+more"),
        "{request}"
    );
}

#[tokio::test]
async fn the_row_is_marked_when_the_connection_stands_and_before_the_message_leaves() {
    let provider = Provider::start(None).await;
    let (mut heads, mut requests) = (provider.heads, provider.requests);
    let (marked, at_marking) = oneshot::channel();
    let begin = async move {
        let head = timeout(Duration::from_secs(10), heads.recv()).await;
        let _ = marked.send((head.is_ok(), requests.try_recv().is_err()));
        Ok(())
    };
    provider.twilio.send(&text(), begin.boxed()).await.unwrap();
    assert_eq!(
        at_marking.await,
        Ok((true, true)),
        "whether the head was there, and the message not"
    );
}

#[tokio::test]
async fn a_message_whose_row_cannot_be_marked_is_not_sent() {
    let mut provider = Provider::start(None).await;
    let lost = StoreError::LeaseLost(row_id::SmsId::generate(row_id::Position::new(0)).uuid());
    let sent = provider.twilio.send(&text(), ready(Err(lost)).boxed()).await;
    assert!(matches!(sent, Err(StoreError::LeaseLost(_))), "{sent:?}");
    let request = provider.requests.recv().await.unwrap();
    assert!(!request.contains("To="), "{request}");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_message_left_says_that_nothing_was_taken() {
    for reply in [
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
    ] {
        let provider = Provider::reading("\r\n\r\n", Some(reply)).await;
        let handover = provider.twilio.send(&text(), pending().boxed()).await.unwrap();
        assert!(matches!(handover, Handover::NotTaken(_)), "{handover:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_ambiguous_and_not_repeated() {
    let mut provider = Provider::start(None).await;
    let handover = provider.send().await;
    assert!(matches!(&handover, Handover::Ambiguous(_)), "{handover:?}");
    assert!(provider.requests.recv().await.is_some());
    assert!(provider.requests.try_recv().is_err(), "the request was sent twice");
}

#[tokio::test]
async fn no_provider_at_all_is_tried_again() {
    let mut provider = Provider::start(None).await;
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    provider.twilio.config.base_url = format!("http://127.0.0.1:{port}").parse().unwrap();
    assert!(matches!(provider.send_in_vain().await, Handover::NotTaken(_)));
}

#[tokio::test]
async fn credentials_that_went_away_are_told_and_tried_again() {
    let mut provider = Provider::start(None).await;
    std::fs::remove_file(provider.folder.path().join("token")).unwrap();
    let Handover::NotTaken(reason) = provider.send_in_vain().await else {
        panic!("sent without a token")
    };
    assert!(
        reason.detail.contains("token") && reason.label == "configuration",
        "{reason}"
    );
    assert!(provider.requests.try_recv().is_err());
}
