//! What each role may do, and that it may do no more.

use std::collections::BTreeSet;

use super::fence::{Shard, connect};
use super::shards::refusal;
use crate::admin::Role;

const BOOK: &str = "INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES (0, 4294967296, 1, 'owned')";

const DENIED: &str = "42501";

#[tokio::test]
async fn no_program_touches_what_guards_the_data() {
    let mut shard = Shard::start(BOOK).await;
    for role in [Role::App, Role::Notifier] {
        let mut conn = connect(&shard.name, role).await;
        for table in [
            "range_owners",
            "moves",
            "copies",
            "heartbeat",
            "shard_identity",
            "schema_migrations",
        ] {
            for sql in [
                format!("SELECT * FROM ringwright.{table}"),
                format!("DELETE FROM ringwright.{table}"),
                format!("TRUNCATE ringwright.{table}"),
                format!("ALTER TABLE ringwright.{table} DISABLE TRIGGER ALL"),
            ] {
                assert_eq!(refusal(&mut conn, &sql).await, DENIED, "{role:?}: {sql}");
            }
        }
        for sql in [
            "SET session_replication_role = replica",
            "SELECT setval('ringwright.invoice_number_seq', 1)",
            "SELECT nextval('ringwright.range_owners_range_id_seq')",
            "CREATE TABLE shop.mine (id int)",
            "CREATE TABLE ringwright.mine (id int)",
            "CREATE TABLE public.mine (id int)",
            "CREATE TEMP TABLE range_owners (id int)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION shop.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER TABLE shop.orders DISABLE TRIGGER ringwright_fence",
            "DROP TRIGGER ringwright_fence ON shop.orders",
            "DELETE FROM shop.users",
            "DELETE FROM shop.orders",
            "CALL ringwright.guard_table('shop.orders', 'order_id')",
            "SELECT ringwright.refuse_write('00000000-0000-8000-8000-000000000000', 'INSERT')",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT rolpassword FROM pg_authid",
            "SET ROLE ringwright_owner",
        ] {
            assert_eq!(refusal(&mut conn, sql).await, DENIED, "{role:?}: {sql}");
        }
    }
    // A position that is nowhere: were the function callable, it would be SR001.
    assert_eq!(
        refusal(
            &mut shard.superuser,
            "SELECT ringwright.range_of('00000000-0000-8000-8000-000000000000')"
        )
        .await,
        "accepted"
    );
    shard.end().await;
}

/// A program ends a freeze that is over and finishes what was given away; every other step is the operator's.
#[tokio::test]
async fn programs_do_two_steps_of_a_move_and_the_role_of_subscriptions_none() {
    let shard = Shard::start(BOOK).await;
    let steps = [
        "ringwright.split_range(0, 2, 1)",
        "ringwright.merge_ranges()",
        "ringwright.begin_import(gen_random_uuid(), 0, '', '{}', '{}', '{}', '{}')",
        "ringwright.freeze(gen_random_uuid(), 0, 1, 1, '', 1)",
        "ringwright.thaw_now(0, 1, gen_random_uuid(), 1)",
        "ringwright.mark_verified(gen_random_uuid(), 0, 1, 1)",
        "ringwright.commit_move(gen_random_uuid(), 0, 1, 1)",
        "ringwright.leave_import(gen_random_uuid(), 0, 1, 1, 1)",
        "ringwright.clean_rows(gen_random_uuid(), 0, 1, 1)",
        "ringwright.mark_cleaned(gen_random_uuid(), 0, 1)",
        "ringwright.forget_copy(gen_random_uuid())",
        "ringwright.resume_copy(gen_random_uuid())",
        "ringwright.lock_range(0, 1)",
        "ringwright.range_digest(0, 1)",
        "ringwright.row_hashes(0, 1)",
    ];
    let rescues = [
        "ringwright.thaw(0, 1, gen_random_uuid(), 1)",
        "ringwright.activate(gen_random_uuid(), 0, 1, 1, 1)",
        "ringwright.move_of(gen_random_uuid())",
        "ringwright.flushed_by(0)",
    ];
    for role in [Role::App, Role::Notifier, Role::Mover, Role::Monitor] {
        let mut conn = connect(&shard.name, role).await;
        let rescuer = matches!(role, Role::App | Role::Notifier);
        for step in steps {
            assert_eq!(
                refusal(&mut conn, format!("SELECT {step}")).await,
                DENIED,
                "{role:?}: {step}"
            );
        }
        for step in rescues {
            let outcome = if rescuer { "accepted" } else { DENIED };
            assert_eq!(
                refusal(&mut conn, format!("SELECT {step}")).await,
                outcome,
                "{role:?}: {step}"
            );
        }
    }
    shard.end().await;
}

