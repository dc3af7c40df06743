//! Against a small server that can do what a real one cannot be told to: end the connection at a chosen step.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use futures::FutureExt;
use row_id::{EmailId, OrderId, UserId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    email::{Addressing, Letter},
    templates::EmailText,
};

/// What the server does at a step instead of agreeing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Answer(&'static str),
    Cut,
    Hush,
}

/// The step's first word (`CONTENT` for the end of the content) and the act.
type Script = &'static [(&'static str, Act)];

struct Server {
    script: Script,
    url_file: tempfile::NamedTempFile,
    connections: Arc<AtomicU32>,
    /// The first word of every line that was a command.
    commands: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            &url_file,
            format!("smtp://127.0.0.1:{}", listener.local_addr().unwrap().port()),
        )
        .unwrap();
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        let commands = Arc::new(Mutex::new(vec![]));
        let heard = Arc::clone(&commands);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script, Arc::clone(&heard)));
            }
        });
        Self {
            script,
            url_file,
            connections,
            commands,
        }
    }

    async fn smtp(&self) -> Smtp {
        let (quick, patient) = (Duration::from_millis(300), Duration::from_secs(30));
        let mut limits = SmtpLimits {
            connect: patient,
            command: patient,
            content: patient,
        };
        // Quick only where it waits in vain: a slow machine is no silence.
        match self.script.iter().find(|(_, act)| *act == Act::Hush) {
            Some(("CONTENT", _)) => limits.content = quick,
            Some(_) => limits.command = quick,
            None => {}
        }
        Smtp::new(self.url_file.path().to_owned(), limits).await.unwrap()
    }
}

/// `None` when the connection is to end.
async fn act(stream: &mut TcpStream, script: Script, step: &str, agree: &'static str) -> Option<()> {
    let answer = match script
        .iter()
        .find(|(at, _)| *at == step)
        .map_or(Act::Answer(agree), |(_, act)| *act)
    {
        Act::Answer(answer) => answer,
        Act::Cut => return None,
        Act::Hush => std::future::pending().await,
    };
    stream.write_all(format!("{answer}\r\n").as_bytes()).await.ok()
}

async fn serve(mut stream: TcpStream, script: Script, commands: Arc<Mutex<Vec<String>>>) -> Option<()> {
    act(&mut stream, script, "GREETING", "220 test").await?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let step = line.split_whitespace().next()?.to_owned();
        commands.lock().unwrap().push(step.clone());
        let agree = match step.as_str() {
            "EHLO" => "250-test\r\n250 SIZE 1000000",
            "DATA" => "354 go on",
            _ => "250 ok",
        };
        act(stream.get_mut(), script, &step, agree).await?;
        if step == "DATA" {
            while line != ".\r\n" {
                line.clear();
                stream.read_line(&mut line).await.ok()?;
            }
            act(
                stream.get_mut(),
                script,
                "CONTENT",
                "250 2.0.0 Ok: queued as 4F2A1 for <ada@example.com>",
            )
            .await?;
        }
    }
}

fn letter() -> Letter {
    let position = UserId::generate().position();
    let to = Addressing {
        email_id: EmailId::generate(position),
        order_id: OrderId::generate(position),
        name: "Ada Lovelace".to_owned(),
        address: "ada@example.com",
    };
    let text = EmailText {
        language: "en".to_owned(),
        subject: "Hello".to_owned(),
        plain: "Hello\n.\nthere".to_owned(),
        html: "<p>Hello</p>".to_owned(),
    };
    Letter::compose(&"shop@shop.example".parse().unwrap(), &to, &text, None).unwrap()
}

/// Sends a letter whose row can be marked.
async fn send(smtp: &Smtp) -> Handover {
    smtp.send(&letter(), ready(Ok(())).boxed()).await.unwrap()
}

async fn send_to(script: Script) -> Handover {
    send(&Server::start(script).await.smtp().await).await
}

#[tokio::test]
async fn a_letter_that_was_taken_has_the_servers_name_for_it_without_the_address() {
    let reference = Some("2.0.0 Ok: queued as 4F2A1 for".to_owned());
    assert_eq!(send_to(&[]).await, Handover::Taken { reference });
}

#[tokio::test]
async fn a_cut_or_silence_before_the_content_is_tried_again() {
    for script in [
        &[("GREETING", Act::Cut)] as Script,
        &[("GREETING", Act::Answer("421 busy"))],
        &[("MAIL", Act::Cut)],
        &[("MAIL", Act::Answer("550 sender <shop@shop.example> refused"))],
        &[("RCPT", Act::Cut)],
        &[("RCPT", Act::Hush)],
        &[("RCPT", Act::Answer("450 mailbox busy"))],
        &[("RCPT", Act::Answer("554 5.7.1 <ada@example.com>: Relay access denied"))],
        &[("RCPT", Act::Answer("550 5.4.5 Daily sending quota exceeded"))],
        &[(
            "RCPT",
            Act::Answer("550 5.1.8 <shop@shop.example>: Sender address rejected"),
        )],
        &[("DATA", Act::Cut)],
        &[("DATA", Act::Answer("554 no"))],
    ] {
        let handover = send_to(script).await;
        assert!(
            matches!(handover, Handover::NotTaken(_)),
            "{}: {handover:?}",
            script[0].0
        );
    }
}

