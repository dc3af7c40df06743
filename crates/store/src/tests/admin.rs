use ring::{Generation, Ordinal, Range};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};

use super::shards::{
    CREATING, database, drop_database, empty_database, eventually, passwords, refusal, run, superuser,
};
use crate::admin::{self, AdminError, AdminTarget, PgSslMode, RangeState, Role, SettingKind, ShardIdentity};

const HALVES: [Range; 2] = [
    Range { lo: 0, hi: 1 << 31 },
    Range {
        lo: 1 << 31,
        hi: 1 << 32,
    },
];

/// Who wrote the rows that roles and rights are made of. The server's counters tell later, and of all databases.
async fn writers(conn: &mut PgConnection) -> String {
    sqlx::query_scalar(
        "SELECT concat_ws(' ',
            (SELECT md5(string_agg(xmin::text, ',' ORDER BY oid)) FROM pg_proc),
            (SELECT string_agg(xmin::text, ',' ORDER BY oid) FROM pg_authid WHERE rolname LIKE 'ringwright%'),
            (SELECT string_agg(m.xmin::text, ',' ORDER BY m.oid) FROM pg_auth_members m
               JOIN pg_authid r ON r.oid = m.member WHERE r.rolname LIKE 'ringwright%'),
            (SELECT xmin::text FROM pg_database WHERE datname = current_database()))",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn making_roles_and_migrating_again_changes_nothing() {
    let name = database().await;
    let _nobody_else = CREATING.lock().await;
    let mut postgres = superuser("postgres").await;
    let mut conn = superuser(&name).await;
    assert_eq!(
        admin::schema_version(&mut conn).await.unwrap(),
        Some(admin::newest_schema_version())
    );
    let before = writers(&mut conn).await;
    admin::ensure_database(&mut postgres, &name).await.unwrap();
    admin::ensure_roles(&mut postgres, &name, &passwords()).await.unwrap();
    assert_eq!(admin::migrate(&mut conn).await.unwrap(), admin::newest_schema_version());
    assert_eq!(writers(&mut conn).await, before);
    let user: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(user, "postgres", "the owner's role is given back");
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn a_database_that_is_newer_than_this_program_is_refused() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    run(
        &mut conn,
        "INSERT INTO ringwright.schema_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .await;
    let refused = admin::migrate(&mut conn).await;
    assert!(matches!(refused, Err(AdminError::Migrate(_))), "{refused:?}");
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn two_operators_that_migrate_at_once_take_turns_and_tell_each_version() {
    let name = empty_database().await;
    let (mut one, mut two) = (superuser(&name).await, superuser(&name).await);
    let (mut told_one, mut told_two) = (Vec::new(), Vec::new());
    let (first, second) = tokio::join!(
        admin::migrate_telling(&mut one, |version| told_one.push(version)),
        admin::migrate_telling(&mut two, |version| told_two.push(version)),
    );
    assert_eq!(first.unwrap(), admin::newest_schema_version());
    assert_eq!(second.unwrap(), admin::newest_schema_version());
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM ringwright.schema_migrations ORDER BY version")
        .fetch_all(&mut one)
        .await
        .unwrap();
    // Whoever looks a moment later finds some applied already.
    for told in [&told_one, &told_two] {
        let told: Vec<i64> = told.iter().map(|version| version.0).collect();
        assert!(applied.ends_with(&told), "{told:?}");
    }
    assert_eq!(told_one.len().max(told_two.len()), applied.len());
    let mut told = 0;
    admin::migrate_telling(&mut one, |_| told += 1).await.unwrap();
    assert_eq!(told, 0, "nothing is left to apply");
    drop((one, two));
    drop_database(&name).await;
}

#[tokio::test]
async fn a_session_that_waits_for_a_lock_is_seen_from_beside_until_it_is_gone() {
    let name = empty_database().await;
    let (mut holder, mut waiter, mut beside) = (superuser(&name).await, superuser(&name).await, superuser(&name).await);
    let backend = admin::backend(&mut waiter).await.unwrap();
    assert_eq!(admin::blockers(&mut beside, backend).await.unwrap(), Some(0));
    run(&mut holder, "CREATE TABLE held ()").await;
    run(&mut holder, "BEGIN; LOCK TABLE held").await;
    let waiting = tokio::spawn(async move {
        run(&mut waiter, "BEGIN; LOCK TABLE held").await;
    });
    eventually("it waits", || {
        let name = name.clone();
        async move { admin::blockers(&mut superuser(&name).await, backend).await.unwrap() == Some(1) }
    })
    .await;
    waiting.abort();
    run(&mut holder, "ROLLBACK").await;
    eventually("it is gone", || {
        let name = name.clone();
        async move {
            admin::blockers(&mut superuser(&name).await, backend)
                .await
                .unwrap()
                .is_none()
        }
    })
    .await;
    drop((holder, beside));
    drop_database(&name).await;
}

#[tokio::test]
async fn settings_are_read_with_their_units_limits_and_sources() {
    let mut conn = superuser("postgres").await;
    run(&mut conn, "SET work_mem = '9MB'").await;
    let settings = admin::read_settings(&mut conn).await.unwrap();
    let of = |name: &str| settings.iter().find(|setting| setting.name == name).unwrap().clone();
    let work_mem = of("work_mem");
    assert_eq!(
        (
            work_mem.value.as_str(),
            work_mem.unit.as_deref(),
            work_mem.kind,
            work_mem.source.as_str()
        ),
        ("9216", Some("kB"), SettingKind::Integer, "session")
    );
    assert_eq!(work_mem.limits, Some(("64".to_owned(), "2147483647".to_owned())));
    assert!(of("wal_compression").words.contains(&"lz4".to_owned()));
    assert_eq!(of("datestyle").kind, SettingKind::Text);
    assert!(of("block_size").internal && !of("jit").internal);
}

#[tokio::test]
async fn the_log_begins_with_its_oldest_segment() {
    let mut conn = superuser("postgres").await;
    let mut tries = 0;
    loop {
        let oldest = admin::oldest_log(&mut conn).await.unwrap().unwrap();
        let (there, now): (bool, i64) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_ls_waldir()
                             WHERE substr(name, 9) = substr(pg_walfile_name('0/0'::pg_lsn + $1::numeric), 9)),
                    pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint",
        )
        .bind(oldest.0.cast_signed())
        .fetch_one(&mut conn)
        .await
        .unwrap();
        assert!(oldest.0.cast_signed() <= now, "{oldest}");
        if there {
            break;
        }
        // Unless a checkpoint took it away between the two questions.
        tries += 1;
        assert!(tries < 3, "{oldest} is a segment's first byte");
    }
    assert_eq!(admin::Lsn(0x1_0000_00AB).to_string(), "1/AB");
}

