//! Users of the shop.

mod create;
mod update;

use chrono::{DateTime, Utc};
use row_id::UserId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::contacts::Contact;
use crate::error::StoreError;
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::query::{Query, look, range_columns};
use crate::store::write::{absent, present};

/// A row of `shop.users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its position is the hash of its own other bytes.
    pub user_id: UserId,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Unique over all shards (by its normalised form).
    pub email_address: String,
    /// E.164, unique over all shards.
    pub mobile_number: String,
    /// BCP 47.
    pub locale: String,
    /// IANA name.
    pub time_zone: String,
    /// Counted up by each update.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a caller says of a user; already validated (see [`crate::contacts`] for the normalised forms).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// As it will be written to.
    pub email_address: String,
    /// E.164.
    pub mobile_number: String,
    /// BCP 47.
    pub locale: String,
    /// IANA name.
    pub time_zone: String,
}

impl NewUser {
    fn contacts(&self) -> [Contact; 2] {
        [
            Contact::email(&self.email_address),
            Contact::mobile(&self.mobile_number),
        ]
    }
}

impl User {
    pub(crate) fn contacts(&self) -> [Contact; 2] {
        [
            Contact::email(&self.email_address),
            Contact::mobile(&self.mobile_number),
        ]
    }
}

/// The columns of a user, aliased `u`, in every statement that reads one.
macro_rules! user_columns {
    () => {
        "u.user_id AS u_user_id, u.first_name AS u_first_name, u.last_name AS u_last_name, \
         u.email_address AS u_email_address, u.mobile_number AS u_mobile_number, u.locale AS u_locale, \
         u.time_zone AS u_time_zone, u.version AS u_version, u.created_at AS u_created_at, u.updated_at AS u_updated_at"
    };
}
pub(crate) use user_columns;

/// Reads the columns of [`user_columns!`]; `None` where the row was not there.
pub(crate) fn user_from(row: &PgRow) -> Result<Option<User>, String> {
    let broken = |error: sqlx::Error| error.to_string();
    let Some(id) = row.try_get::<Option<Uuid>, _>("u_user_id").map_err(broken)? else {
        return Ok(None);
    };
    Ok(Some(User {
        user_id: UserId::from_uuid(id).map_err(|error| error.to_string())?,
        first_name: row.try_get("u_first_name").map_err(broken)?,
        last_name: row.try_get("u_last_name").map_err(broken)?,
        email_address: row.try_get("u_email_address").map_err(broken)?,
        mobile_number: row.try_get("u_mobile_number").map_err(broken)?,
        locale: row.try_get("u_locale").map_err(broken)?,
        time_zone: row.try_get("u_time_zone").map_err(broken)?,
        version: row.try_get("u_version").map_err(broken)?,
        created_at: row.try_get("u_created_at").map_err(broken)?,
        updated_at: row.try_get("u_updated_at").map_err(broken)?,
    }))
}

const ONE: &str = look!(one user_columns!(), "shop.users u ON u.user_id = $1 AND u.state = 'active'");
const MANY: &str = look!(many user_columns!(), "shop.users u ON u.user_id = k.id AND u.state = 'active'");

const LOCK: &str = concat!(
    "SELECT ",
    user_columns!(),
    ", ",
    range_columns!(),
    " FROM shop.users u, ringwright.range_of($1) r
     WHERE u.user_id = $1 AND u.state = 'active' FOR NO KEY UPDATE OF u"
);

/// Reads a user and keeps others from changing it until the transaction ends; `None` if there is none, for certain.
pub(crate) async fn lock_user(conn: &mut PgConnection, id: UserId) -> Result<Option<User>, Refusal> {
    for last in [false, true] {
        if let Some(row) = sqlx::query(LOCK).bind(id.uuid()).fetch_optional(&mut *conn).await? {
            present(&row)?;
            return user_from(&row).map_err(Refusal::BadRow);
        }
        if !last {
            absent(conn, id.uuid()).await?;
        }
    }
    Ok(None)
}

impl Store {
    /// Reads one user.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn get_user(&self, id: UserId, at: &ReadAt) -> Result<Answer<Option<User>>, StoreError> {
        self.inner.read_one(id.uuid(), at, one(id.uuid()), decode).await
    }

    /// Reads many users, grouped by shard; one failure is never another's. Answers stand in the order of `ids`.
    pub async fn get_users(&self, ids: &[UserId], at: &ReadAt) -> Vec<Result<Answer<Option<User>>, StoreError>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.inner.read_many(&ids, at, many, one, decode).await
    }
}

fn one(id: Uuid) -> Query {
    Query::new("read a user", ONE).id(id)
}

fn many(ids: Vec<Uuid>) -> Query {
    Query::new("read users", MANY).ids(ids)
}

fn decode(rows: &[PgRow]) -> Result<Option<User>, String> {
    rows.first().map_or(Ok(None), user_from)
}
