//! What the shards hold, asked directly on their masters.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use crds::OrderShard;
use kube::api::ListParams;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use super::observer::{book_row, ordinal};
use crate::history::Contents;
use crate::history::contents::{Channel, Claim, Contact, Notice, Placed, Received, StoredRow};
use crate::history::record::{Content, OperationId, Status};
use crate::platform::CLUSTER;
use crate::{Platform, await_condition, database, inbox};

/// Every table whose rows move, and its key.
const MOVED_TABLES: [(&str, &str); 8] = [
    ("shop.users", "user_id"),
    ("shop.orders", "order_id"),
    ("shop.invoices", "invoice_id"),
    ("shop.emails", "email_id"),
    ("shop.sms", "sms_id"),
    ("ringwright.outbox", "event_id"),
    ("ringwright.idempotency_keys", "key_id"),
    ("ringwright.contact_claims", "claim_id"),
];

/// What a move makes and has to take away again: what it is, and how many there are.
const REMNANTS: [(&str, &str); 4] = [
    (
        "replication slots of moves",
        "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'",
    ),
    ("subscriptions", "SELECT count(*) FROM pg_subscription"),
    ("publications", "SELECT count(*) FROM pg_publication"),
    (
        "ranges that are frozen, importing or not cleaned",
        "SELECT count(*) FROM ringwright.range_owners WHERE state NOT IN ('owned', 'cleaned')",
    ),
];

/// A superuser's connections to the master of each shard that there is.
///
/// # Errors
/// When one cannot be reached.
pub async fn connect_all(platform: &Platform) -> Result<BTreeMap<u16, PgPool>> {
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let shards = kubernetes
        .objects::<OrderShard>(namespace)
        .list(&ListParams::default())
        .await?;
    let mut pools = BTreeMap::new();
    for shard in shards.iter().filter_map(ordinal) {
        let name = format!("{CLUSTER}-{shard}");
        pools.insert(shard, database::connect(kubernetes, namespace, CLUSTER, &name).await?);
    }
    Ok(pools)
}

/// What moves have left behind, on all shards; empty when nothing.
///
/// # Errors
/// When a shard cannot be asked.
pub async fn remnants(pools: &BTreeMap<u16, PgPool>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (shard, pool) in pools {
        for (what, query) in REMNANTS {
            let count = count(pool, query).await?;
            if count > 0 {
                found.push(format!("shard {shard}: {count} {what}"));
            }
        }
        for (table, key) in MOVED_TABLES {
            let query = format!(
                "SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT FROM ringwright.range_owners r
                 WHERE r.state IN ('owned', 'frozen') AND r.lo_id <= t.{key} AND t.{key} < r.hi_id)"
            );
            let count = count(pool, &query).await?;
            if count > 0 {
                found.push(format!(
                    "shard {shard}: {count} rows of {table} outside of what it owns"
                ));
            }
        }
    }
    Ok(found)
}

async fn count(pool: &PgPool, query: &str) -> Result<i64> {
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()));
    count.fetch_one(pool).await.with_context(|| format!("asking {query}"))
}

