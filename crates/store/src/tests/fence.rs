//! The guards of one database, asked directly in SQL.

use ring::Ordinal;
use row_id::{EventId, Position, UserId};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::shards::{database, drop_database, refusal, run, server, superuser};
use crate::admin::{Role, ShardIdentity, ensure_identity};

/// The ranges of the book below, by what state they are in.
const OWNED: u32 = 0x0000_1000;
const OTHER_OWNED: u32 = 0x1000_0000;
const FROZEN: u32 = 0x2000_0000;
const MOVED: u32 = 0x3000_0000;
const CLEANED: u32 = 0x4000_0000;
const IMPORTING: u32 = 0x5000_0000;
const UNKNOWN: u32 = 0x6000_0000;
const LAST: u32 = 0xffff_ffff;

const BOOK: &str = "INSERT INTO ringwright.range_owners (lo, hi, generation, state, target, target_hosts) VALUES
    (x'00000000'::bigint, x'10000000'::bigint, 1, 'owned', NULL, NULL),
    (x'10000000'::bigint, x'20000000'::bigint, 1, 'owned', NULL, NULL),
    (x'20000000'::bigint, x'30000000'::bigint, 2, 'frozen', 7, 'g:5432'),
    (x'30000000'::bigint, x'40000000'::bigint, 3, 'moved', 8, 'h:5432,i:5432'),
    (x'40000000'::bigint, x'50000000'::bigint, 4, 'cleaned', 9, 'j:5432'),
    (x'50000000'::bigint, x'60000000'::bigint, 5, 'importing', 6, 'f:5432'),
    (x'f0000000'::bigint, 4294967296, 1, 'owned', NULL, NULL)";

pub(super) struct Shard {
    pub(super) name: String,
    pub(super) app: PgConnection,
    pub(super) superuser: PgConnection,
}

impl Shard {
    pub(super) async fn start(book: &str) -> Self {
        let name = database().await;
        let mut root = superuser(&name).await;
        let identity = ShardIdentity {
            cluster_uid: "test".to_owned(),
            ordinal: Ordinal(0),
        };
        ensure_identity(&mut root, &identity).await.unwrap();
        run(&mut root, book).await;
        Self {
            app: connect(&name, Role::App).await,
            superuser: root,
            name,
        }
    }

    pub(super) async fn end(self) {
        drop((self.app, self.superuser));
        drop_database(&self.name).await;
    }
}

pub(super) async fn connect(database: &str, role: Role) -> PgConnection {
    PgConnection::connect_with(&server().database(database).username(role.name()))
        .await
        .unwrap()
}

fn id(position: u32) -> Uuid {
    EventId::generate(Position::new(position)).uuid()
}

/// A claim is the row with the fewest columns.
pub(super) fn insert(id: Uuid) -> String {
    let someone = UserId::generate();
    format!(
        "INSERT INTO ringwright.contact_claims (claim_id, kind, user_id, state, holder)
         VALUES ('{id}', 'email', '{someone}', 'held', '{someone}')"
    )
}

#[tokio::test]
async fn each_state_of_a_range_has_its_outcome() {
    let mut shard = Shard::start(BOOK).await;
    for (position, outcome) in [
        (OWNED, "accepted"),
        (0, "accepted"),
        (0x0fff_ffff, "accepted"),
        (OTHER_OWNED, "accepted"),
        (LAST, "accepted"),
        (FROZEN, "SR002"),
        (0x2fff_ffff, "SR002"),
        (MOVED, "SR001"),
        (CLEANED, "SR001"),
        (IMPORTING, "SR001"),
        (UNKNOWN, "SR001"),
        (0xefff_ffff, "SR001"),
    ] {
        assert_eq!(
            refusal(&mut shard.app, insert(id(position))).await,
            outcome,
            "{position:08x}"
        );
    }
    shard.end().await;
}

#[tokio::test]
async fn a_refusal_says_where_the_range_is() {
    let mut shard = Shard::start(BOOK).await;
    for (position, expected) in [
        (
            MOVED,
            (Some((0x3000_0000, 0x4000_0000, 3)), Some(8), vec!["h:5432", "i:5432"]),
        ),
        (CLEANED, (Some((0x4000_0000, 0x5000_0000, 4)), Some(9), vec!["j:5432"])),
        (
            IMPORTING,
            (Some((0x5000_0000, 0x6000_0000, 5)), Some(6), vec!["f:5432"]),
        ),
        (UNKNOWN, (None, None, vec![])),
    ] {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(insert(id(position))))
            .execute(&mut shard.app)
            .await
            .unwrap_err();
        let crate::store::fault::Fault::NotHere(redirect) = crate::store::fault::Fault::of(&error) else {
            panic!("{error:?}")
        };
        let range = redirect
            .range
            .map(|(range, generation)| (range.lo, range.hi, generation.get()));
        let hosts: Vec<&str> = redirect.hosts.iter().map(String::as_str).collect();
        assert_eq!(
            (range, redirect.target.map(|target| target.0), hosts),
            expected,
            "{position:08x}"
        );
    }
    shard.end().await;
}

