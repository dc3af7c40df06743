//! A shard of its own for each test, with a user and an order, and a notifier on it.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use broker::{Delivery, Event, EventKind, Handler, Outcome};
use chrono::{DateTime, Utc};
use notifier::{
    courier::Courier,
    email::{Smtp, SmtpLimits},
    handler::EventHandler,
    metrics::Metrics,
    notify::Notify,
    templates::Templates,
};
use prometheus_client::registry::Registry;
use ring::{Epoch, Ordinal, Ring, Shard, ShardState, Weight, plan};
use row_id::{EventId, InvoiceId, OrderId, UserId};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use store::{
    IdempotencyKey, RequestHash, Store, StoreConfig, StoredResponse, Written,
    admin::{self, Passwords, PgSslMode, Role, ShardIdentity},
    notifications::OrderNotifications,
    orders::NewOrder,
    users::NewUser,
};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::providers::{MailServer, SmsScript};

const PASSWORD: &str = "only-for-tests";
/// Long enough for a machine that is busy with other tests.
const WRITE_DEADLINE: Duration = Duration::from_secs(8);
/// Roles belong to the whole server, and two sessions must not make them at the same time.
static PREPARING: Mutex<()> = Mutex::const_new(());

pub(crate) struct Shop {
    pub(crate) app: Store,
    pub(crate) notify: Arc<Notify>,
    pub(crate) metrics: Metrics,
    pub(crate) mail: MailServer,
    pub(crate) sms: Arc<SmsScript>,
    pub(crate) user: UserId,
    pub(crate) order: OrderId,
    server: PgConnectOptions,
    database: String,
    ring: watch::Sender<Arc<Ring>>,
    _folders: [TempDir; 2],
}

impl Shop {
    pub(crate) async fn new() -> Self {
        Self::giving_up_after(Duration::from_secs(3600)).await
    }

    pub(crate) async fn giving_up_after(give_up_after: Duration) -> Self {
        let url = std::env::var("RINGWRIGHT_TEST_POSTGRES").expect(
            "set RINGWRIGHT_TEST_POSTGRES to the URL of a superuser on a PostgreSQL 17 that the tests may use, such as \
             postgres://postgres@127.0.0.1:5432/postgres (`make test` starts one)",
        );
        let server: PgConnectOptions = url.parse().unwrap();
        let database = format!("notifier_test_{:016x}", rand::random::<u64>());
        let ring = watch::Sender::new(Arc::new(one_shard(&server, &database).await));
        let (app, app_folder) = open(&ring, &database, Role::App, WRITE_DEADLINE);
        let (store, store_folder) = open(&ring, &database, Role::Notifier, WRITE_DEADLINE);
        let (mail, sms) = (MailServer::start().await, Arc::new(SmsScript::default()));
        let metrics = Metrics::new(&mut Registry::default());
        let rate = NonZeroU32::new(1000).unwrap();
        let notify = Arc::new(Notify {
            templates: Templates::load(None).unwrap(),
            sender: "Shop <orders@shop.example>".parse().unwrap(),
            smtp: Smtp::new(mail.url_file(), SmtpLimits::default()).await.unwrap(),
            sms: Arc::clone(&sms) as Arc<_>,
            email_courier: Courier::new("email", store.clone(), rate, metrics.clone()),
            sms_courier: Courier::new("sms", store.clone(), rate, metrics.clone()),
            give_up_after,
            store,
        });
        let (user, order) = order_of_a_user(&app).await;
        Self {
            app,
            notify,
            metrics,
            mail,
            sms,
            user,
            order,
            server,
            database,
            ring,
            _folders: [app_folder, store_folder],
        }
    }

    pub(crate) fn event(&self, kind: EventKind, invoice: Option<InvoiceId>) -> Event {
        self.event_at(kind, invoice, Utc::now())
    }

    pub(crate) fn event_at(&self, kind: EventKind, invoice: Option<InvoiceId>, at: DateTime<Utc>) -> Event {
        let id = EventId::generate(self.user.position());
        Event::new(id, kind, 2, self.user, self.order, invoice, at)
    }

    /// Has the event handled as if it came from the broker.
    pub(crate) async fn handle(&self, event: &Event, attempt: u32) -> Outcome {
        let handler = EventHandler::new(Arc::clone(&self.notify), self.metrics.clone());
        handler
            .handle(Delivery {
                event: event.clone(),
                attempt,
                redelivered: false,
            })
            .await
    }

    pub(crate) async fn rows(&self) -> OrderNotifications {
        self.app
            .order_notifications(self.order, &store::ReadAt::strong())
            .await
            .unwrap()
            .value
    }

