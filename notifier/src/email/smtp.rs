//! Sending over SMTP, step by step.
//!
//! lettre's own transport sends in one call, and its error does not tell whether the message may have been taken: a
//! connection that ends before the final answer is an ordinary error there. So the steps are made here, with lettre's
//! connection: up to the answer to DATA nothing was handed over; from the first byte of the content on, only an answer of
//! the server tells. The row is marked right before DATA: until then the exchange can be left with an ordinary QUIT.

use std::{
    error::Error as _,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lettre::transport::smtp::{
    Error as SmtpError,
    authentication::DEFAULT_MECHANISMS,
    client::{AsyncSmtpConnection, TlsParameters},
    commands::{Data, Mail, Rcpt},
    extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    response::Response,
};
use tokio::time::timeout;
use tracing::warn;

use store::StoreError;

use super::{Letter, SmtpUrl, SmtpUrlError, smtp_url::Security};
use crate::handover::{Begin, Handover, Reason};

/// Time limits of one sending. Together they must stay below the lease on the row.
#[derive(Clone, Copy, Debug)]
pub struct SmtpLimits {
    /// TCP, TLS, greeting, EHLO and AUTH together.
    pub connect: Duration,
    /// Any one command.
    pub command: Duration,
    /// The content and the answer to it: servers may scan it before they answer.
    pub content: Duration,
}

impl Default for SmtpLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            command: Duration::from_secs(10),
            content: Duration::from_secs(40),
        }
    }
}

/// Connections kept for the next letter.
const MOST_IDLE: usize = 8;
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// A connection idle for longer is asked whether it still stands.
const TRUSTED_IDLE: Duration = Duration::from_secs(2);
/// Servers often limit messages per connection to a hundred or so.
const MOST_LETTERS: u32 = 50;

/// Sends letters to one mail server.
#[derive(Debug)]
pub struct Smtp {
    /// Read anew at each connection, so that a rotated password needs no restart.
    url_file: PathBuf,
    limits: SmtpLimits,
    idle: Mutex<Vec<Line>>,
}

/// An open connection.
struct Line {
    connection: AsyncSmtpConnection,
    letters: u32,
    since: Instant,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("letters", &self.letters)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Url(#[from] SmtpUrlError),
    #[error("no TLS with the mail server {url} is possible: {}", told(source))]
    Tls { url: SmtpUrl, source: SmtpError },
    #[error("cannot connect to the mail server {url}: {}", told(source))]
    Refused { url: SmtpUrl, source: SmtpError },
    #[error("connecting to the mail server {url} took longer than {}s", limit.as_secs())]
    Late { url: SmtpUrl, limit: Duration },
}

impl Smtp {
    /// Reads the URL once, to refuse a broken one at the start; connects with the first letter.
    ///
    /// # Errors
    /// When the file holds no usable URL.
    pub async fn new(url_file: PathBuf, limits: SmtpLimits) -> Result<Self, SmtpUrlError> {
        SmtpUrl::read(&url_file).await?;
        Ok(Self {
            url_file,
            limits,
            idle: Mutex::default(),
        })
    }

    /// Sends a letter and tells what came of it. `begin` is awaited when the server has agreed to sender and recipient.
    ///
    /// # Errors
    /// That of `begin`: then the letter was not handed over.
    pub async fn send(&self, letter: &Letter, begin: Begin) -> Result<Handover, StoreError> {
        let mut line = match self.line().await {
            Ok(line) => line,
            Err(error) => {
                warn!(error = telemetry::chain(&error), "no connection to the mail server");
                return Ok(Handover::NotTaken(Reason::new("connect", error.to_string())));
            }
        };
        if let Err(handover) = self.announce(&mut line, letter).await {
            hang_up(line);
            return Ok(handover);
        }
        if let Err(error) = begin.await {
            hang_up(line);
            return Err(error);
        }
        Ok(self.hand_over(line, letter).await)
    }