#[tokio::test]
async fn each_program_writes_its_own_tables_only() {
    let shard = Shard::start(BOOK).await;
    let mut notifier = connect(&shard.name, Role::Notifier).await;
    for sql in [
        "UPDATE shop.users SET version = version + 1",
        "UPDATE shop.orders SET version = version + 1",
        "UPDATE shop.invoices SET version = version + 1",
        "DELETE FROM shop.emails",
        "SELECT * FROM ringwright.outbox",
        "SELECT * FROM ringwright.contact_claims",
        "SELECT * FROM ringwright.idempotency_keys",
        "SELECT ringwright.next_invoice_number()",
    ] {
        assert_eq!(refusal(&mut notifier, sql).await, DENIED, "{sql}");
    }
    for sql in [
        "SELECT * FROM shop.users",
        "UPDATE shop.emails SET version = version + 1",
        "SELECT * FROM ringwright.here()",
    ] {
        assert_eq!(refusal(&mut notifier, sql).await, "accepted", "{sql}");
    }
    let mut app = connect(&shard.name, Role::App).await;
    for sql in [
        "UPDATE shop.emails SET version = version + 1",
        "INSERT INTO shop.sms DEFAULT VALUES",
    ] {
        assert_eq!(refusal(&mut app, sql).await, DENIED, "{sql}");
    }
    for sql in [
        "SELECT * FROM ringwright.sample()",
        "SELECT ringwright.confirm()",
        "SELECT ringwright.beat('00000000-0000-8000-8000-000000000000')",
        "SELECT ringwright.next_invoice_number()",
        "SELECT * FROM shop.emails",
    ] {
        assert_eq!(refusal(&mut app, sql).await, "accepted", "{sql}");
    }
    shard.end().await;
}

#[tokio::test]
async fn the_monitor_sees_states_and_no_customers() {
    let shard = Shard::start(BOOK).await;
    let mut monitor = connect(&shard.name, Role::Monitor).await;
    for table in ["users", "orders", "invoices", "emails", "sms"] {
        assert_eq!(
            refusal(&mut monitor, format!("SELECT * FROM shop.{table}")).await,
            DENIED
        );
    }
    assert_eq!(
        refusal(&mut monitor, "SELECT user_id FROM ringwright.outbox").await,
        DENIED
    );
    for sql in [
        "SELECT * FROM ringwright.range_owners",
        "SELECT count(event_id), min(occurred_at) FROM ringwright.outbox",
        "SELECT * FROM pg_stat_replication",
        "SELECT * FROM ringwright.sample()",
    ] {
        assert_eq!(refusal(&mut monitor, sql).await, "accepted", "{sql}");
    }
    shard.end().await;
}

/// Nothing may be callable or readable by everybody, or a later role has it without being granted it.
#[tokio::test]
async fn nothing_of_ours_is_granted_to_everybody() {
    let mut shard = Shard::start(BOOK).await;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace IN ('shop'::regnamespace, 'ringwright'::regnamespace) AND a.grantee = 0
         UNION ALL
         SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace IN ('shop'::regnamespace, 'ringwright'::regnamespace) AND a.grantee = 0",
    )
    .fetch_all(&mut shard.superuser)
    .await
    .unwrap();
    assert_eq!(open, Vec::<String>::new());
    shard.end().await;
}

#[tokio::test]
async fn functions_that_run_with_their_owners_rights_fix_their_search_path() {
    let mut shard = Shard::start(BOOK).await;
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "SELECT p.proname::text, p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'] IS TRUE
         FROM pg_proc p WHERE p.pronamespace IN ('shop'::regnamespace, 'ringwright'::regnamespace) AND p.prosecdef",
    )
    .fetch_all(&mut shard.superuser)
    .await
    .unwrap();
    assert!(rows.len() >= 20);
    let open: BTreeSet<&str> = rows
        .iter()
        .filter(|(_, fixed)| !fixed)
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(open.is_empty(), "{open:?}");
    shard.end().await;
}

#[tokio::test]
async fn every_role_is_as_weak_as_it_can_be() {
    let mut shard = Shard::start(BOOK).await;
    let roles: Vec<(String, bool, bool)> = sqlx::query_as(
        "SELECT rolname::text, rolcanlogin, rolreplication FROM pg_roles
         WHERE rolname LIKE 'ringwright%' AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls) ORDER BY 1",
    )
    .fetch_all(&mut shard.superuser)
    .await
    .unwrap();
    let roles: Vec<_> = roles
        .iter()
        .map(|(name, login, replication)| (name.as_str(), *login, *replication))
        .collect();
    assert_eq!(
        roles,
        [
            ("ringwright_app", true, false),
            ("ringwright_monitor", true, false),
            ("ringwright_mover", true, true),
            ("ringwright_notifier", true, false),
            ("ringwright_owner", false, false),
            ("ringwright_replication", true, true),
            ("ringwright_rewind", true, false),
        ]
    );
    shard.end().await;
}

#[tokio::test]
async fn a_subscription_is_given_longer_to_confirm_than_a_standby() {
    let shard = Shard::start(BOOK).await;
    let mut mover = connect(&shard.name, Role::Mover).await;
    let timeout: String = sqlx::query_scalar("SHOW wal_sender_timeout")
        .fetch_one(&mut mover)
        .await
        .unwrap();
    assert_eq!(timeout, "30s");
    shard.end().await;
}