/// Waits until every event is published and every notification settled.
///
/// # Errors
/// When that takes longer than `patience`; the judge would say why.
pub async fn await_delivered(pools: &BTreeMap<u16, PgPool>, patience: Duration) -> Result<()> {
    const UNSETTLED: &str = "SELECT (SELECT count(*) FROM ringwright.outbox)
        + (SELECT count(*) FROM shop.emails WHERE status IN ('queued', 'sending'))
        + (SELECT count(*) FROM shop.sms WHERE status IN ('queued', 'sending'))
        + (SELECT count(*) FROM shop.orders o WHERE status = 'processed' AND NOT EXISTS
            (SELECT FROM shop.emails e JOIN shop.sms s USING (order_id) WHERE e.order_id = o.order_id))";
    await_condition("every customer to be told", patience, || async {
        for pool in pools.values() {
            if count(pool, UNSETTLED).await? > 0 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

/// Everything that all shards hold, and all that the customers received.
///
/// # Errors
/// When a shard or an inbox cannot be asked.
pub async fn contents(platform: &Platform, pools: &BTreeMap<u16, PgPool>) -> Result<Contents> {
    Ok(Contents {
        received: received(platform).await?,
        ..stored(pools).await?
    })
}

/// Everything that all shards hold.
///
/// # Errors
/// When a shard cannot be asked.
pub async fn stored(pools: &BTreeMap<u16, PgPool>) -> Result<Contents> {
    let mut contents = Contents::default();
    for (shard, pool) in pools {
        let shard = *shard;
        let rows = |query: &'static str| sqlx::query(query).fetch_all(pool);
        for row in rows(USERS).await? {
            contents.users.push(user(shard, &row)?);
        }
        for row in rows(ORDERS).await? {
            contents.orders.push(order(shard, &row)?);
        }
        for row in rows("SELECT order_id, event_seq FROM shop.orders").await? {
            let events: i64 = row.try_get("event_seq")?;
            contents.events.insert(row.try_get("order_id")?, events);
        }
        for (channel, query) in [(Channel::Email, EMAILS), (Channel::Sms, SMS)] {
            for row in rows(query).await? {
                contents.notices.push(notice(shard, channel, &row)?);
            }
        }
        for row in rows("SELECT event_id AS key FROM ringwright.outbox").await? {
            let key = row.try_get("key")?;
            contents.outbox.push(Placed { shard, key });
        }
        for row in rows("SELECT key_id AS key FROM ringwright.idempotency_keys").await? {
            let key = row.try_get("key")?;
            contents.keys.push(Placed { shard, key });
        }
        for row in rows("SELECT claim_id, user_id, kind, state FROM ringwright.contact_claims").await? {
            contents.claims.push(Claim {
                shard,
                key: row.try_get("claim_id")?,
                user: row.try_get("user_id")?,
                contact: Contact::parse(row.try_get("kind")?).context("a claim of no known kind")?,
                is_held: row.try_get::<&str, _>("state")? == "held",
            });
        }
        let book = rows("SELECT lo, hi, generation, state, target FROM ringwright.range_owners ORDER BY lo").await?;
        let book: Result<Vec<_>> = book.iter().map(book_row).collect();
        contents.books.insert(shard, book?.into_iter().flatten().collect());
    }
    Ok(contents)
}

const USERS: &str = "SELECT user_id, version, first_name, email_address FROM shop.users WHERE state = 'active'";
const ORDERS: &str = "SELECT order_id, version, status, order_details->>'reference' AS reference FROM shop.orders";
const EMAILS: &str = "SELECT email_id AS key, order_id, kind, sequence, status FROM shop.emails";
const SMS: &str = "SELECT sms_id AS key, order_id, kind, sequence, status FROM shop.sms";

fn user(shard: u16, row: &PgRow) -> Result<StoredRow> {
    let email: &str = row.try_get("email_address")?;
    let by = OperationId::parse(row.try_get("first_name")?);
    Ok(StoredRow {
        shard,
        key: row.try_get("user_id")?,
        version: row.try_get("version")?,
        created_by: email.split('@').next().and_then(OperationId::parse),
        content: by.map(|by| Content {
            by,
            status: Status::Created,
        }),
    })
}

fn order(shard: u16, row: &PgRow) -> Result<StoredRow> {
    let created_by = row
        .try_get::<Option<&str>, _>("reference")?
        .and_then(OperationId::parse);
    let status = Status::parse(row.try_get("status")?);
    Ok(StoredRow {
        shard,
        key: row.try_get("order_id")?,
        version: row.try_get("version")?,
        created_by,
        content: created_by.zip(status).map(|(by, status)| Content { by, status }),
    })
}

fn notice(shard: u16, channel: Channel, row: &PgRow) -> Result<Notice> {
    Ok(Notice {
        shard,
        key: row.try_get("key")?,
        channel,
        order: row.try_get("order_id")?,
        kind: row.try_get("kind")?,
        sequence: row.try_get("sequence")?,
        status: row.try_get("status")?,
    })
}

async fn received(platform: &Platform) -> Result<Vec<Received>> {
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let emails = inbox::emails(kubernetes, namespace).await?;
    let texts = inbox::texts(kubernetes, namespace).await?;
    let emails = emails.iter().map(|email| (Channel::Email, email.subject.as_str()));
    let texts = texts.iter().map(|text| (Channel::Sms, text.body.as_str()));
    let messages = emails.chain(texts).map(|(channel, text)| Received {
        channel,
        order_of: order_named_in(text),
    });
    Ok(messages.collect())
}

/// Which order a message speaks of: customers know it by the word after "order".
fn order_named_in(text: &str) -> Option<OperationId> {
    let mut words = text.split_whitespace();
    words.by_ref().find(|word| *word == "order")?;
    OperationId::parse(words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_found_in_what_customers_are_told() {
        let subject = "Your order w1f is on its way";
        let body = "Hello w2, your order w1f (39.98 EUR) has been processed.";
        assert_eq!(order_named_in(subject), Some(OperationId(0x1f)));
        assert_eq!(order_named_in(body), Some(OperationId(0x1f)));
        assert_eq!(order_named_in("we are closed on Sundays"), None);
    }
}
