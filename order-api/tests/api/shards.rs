//! Real shards: databases of one test server, migrated and owning ranges as the operator would make them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ring::{EncodedRing, Epoch, Ordinal, Ring, Weight, plan};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Connection};
use store::admin::{self, Passwords, PgSslMode, ShardIdentity};
use store::{Store, StoreConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use crate::support::{Api, files, settings, shard};

const SHARDS: u16 = 2;
const PASSWORD: &str = "only-for-tests";

/// The databases that all tests share; the last one to end drops them.
struct Databases {
    server: PgConnectOptions,
    names: Vec<String>,
    ring: Ring,
}

static SHARED: Mutex<Weak<Databases>> = Mutex::const_new(Weak::new());

impl Databases {
    async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(databases) = shared.upgrade() {
            return databases;
        }
        let databases = Arc::new(Self::create().await);
        *shared = Arc::downgrade(&databases);
        databases
    }

    async fn create() -> Self {
        let url = std::env::var("RINGWRIGHT_TEST_POSTGRES").expect(
            "set RINGWRIGHT_TEST_POSTGRES to the URL of a superuser on a PostgreSQL 17 that the tests may use, such as \
             postgres://postgres@127.0.0.1:5432/postgres",
        );
        let server: PgConnectOptions = url.parse().unwrap();
        let set: u32 = rand::random();
        let names: Vec<_> = (0..SHARDS).map(|n| format!("order_api_test_{set:08x}_{n}")).collect();
        let weights: Vec<_> = (0..SHARDS).map(|n| (Ordinal(n), Weight::ONE)).collect();
        let tokens = plan(None, &weights).unwrap();
        let shards = (0..SHARDS).map(|n| shard(n, "nowhere:0")).collect();
        let ring = Ring::new(Epoch(1), shards, tokens).unwrap();
        for (n, name) in (0..).zip(&names) {
            create_shard(&server, name, Ordinal(n), &ring).await;
        }
        Self { server, names, ring }
    }
}

async fn create_shard(server: &PgConnectOptions, name: &str, ordinal: Ordinal, ring: &Ring) {
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
    admin::ensure_database(&mut conn, name).await.unwrap();
    admin::ensure_roles(&mut conn, name, &passwords).await.unwrap();
    let mut conn = server.clone().database(name).connect().await.unwrap();
    admin::migrate(&mut conn).await.unwrap();
    let identity = ShardIdentity {
        cluster_uid: "order-api-test".to_owned(),
        ordinal,
    };
    admin::ensure_identity(&mut conn, &identity).await.unwrap();
    let ranges = ring.ranges().into_iter().filter(|(_, owner)| *owner == ordinal);
    let ranges: Vec<_> = ranges.map(|(range, _)| range).collect();
    admin::claim_initial_ranges(&mut conn, &ranges).await.unwrap();
}

impl Drop for Databases {
    fn drop(&mut self) {
        let (server, names) = (self.server.clone(), std::mem::take(&mut self.names));
        // A destructor cannot wait for a future, and the runtime of the last test is about to end.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut conn = server.connect().await.unwrap();
                for name in names {
                    let sql = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
                    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
                }
            });
        });
        dropping.join().expect("the test databases are dropped");
    }
}