#[tokio::test]
async fn every_kind_of_statement_is_fenced() {
    let mut shard = Shard::start(BOOK).await;
    // Rows lie in the frozen and moved ranges, as they do in life.
    run(
        &mut shard.superuser,
        "UPDATE ringwright.range_owners SET state = 'owned' WHERE state IN ('frozen', 'moved')",
    )
    .await;
    let (here, frozen, moved) = (id(OWNED), id(FROZEN), id(MOVED));
    for row in [here, frozen, moved] {
        run(&mut shard.app, insert(row)).await;
    }
    run(
        &mut shard.superuser,
        "UPDATE ringwright.range_owners SET state = CASE target WHEN 7 THEN 'frozen' ELSE 'moved' END WHERE target IN (7, 8)",
    )
    .await;
    for (row, outcome) in [(here, "accepted"), (frozen, "SR002"), (moved, "SR001")] {
        let update = format!("UPDATE ringwright.contact_claims SET updated_at = now() WHERE claim_id = '{row}'");
        assert_eq!(refusal(&mut shard.app, &update).await, outcome);
        let upsert = format!(
            "{} ON CONFLICT (claim_id) DO UPDATE SET updated_at = now()",
            insert(row)
        );
        assert_eq!(refusal(&mut shard.app, &upsert).await, outcome);
        let ignore = format!("{} ON CONFLICT DO NOTHING", insert(row));
        assert_eq!(refusal(&mut shard.app, &ignore).await, outcome);
        let cte = format!(
            "WITH gone AS (DELETE FROM ringwright.contact_claims WHERE claim_id = '{row}' RETURNING *)
                           SELECT count(*) FROM gone WHERE false"
        );
        assert_eq!(refusal(&mut shard.app, &cte).await, outcome);
        let merge = format!(
            "MERGE INTO ringwright.contact_claims c USING (VALUES ('{row}'::uuid)) AS v (id) ON c.claim_id = v.id
             WHEN MATCHED THEN UPDATE SET updated_at = now() WHEN NOT MATCHED THEN DO NOTHING"
        );
        // The writing CTE deleted the row that is here.
        let merged = refusal(&mut shard.app, &merge).await;
        assert_eq!(merged, if row == here { "accepted" } else { outcome });
        let delete = format!("DELETE FROM ringwright.contact_claims WHERE claim_id = '{row}'");
        assert_eq!(refusal(&mut shard.app, &delete).await, outcome);
    }
    let both = "UPDATE ringwright.contact_claims SET updated_at = now()";
    run(&mut shard.app, insert(id(OWNED))).await;
    assert_ne!(
        refusal(&mut shard.app, both).await,
        "accepted",
        "a statement over two ranges stops at the frozen one"
    );
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM ringwright.contact_claims")
        .fetch_one(&mut shard.superuser)
        .await
        .unwrap();
    assert_eq!(left, 3);
    shard.end().await;
}

#[tokio::test]
async fn a_delete_that_is_allowed_deletes() {
    let mut shard = Shard::start(BOOK).await;
    let row = id(OWNED);
    run(&mut shard.app, insert(row)).await;
    let deleted = sqlx::query("DELETE FROM ringwright.contact_claims WHERE claim_id = $1")
        .bind(row)
        .execute(&mut shard.app)
        .await
        .unwrap();
    assert_eq!(
        deleted.rows_affected(),
        1,
        "a fence that returned NEW would skip every delete"
    );
    shard.end().await;
}

#[tokio::test]
async fn copy_is_fenced() {
    let mut shard = Shard::start(BOOK).await;
    let copy = "COPY ringwright.contact_claims (claim_id, kind, user_id, state, holder) FROM STDIN";
    for (position, accepted) in [(OWNED, true), (FROZEN, false), (UNKNOWN, false)] {
        let someone = Uuid::max();
        let row = format!("{}\temail\t{someone}\theld\t{someone}\n", id(position));
        let mut copying = shard.app.copy_in_raw(copy).await.unwrap();
        copying.send(row.into_bytes()).await.unwrap();
        assert_eq!(copying.finish().await.is_ok(), accepted, "{position:08x}");
    }
    shard.end().await;
}

