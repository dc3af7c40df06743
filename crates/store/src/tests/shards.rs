//! A cluster of shards for one test: migrated databases, their ring, and a store on them.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use ring::{Epoch, Ordinal, Range, Ring, Shard, ShardState, Tokens, Weight, plan};
use row_id::{OrderId, Position, UserId};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::sync::{Mutex, OnceCell, watch};
use uuid::Uuid;

use super::proxy::Proxy;
use crate::admin::{self, Passwords, Role, ShardIdentity};
use crate::users::{NewUser, User};
use crate::{IdempotencyKey, ReadAt, RequestHash, Store, StoreConfig, StoredResponse, Written};

/// Databases are named by the process that made them, so that those of a dead one can be dropped.
const PREFIX: &str = "ringwright_store_test_";

/// For what a busy machine, or one that stops for some seconds, does in the end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
/// Held by whoever makes a database, which makes the roles right, or looks at the roles.
pub(super) static CREATING: Mutex<()> = Mutex::const_new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

pub(super) struct Shards {
    pub(super) store: Store,
    pub(super) proxies: Vec<Proxy>,
    databases: Vec<String>,
    ring: watch::Sender<Arc<Ring>>,
    credentials: tempfile::TempDir,
}

pub(super) fn server() -> PgConnectOptions {
    let url = std::env::var("RINGWRIGHT_TEST_POSTGRES").expect(
        "RINGWRIGHT_TEST_POSTGRES must name a superuser's URL on a throw-away PostgreSQL 17, such as \
         postgres://postgres@127.0.0.1:5432/postgres (`make test` starts one)",
    );
    PgConnectOptions::from_str(&url).unwrap().disable_statement_logging()
}

pub(super) async fn superuser(database: &str) -> PgConnection {
    PgConnection::connect_with(&server().database(database)).await.unwrap()
}

pub(super) async fn run(conn: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await.unwrap();
}

/// The SQLSTATE a statement is refused with.
pub(super) async fn refusal(conn: &mut PgConnection, sql: impl Into<String>) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.as_database_error().unwrap().code().unwrap().into_owned(),
    }
}

pub(super) fn passwords() -> Passwords {
    let password = |role: Role| format!("test-{}", role.name()).into();
    Passwords {
        app: password(Role::App),
        notifier: password(Role::Notifier),
        mover: password(Role::Mover),
        replication: password(Role::Replication),
        rewind: password(Role::Rewind),
        monitor: password(Role::Monitor),
    }
}

fn next_name() -> String {
    format!(
        "{PREFIX}{}_{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::SeqCst)
    )
}

/// A migrated database to copy.
async fn template() -> &'static str {
    let make = || async {
        let mut conn = superuser("postgres").await;
        drop_databases_of_the_dead(&mut conn).await;
        let name = empty_database().await;
        let mut inside = superuser(&name).await;
        admin::migrate(&mut inside).await.unwrap();
        inside.close().await.unwrap();
        name
    };
    TEMPLATE.get_or_init(make).await
}

async fn drop_databases_of_the_dead(conn: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
        .bind(PREFIX)
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    let of_the_dead = |name: &String| {
        let pid = name[PREFIX.len()..].split('_').next().unwrap();
        !std::path::Path::new("/proc").join(pid).exists()
    };
    let names: Vec<String> = names.into_iter().filter(of_the_dead).collect();
    drop_databases(&names).await;
}

/// A database with the roles and without a schema.
pub(super) async fn empty_database() -> String {
    let _one_at_a_time = CREATING.lock().await;
    let mut conn = superuser("postgres").await;
    let name = next_name();
    admin::ensure_database(&mut conn, &name).await.unwrap();
    admin::ensure_roles(&mut conn, &name, &passwords()).await.unwrap();
    name
}

