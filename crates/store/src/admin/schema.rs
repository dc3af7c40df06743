//! The schema's migrations.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgConnection, Row, SqlStr};

use super::roles::{OWNER, ensure_execute};
use super::{AdminError, failed};

/// Version, name and text of each migration in their order, as `build.rs` found them.
const EMBEDDED: &[(i64, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
/// How a migration begins that cannot run in a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

/// The newest migration a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion(pub i64);

/// Brings the schema to this program's newest version, as role `ringwright_owner`. `conn` is a superuser's, on the
/// shop's database, after [`super::ensure_roles`].
///
/// Each file runs in one transaction, so a failed or interrupted call is simply made again. A database that is newer
/// than this program is left alone and refused. Two calls at once on one database take turns: each file is applied under
/// an advisory lock (taken by sqlx), after a look at what is applied already.
pub async fn migrate(conn: &mut PgConnection) -> Result<SchemaVersion, AdminError> {
    migrate_telling(conn, |_| {}).await
}

/// [`migrate`], which tells each version before it applies it.
pub async fn migrate_telling(
    conn: &mut PgConnection,
    tell: impl FnMut(SchemaVersion) + Send,
) -> Result<SchemaVersion, AdminError> {
    // The fence lets a range be cleaned only in a session that has a replication origin, and asks for it as the owner. By
    // default the superuser alone may ask.
    ensure_execute(conn, OWNER, "pg_catalog.pg_replication_origin_session_is_setup()").await?;
    let operation = || format!("take the role `{OWNER}` for the migrations");
    sqlx::raw_sql("SET ROLE ringwright_owner")
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let ran = run_one_by_one(conn, tell).await;
    sqlx::raw_sql("RESET ROLE")
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    ran?;
    Ok(newest_schema_version())
}

async fn run_one_by_one(conn: &mut PgConnection, mut tell: impl FnMut(SchemaVersion) + Send) -> Result<(), AdminError> {
    let applied = schema_version(conn).await?;
    let mut one = migrator();
    // Whoever is newer than this program may be at work at the same time; the last run below refuses that.
    one.set_ignore_missing(true);
    for version in EMBEDDED.iter().map(|(version, ..)| *version) {
        if applied.is_none_or(|applied| applied.0 < version) {
            tell(SchemaVersion(version));
            one.run_direct(Some(version), conn, false).await?;
        }
    }
    Ok(migrator().run_direct(None, conn, false).await?)
}

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(embedded());
    migrator.create_schema("ringwright");
    migrator.dangerous_set_table_name("ringwright.schema_migrations");
    migrator
}

fn embedded() -> Vec<Migration> {
    let migration = |&(version, name, text): &(i64, &'static str, &'static str)| {
        let alone = text.starts_with(NO_TRANSACTION);
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            SqlStr::from_static(text),
            alone,
        )
    };
    EMBEDDED.iter().map(migration).collect()
}

/// The server's process behind a connection, to look at it from another one.
pub async fn backend(conn: &mut PgConnection) -> Result<i32, AdminError> {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(conn)
        .await
        .map_err(failed(|| "ask for the server's process".to_owned()))
}

/// How many sessions the one behind `backend` waits for, because they hold locks; `None` when it is gone.
pub async fn blockers(conn: &mut PgConnection, backend: i32) -> Result<Option<i32>, AdminError> {
    sqlx::query_scalar("SELECT cardinality(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE pid = $1")
        .bind(backend)
        .fetch_optional(conn)
        .await
        .map_err(failed(|| format!("look at the server's process {backend}")))
}

/// The newest migration this program carries.
pub fn newest_schema_version() -> SchemaVersion {
    SchemaVersion(EMBEDDED.iter().map(|(version, ..)| *version).max().unwrap_or(0))
}

/// The newest migration the database has; `None` before the first.
pub async fn schema_version(conn: &mut PgConnection) -> Result<Option<SchemaVersion>, AdminError> {
    let operation = || "read the schema's version".to_owned();
    let there: bool = sqlx::query("SELECT to_regclass('ringwright.schema_migrations') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed(operation))?;
    if !there {
        return Ok(None);
    }
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM ringwright.schema_migrations WHERE success")
            .fetch_one(conn)
            .await
            .map_err(failed(operation))?;
    Ok(version.map(SchemaVersion))
}
