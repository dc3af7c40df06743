use std::time::Duration;

use ring::Ordinal;
use row_id::{OrderId, UserId};

use super::orders::place;
use super::shards::Shards;
use crate::admin::Role;
use crate::notifications::{
    Claimed, Delivery, Lease, NewNotifications, Notification, NotificationId, NotificationStatus, OrderNotifications,
    QueuedNotifications, SendOutcome,
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

/// An order, and a notifier on its shard with its own role.
struct Shop {
    shards: Shards,
    user: UserId,
    order: OrderId,
    notifier: Store,
    _credentials: tempfile::TempDir,
}

impl Shop {
    async fn start() -> Self {
        let shards = Shards::start(1).await;
        let user = shards.create_user().await;
        let order = place(&shards, user).await;
        let (notifier, _credentials) = shards.other_store(Role::Notifier);
        Self {
            shards,
            user,
            order,
            notifier,
            _credentials,
        }
    }

    async fn queue(&self) -> QueuedNotifications {
        self.notifier.queue_notifications(asked_for(self.order)).await.unwrap()
    }

    /// The email and the text message of the order's event.
    async fn queued(&self) -> [NotificationId; 2] {
        let queued = self.queue().await;
        [
            NotificationId::Email(queued.email.unwrap().email_id),
            NotificationId::Sms(queued.sms.unwrap().sms_id),
        ]
    }

    async fn try_claim(&self, id: NotificationId) -> Claimed {
        self.notifier.claim_notification(id, LEASE).await.unwrap()
    }

    async fn claim(&self, id: NotificationId) -> Lease {
        match self.try_claim(id).await {
            Claimed::Ours(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    async fn expire_leases(&self) {
        for table in ["emails", "sms"] {
            let sql = format!(
                "UPDATE shop.{table} SET lease_until = now() - interval '1 minute' WHERE lease_until IS NOT NULL"
            );
            self.shards.execute(Ordinal(0), sql).await;
        }
    }

    async fn settle_lost(&self) -> u64 {
        let settled = self.notifier.settle_lost_sendings(Ordinal(0), Duration::ZERO, 10).await;
        settled.unwrap()
    }

    async fn overdue(&self, age: Duration) -> Vec<Notification> {
        let overdue = self.notifier.overdue_notifications(Ordinal(0), age, 10).await;
        overdue.unwrap()
    }

    /// What is told of the order's email.
    async fn email_delivery(&self) -> Delivery {
        all_of(&self.notifier, self.order).await.emails[0].delivery.clone()
    }
}

async fn all_of(store: &Store, order: OrderId) -> OrderNotifications {
    let read = store.order_notifications(order, &ReadAt::default()).await;
    read.unwrap().value
}

#[tokio::test]
async fn an_event_delivered_twice_queues_one_email_and_one_text() {
    let shop = Shop::start().await;
    let (first, second) = (shop.queue().await, shop.queue().await);
    assert_eq!(first, second);
    let all = all_of(&shop.shards.store, shop.order).await;
    assert_eq!(
        (all.emails, all.sms),
        (vec![first.email.unwrap()], vec![first.sms.unwrap()])
    );
    let unnotified = place(&shop.shards, shop.shards.create_user().await).await;
    let none = all_of(&shop.shards.store, unnotified).await;
    assert!(none.emails.is_empty() && none.sms.is_empty());
    shop.shards.end().await;
}

#[tokio::test]
async fn a_notification_is_sent_by_one_and_settled() {
    let shop = Shop::start().await;
    for id in shop.queued().await {
        let lease = shop.claim(id).await;
        assert!(matches!(shop.try_claim(id).await, Claimed::Busy { .. }));
        shop.notifier.begin_sending(&lease).await.unwrap();
        shop.notifier.begin_sending(&lease).await.unwrap();
        assert!(matches!(shop.try_claim(id).await, Claimed::Busy { .. }));
        let sent = SendOutcome::Sent {
            provider_reference: Some("SM1".to_owned()),
        };
        shop.notifier.record_outcome(&lease, sent.clone()).await.unwrap();
        shop.notifier.record_outcome(&lease, sent).await.unwrap();
        assert_eq!(shop.try_claim(id).await, Claimed::Settled(NotificationStatus::Sent));
    }
    let delivery = shop.email_delivery().await;
    assert_eq!(
        (delivery.attempts, delivery.provider_reference.as_deref()),
        (1, Some("SM1"))
    );
    assert!(delivery.sent_at.is_some());
    shop.shards.end().await;
}

#[tokio::test]
async fn what_was_not_taken_is_tried_again_and_counted() {
    let shop = Shop::start().await;
    let [id, _] = shop.queued().await;
    for attempt in 1..=2 {
        let lease = shop.claim(id).await;
        shop.notifier.begin_sending(&lease).await.unwrap();
        let refused = SendOutcome::Retry {
            reason: "450 try later".to_owned(),
        };
        shop.notifier.record_outcome(&lease, refused).await.unwrap();
        let delivery = shop.email_delivery().await;
        assert_eq!(
            (delivery.status, delivery.attempts),
            (NotificationStatus::Queued, attempt)
        );
    }
    let lease = shop.claim(id).await;
    let failed = SendOutcome::Failed {
        reason: "550 no such user".to_owned(),
    };
    shop.notifier.record_outcome(&lease, failed).await.unwrap();
    assert_eq!(shop.try_claim(id).await, Claimed::Settled(NotificationStatus::Failed));
    shop.shards.end().await;
}

#[tokio::test]
async fn a_lease_that_ended_before_sending_passes_on_and_the_old_holder_does_not_send() {
    let shop = Shop::start().await;
    let [id, _] = shop.queued().await;
    let old = shop.claim(id).await;
    shop.expire_leases().await;
    let new = shop.claim(id).await;
    let lost = shop.notifier.begin_sending(&old).await;
    assert!(matches!(lost, Err(StoreError::LeaseLost(_))), "{lost:?}");
    shop.notifier.begin_sending(&new).await.unwrap();
    shop.shards.end().await;
}

#[tokio::test]
async fn a_sender_that_died_while_sending_leaves_unknown_and_nobody_sends_again() {
    let shop = Shop::start().await;
    let ids = shop.queued().await;
    let mut leases = Vec::new();
    for id in ids {
        let lease = shop.claim(id).await;
        shop.notifier.begin_sending(&lease).await.unwrap();
        leases.push(lease);
    }
    assert_eq!(shop.settle_lost().await, 0);
    shop.expire_leases().await;
    // The one by the next who claims it, the other by the sweeper.
    let unknown = Claimed::Settled(NotificationStatus::Unknown);
    assert_eq!(shop.try_claim(ids[0]).await, unknown);
    assert_eq!(shop.settle_lost().await, 1);
    for (id, lease) in ids.into_iter().zip(leases) {
        assert_eq!(shop.try_claim(id).await, unknown);
        let sent = SendOutcome::Sent {
            provider_reference: None,
        };
        let late = shop.notifier.record_outcome(&lease, sent).await;
        assert!(matches!(late, Err(StoreError::LeaseLost(_))), "{late:?}");
    }
    shop.shards.end().await;
}

#[tokio::test]
async fn the_notifier_reads_what_it_writes_about() {
    let shop = Shop::start().await;
    let context = shop.notifier.order_context(shop.order).await.unwrap().unwrap();
    assert_eq!(
        (context.order.order_id, context.user.user_id, context.invoice),
        (shop.order, shop.user, None)
    );
    let nothing = OrderId::generate(shop.user.position());
    assert_eq!(shop.notifier.order_context(nothing).await.unwrap(), None);
    shop.shards.end().await;
}

#[tokio::test]
async fn notifications_left_queued_are_found_unless_somebody_holds_them() {
    let shop = Shop::start().await;
    let [email, sms] = shop.queued().await;
    assert!(shop.overdue(Duration::from_secs(60)).await.is_empty());
    assert_eq!(shop.overdue(Duration::ZERO).await.len(), 2);
    shop.claim(email).await;
    let left = shop.overdue(Duration::ZERO).await;
    let [Notification::Sms(left)] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert_eq!(NotificationId::Sms(left.sms_id), sms);
    shop.shards.end().await;
}