#[tokio::test]
async fn only_a_slot_that_is_lost_is_dropped() {
    let mut conn = superuser("postgres").await;
    let slot = format!("ringwright_test_{}", std::process::id());
    run(
        &mut conn,
        format!("SELECT pg_create_physical_replication_slot('{slot}', true)"),
    )
    .await;
    assert!(!admin::drop_lost_slot(&mut conn, &slot).await.unwrap());
    assert!(!admin::drop_lost_slot(&mut conn, "no_such_slot").await.unwrap());
    run(&mut conn, format!("SELECT pg_drop_replication_slot('{slot}')")).await;
}

#[tokio::test]
async fn the_monitoring_role_reads_the_vitals_of_a_shard() {
    let name = database().await;
    let mut conn = super::fence::connect(&name, Role::Monitor).await;
    let vitals = admin::read_vitals(&mut conn).await.unwrap();
    assert_eq!(vitals.outbox_events, 0);
    assert!(vitals.database_bytes > 1_000_000, "{vitals:?}");
    // The server has a replica that streams; it may lag behind what other tests write, and lose its connection.
    let shard = &name;
    eventually("a follower streams", || async move {
        let mut conn = super::fence::connect(shard, Role::Monitor).await;
        let vitals = admin::read_vitals(&mut conn).await.unwrap();
        let mut followers = vitals.followers.iter();
        followers.any(|follower| follower.streams && follower.lag_bytes >= 0)
    })
    .await;
    conn.close().await.unwrap();
    drop_database(&name).await;
}

/// The roles belong to the whole server, so this test gives the password back.
#[tokio::test]
async fn passwords_are_stored_as_verifiers_and_come_back() {
    let name = database().await;
    let _nobody_else = CREATING.lock().await;
    let mut postgres = superuser("postgres").await;
    admin::reset_password(&mut postgres, Role::Rewind, &"another".to_owned().into())
        .await
        .unwrap();
    let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = 'ringwright_rewind'";
    let other: String = sqlx::query_scalar(stored).fetch_one(&mut postgres).await.unwrap();
    assert!(other.starts_with("SCRAM-SHA-256$4096:") && !other.contains("another"));
    admin::ensure_roles(&mut postgres, &name, &passwords()).await.unwrap();
    let ours: String = sqlx::query_scalar(stored).fetch_one(&mut postgres).await.unwrap();
    assert_ne!(ours, other, "the password of the Secret is set again");
    drop_database(&name).await;
}

