use std::time::Duration;

use ring::Ordinal;
use row_id::OrderId;

use super::orders::place;
use super::shards::Shards;
use crate::admin::Role;
use crate::notifications::{
    Claimed, Lease, NewNotifications, NotificationId, NotificationStatus, QueuedNotifications, SendOutcome,
};
use crate::outbox::EventKind;
use crate::{ReadAt, Store, StoreError};

const LEASE: Duration = Duration::from_secs(30);

fn asked_for(order: OrderId) -> NewNotifications {
    NewNotifications {
        order_id: order,
        kind: EventKind::OrderProcessed,
        sequence: 2,
        email_address: Some("ada@example.org".to_owned()),
        mobile_number: Some("+441234567890".to_owned()),
        invoice_id: None,
    }
}

async fn queued(store: &Store, order: OrderId) -> (QueuedNotifications, [NotificationId; 2]) {
    let queued = store.queue_notifications(asked_for(order)).await.unwrap();
    let email = NotificationId::Email(queued.email.as_ref().unwrap().email_id);
    let sms = NotificationId::Sms(queued.sms.as_ref().unwrap().sms_id);
    (queued, [email, sms])
}

async fn claim(store: &Store, id: NotificationId) -> Lease {
    match store.claim_notification(id, LEASE).await.unwrap() {
        Claimed::Ours(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn expire(shards: &Shards) {
    for table in ["emails", "sms"] {
        let sql =
            format!("UPDATE shop.{table} SET lease_until = now() - interval '1 minute' WHERE lease_until IS NOT NULL");
        shards.execute(Ordinal(0), sql).await;
    }
}

#[tokio::test]
async fn an_event_delivered_twice_queues_one_email_and_one_text() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let (first, _) = queued(&notifier, order).await;
    let (second, _) = queued(&notifier, order).await;
    assert_eq!(first, second);
    let all = shards
        .store
        .order_notifications(order, &ReadAt::default())
        .await
        .unwrap()
        .value;
    assert_eq!(
        (all.emails, all.sms),
        (vec![first.email.unwrap()], vec![first.sms.unwrap()])
    );
    let unnotified = place(&shards, shards.create_user().await).await;
    let none = shards
        .store
        .order_notifications(unnotified, &ReadAt::default())
        .await
        .unwrap()
        .value;
    assert!(none.emails.is_empty() && none.sms.is_empty());
    shards.end().await;
}

#[tokio::test]
async fn a_notification_is_sent_by_one_and_settled() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let (_, ids) = queued(&notifier, order).await;
    for id in ids {
        let lease = claim(&notifier, id).await;
        assert!(matches!(
            notifier.claim_notification(id, LEASE).await.unwrap(),
            Claimed::Busy { .. }
        ));
        notifier.begin_sending(&lease).await.unwrap();
        notifier.begin_sending(&lease).await.unwrap();
        assert!(matches!(
            notifier.claim_notification(id, LEASE).await.unwrap(),
            Claimed::Busy { .. }
        ));
        let sent = SendOutcome::Sent {
            provider_reference: Some("SM1".to_owned()),
        };
        notifier.record_outcome(&lease, sent.clone()).await.unwrap();
        notifier.record_outcome(&lease, sent).await.unwrap();
        let settled = notifier.claim_notification(id, LEASE).await.unwrap();
        assert_eq!(settled, Claimed::Settled(NotificationStatus::Sent));
    }
    let all = notifier
        .order_notifications(order, &ReadAt::default())
        .await
        .unwrap()
        .value;
    let delivery = &all.emails[0].delivery;
    assert_eq!(
        (delivery.attempts, delivery.provider_reference.as_deref()),
        (1, Some("SM1"))
    );
    assert!(delivery.sent_at.is_some());
    shards.end().await;
}

#[tokio::test]
async fn what_was_not_taken_is_tried_again_and_counted() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (_, [id, _]) = queued(&shards.other_store(Role::Notifier).0, order).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    for attempt in 1..=2 {
        let lease = claim(&notifier, id).await;
        notifier.begin_sending(&lease).await.unwrap();
        let refused = SendOutcome::Retry {
            reason: "450 try later".to_owned(),
        };
        notifier.record_outcome(&lease, refused).await.unwrap();
        let all = notifier
            .order_notifications(order, &ReadAt::default())
            .await
            .unwrap()
            .value;
        let delivery = &all.emails[0].delivery;
        assert_eq!(
            (delivery.status, delivery.attempts),
            (NotificationStatus::Queued, attempt)
        );
    }
    let lease = claim(&notifier, id).await;
    notifier
        .record_outcome(
            &lease,
            SendOutcome::Failed {
                reason: "550 no such user".to_owned(),
            },
        )
        .await
        .unwrap();
    let settled = notifier.claim_notification(id, LEASE).await.unwrap();
    assert_eq!(settled, Claimed::Settled(NotificationStatus::Failed));
    shards.end().await;
}