#[tokio::test]
async fn only_read_committed_writes() {
    let mut shard = Shard::start(BOOK).await;
    for (level, outcome) in [
        ("READ COMMITTED", "accepted"),
        // What Postgres treats as READ COMMITTED is refused all the same: the name is what is checked.
        ("READ UNCOMMITTED", "SR004"),
        ("REPEATABLE READ", "SR004"),
        ("SERIALIZABLE", "SR004"),
    ] {
        run(&mut shard.app, format!("BEGIN ISOLATION LEVEL {level}")).await;
        assert_eq!(refusal(&mut shard.app, insert(id(OWNED))).await, outcome, "{level}");
        run(&mut shard.app, "ROLLBACK").await;
    }
    shard.end().await;
}

#[tokio::test]
async fn an_id_never_changes_and_truncate_is_refused() {
    let mut shard = Shard::start(BOOK).await;
    let (row, other) = (id(OWNED), id(OTHER_OWNED));
    run(&mut shard.app, insert(row)).await;
    let rename = format!("UPDATE ringwright.contact_claims SET claim_id = '{other}' WHERE claim_id = '{row}'");
    assert_eq!(refusal(&mut shard.app, rename).await, "SR003");
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'ringwright_fence' ORDER BY 1",
    )
    .fetch_all(&mut shard.superuser)
    .await
    .unwrap();
    assert_eq!(
        tables,
        [
            "ringwright.contact_claims",
            "ringwright.idempotency_keys",
            "ringwright.outbox",
            "shop.emails",
            "shop.invoices",
            "shop.orders",
            "shop.sms",
            "shop.users"
        ]
    );
    for table in tables {
        // With CASCADE the first trigger in the way refuses; replication does not get past it either.
        let truncate = format!("TRUNCATE {table} CASCADE");
        assert_eq!(refusal(&mut shard.app, &truncate).await, "42501", "{table}: no grant");
        assert_eq!(refusal(&mut shard.superuser, &truncate).await, "SR005", "{table}");
        let replicated = format!("SET session_replication_role = replica; {truncate}");
        assert_eq!(refusal(&mut shard.superuser, replicated).await, "SR005", "{table}");
        run(&mut shard.superuser, "RESET session_replication_role").await;
    }
    shard.end().await;
}

#[tokio::test]
async fn replicated_rows_are_taken_only_for_ranges_being_imported() {
    let mut shard = Shard::start(BOOK).await;
    // As apply runs: as a replica, and with an empty search_path.
    run(
        &mut shard.superuser,
        "SET session_replication_role = replica; SET search_path = ''",
    )
    .await;
    for (position, outcome) in [
        (IMPORTING, "accepted"),
        (OWNED, "SR006"),
        (FROZEN, "SR006"),
        (MOVED, "SR006"),
        (CLEANED, "SR006"),
        (UNKNOWN, "SR006"),
    ] {
        assert_eq!(
            refusal(&mut shard.superuser, insert(id(position))).await,
            outcome,
            "{position:08x}"
        );
    }
    let all = "UPDATE ringwright.contact_claims SET updated_at = now(); DELETE FROM ringwright.contact_claims";
    assert_eq!(refusal(&mut shard.superuser, all).await, "accepted");
    shard.end().await;
}

#[tokio::test]
async fn the_fence_finds_a_range_by_its_index_among_many() {
    let mut shard = Shard::start("").await;
    run(
        &mut shard.superuser,
        "INSERT INTO ringwright.range_owners (lo, hi, generation, state)
         SELECT n * 65536, (n + 1) * 65536, 1, 'owned' FROM generate_series(0::bigint, 65535) n;
         ANALYZE ringwright.range_owners",
    )
    .await;
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT range_id, hi_id FROM ringwright.range_owners
         WHERE lo_id <= '80000000-0000-8000-8000-000000000001' ORDER BY lo_id DESC LIMIT 1",
    )
    .fetch_all(&mut shard.superuser)
    .await
    .unwrap();
    assert!(
        plan.iter()
            .any(|line| line.contains("Index Scan Backward using range_owners_lo_id")),
        "{plan:?}"
    );
    assert_eq!(refusal(&mut shard.app, insert(id(LAST))).await, "accepted");
    shard.end().await;
}

#[tokio::test]
async fn ranges_of_a_book_never_overlap() {
    let mut shard = Shard::start(BOOK).await;
    let overlapping =
        "INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES (268435455, 268435456, 1, 'owned')";
    assert_eq!(refusal(&mut shard.superuser, overlapping).await, "23P01");
    let empty = "INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES (7, 7, 1, 'owned')";
    assert_eq!(refusal(&mut shard.superuser, empty).await, "23514");
    shard.end().await;
}
