//! Whose volume this is.

use ring::Ordinal;
use sqlx::{PgConnection, Row};

use super::{AdminError, failed};

/// Which cluster and shard a volume belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIdentity {
    /// A lasting id of the cluster's data; survives the resource's re-creation.
    pub cluster_uid: String,
    /// The shard's ordinal.
    pub ordinal: Ordinal,
}

/// Whose volume this is; `None` on one that has none yet, before or after its first migration.
pub async fn read_identity(conn: &mut PgConnection) -> Result<Option<ShardIdentity>, AdminError> {
    let operation = || "read the shard's identity".to_owned();
    let there: bool = sqlx::query_scalar("SELECT to_regclass('ringwright.shard_identity') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .map_err(failed(operation))?;
    if !there {
        return Ok(None);
    }
    let row = sqlx::query("SELECT cluster_uid, ordinal FROM ringwright.shard_identity")
        .fetch_optional(conn)
        .await
        .map_err(failed(operation))?;
    row.map(|row| {
        let ordinal: i32 = row.try_get(1).map_err(failed(operation))?;
        // The table's check keeps it within 16 bits.
        let ordinal = Ordinal(u16::try_from(ordinal).unwrap_or(u16::MAX));
        Ok(ShardIdentity {
            cluster_uid: row.try_get(0).map_err(failed(operation))?,
            ordinal,
        })
    })
    .transpose()
}

/// Writes the identity on a new volume; refuses one that belongs to another cluster or shard. After [`super::migrate`].
pub async fn ensure_identity(conn: &mut PgConnection, wanted: &ShardIdentity) -> Result<(), AdminError> {
    let operation = || format!("write the identity of shard {}", wanted.ordinal);
    let found = match read_identity(conn).await? {
        Some(found) => found,
        None => {
            sqlx::query(
                "INSERT INTO ringwright.shard_identity (cluster_uid, ordinal) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(&wanted.cluster_uid)
            .bind(i32::from(wanted.ordinal.0))
            .execute(&mut *conn)
            .await
            .map_err(failed(operation))?;
            // Another operator may have been first: what stands there counts.
            read_identity(conn)
                .await?
                .ok_or_else(|| AdminError::Refused("the shard's identity vanished".to_owned()))?
        }
    };
    if found == *wanted {
        return Ok(());
    }
    Err(AdminError::WrongIdentity {
        found_uid: found.cluster_uid,
        found_ordinal: found.ordinal.0,
        wanted_uid: wanted.cluster_uid.clone(),
        wanted_ordinal: wanted.ordinal.0,
    })
}
