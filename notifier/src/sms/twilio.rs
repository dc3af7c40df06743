//! Twilio's Messages API, version 2010-04-01, which other providers speak too.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Body, Client, RequestBuilder, StatusCode, Url, header::CONTENT_TYPE, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use store::StoreError;
use tracing::warn;
use url::form_urlencoded;

use super::{
    SmsProvider, Text,
    gated::{Gate, gated},
};
use crate::handover::{Begin, Handover, Reason};

/// TCP and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The whole request. Must stay below the lease on the row.
pub const LONGEST_SENDING: Duration = Duration::from_secs(30);
/// Answers to a POST that say something of our own account or sender rather than of the customer's number: another try
/// is right once an operator has repaired it. (From: 21212, 21603, 21606, 21611, 21659; account: 20003, 20404, 21219, 21408
/// for a country that is not enabled, 21608 for a trial.)
const OUR_FAULT: [u32; 10] = [20003, 20404, 21212, 21219, 21408, 21603, 21606, 21608, 21611, 21659];

/// Where and as whom messages are sent.
#[derive(Clone, Debug)]
pub struct TwilioConfig {
    /// The provider's address, without the path.
    pub base_url: Url,
    /// File with the account's id; read at each message, so that rotated credentials need no restart.
    pub account_file: PathBuf,
    /// File with the account's token.
    pub token_file: PathBuf,
    /// The sender: a number in E.164 form or a name.
    pub from: String,
}

/// Sends text messages.
pub struct Twilio {
    config: TwilioConfig,
    client: Client,
}

/// Why text messages cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TwilioError {
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client for text messages: {0}")]
    Client(#[source] reqwest::Error),
    /// A file of credentials.
    #[error("cannot read the SMS provider's credentials from {path}: {source}; mount the Secret that holds them there", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The base URL cannot carry a path.
    #[error("{url} cannot be the SMS provider's address; expected http(s)://host[:port]")]
    BaseUrl {
        /// As given.
        url: Url,
    },
}

struct Credentials {
    account: String,
    token: SecretString,
}

/// The parts of the provider's answers that matter.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    sid: Option<String>,
    /// Of an error.
    code: Option<u32>,
    /// Of a message that was created already failed.
    error_code: Option<u32>,
    status: Option<serde_json::Value>,
}

impl Twilio {
    /// Checks that the credentials can be read; connects with the first message.
    ///
    /// # Errors
    /// When the files or the address are unusable.
    pub async fn new(config: TwilioConfig) -> Result<Self, TwilioError> {
        if config.base_url.cannot_be_a_base() || !matches!(config.base_url.scheme(), "http" | "https") {
            return Err(TwilioError::BaseUrl { url: config.base_url });
        }
        // A POST is not repeated behind our back, neither to another address nor over another connection.
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(LONGEST_SENDING)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .map_err(TwilioError::Client)?;
        let twilio = Self { config, client };
        twilio.credentials().await?;
        Ok(twilio)
    }

    async fn credentials(&self) -> Result<Credentials, TwilioError> {
        Ok(Credentials {
            account: read(&self.config.account_file).await?,
            token: read(&self.config.token_file).await?.into(),
        })
    }

    fn url(&self, account: &str) -> Result<Url, TwilioError> {
        let mut url = self.config.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| TwilioError::BaseUrl {
                url: self.config.base_url.clone(),
            })?
            .pop_if_empty()
            .extend(["2010-04-01", "Accounts", account, "Messages.json"]);
        Ok(url)
    }

    /// The request, and the gate that holds its content back.
    async fn prepare(&self, text: &Text) -> Result<(RequestBuilder, Gate), TwilioError> {
        let Credentials { account, token } = self.credentials().await?;
        let form = [
            ("To", text.to.as_str()),
            ("From", self.config.from.as_str()),
            ("Body", text.body.as_str()),
        ];
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let (content, gate) = gated(form.into());
        let request = self
            .client
            .post(self.url(&account)?)
            .basic_auth(account, Some(token.expose_secret()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::wrap(content));
        Ok((request, gate))
    }
}