/// A migrated database of its own.
pub(super) async fn database() -> String {
    let template = template().await;
    let _one_at_a_time = CREATING.lock().await;
    let mut conn = superuser("postgres").await;
    let name = next_name();
    run(&mut conn, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    admin::ensure_roles(&mut conn, &name, &passwords()).await.unwrap();
    name
}

pub(super) async fn drop_database(name: &str) {
    drop_databases(&[name.to_owned()]).await;
}

/// Subscriptions first, then slots: a database that has one cannot be dropped.
async fn drop_databases(names: &[String]) {
    for name in names {
        // Another process may have dropped it.
        let Ok(mut conn) = PgConnection::connect_with(&server().database(name)).await else {
            continue;
        };
        let subscriptions: Vec<String> = sqlx::query_scalar(
            "SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
             WHERE d.datname = current_database()",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        for subscription in subscriptions {
            run(&mut conn, format!("ALTER SUBSCRIPTION {subscription} DISABLE")).await;
            run(
                &mut conn,
                format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)"),
            )
            .await;
            run(&mut conn, format!("DROP SUBSCRIPTION {subscription}")).await;
        }
    }
    for name in names {
        let Ok(mut conn) = PgConnection::connect_with(&server().database(name)).await else {
            continue;
        };
        let slots = "SELECT CASE WHEN active THEN pg_terminate_backend(active_pid)::text
                                 ELSE pg_drop_replication_slot(slot_name)::text END
                     FROM pg_replication_slots WHERE database = current_database()";
        // In use for a moment by a worker that is ending: again.
        while !sqlx::query(slots)
            .fetch_all(&mut conn)
            .await
            .is_ok_and(|slots| slots.is_empty())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        conn.close().await.unwrap();
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        run(&mut superuser("postgres").await, drop).await;
    }
}

/// Patient: tests of giving up set times of their own.
fn config(program: &str, credentials: &tempfile::TempDir) -> StoreConfig {
    let mut config = StoreConfig::new(program, credentials.path());
    config.ssl_mode = PgSslMode::Disable;
    config.write_deadline = PATIENCE;
    config.read_deadline = PATIENCE;
    config.pool.acquire_timeout = PATIENCE;
    config
}

impl Shards {
    pub(super) async fn start(count: u16) -> Self {
        Self::with(count, |_| {}).await
    }

    pub(super) async fn with(count: u16, configure: impl FnOnce(&mut StoreConfig)) -> Self {
        let options = server();
        let upstream = format!("{}:{}", options.get_host(), options.get_port());
        let weights: Vec<_> = (0..count)
            .map(|ordinal| (Ordinal(ordinal), Weight::new(1).unwrap()))
            .collect();
        let tokens = plan(None, &weights).unwrap();
        let (mut databases, mut proxies) = (Vec::new(), Vec::new());
        for ordinal in 0..count {
            let name = database().await;
            let mut conn = superuser(&name).await;
            let identity = ShardIdentity {
                cluster_uid: "test".to_owned(),
                ordinal: Ordinal(ordinal),
            };
            admin::ensure_identity(&mut conn, &identity).await.unwrap();
            admin::claim_initial_ranges(&mut conn, &ranges_of(&tokens, Ordinal(ordinal)))
                .await
                .unwrap();
            proxies.push(Proxy::start(upstream.clone(), name.clone()).await);
            databases.push(name);
        }
        let ring = watch::Sender::new(Arc::new(ring_of(1, tokens, &proxies)));
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(credentials.path().join("username"), "ringwright_app\n").unwrap();
        std::fs::write(credentials.path().join("password"), "test-ringwright_app").unwrap();
        let mut config = config("store-test", &credentials);
        config.pool.connections = 8;
        configure(&mut config);
        let store = Store::open(config, ring.subscribe()).unwrap();
        Self {
            store,
            proxies,
            databases,
            ring,
            credentials,
        }
    }

    /// Another program on the same shards, logged in as `role`.
    pub(super) fn other_store(&self, role: Role) -> (Store, tempfile::TempDir) {
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(credentials.path().join("username"), role.name()).unwrap();
        std::fs::write(credentials.path().join("password"), format!("test-{}", role.name())).unwrap();
        let config = config("store-test-other", &credentials);
        (Store::open(config, self.ring.subscribe()).unwrap(), credentials)
    }

    /// The directory of the app's user name and password.
    pub(super) fn credentials(&self) -> &std::path::Path {
        self.credentials.path()
    }

    pub(super) fn host(&self, shard: u16) -> String {
        self.proxies[usize::from(shard)].address.to_string()
    }

    pub(super) fn database(&self, shard: u16) -> &str {
        &self.databases[usize::from(shard)]
    }

    pub(super) async fn superuser(&self, shard: Ordinal) -> PgConnection {
        superuser(&self.databases[usize::from(shard.0)]).await
    }

    pub(super) fn owner(&self, position: Position) -> Ordinal {
        self.store.ring().locate(position).ordinal
    }

    /// Publishes the same shards under new tokens.
    pub(super) fn publish(&self, tokens: Tokens) {
        let epoch = self.ring.borrow().epoch().get() + 1;
        self.ring.send_replace(Arc::new(ring_of(epoch, tokens, &self.proxies)));
    }