    /// DATA and the content.
    async fn hand_over(&self, mut line: Line, letter: &Letter) -> Handover {
        if let Err(failure) = self.step(&mut line.connection, Data).await {
            hang_up(line);
            return Handover::NotTaken(failure.at("DATA", "data"));
        }
        let answer = timeout(self.limits.content, line.connection.message(&letter.bytes)).await;
        match answer {
            Ok(Ok(response)) => {
                self.keep(line);
                Handover::Taken {
                    reference: reference(&response),
                }
            }
            Ok(Err(error)) => {
                hang_up(line);
                self.after_content(&error)
            }
            // The connection is in the middle of something: dropping it is all that can be done.
            Err(_) => Handover::Ambiguous(Reason::new(
                "timeout",
                format!(
                    "the mail server did not answer within {}s of the content",
                    self.limits.content.as_secs()
                ),
            )),
        }
    }

    /// What may be repeated: sender and recipient.
    async fn announce(&self, line: &mut Line, letter: &Letter) -> Result<(), Handover> {
        let connection = &mut line.connection;
        let parameters = mail_parameters(connection, letter)?;
        let mail = Mail::new(letter.envelope.from().cloned(), parameters);
        // That the sender is refused says something of our configuration, not of the customer: tried again.
        self.step(connection, mail)
            .await
            .map_err(|failure| Handover::NotTaken(failure.at("MAIL FROM", "sender")))?;
        for recipient in letter.envelope.to() {
            self.step(connection, Rcpt::new(recipient.clone(), vec![]))
                .await
                .map_err(|failure| match failure.fault {
                    Fault::Recipient => Handover::Refused(failure.at("RCPT TO", "recipient")),
                    Fault::Ours => Handover::NotTaken(failure.at("RCPT TO", "relay")),
                    Fault::Passing => Handover::NotTaken(failure.at("RCPT TO", "recipient")),
                })?;
        }
        Ok(())
    }

    async fn step(&self, connection: &mut AsyncSmtpConnection, command: impl std::fmt::Display) -> Result<(), Failure> {
        match timeout(self.limits.command, connection.command(command)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure {
                fault: fault(&error),
                told: told(&error),
            }),
            Err(_) => Err(Failure {
                fault: Fault::Passing,
                told: format!("no answer within {}s", self.limits.command.as_secs()),
            }),
        }
    }

    /// Only a reply with a code is the server's word. Whatever else ended the exchange (also a reply cut short, which
    /// lettre calls a response error) leaves open whether the message was taken.
    fn after_content(&self, error: &SmtpError) -> Handover {
        let told = format!("{} after the content", told(error));
        if error.is_permanent() {
            Handover::Refused(Reason::new("content", told))
        } else if error.is_transient() {
            Handover::NotTaken(Reason::new("deferred", told))
        } else {
            Handover::Ambiguous(Reason::new("cut", told))
        }
    }

    /// A connection that stands: a kept one, else a new one.
    async fn line(&self) -> Result<Line, ConnectError> {
        while let Some(mut line) = self.take_idle() {
            let trusted = line.since.elapsed() < TRUSTED_IDLE;
            if trusted
                || timeout(self.limits.command, line.connection.test_connected())
                    .await
                    .unwrap_or(false)
            {
                return Ok(line);
            }
        }
        let connection = self.connect().await?;
        Ok(Line {
            connection,
            letters: 0,
            since: Instant::now(),
        })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, ConnectError> {
        let url = SmtpUrl::read(&self.url_file).await?;
        let limit = self.limits.connect;
        timeout(limit, open(&url, limit))
            .await
            .map_err(|_| ConnectError::Late {
                url: url.clone(),
                limit,
            })?
    }

    fn take_idle(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|line| line.since.elapsed() < LONGEST_IDLE);
        idle.pop()
    }

    fn keep(&self, mut line: Line) {
        line.letters += 1;
        line.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if line.letters < MOST_LETTERS && idle.len() < MOST_IDLE {
            idle.push(line);
        } else {
            hang_up(line);
        }
    }
}