async fn read(path: &Path) -> Result<String, TwilioError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| TwilioError::Credentials {
            path: path.to_owned(),
            source,
        })?;
    Ok(text.trim().to_owned())
}

#[async_trait]
impl SmsProvider for Twilio {
    async fn send(&self, text: &Text, begin: Begin) -> Result<Handover, StoreError> {
        let (request, mut gate) = match self.prepare(text).await {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Handover::NotTaken(Reason::new("configuration", error.to_string()))),
        };
        let mut exchange = pin!(exchange(request));
        // Without its content the request asks for nothing, so up to here everything may be repeated.
        let begun = async {
            gate.asked().await;
            begin.await
        };
        tokio::select! {
            biased;
            early = &mut exchange => return Ok(unheard(early)),
            begun = begun => begun?,
        }
        gate.open();
        Ok(exchange.await)
    }
}

async fn exchange(request: RequestBuilder) -> Handover {
    match request.send().await {
        Ok(response) => {
            let status = response.status();
            // An answer cut short still has its status.
            let answer = response.json().await.unwrap_or_default();
            judge(status, &answer)
        }
        Err(error) => judge_silence(&error),
    }
}

/// What an exchange means that ended before the message had left: whatever was answered, nothing was taken.
fn unheard(ended: Handover) -> Handover {
    Handover::NotTaken(match ended {
        Handover::NotTaken(reason) | Handover::Refused(reason) | Handover::Ambiguous(reason) => reason,
        Handover::Taken { .. } => Reason::new("provider", "the SMS provider answered before it had the message"),
    })
}

/// No answer. Only a connection that never stood certainly carried nothing.
fn judge_silence(error: &reqwest::Error) -> Handover {
    if error.is_connect() || error.is_builder() {
        return Handover::NotTaken(Reason::new("connect", "cannot connect to the SMS provider"));
    }
    if error.is_timeout() {
        let detail = format!("the SMS provider did not answer within {}s", LONGEST_SENDING.as_secs());
        return Handover::Ambiguous(Reason::new("timeout", detail));
    }
    Handover::Ambiguous(Reason::new(
        "cut",
        "the connection to the SMS provider ended before its answer",
    ))
}

fn judge(status: StatusCode, answer: &Answer) -> Handover {
    let told = |code: Option<u32>| {
        let code = code.map(|code| format!(" (code {code})")).unwrap_or_default();
        format!("the SMS provider answered {}{code}", status.as_u16())
    };
    match status.as_u16() {
        200..300 if failed_at_once(answer) => Handover::Refused(Reason::new("recipient", told(answer.error_code))),
        200..300 if answer.sid.is_some() => Handover::Taken {
            reference: answer.sid.clone(),
        },
        // Not the provider's word, or cut short: something between may have answered for it.
        200..300 => Handover::Ambiguous(Reason::new("provider", told(answer.code))),
        429 => Handover::NotTaken(Reason::new("rate-limit", told(answer.code))),
        // The provider gave up waiting for a request that may have arrived whole.
        408 | 500.. => Handover::Ambiguous(Reason::new("provider", told(answer.code))),
        // Without a code it is not the provider that answers, and nothing is known of the number.
        400 if answer.code.is_some_and(|code| !OUR_FAULT.contains(&code)) => {
            Handover::Refused(Reason::new("recipient", told(answer.code)))
        }
        _ => {
            warn!(
                status = status.as_u16(),
                code = answer.code,
                "the SMS provider refuses our account, sender or address"
            );
            Handover::NotTaken(Reason::new("configuration", told(answer.code)))
        }
    }
}

fn failed_at_once(answer: &Answer) -> bool {
    matches!(
        answer.status.as_ref().and_then(|status| status.as_str()),
        Some("failed" | "undelivered")
    )
}

#[cfg(test)]
mod tests;
