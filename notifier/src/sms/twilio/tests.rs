//! Against a small HTTP server that can do what the development gateway cannot: end the connection, say nothing.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
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
    assert_eq!(judged(200, "{}"), Handover::Taken { reference: None });
    assert!(matches!(
        judged(201, r#"{"status":"failed","error_code":30006}"#),
        Handover::Refused(_)
    ));
    assert!(matches!(
        judged(400, r#"{"code":21211,"status":400}"#),
        Handover::Refused(_)
    ));
    assert!(matches!(judged(400, r#"{"code":21212}"#), Handover::NotTaken(_)));
    for status in [301, 401, 403, 404, 429] {
        assert!(matches!(judged(status, "{}"), Handover::NotTaken(_)), "{status}");
    }
    for status in [408, 500, 502, 503, 504] {
        assert!(matches!(judged(status, "{}"), Handover::Ambiguous(_)), "{status}");
    }
}

/// Answers each request with the given bytes, or ends the connection without; tells what it was sent.
async fn provider(reply: Option<&'static str>) -> (Twilio, mpsc::UnboundedReceiver<String>, tempfile::TempDir) {
    crate::tls::install_crypto_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port())
        .parse()
        .unwrap();
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !String::from_utf8_lossy(&request[..length]).contains("Body=") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            seen.send(String::from_utf8_lossy(&request[..length]).into_owned())
                .unwrap();
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
    (Twilio::new(config).await.unwrap(), requests, folder)
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
    let (twilio, mut requests, _folder) = provider(Some(reply)).await;
    assert_eq!(
        twilio.send(&text()).await,
        Handover::Taken {
            reference: Some("SM7".to_owned())
        }
    );
    let request = requests.recv().await.unwrap();
    assert!(
        request.starts_with("POST /2010-04-01/Accounts/AC1/Messages.json HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Basic QUMxOnNlY3JldA==\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with("To=%2B4915112345678&From=%2B15005550006&Body=Gr%C3%BC%C3%9Fe+%26+more"),
        "{request}"
    );
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_ambiguous_and_not_repeated() {
    let (twilio, mut requests, _folder) = provider(None).await;
    let handover = twilio.send(&text()).await;
    assert!(matches!(&handover, Handover::Ambiguous(_)), "{handover:?}");
    assert!(requests.recv().await.is_some());
    assert!(requests.try_recv().is_err(), "the request was sent twice");
}

#[tokio::test]
async fn no_provider_at_all_is_tried_again() {
    let (mut twilio, _requests, _folder) = provider(None).await;
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    twilio.config.base_url = format!("http://127.0.0.1:{port}").parse().unwrap();
    assert!(matches!(twilio.send(&text()).await, Handover::NotTaken(_)));
}

#[tokio::test]
async fn credentials_that_went_away_are_told_and_tried_again() {
    let (twilio, mut requests, folder) = provider(None).await;
    std::fs::remove_file(folder.path().join("token")).unwrap();
    let Handover::NotTaken(reason) = twilio.send(&text()).await else {
        panic!("sent without a token")
    };
    assert!(
        reason.detail.contains("token") && reason.label == "configuration",
        "{reason}"
    );
    assert!(requests.try_recv().is_err());
}
