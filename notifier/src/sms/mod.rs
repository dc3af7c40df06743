//! Text messages: the adapter, and the one provider interface that is built in.

mod gated;
mod twilio;

use async_trait::async_trait;
use store::StoreError;

use crate::handover::{Begin, Handover};

pub use twilio::{LONGEST_SENDING, Twilio, TwilioConfig, TwilioError};

/// A text message.
#[derive(Clone)]
pub struct Text {
    /// E.164.
    pub to: String,
    /// What it says.
    pub body: String,
}

/// A provider of text messages.
#[async_trait]
pub trait SmsProvider: Send + Sync + 'static {
    /// Hands a message over and tells what came of it. The reason must not quote the number. `begin` is awaited when
    /// nothing is left to do but sending.
    ///
    /// # Errors
    /// That of `begin`: then the message was not handed over.
    async fn send(&self, text: &Text, begin: Begin) -> Result<Handover, StoreError>;
}
