//! A mail server that takes everything, and an SMS provider that answers by a script.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use notifier::{
    handover::{Begin, Handover, Reason},
    sms::{SmsProvider, Text},
};
use store::StoreError;
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

pub(crate) struct MailServer {
    url_file: NamedTempFile,
    taken: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url_file = NamedTempFile::new().unwrap();
        std::fs::write(
            &url_file,
            format!("smtp://127.0.0.1:{}", listener.local_addr().unwrap().port()),
        )
        .unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&all)));
            }
        });
        Self { url_file, taken }
    }

    pub(crate) fn url_file(&self) -> PathBuf {
        self.url_file.path().to_owned()
    }

    /// The messages as they travelled.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

async fn converse(stream: TcpStream, taken: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 test\r\n").await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        if line.starts_with("DATA") {
            stream.get_mut().write_all(b"354 go on\r\n").await?;
            let mut message = String::new();
            while !message.ends_with("\r\n.\r\n") {
                stream.read_line(&mut message).await?;
            }
            taken.lock().unwrap().push(message);
        }
        stream.get_mut().write_all(b"250 ok\r\n").await?;
        line.clear();
    }
    Ok(())
}

/// Takes every message, unless told otherwise beforehand.
#[derive(Default)]
pub(crate) struct SmsScript {
    answers: Mutex<VecDeque<Handover>>,
    sent: Mutex<Vec<Text>>,
}

impl SmsScript {
    pub(crate) fn answer_next(&self, answer: impl FnOnce(Reason) -> Handover) {
        self.answers
            .lock()
            .unwrap()
            .push_back(answer(Reason::new("test", "the provider is as it is")));
    }

    /// Every message that was handed over, whatever came of it.
    pub(crate) fn sent(&self) -> Vec<Text> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl SmsProvider for SmsScript {
    async fn send(&self, text: &Text, begin: Begin) -> Result<Handover, StoreError> {
        begin.await?;
        self.sent.lock().unwrap().push(text.clone());
        let scripted = self.answers.lock().unwrap().pop_front();
        Ok(scripted.unwrap_or(Handover::Taken {
            reference: Some("SM1".to_owned()),
        }))
    }
}