    /// Adds a member to the only shard.
    pub(super) fn add_replica(&self, replica: &Proxy) {
        self.add_member(0, replica.address.to_string());
    }

    /// Adds a member to a shard, as far as the ring says.
    pub(super) fn add_member(&self, shard: usize, host: String) {
        let ring = Arc::clone(&self.ring.borrow());
        let mut shards = ring.shards().to_vec();
        shards[shard].hosts.push(host);
        let next = Ring::new(Epoch(ring.epoch().get() + 1), shards, ring.tokens().clone()).unwrap();
        self.ring.send_replace(Arc::new(next));
    }

    pub(super) async fn scalar<T>(&self, shard: Ordinal, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.superuser(shard).await)
            .await
            .unwrap()
    }

    /// The same over all shards, added up.
    pub(super) async fn total(&self, sql: &str) -> i64 {
        let mut total = 0;
        for shard in self.store.shards() {
            total += self.scalar::<i64>(shard, sql).await;
        }
        total
    }

    pub(super) async fn execute(&self, shard: Ordinal, sql: impl Into<String>) {
        run(&mut self.superuser(shard).await, sql).await;
    }

    /// A counter of the store as a program shows it, such as `reads_total{role="master"}`.
    pub(super) fn counted(&self, counter: &str) -> u64 {
        let mut registry = Registry::default();
        self.store.register_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let name = format!("store_{counter} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value
            .unwrap_or_else(|| panic!("{counter} is not in {text}"))
            .parse()
            .unwrap()
    }

    /// Patient also where the test's deadlines are short.
    pub(super) async fn create(&self, new: &NewUser) -> UserId {
        let (key, began) = (key(), Instant::now());
        loop {
            match self.store.create_user(key.clone(), new.clone(), render_user).await {
                Ok(written) => return user_of(&written),
                Err(error) if error.retry_after().is_some() && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    pub(super) async fn create_user(&self) -> UserId {
        self.create(&new_user()).await
    }

    /// A user as its master has it.
    pub(super) async fn user(&self, id: UserId) -> User {
        let read = self.store.get_user(id, &ReadAt::strong()).await.unwrap();
        read.value.unwrap()
    }

    /// Whether its master has an order.
    pub(super) async fn has_order(&self, id: OrderId) -> bool {
        let read = self.store.get_order(id, &ReadAt::strong()).await.unwrap();
        read.value.is_some()
    }

    /// Call at the end: databases of a test that failed stay for a look, until the next run.
    pub(super) async fn end(self) {
        self.store.close().await;
        drop(self.proxies);
        drop(self.credentials);
        drop_databases(&self.databases).await;
    }
}

pub(super) fn ranges_of(tokens: &Tokens, ordinal: Ordinal) -> Vec<Range> {
    tokens
        .ranges()
        .into_iter()
        .filter(|(_, owner)| *owner == ordinal)
        .map(|(range, _)| range)
        .collect()
}

fn ring_of(epoch: u64, tokens: Tokens, proxies: &[Proxy]) -> Ring {
    let shards = proxies.iter().zip(0..).map(|(proxy, ordinal)| Shard {
        name: format!("test-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: vec![proxy.address.to_string()],
    });
    Ring::new(Epoch(epoch), shards.collect(), tokens).unwrap()
}

/// A key nobody used before.
pub(super) fn key() -> IdempotencyKey {
    let key = Uuid::from_u128(rand::random()).to_string();
    IdempotencyKey {
        client: "test".to_owned(),
        key,
        request: RequestHash([7; 32]),
    }
}

/// A user nobody has created before.
pub(super) fn new_user() -> NewUser {
    let number: u32 = rand::random();
    NewUser {
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        email_address: format!("ada.{number}@example.org"),
        mobile_number: format!("+44{number:010}"),
        locale: "en-GB".to_owned(),
        time_zone: "Europe/London".to_owned(),
    }
}

/// The same with an email address that somebody may have.
pub(super) fn new_user_at(email_address: &str) -> NewUser {
    NewUser {
        email_address: email_address.to_owned(),
        ..new_user()
    }
}

pub(super) fn render_user(user: &User) -> StoredResponse {
    StoredResponse {
        status: 201,
        location: Some(format!("/v1/users/{}", user.user_id)),
        etag: Some(format!("\"{}\"", user.version)),
        body: format!("{{\"z\":1, \"user_id\":\"{}\",  \"a\":2}}", user.user_id),
    }
}

pub(super) fn user_of(written: &Written) -> UserId {
    let location = written.response.location.as_deref().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Waits for a condition, for a minute at least.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..6_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute: {what}");
}
