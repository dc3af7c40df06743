//! A load of all kinds of transactions, and a ledger of everything that was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use row_id::{OrderId, UserId};

use crate::invoices::Invoice;
use crate::notifications::{Claimed, NewNotifications, NotificationId, SendOutcome};
use crate::orders::OrderStatus;
use crate::outbox::EventKind;
use crate::tests::orders::{new_order, order_of, render_order};
use crate::tests::shards::{Shards, key, new_user, render_user, user_of};
use crate::{BasedOn, IdempotencyKey, ReadAt, ReadTokens, Store, StoredResponse, Written};

/// What callers were told.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) users: BTreeMap<UserId, User>,
    pub(super) orders: BTreeMap<OrderId, Order>,
    pub(super) emails: u64,
    pub(super) sms: u64,
}

pub(super) struct User {
    version: i64,
    key: IdempotencyKey,
    first: StoredResponse,
}

pub(super) struct Order {
    user: UserId,
    version: i64,
    key: IdempotencyKey,
    first: StoredResponse,
    events: u64,
}

pub(super) struct Load {
    stop: Arc<AtomicBool>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// `writers` clients at once; none of their requests may fail.
    pub(super) fn start(store: &Store, notifier: &Store, writers: usize) -> Self {
        let (stop, ledger) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let writers = (0..writers)
            .map(|_| {
                let client = Client {
                    store: store.clone(),
                    notifier: notifier.clone(),
                    ledger: Arc::clone(&ledger),
                };
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        client.round().await;
                    }
                })
            })
            .collect();
        Self { stop, ledger, writers }
    }

    /// Lets each client finish its round; panics if one met an error.
    pub(super) async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.unwrap();
        }
        Arc::into_inner(self.ledger).unwrap().into_inner().unwrap()
    }

    pub(super) async fn wait_for_orders(&self, more: usize) {
        let before = self.ledger.lock().unwrap().orders.len();
        let began = std::time::Instant::now();
        while self.ledger.lock().unwrap().orders.len() < before + more {
            assert!(began.elapsed() < Duration::from_secs(60), "the load stands still");
            assert!(
                !self.writers.iter().any(|writer| writer.is_finished()),
                "a client met an error"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Client {
    store: Store,
    notifier: Store,
    ledger: Arc<Mutex<Ledger>>,
}

impl Client {
    async fn round(&self) {
        let user = self.create_user().await;
        let orders = [self.place(user).await, self.place(user).await];
        self.update_user(user).await;
        self.process(orders[0]).await;
        self.invoice(orders[0]).await;
        self.notify(orders[0]).await;
        self.repeat_an_old_request().await;
    }

    async fn create_user(&self) -> UserId {
        let key = key();
        let written = self
            .store
            .create_user(key.clone(), new_user(), render_user)
            .await
            .unwrap();
        let user = user_of(&written);
        let entry = User {
            version: 1,
            key,
            first: written.response,
        };
        self.ledger.lock().unwrap().users.insert(user, entry);
        user
    }

    async fn place(&self, user: UserId) -> OrderId {
        let key = key();
        let written = self
            .store
            .create_order(key.clone(), new_order(user), render_order)
            .await
            .unwrap();
        let order = order_of(&written);
        self.see(order, &written).await;
        let entry = Order {
            user,
            version: 1,
            key,
            first: written.response,
            events: 1,
        };
        self.ledger.lock().unwrap().orders.insert(order, entry);
        order
    }

    /// A session read is never older than its token.
    async fn see(&self, order: OrderId, written: &Written) {
        let mut tokens = ReadTokens::default();
        tokens.add(written.token);
        for at in [ReadAt::session(tokens), ReadAt::strong()] {
            let read = self.store.get_order(order, &at).await.unwrap();
            assert!(read.value.is_some(), "an acknowledged order is not seen");
        }
    }

    async fn update_user(&self, user: UserId) {
        self.store
            .update_user(key(), user, BasedOn::Any, new_user(), render_user)
            .await
            .unwrap();
        self.ledger.lock().unwrap().users.get_mut(&user).unwrap().version += 1;
    }

    async fn process(&self, order: OrderId) {
        self.store
            .set_order_status(key(), order, OrderStatus::Processed, BasedOn::version(1), render_order)
            .await
            .unwrap();
        self.changed(order);
    }

    async fn invoice(&self, order: OrderId) {
        let render = |invoice: &Invoice| StoredResponse {
            status: 201,
            location: Some(format!("/v1/invoices/{}", invoice.invoice_id)),
            etag: None,
            body: invoice.number.clone(),
        };
        self.store
            .generate_invoice(key(), order, |_, _| serde_json::json!({"lines": []}), render)
            .await
            .unwrap();
        self.changed(order);
    }

    fn changed(&self, order: OrderId) {
        let mut ledger = self.ledger.lock().unwrap();
        let entry = ledger.orders.get_mut(&order).unwrap();
        entry.version += 1;
        entry.events += 1;
    }

    async fn notify(&self, order: OrderId) {
        let new = NewNotifications {
            order_id: order,
            kind: EventKind::OrderProcessed,
            sequence: 2,
            email_address: Some("ada@example.org".to_owned()),
            mobile_number: Some("+441234567890".to_owned()),
            invoice_id: None,
        };
        let queued = self.notifier.queue_notifications(new).await.unwrap();
        let id = NotificationId::Email(queued.email.unwrap().email_id);
        let lease = match self
            .notifier
            .claim_notification(id, Duration::from_secs(60))
            .await
            .unwrap()
        {
            Claimed::Ours(lease) => lease,
            other => panic!("{other:?}"),
        };
        self.notifier.begin_sending(&lease).await.unwrap();
        let sent = SendOutcome::Sent {
            provider_reference: None,
        };
        self.notifier.record_outcome(&lease, sent).await.unwrap();
        let mut ledger = self.ledger.lock().unwrap();
        ledger.emails += 1;
        ledger.sms += 1;
    }

    async fn repeat_an_old_request(&self) {
        let (user, key, first) = {
            let ledger = self.ledger.lock().unwrap();
            let at = rand::random_range(0..ledger.orders.len());
            let order = ledger.orders.values().nth(at).unwrap();
            (order.user, order.key.clone(), order.first.clone())
        };
        let again = self
            .store
            .create_order(key, new_order(user), render_order)
            .await
            .unwrap();
        assert!(
            again.repeated && again.response == first,
            "a repeat gets its first answer"
        );
    }
}

impl Ledger {
    /// Every acknowledged write is there, once, and nothing else is.
    pub(super) async fn assert_kept(&self, shards: &Shards) {
        let strong = ReadAt::strong();
        for (id, user) in &self.users {
            let found = shards.store.get_user(*id, &strong).await.unwrap().value.unwrap();
            assert_eq!(found.version, user.version, "user {id}");
        }
        for (id, order) in &self.orders {
            let found = shards.store.get_order(*id, &strong).await.unwrap().value.unwrap();
            assert_eq!(
                (found.version, found.user_id),
                (order.version, order.user),
                "order {id}"
            );
        }
        let events: u64 = self.orders.values().map(|order| order.events).sum();
        let invoices = self.orders.values().filter(|order| order.events == 3).count();
        for (table, told) in [
            ("shop.users", self.users.len() as u64),
            ("shop.orders", self.orders.len() as u64),
            ("shop.invoices", invoices as u64),
            ("shop.emails", self.emails),
            ("shop.sms", self.sms),
            ("ringwright.outbox", events),
            // An address and a number of each user; those of before an update have been released.
            ("ringwright.contact_claims", 2 * self.users.len() as u64),
        ] {
            let found = shards.total(&format!("SELECT count(*) FROM {table}")).await;
            if found != told.cast_signed() {
                let claims = all_claims(shards).await;
                panic!("{table}: {found} rows, {told} were told of; all claims:\n{claims}");
            }
        }
    }

    /// Repeats of the requests that created users and orders get their first answers.
    pub(super) async fn assert_repeats(&self, store: &Store, some: usize) {
        for user in self.users.values().take(some) {
            let again = store
                .create_user(user.key.clone(), new_user(), render_user)
                .await
                .unwrap();
            assert!(again.repeated && again.response == user.first);
        }
        for order in self.orders.values().take(some) {
            let again = store
                .create_order(order.key.clone(), new_order(order.user), render_order)
                .await
                .unwrap();
            assert!(again.repeated && again.response == order.first);
        }
    }
}

/// A line each: what a release that failed, or a row that came back, leaves can be told from it.
async fn all_claims(shards: &Shards) -> String {
    const CLAIMS: &str =
        "SELECT coalesce(string_agg(concat_ws(' ', claim_id, kind, user_id, state, updated_at, xmin), E'\n'
        ORDER BY user_id, kind), '') FROM ringwright.contact_claims";
    let mut all = Vec::new();
    for shard in shards.store.shards() {
        let claims: String = shards.scalar(shard, CLAIMS).await;
        all.push(format!("shard {shard}:\n{claims}"));
    }
    all.join("\n")
}
