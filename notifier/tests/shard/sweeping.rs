//! Rows that nobody holds.

use std::{sync::Arc, time::Duration};

use broker::{EventKind, Outcome};
use notifier::{handover::Handover, sweeper::Sweeper};
use store::notifications::{Claimed, NotificationId, NotificationStatus};
use tokio_util::sync::CancellationToken;

use crate::shop::Shop;

/// Sweeps until a condition on the order's rows holds.
async fn sweep_until(shop: &Shop, holds: impl Fn(&store::notifications::OrderNotifications) -> bool) {
    let stop = CancellationToken::new();
    let sweeper = Sweeper {
        store: shop.notify.store.clone(),
        notify: Arc::clone(&shop.notify),
        metrics: shop.metrics.clone(),
        interval: Duration::from_millis(50),
        overdue_after: Duration::from_millis(100),
        lost_after: Duration::from_millis(100),
    };
    let sweeping = tokio::spawn(sweeper.run(stop.clone()));
    let started = tokio::time::Instant::now();
    while !holds(&shop.rows().await) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "swept in vain: {:?}",
            shop.rows().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    sweeping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_event_was_lost_is_sent_all_the_same() {
    let shop = Shop::new().await;
    shop.sms.answer_next(Handover::NotTaken);
    let event = shop.event(EventKind::OrderProcessed, None);
    assert!(matches!(shop.handle(&event, 0).await, Outcome::RetryLater(_)));
    sweep_until(&shop, |rows| rows.sms[0].delivery.status == NotificationStatus::Sent).await;
    assert_eq!((shop.mail.taken().len(), shop.sms.sent().len()), (1, 2));
    shop.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_sender_died_is_unknown_and_not_sent() {
    let shop = Shop::new().await;
    shop.sms.answer_next(Handover::NotTaken);
    let event = shop.event(EventKind::OrderProcessed, None);
    assert!(matches!(shop.handle(&event, 0).await, Outcome::RetryLater(_)));
    // As a process does that dies right after it handed the message over.
    let id = NotificationId::Sms(shop.rows().await.sms[0].sms_id);
    let claimed = shop
        .notify
        .store
        .claim_notification(id, Duration::from_secs(60))
        .await
        .unwrap();
    let Claimed::Ours(lease) = claimed else {
        panic!("{claimed:?}")
    };
    shop.notify.store.begin_sending(&lease).await.unwrap();
    // The dead sender's lease ends.
    shop.execute("UPDATE shop.sms SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")
        .await;

    sweep_until(&shop, |rows| rows.sms[0].delivery.status == NotificationStatus::Unknown).await;
    assert_eq!(shop.handle(&event, 1).await, Outcome::Ack);
    assert_eq!(shop.sms.sent().len(), 1);
    shop.remove().await;
}
