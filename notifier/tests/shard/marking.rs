//! The moment a row becomes `sending`: what is lost before was never sent, and is sent later.

use std::{future::pending, num::NonZeroU32, sync::Arc, time::Duration};

use broker::{EventKind, Outcome};
use chrono::Utc;
use notifier::{
    courier::{Courier, Patience, Settled},
    handover::{Begin, Handover},
};
use sqlx::PgConnection;
use store::{
    StoreError,
    notifications::{NotificationId, NotificationStatus},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::shop::Shop;

/// An order's text message that was not taken at its first try.
async fn queued_text(shop: &Shop) -> NotificationId {
    shop.sms.answer_next(Handover::NotTaken);
    let event = shop.event(EventKind::OrderProcessed, None);
    assert!(matches!(shop.handle(&event, 0).await, Outcome::RetryLater(_)));
    NotificationId::Sms(shop.rows().await.sms[0].sms_id)
}

fn patience() -> Patience {
    Patience {
        happened: Utc::now(),
        since: Utc::now(),
        for_as_long_as: Duration::from_secs(3600),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_sender_died_while_connecting_is_sent_by_the_next() {
    let shop = Shop::new().await;
    let id = queued_text(&shop).await;
    let notify = Arc::clone(&shop.notify);
    let (connecting, is_connecting) = oneshot::channel();
    let delivering = tokio::spawn(async move {
        let send = async move |(), _begin: Begin| -> Result<Handover, StoreError> {
            let _ = connecting.send(());
            pending().await
        };
        notify.sms_courier.deliver(id, patience(), || Ok(()), send).await
    });
    is_connecting.await.unwrap();
    delivering.abort();
    assert_eq!(shop.rows().await.sms[0].delivery.status, NotificationStatus::Queued);

    // The dead sender's lease ends.
    shop.execute("UPDATE shop.sms SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")
        .await;
    let event = shop.event(EventKind::OrderProcessed, None);
    assert_eq!(shop.handle(&event, 1).await, Outcome::Ack);
    assert_eq!(shop.rows().await.sms[0].delivery.status, NotificationStatus::Sent);
    assert_eq!(shop.sms.sent().len(), 2);
    shop.remove().await;
}

/// Commits that mark a text message wait for a lock that the test holds, for as long as it takes.
const COMMITS_WAIT: &str = "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(1, 1);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON shop.sms DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.status = 'sending') EXECUTE FUNCTION public.wait();
    SELECT pg_advisory_lock(1, 1)";

/// A session that waits for a row another transaction has changed.
const WAITS_FOR_A_ROW: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'transactionid')";

async fn somebody_waits_for_a_row(conn: &mut PgConnection) {
    let began = Instant::now();
    while !sqlx::query_scalar::<_, bool>(WAITS_FOR_A_ROW)
        .fetch_one(&mut *conn)
        .await
        .unwrap()
    {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody takes the mark back");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_whose_commit_is_not_answered_in_time_is_taken_back_for_nothing_was_sent() {
    let shop = Shop::new().await;
    let id = queued_text(&shop).await;
    let mut lock = shop.superuser().await;
    sqlx::raw_sql(COMMITS_WAIT).execute(&mut lock).await.unwrap();
    let (store, _credentials) = shop.impatient_store(Duration::from_secs(4));
    let courier = Courier::new("sms", store, NonZeroU32::MIN, shop.metrics.clone());
    let delivering = tokio::spawn(async move {
        let send = async |(), begin: Begin| -> Result<Handover, StoreError> {
            begin.await?;
            panic!("sent, though the row may not say so")
        };
        courier.deliver(id, patience(), || Ok(()), send).await
    });
    // The courier does not know whether the row is marked, and what takes the mark back waits for that commit.
    somebody_waits_for_a_row(&mut lock).await;
    sqlx::query("SELECT pg_advisory_unlock(1, 1)")
        .execute(&mut lock)
        .await
        .unwrap();

    let settled = delivering.await.unwrap().unwrap();
    assert!(matches!(settled, Settled::TryAgain { .. }), "{settled:?}");
    let delivery = shop.rows().await.sms[0].delivery.clone();
    // Twice: it had been tried before, and the mark was committed in the end.
    assert_eq!((delivery.status, delivery.attempts), (NotificationStatus::Queued, 2));
    assert_eq!(shop.sms.sent().len(), 1);
    shop.remove().await;
}
