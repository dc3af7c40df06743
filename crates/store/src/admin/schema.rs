//! The schema's migrations.

use sqlx::migrate::Migrator;
use sqlx::{PgConnection, Row};

use super::roles::{OWNER, ensure_execute};
use super::{AdminError, failed};

static EMBEDDED: Migrator = sqlx::migrate!("./migrations");

/// The newest migration a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion(pub i64);

/// Brings the schema to this program's newest version, as role `ringwright_owner`. `conn` is a superuser's, on the
/// shop's database, after [`super::ensure_roles`].
///
/// Each file runs in one transaction, so a failed or interrupted call is simply made again. A database that is newer
/// than this program is left alone and refused.
pub async fn migrate(conn: &mut PgConnection) -> Result<SchemaVersion, AdminError> {
    // The fence lets a range be cleaned only in a session that has a replication origin, and asks for it as the owner. By
    // default the superuser alone may ask.
    ensure_execute(conn, OWNER, "pg_catalog.pg_replication_origin_session_is_setup()").await?;
    let operation = || format!("take the role `{OWNER}` for the migrations");
    sqlx::raw_sql("SET ROLE ringwright_owner")
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let mut migrator = Migrator::with_migrations(EMBEDDED.iter().cloned().collect());
    migrator.create_schema("ringwright");
    migrator.dangerous_set_table_name("ringwright.schema_migrations");
    let ran = migrator.run_direct(None, conn, false).await;
    sqlx::raw_sql("RESET ROLE")
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    ran?;
    Ok(newest_schema_version())
}

/// The newest migration this program carries.
pub fn newest_schema_version() -> SchemaVersion {
    SchemaVersion(EMBEDDED.iter().map(|migration| migration.version).max().unwrap_or(0))
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