async fn open(url: &SmtpUrl, limit: Duration) -> Result<AsyncSmtpConnection, ConnectError> {
    let refused = |source| ConnectError::Refused {
        url: url.clone(),
        source,
    };
    let tls = || {
        TlsParameters::new(url.host.clone()).map_err(|source| ConnectError::Tls {
            url: url.clone(),
            source,
        })
    };
    let hello = ClientId::default();
    let wrapper = if url.security == Security::Tls {
        Some(tls()?)
    } else {
        None
    };
    let server = (url.host.as_str(), url.port);
    // The limit is for each of its addresses: the first may be of a host that is away.
    let each = limit / 3;
    let mut connection = AsyncSmtpConnection::connect_tokio1(server, Some(each), &hello, wrapper, None)
        .await
        .map_err(refused)?;
    if url.security == Security::StartTls {
        connection.starttls(tls()?, &hello).await.map_err(refused)?;
    }
    if let Some(credentials) = &url.credentials {
        connection
            .auth(DEFAULT_MECHANISMS, credentials)
            .await
            .map_err(refused)?;
    }
    Ok(connection)
}

fn mail_parameters(connection: &AsyncSmtpConnection, letter: &Letter) -> Result<Vec<MailParameter>, Handover> {
    let server = connection.server_info();
    let mut parameters = vec![];
    let addresses = || letter.envelope.from().into_iter().chain(letter.envelope.to());
    if addresses().any(|address| !address.to_string().is_ascii()) {
        if !server.supports_feature(Extension::SmtpUtfEight) {
            let detail = "the mail server cannot send to addresses beyond ASCII (no SMTPUTF8)";
            return Err(Handover::Refused(Reason::new("address", detail)));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !letter.bytes.is_ascii() && server.supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(parameters)
}

/// Says goodbye without making anybody wait for it.
fn hang_up(mut line: Line) {
    tokio::spawn(async move { timeout(Duration::from_secs(2), line.connection.abort()).await });
}

/// A command that failed.
struct Failure {
    fault: Fault,
    told: String,
}

/// Whose fault it is that a recipient was refused.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// There is no such mailbox, or it takes nothing.
    Recipient,
    /// The server takes nothing from us: many tell a refused client, sender or quota only when the recipient is named. It
    /// is right once somebody has repaired it.
    Ours,
    /// It may be otherwise in a moment.
    Passing,
}

/// By the enhanced status code (RFC 3463), `5.1.x` for the address and `5.2.x` for the mailbox; `5.1.7` and `5.1.8` are of
/// the sender's address. A server without such codes is taken at its word.
fn fault(error: &SmtpError) -> Fault {
    if !error.is_permanent() {
        return Fault::Passing;
    }
    let reply = error.source().map(ToString::to_string).unwrap_or_default();
    let mut code = reply.split_whitespace().next().unwrap_or_default().split('.');
    let mut number = || code.next()?.parse::<u16>().ok();
    match (number(), number(), number()) {
        (Some(5), Some(1), Some(7 | 8)) => Fault::Ours,
        (Some(5), Some(1 | 2), Some(_)) => Fault::Recipient,
        (Some(5), Some(_), Some(_)) => Fault::Ours,
        _ => Fault::Recipient,
    }
}

impl Failure {
    fn at(self, command: &str, label: &'static str) -> Reason {
        Reason::new(label, format!("{} at {command}", self.told))
    }
}

/// An error without the server's words, which quote addresses.
fn told(error: &SmtpError) -> String {
    if let Some(code) = error.status() {
        return format!("the mail server answered {code}");
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return format!("connection failed ({})", io.kind());
        }
        cause = inner.source();
    }
    if error.is_tls() {
        "TLS failed".to_owned()
    } else if error.is_client() {
        // lettre's own words about what the server lacks.
        error.to_string()
    } else {
        "the connection ended or its answer made no sense".to_owned()
    }
}

/// What the server calls the message ("queued as 4F2A1"), less anything that looks like an address.
fn reference(response: &Response) -> Option<String> {
    let words: Vec<&str> = response
        .first_line()?
        .split_whitespace()
        .filter(|word| !word.contains('@'))
        .collect();
    let text: String = words.join(" ").chars().take(120).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
