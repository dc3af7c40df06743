//! Turns the rows of an order into messages and has them sent.

use std::{sync::Arc, time::Duration};

use broker::EventKind;
use chrono::{DateTime, Utc};
use store::{
    Store, StoreError,
    notifications::{Email, NewNotifications, Notification, NotificationId, OrderContext, Sms},
};

use crate::{
    courier::{Courier, Patience, Settled},
    email::{Addressing, Attachment, Letter, LetterError, Sender, Smtp},
    handover::{Begin, Handover, Reason},
    sms::{SmsProvider, Text},
    templates::{Context, Occasion, Templates},
};

/// Everything that sending needs.
pub struct Notify {
    /// The shards.
    pub store: Store,
    /// Message texts.
    pub templates: Templates,
    /// Who writes the emails.
    pub sender: Sender,
    /// The mail server.
    pub smtp: Smtp,
    /// The provider of text messages.
    pub sms: Arc<dyn SmsProvider>,
    /// Sends rows of emails.
    pub email_courier: Courier,
    /// Sends rows of text messages.
    pub sms_courier: Courier,
    /// How long what cannot be sent is tried.
    pub give_up_after: Duration,
}

/// Why an event's messages could not even be tried.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The order is not there.
    #[error("the order does not exist on its shard")]
    NoOrder,
    /// The shard.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The occasion of an event, if customers are told of it.
#[must_use]
pub fn occasion(kind: EventKind) -> Option<Occasion> {
    match kind {
        EventKind::OrderProcessed => Some(Occasion::OrderProcessed),
        EventKind::InvoiceGenerated => Some(Occasion::InvoiceGenerated),
        EventKind::OrderCreated | EventKind::OrderCancelled => None,
    }
}

impl Notify {
    /// Makes the rows of an event, or finds those an earlier delivery of it made, and sends what is not settled.
    ///
    /// # Errors
    /// When the order is not there or the shard cannot be asked.
    pub async fn of_event(&self, event: &broker::Event, occasion: Occasion) -> Result<Settled, NotifyError> {
        let order = self
            .store
            .order_context(event.order_id)
            .await?
            .ok_or(NotifyError::NoOrder)?;
        let queued = self
            .store
            .queue_notifications(NewNotifications {
                order_id: event.order_id,
                kind: event.kind,
                sequence: event.sequence,
                email_address: Some(order.user.email_address.clone()),
                mobile_number: Some(order.user.mobile_number.clone()),
                invoice_id: event
                    .invoice_id
                    .or_else(|| order.invoice.as_ref().map(|invoice| invoice.invoice_id)),
            })
            .await?;
        let happened = event.occurred_at;
        // Neither waits for the other, nor does a failure of one keep the other from being sent.
        let (email, sms) = tokio::join!(
            async {
                match &queued.email {
                    Some(email) => self.email(email, &order, occasion, happened).await,
                    None => Ok(Settled::Done),
                }
            },
            async {
                match &queued.sms {
                    Some(sms) => self.sms(sms, &order, occasion, happened).await,
                    None => Ok(Settled::Done),
                }
            },
        );
        Ok(match (email?, sms?) {
            (Settled::Done, settled) | (settled, Settled::Done) => settled,
            (Settled::TryAgain { reason: email }, Settled::TryAgain { reason: sms }) => Settled::TryAgain {
                reason: format!("email: {email}; sms: {sms}"),
            },
        })
    }

    /// Sends a row that was left behind.
    ///
    /// # Errors
    /// When the order is not there or the shard cannot be asked.
    pub async fn of_row(&self, row: &Notification) -> Result<Settled, NotifyError> {
        let (order_id, kind, queued) = match row {
            Notification::Email(email) => (email.order_id, email.kind, email.delivery.created_at),
            Notification::Sms(sms) => (sms.order_id, sms.kind, sms.delivery.created_at),
        };
        let Some(occasion) = occasion(kind) else {
            return Ok(Settled::Done);
        };
        let order = self.store.order_context(order_id).await?.ok_or(NotifyError::NoOrder)?;
        Ok(match row {
            Notification::Email(email) => self.email(email, &order, occasion, queued).await?,
            Notification::Sms(sms) => self.sms(sms, &order, occasion, queued).await?,
        })
    }