    pub(crate) async fn generate_invoice(&self) -> InvoiceId {
        let details = |order: &store::orders::Order, user: &store::users::User| {
            serde_json::json!({
                "format": 1, "order_id": order.order_id, "ordered_at": order.created_at,
                "currency": "EUR", "total_minor": order.total_minor, "lines": order.order_details["lines"],
                "customer": {
                    "first_name": user.first_name, "last_name": user.last_name, "email_address": user.email_address,
                    "locale": user.locale, "time_zone": user.time_zone,
                },
            })
        };
        let render = |invoice: &store::invoices::Invoice| response(invoice.invoice_id);
        id_of(
            &self
                .app
                .generate_invoice(key(), self.order, details, render)
                .await
                .unwrap(),
        )
        .parse()
        .unwrap()
    }

    /// The notifier's store once more, which gives a write up after `write_deadline`.
    pub(crate) fn impatient_store(&self, write_deadline: Duration) -> (Store, TempDir) {
        open(&self.ring, &self.database, Role::Notifier, write_deadline)
    }

    /// A session behind the store's back.
    pub(crate) async fn superuser(&self) -> PgConnection {
        self.server.clone().database(&self.database).connect().await.unwrap()
    }

    /// Changes rows behind the store's back, as a superuser.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut conn = self.superuser().await;
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }

    /// Removes the database; that of a test that failed stays for a look.
    pub(crate) async fn remove(self) {
        self.notify.store.close().await;
        self.app.close().await;
        let mut conn = self.server.connect().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.database));
        sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    }
}

async fn one_shard(server: &PgConnectOptions, database: &str) -> Ring {
    let tokens = plan(None, &[(Ordinal(0), Weight::ONE)]).unwrap();
    let host = format!("{}:{}", server.get_host(), server.get_port());
    let shard = Shard {
        name: "test-0".to_owned(),
        ordinal: Ordinal(0),
        state: ShardState::Active,
        hosts: vec![host],
    };
    let ring = Ring::new(Epoch(1), vec![shard], tokens).unwrap();
    let password = || PASSWORD.to_owned().into();
    let passwords = Passwords {
        app: password(),
        notifier: password(),
        mover: password(),
        replication: password(),
        rewind: password(),
        monitor: password(),
    };
    let mut conn = server.connect().await.unwrap();
    admin::ensure_database(&mut conn, database).await.unwrap();
    {
        let _alone = PREPARING.lock().await;
        admin::ensure_roles(&mut conn, database, &passwords).await.unwrap();
    }
    let mut conn = server.clone().database(database).connect().await.unwrap();
    admin::migrate(&mut conn).await.unwrap();
    let identity = ShardIdentity {
        cluster_uid: "notifier-test".to_owned(),
        ordinal: Ordinal(0),
    };
    admin::ensure_identity(&mut conn, &identity).await.unwrap();
    let ranges: Vec<_> = ring.ranges().into_iter().map(|(range, _)| range).collect();
    admin::claim_initial_ranges(&mut conn, &ranges).await.unwrap();
    ring
}

fn open(ring: &watch::Sender<Arc<Ring>>, database: &str, role: Role, write_deadline: Duration) -> (Store, TempDir) {
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("username"), role.name()).unwrap();
    std::fs::write(credentials.path().join("password"), PASSWORD).unwrap();
    let mut config = StoreConfig::new("notifier-test", credentials.path());
    config.database = database.to_owned();
    config.ssl_mode = PgSslMode::Disable;
    config.write_deadline = write_deadline;
    (Store::open(config, ring.subscribe()).unwrap(), credentials)
}

async fn order_of_a_user(app: &Store) -> (UserId, OrderId) {
    let number: u32 = rand::random();
    let user = NewUser {
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        email_address: format!("ada.{number}@example.org"),
        mobile_number: format!("+44{number:010}"),
        locale: "de-AT".to_owned(),
        time_zone: "Europe/Vienna".to_owned(),
    };
    let render = |user: &store::users::User| response(user.user_id);
    let user: UserId = id_of(&app.create_user(key(), user, render).await.unwrap())
        .parse()
        .unwrap();
    let line = serde_json::json!({"sku": "TEA-1", "description": "Teekanne", "quantity": 2, "unit_price_minor": 1999});
    let order = NewOrder {
        user_id: user,
        currency: "EUR".parse().unwrap(),
        total_minor: 3998,
        order_details: serde_json::json!({"lines": [line], "reference": "A-7"}),
    };
    let render = |order: &store::orders::Order| response(order.order_id);
    let order = id_of(&app.create_order(key(), order, render).await.unwrap())
        .parse()
        .unwrap();
    (user, order)
}

fn key() -> IdempotencyKey {
    let key = format!("{:032x}", rand::random::<u128>());
    IdempotencyKey {
        client: "test".to_owned(),
        key,
        request: RequestHash([0; 32]),
    }
}

fn response(id: impl std::fmt::Display) -> StoredResponse {
    StoredResponse {
        status: 201,
        location: None,
        etag: None,
        body: id.to_string(),
    }
}

fn id_of(written: &Written) -> &str {
    &written.response.body
}