#[tokio::test]
async fn a_verifier_is_taken_by_the_server_as_it_is() {
    let mut postgres = superuser("postgres").await;
    let role = format!("test_verifier_{}", std::process::id());
    let verifier = admin::scram_verifier(&"pâss'w\u{00a0}rd".to_owned().into());
    let sql = format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} PASSWORD '{}'",
        verifier.expose_secret()
    );
    run(&mut postgres, sql).await;
    let stored: String = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
        .bind(&role)
        .fetch_one(&mut postgres)
        .await
        .unwrap();
    assert_eq!(
        stored,
        verifier.expose_secret(),
        "a text of another form would have been hashed once more"
    );
    run(&mut postgres, format!("DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_volume_of_another_shard_is_refused() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    let identity = ShardIdentity {
        cluster_uid: "shop-1".to_owned(),
        ordinal: Ordinal(3),
    };
    assert_eq!(admin::read_identity(&mut conn).await.unwrap(), None);
    admin::ensure_identity(&mut conn, &identity).await.unwrap();
    admin::ensure_identity(&mut conn, &identity).await.unwrap();
    assert_eq!(admin::read_identity(&mut conn).await.unwrap(), Some(identity.clone()));
    for other in [
        ShardIdentity {
            ordinal: Ordinal(4),
            ..identity.clone()
        },
        ShardIdentity {
            cluster_uid: "shop-2".to_owned(),
            ..identity
        },
    ] {
        let refused = admin::ensure_identity(&mut conn, &other).await;
        assert!(matches!(refused, Err(AdminError::WrongIdentity { .. })), "{refused:?}");
    }
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn first_ranges_are_claimed_once() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    assert_eq!(admin::read_ranges(&mut conn).await.unwrap(), []);
    admin::claim_initial_ranges(&mut conn, &HALVES).await.unwrap();
    admin::claim_initial_ranges(&mut conn, &[HALVES[1], HALVES[0]])
        .await
        .unwrap();
    let book = admin::read_ranges(&mut conn).await.unwrap();
    assert_eq!(book.iter().map(|row| row.range).collect::<Vec<_>>(), HALVES);
    assert!(book.iter().all(|row| row.is_here() && row.generation == Generation(1)));
    let refused = admin::claim_initial_ranges(&mut conn, &HALVES[..1]).await;
    assert!(
        matches!(refused, Err(AdminError::AlreadyOwns { existing: 2, wanted: 1 })),
        "{refused:?}"
    );

    run(
        &mut conn,
        "UPDATE ringwright.range_owners SET state = 'cleaned', target = 1 WHERE lo = 0",
    )
    .await;
    assert_eq!(
        admin::read_ranges(&mut conn).await.unwrap()[0].state,
        RangeState::Cleaned
    );
    let refused = admin::claim_initial_ranges(&mut conn, &HALVES).await;
    assert!(
        matches!(refused, Err(AdminError::AlreadyOwns { .. })),
        "what was given away is not taken back: {refused:?}"
    );
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn a_claim_behind_one_that_does_not_end_is_given_up_and_can_be_made_again() {
    let name = database().await;
    let (mut conn, mut stuck) = (superuser(&name).await, superuser(&name).await);
    run(
        &mut stuck,
        "BEGIN; LOCK TABLE ringwright.range_owners IN EXCLUSIVE MODE",
    )
    .await;
    let refused = admin::claim_initial_ranges(&mut conn, &HALVES).await;
    assert!(matches!(refused, Err(AdminError::Database { .. })), "{refused:?}");
    run(&mut stuck, "ROLLBACK").await;
    admin::claim_initial_ranges(&mut conn, &HALVES).await.unwrap();
    conn.close().await.unwrap();
    stuck.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn two_operators_that_claim_at_once_write_one_book() {
    let name = database().await;
    let (mut one, mut two) = (superuser(&name).await, superuser(&name).await);
    let (first, second) = tokio::join!(
        admin::claim_initial_ranges(&mut one, &HALVES),
        admin::claim_initial_ranges(&mut two, &HALVES)
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(admin::read_ranges(&mut one).await.unwrap().len(), 2);
    drop((one, two));
    drop_database(&name).await;
}

#[tokio::test]
async fn a_shard_that_holds_rows_and_lost_its_book_gets_no_new_one() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    admin::claim_initial_ranges(&mut conn, &HALVES).await.unwrap();
    let row = row_id::EventId::generate(row_id::Position::new(5)).uuid();
    run(&mut conn, super::fence::insert(row)).await;
    run(&mut conn, "DELETE FROM ringwright.range_owners").await;
    let refused = admin::claim_initial_ranges(&mut conn, &HALVES).await;
    assert!(matches!(refused, Err(AdminError::Refused(_))), "{refused:?}");
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[tokio::test]
async fn a_failed_connection_says_where_and_as_whom() {
    let target = AdminTarget {
        host: "127.0.0.1:1".to_owned(),
        database: "orders".to_owned(),
        user: "postgres".to_owned(),
        password: "secret-word".to_owned().into(),
        ssl_mode: PgSslMode::Disable,
        ca_file: None,
    };
    let error = admin::connect(&target).await.unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1:1") && error.contains("`postgres`") && !error.contains("secret-word"),
        "{error}"
    );
    let mut conn = superuser("postgres").await;
    assert_eq!(refusal(&mut conn, "SELECT 1").await, "accepted");
}