    fn patience(&self, happened: DateTime<Utc>, queued: DateTime<Utc>) -> Patience {
        Patience {
            happened,
            since: queued,
            for_as_long_as: self.give_up_after,
        }
    }

    async fn email(
        &self,
        row: &Email,
        order: &OrderContext,
        occasion: Occasion,
        happened: DateTime<Utc>,
    ) -> Result<Settled, StoreError> {
        let patience = self.patience(happened, row.delivery.created_at);
        let compose = || self.letter(row, order, occasion);
        let send = async |letter: Letter, begin: Begin| self.smtp.send(&letter, begin).await;
        self.email_courier
            .deliver(NotificationId::Email(row.email_id), patience, compose, send)
            .await
    }

    async fn sms(
        &self,
        row: &Sms,
        order: &OrderContext,
        occasion: Occasion,
        happened: DateTime<Utc>,
    ) -> Result<Settled, StoreError> {
        let patience = self.patience(happened, row.delivery.created_at);
        let compose = || self.text(row, order, occasion);
        let send = async |text: Text, begin: Begin| self.sms.send(&text, begin).await;
        self.sms_courier
            .deliver(NotificationId::Sms(row.sms_id), patience, compose, send)
            .await
    }

    fn letter(&self, row: &Email, order: &OrderContext, occasion: Occasion) -> Result<Letter, Handover> {
        let user = &order.user;
        let mut context = Context::of(order);
        // What comes with the letter was settled when it was queued; one that came since has a letter of its own.
        context.invoice = context.invoice.filter(|_| row.invoice_id.is_some());
        let text = self
            .templates
            .email(&user.locale, occasion, &context)
            .map_err(|error| Handover::NotTaken(Reason::new("template", error.to_string())))?;
        let addressing = Addressing {
            email_id: row.email_id,
            order_id: row.order_id,
            name: format!("{} {}", user.first_name, user.last_name),
            address: &row.user_email_address,
        };
        Letter::compose(&self.sender, &addressing, &text, attachment(row, order)?).map_err(|error| match error {
            LetterError::Address(_) => Handover::Refused(Reason::new("address", error.to_string())),
            LetterError::Build(_) => Handover::NotTaken(Reason::new("template", error.to_string())),
        })
    }

    fn text(&self, row: &Sms, order: &OrderContext, occasion: Occasion) -> Result<Text, Handover> {
        let body = self
            .templates
            .sms(&order.user.locale, occasion, &Context::of(order))
            .map_err(|error| Handover::NotTaken(Reason::new("template", error.to_string())))?;
        Ok(Text {
            to: row.mobile_number.clone(),
            body,
        })
    }
}

/// The invoice as a PDF, if the row names one.
fn attachment(row: &Email, order: &OrderContext) -> Result<Option<Attachment>, Handover> {
    let Some(named) = row.invoice_id else { return Ok(None) };
    let broken = |detail: String| Handover::NotTaken(Reason::new("invoice", detail));
    let invoice = order.invoice.as_ref().filter(|invoice| invoice.invoice_id == named);
    let invoice = invoice.ok_or_else(|| broken(format!("the order does not have invoice {named} yet")))?;
    let document = invoice_pdf::stored(&invoice.number, invoice.created_at, &invoice.invoice_details)
        .map_err(|error| broken(error.to_string()))?;
    let pdf = invoice_pdf::render(&document).map_err(|error| broken(error.to_string()))?;
    Ok(Some(Attachment {
        file_name: format!("invoice-{}.pdf", invoice.number),
        pdf,
    }))
}
