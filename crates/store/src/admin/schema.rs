//! The schema's migrations.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgConnection, Row, SqlStr};

use super::roles::OWNER;
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
/// than this program is left alone and refused.
pub async fn migrate(conn: &mut PgConnection) -> Result<SchemaVersion, AdminError> {
    let operation = || format!("take the role `{OWNER}` for the migrations");
    sqlx::raw_sql("SET ROLE ringwright_owner")
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let mut migrator = Migrator::with_migrations(embedded());
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
