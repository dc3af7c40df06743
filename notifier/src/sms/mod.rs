//! Text messages: the adapter, and the one provider interface that is built in.

mod twilio;

use async_trait::async_trait;

use crate::handover::Handover;

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
    /// Hands a message over and tells what came of it. The reason must not quote the number.
    async fn send(&self, text: &Text) -> Handover;
}