/// The way to one database: a proxy whose address stands for the shard's host, since all shards of a ring have the same
/// database name and these share a server. Closing it is how a shard goes away.
struct Door {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Door {
    async fn open(server: &PgConnectOptions, database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = format!("{}:{}", server.get_host(), server.get_port());
        let database = database.to_owned();
        let accepting = tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                passing.spawn(pass(client, upstream.clone(), database.clone()));
            }
        });
        Self {
            address,
            accepting: accepting.abort_handle(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection, with the database of its startup message exchanged.
async fn pass(mut client: TcpStream, upstream: String, database: String) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let length = client.read_u32().await?;
    let mut message = vec![0; length as usize - 4];
    client.read_exact(&mut message).await?;
    const STARTUP: [u8; 4] = [0, 3, 0, 0];
    if message.starts_with(&STARTUP) {
        message = with_database(&message, &database);
    }
    server.write_u32(message.len() as u32 + 4).await?;
    server.write_all(&message).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// The startup message is the protocol's version and pairs of name and value, each ended by a zero byte.
fn with_database(message: &[u8], database: &str) -> Vec<u8> {
    let (version, pairs) = message.split_at(4);
    let words: Vec<&[u8]> = pairs.split(|byte| *byte == 0).collect();
    let mut changed = version.to_vec();
    for pair in words.chunks_exact(2).take_while(|pair| !pair[0].is_empty()) {
        let value = if pair[0] == b"database" {
            database.as_bytes()
        } else {
            pair[1]
        };
        changed.extend([pair[0], b"\0", value, b"\0"].concat());
    }
    changed.push(0);
    changed
}

/// The service over real shards.
pub(crate) struct ShardedApi {
    /// The service.
    pub(crate) api: Api,
    doors: Vec<Option<Door>>,
    databases: Arc<Databases>,
}

impl std::ops::Deref for ShardedApi {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl ShardedApi {
    /// The service with its own way to the shared databases.
    pub(crate) async fn start() -> Self {
        Self::over(Databases::shared().await).await
    }

    /// The service over databases that no other test writes to.
    pub(crate) async fn alone() -> Self {
        Self::over(Arc::new(Databases::create().await)).await
    }

    async fn over(databases: Arc<Databases>) -> Self {
        let mut doors = Vec::new();
        for name in &databases.names {
            doors.push(Some(Door::open(&databases.server, name).await));
        }
        let shards = (0..)
            .zip(&doors)
            .map(|(n, door)| shard(n, &door.as_ref().unwrap().address.to_string()));
        let ring = Ring::new(Epoch(1), shards.collect(), databases.ring.tokens().clone()).unwrap();
        let files = files();
        let credentials = files.path().join("database");
        std::fs::write(credentials.join("username"), "ringwright_app").unwrap();
        std::fs::write(credentials.join("password"), PASSWORD).unwrap();
        let mut config = StoreConfig::new("order-api-test", credentials);
        config.ssl_mode = PgSslMode::Disable;
        // No test waits for them.
        config.write_deadline = Duration::from_secs(60);
        config.read_deadline = Duration::from_secs(60);
        let store = Store::open(config, watch::channel(Arc::new(ring)).1).unwrap();
        Self {
            api: Api::over(store, settings(), files),
            doors,
            databases,
        }
    }

    /// The ring of these shards as the operator publishes it and a pod has it mounted.
    pub(crate) fn mount_ring(&self, directory: &Path) {
        let EncodedRing {
            ring_json,
            tokens,
            digest,
        } = ring::encode(&self.store.ring());
        std::fs::write(directory.join("ring.json"), ring_json).unwrap();
        std::fs::write(directory.join("digest"), digest).unwrap();
        std::fs::write(directory.join("tokens"), tokens).unwrap();
    }

    /// Cuts the service off from a shard.
    pub(crate) fn cut_off(&mut self, shard: Ordinal) {
        self.doors[usize::from(shard.get())] = None;
    }

    /// A superuser's connection to a shard, to see what really is there.
    pub(crate) async fn look_into(&self, shard: Ordinal) -> PgConnection {
        let name = &self.databases.names[usize::from(shard.get())];
        self.databases.server.clone().database(name).connect().await.unwrap()
    }

    /// A superuser's connections to each shard.
    pub(crate) async fn pools(&self) -> BTreeMap<u16, PgPool> {
        let mut pools = BTreeMap::new();
        for (shard, name) in (0..).zip(&self.databases.names) {
            let options = self.databases.server.clone().database(name);
            pools.insert(shard, PgPool::connect_with(options).await.unwrap());
        }
        pools
    }

    /// How many rows `sql` counts on a shard; its one parameter is an id.
    pub(crate) async fn count(&self, shard: Ordinal, sql: &'static str, id: &str) -> i64 {
        let id: uuid::Uuid = id.parse().unwrap();
        let mut conn = self.look_into(shard).await;
        let count = sqlx::query_scalar(sql).bind(id).fetch_one(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        count
    }

    /// A new user; its id.
    pub(crate) async fn user(&self) -> String {
        self.post("/v1/users")
            .json(&crate::support::a_user())
            .send()
            .await
            .expect(201)
            .text("user_id")
    }

    /// A new order of a user; its id.
    pub(crate) async fn order(&self, user: &str) -> String {
        let path = format!("/v1/users/{user}/orders");
        self.post(&path)
            .json(&crate::support::an_order())
            .send()
            .await
            .expect(201)
            .text("order_id")
    }
}
