//! From an event to messages.

use std::time::Duration;

use broker::{EventKind, Outcome, RetryTier};
use chrono::{TimeDelta, Utc};
use mail_parser::{MessageParser, MimeHeaders};
use notifier::handover::Handover;
use row_id::OrderId;
use store::notifications::NotificationStatus;

use crate::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_processed_order_is_told_once_however_often_its_event_comes() {
    let shop = Shop::new().await;
    let event = shop.event(EventKind::OrderProcessed, None);
    for _ in 0..3 {
        assert_eq!(shop.handle(&event, 0).await, Outcome::Ack);
    }
    let (mails, texts, rows) = (shop.mail.taken(), shop.sms.sent(), shop.rows().await);
    assert_eq!(
        (mails.len(), texts.len(), rows.emails.len(), rows.sms.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(rows.emails[0].delivery.status, NotificationStatus::Sent);
    assert_eq!(rows.sms[0].delivery.status, NotificationStatus::Sent);
    assert_eq!(rows.sms[0].delivery.provider_reference.as_deref(), Some("SM1"));

    let mail = MessageParser::default().parse(mails[0].as_bytes()).unwrap();
    assert_eq!(mail.subject(), Some("Ihre Bestellung A-7 ist unterwegs"));
    assert_eq!(
        mail.message_id().unwrap(),
        format!("{}@shop.example", rows.emails[0].email_id)
    );
    assert_eq!(mail.attachment_count(), 0);
    assert!(
        mail.body_text(0).unwrap().contains("2 x Teekanne: 39,98\u{a0}EUR"),
        "{:?}",
        mail.body_text(0)
    );
    assert_eq!(texts[0].to, rows.sms[0].mobile_number);
    assert!(
        texts[0]
            .body
            .starts_with("Guten Tag Ada, Ihre Bestellung A-7 (39,98 EUR)"),
        "{}",
        texts[0].body
    );
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_comes_as_pdf_with_its_own_email_and_with_that_of_the_order() {
    let shop = Shop::new().await;
    let invoice = shop.generate_invoice().await;
    for event in [
        shop.event(EventKind::InvoiceGenerated, Some(invoice)),
        shop.event(EventKind::OrderProcessed, None),
    ] {
        assert_eq!(shop.handle(&event, 0).await, Outcome::Ack);
    }
    let mails = shop.mail.taken();
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        let mail = MessageParser::default().parse(mail.as_bytes()).unwrap();
        let pdf = mail.attachment(0).expect("an attachment");
        assert!(pdf.contents().starts_with(b"%PDF"));
        assert!(
            pdf.attachment_name().unwrap().starts_with("invoice-0-"),
            "{:?}",
            pdf.attachment_name()
        );
    }
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_one_event_at_the_same_time_send_it_once() {
    let shop = Shop::new().await;
    let event = shop.event(EventKind::OrderProcessed, None);
    let outcomes = futures::future::join_all((0..8).map(|_| shop.handle(&event, 0))).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Ack | Outcome::RetryLater(_))),
        "{outcomes:?}"
    );
    assert_eq!(shop.handle(&event, 1).await, Outcome::Ack);
    assert_eq!((shop.mail.taken().len(), shop.sms.sent().len()), (1, 1));
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_taken_is_unknown_and_never_repeated() {
    let shop = Shop::new().await;
    shop.sms.answer_next(Handover::Ambiguous);
    let event = shop.event(EventKind::OrderProcessed, None);
    for attempt in 0..3 {
        assert_eq!(shop.handle(&event, attempt).await, Outcome::Ack);
    }
    assert_eq!(shop.sms.sent().len(), 1);
    let rows = shop.rows().await;
    assert_eq!(rows.sms[0].delivery.status, NotificationStatus::Unknown);
    assert_eq!(
        rows.sms[0].delivery.last_error.as_deref(),
        Some("the provider is as it is")
    );
    assert_eq!(
        rows.emails[0].delivery.status,
        NotificationStatus::Sent,
        "one channel is the other's concern"
    );
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_is_tried_again_and_alone() {
    let shop = Shop::new().await;
    shop.sms.answer_next(Handover::NotTaken);
    let event = shop.event(EventKind::OrderProcessed, None);
    assert_eq!(shop.handle(&event, 0).await, Outcome::RetryLater(RetryTier::Soon));
    assert_eq!(shop.rows().await.sms[0].delivery.status, NotificationStatus::Queued);
    assert_eq!(shop.handle(&event, 1).await, Outcome::Ack);
    assert_eq!(shop.rows().await.sms[0].delivery.status, NotificationStatus::Sent);
    assert_eq!((shop.mail.taken().len(), shop.sms.sent().len()), (1, 2));
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_cannot_be_sent_for_too_long_has_failed() {
    let shop = Shop::giving_up_after(Duration::ZERO).await;
    shop.sms.answer_next(Handover::Refused);
    assert_eq!(
        shop.handle(&shop.event(EventKind::OrderProcessed, None), 0).await,
        Outcome::Ack
    );
    shop.sms.answer_next(Handover::NotTaken);
    let invoice = shop.generate_invoice().await;
    let second = shop.event(EventKind::InvoiceGenerated, Some(invoice));
    assert_eq!(shop.handle(&second, 0).await, Outcome::Ack);
    let rows = shop.rows().await;
    assert!(
        rows.sms
            .iter()
            .all(|sms| sms.delivery.status == NotificationStatus::Failed),
        "{rows:?}"
    );
    assert!(
        rows.emails
            .iter()
            .all(|email| email.delivery.status == NotificationStatus::Sent),
        "{rows:?}"
    );
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waited_for_days_has_its_messages_tried_as_long_as_any() {
    let shop = Shop::giving_up_after(Duration::from_secs(3600)).await;
    shop.sms.answer_next(Handover::NotTaken);
    let old = shop.event_at(EventKind::OrderProcessed, None, Utc::now() - TimeDelta::days(3));
    assert_eq!(shop.handle(&old, 0).await, Outcome::RetryLater(RetryTier::Soon));
    assert_eq!(shop.handle(&old, 1).await, Outcome::Ack);
    assert_eq!(shop.rows().await.sms[0].delivery.status, NotificationStatus::Sent);
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_that_was_queued_before_there_was_an_invoice_does_not_speak_of_one() {
    let shop = Shop::new().await;
    let server = std::fs::read_to_string(shop.mail.url_file()).unwrap();
    std::fs::write(shop.mail.url_file(), "smtp://127.0.0.1:1").unwrap();
    let event = shop.event(EventKind::OrderProcessed, None);
    assert_eq!(shop.handle(&event, 0).await, Outcome::RetryLater(RetryTier::Soon));
    shop.generate_invoice().await;
    std::fs::write(shop.mail.url_file(), server).unwrap();
    assert_eq!(shop.handle(&event, 1).await, Outcome::Ack);
    let mails = shop.mail.taken();
    let mail = MessageParser::default().parse(mails[0].as_bytes()).unwrap();
    assert_eq!(mail.attachment_count(), 0);
    let text = mail.body_text(0).unwrap();
    assert!(!text.contains("Rechnung"), "{text}");
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_turns_out_to_be_none_has_failed() {
    let shop = Shop::new().await;
    shop.execute("UPDATE shop.users SET email_address = 'nobody @ home', version = version + 1")
        .await;
    assert_eq!(
        shop.handle(&shop.event(EventKind::OrderProcessed, None), 0).await,
        Outcome::Ack
    );
    let rows = shop.rows().await;
    assert_eq!(rows.emails[0].delivery.status, NotificationStatus::Failed);
    assert!(
        !rows.emails[0].delivery.last_error.as_ref().unwrap().contains("nobody"),
        "{rows:?}"
    );
    assert_eq!(shop.sms.sent().len(), 1);
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_there_ends_with_a_person() {
    let shop = Shop::new().await;
    let mut event = shop.event(EventKind::OrderProcessed, None);
    event.order_id = OrderId::generate(shop.user.position());
    assert_eq!(shop.handle(&event, 0).await, Outcome::RetryLater(RetryTier::Soon));
    assert!(matches!(shop.handle(&event, 10).await, Outcome::DeadLetter(reason) if reason.contains("does not exist")));
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placing_and_cancelling_tell_nobody() {
    let shop = Shop::new().await;
    for kind in [EventKind::OrderCreated, EventKind::OrderCancelled] {
        assert_eq!(shop.handle(&shop.event(kind, None), 0).await, Outcome::Ack);
    }
    assert!(shop.rows().await.emails.is_empty() && shop.sms.sent().is_empty());
    shop.remove().await;
}