#[tokio::test]
async fn the_row_is_marked_when_the_recipient_is_accepted_and_not_before() {
    for (script, expected) in [
        (&[("GREETING", Act::Cut)] as Script, false),
        (&[("EHLO", Act::Answer("554 no"))], false),
        (&[("MAIL", Act::Cut)], false),
        (&[("RCPT", Act::Cut)], false),
        (&[("RCPT", Act::Answer("550 no such user"))], false),
        (&[("DATA", Act::Cut)], true),
        (&[], true),
    ] {
        let marked = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&marked);
        let begin = async move {
            mark.store(true, Ordering::SeqCst);
            Ok(())
        };
        let server = Server::start(script).await;
        let smtp = server.smtp().await;
        smtp.send(&letter(), begin.boxed()).await.unwrap();
        let step = script.first().map(|(step, _)| *step);
        assert_eq!(marked.load(Ordering::SeqCst), expected, "cut at {step:?}");
    }
}

#[tokio::test]
async fn a_letter_whose_row_cannot_be_marked_is_not_sent() {
    let server = Server::start(&[]).await;
    let lost = StoreError::LeaseLost(EmailId::generate(UserId::generate().position()).uuid());
    let sent = server.smtp().await.send(&letter(), ready(Err(lost)).boxed()).await;
    assert!(matches!(sent, Err(StoreError::LeaseLost(_))), "{sent:?}");
    let heard = || server.commands.lock().unwrap().clone();
    let began = Instant::now();
    while !heard().iter().any(|command| command == "QUIT") {
        assert!(began.elapsed() < Duration::from_secs(10), "no goodbye: {:?}", heard());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(heard(), ["EHLO", "MAIL", "RCPT", "QUIT"]);
}

#[tokio::test]
async fn a_cut_or_silence_after_the_content_is_ambiguous() {
    for script in [
        &[("CONTENT", Act::Cut)] as Script,
        &[("CONTENT", Act::Hush)],
        &[("CONTENT", Act::Answer("25"))],
    ] {
        let handover = send_to(script).await;
        assert!(matches!(handover, Handover::Ambiguous(_)), "{handover:?}");
    }
}

#[tokio::test]
async fn a_refused_recipient_or_content_fails_for_good_and_quotes_no_address() {
    for (script, told) in [
        (
            &[("RCPT", Act::Answer("550 5.1.1 <ada@example.com>: unknown"))] as Script,
            "the mail server answered 550 at RCPT TO",
        ),
        (
            &[("RCPT", Act::Answer("552 5.2.2 the mailbox of ada@example.com is full"))],
            "the mail server answered 552 at RCPT TO",
        ),
        (
            &[("RCPT", Act::Answer("550 no such user"))],
            "the mail server answered 550 at RCPT TO",
        ),
        (
            &[("CONTENT", Act::Answer("554 5.7.1 spam for ada@example.com"))],
            "the mail server answered 554 after the content",
        ),
    ] {
        let Handover::Refused(reason) = send_to(script).await else {
            panic!("not refused")
        };
        assert_eq!(reason.detail, told);
    }
}

#[tokio::test]
async fn a_content_that_was_put_off_is_tried_again() {
    let handover = send_to(&[("CONTENT", Act::Answer("451 try later"))]).await;
    assert!(matches!(handover, Handover::NotTaken(_)), "{handover:?}");
}

#[tokio::test]
async fn a_connection_serves_several_letters_and_is_replaced_when_it_broke() {
    let server = Server::start(&[]).await;
    let smtp = server.smtp().await;
    for _ in 0..3 {
        assert!(matches!(send(&smtp).await, Handover::Taken { .. }));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    for _ in 0..MOST_LETTERS {
        assert!(matches!(send(&smtp).await, Handover::Taken { .. }));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn no_server_at_all_is_tried_again() {
    let url_file = tempfile::NamedTempFile::new().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    std::fs::write(&url_file, format!("smtp://127.0.0.1:{port}")).unwrap();
    let smtp = Smtp::new(url_file.path().to_owned(), SmtpLimits::default())
        .await
        .unwrap();
    let Handover::NotTaken(reason) = send(&smtp).await else {
        panic!("taken by nobody")
    };
    assert!(reason.detail.contains("connection refused"), "{reason}");
}