#[tokio::test]
async fn a_lease_that_ended_before_sending_passes_on_and_the_old_holder_does_not_send() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let (_, [id, _]) = queued(&notifier, order).await;
    let old = claim(&notifier, id).await;
    expire(&shards).await;
    let new = claim(&notifier, id).await;
    let lost = notifier.begin_sending(&old).await;
    assert!(matches!(lost, Err(StoreError::LeaseLost(_))), "{lost:?}");
    notifier.begin_sending(&new).await.unwrap();
    shards.end().await;
}

#[tokio::test]
async fn a_sender_that_died_while_sending_leaves_unknown_and_nobody_sends_again() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let (_, ids) = queued(&notifier, order).await;
    let mut leases = Vec::new();
    for id in ids {
        let lease = claim(&notifier, id).await;
        notifier.begin_sending(&lease).await.unwrap();
        leases.push(lease);
    }
    assert_eq!(
        notifier
            .settle_lost_sendings(Ordinal(0), Duration::ZERO, 10)
            .await
            .unwrap(),
        0
    );
    expire(&shards).await;
    // The one by the next who claims it, the other by the sweeper.
    let unknown = Claimed::Settled(NotificationStatus::Unknown);
    assert_eq!(notifier.claim_notification(ids[0], LEASE).await.unwrap(), unknown);
    assert_eq!(
        notifier
            .settle_lost_sendings(Ordinal(0), Duration::ZERO, 10)
            .await
            .unwrap(),
        1
    );
    for (id, lease) in ids.into_iter().zip(leases) {
        assert_eq!(notifier.claim_notification(id, LEASE).await.unwrap(), unknown);
        let late = notifier
            .record_outcome(
                &lease,
                SendOutcome::Sent {
                    provider_reference: None,
                },
            )
            .await;
        assert!(matches!(late, Err(StoreError::LeaseLost(_))), "{late:?}");
    }
    shards.end().await;
}

#[tokio::test]
async fn the_notifier_reads_what_it_writes_about() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let context = notifier.order_context(order).await.unwrap().unwrap();
    assert_eq!(
        (context.order.order_id, context.user.user_id, context.invoice),
        (order, user, None)
    );
    assert_eq!(
        notifier
            .order_context(OrderId::generate(user.position()))
            .await
            .unwrap(),
        None
    );
    shards.end().await;
}

#[tokio::test]
async fn notifications_left_queued_are_found_unless_somebody_holds_them() {
    let shards = Shards::start(1).await;
    let order = place(&shards, shards.create_user().await).await;
    let (notifier, _credentials) = shards.other_store(Role::Notifier);
    let (_, [email, sms]) = queued(&notifier, order).await;
    assert!(
        notifier
            .overdue_notifications(Ordinal(0), Duration::from_secs(60), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        notifier
            .overdue_notifications(Ordinal(0), Duration::ZERO, 10)
            .await
            .unwrap()
            .len(),
        2
    );
    claim(&notifier, email).await;
    let left = notifier
        .overdue_notifications(Ordinal(0), Duration::ZERO, 10)
        .await
        .unwrap();
    let [crate::notifications::Notification::Sms(left)] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert_eq!(NotificationId::Sms(left.sms_id), sms);
    shards.end().await;
}
