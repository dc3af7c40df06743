//! Processes that die between the steps of creating or changing a user.

use std::time::Duration;

use row_id::{ClaimId, UserId};

use super::shards::{Shards, key, new_user, new_user_at, render_user, user_of};
use crate::contacts::{ClaimJanitor, ClaimsSettled};
use crate::idempotency::KeyJanitor;
use crate::users::NewUser;
use crate::{BasedOn, IdempotencyKey, ReadAt, StoreError};

const STEPS: [&str; 5] = [
    "begun",
    "email claimed",
    "mobile claimed",
    "user written",
    "claims held",
];

const END_LEASES: &str = "UPDATE ringwright.idempotency_keys SET lease_until = now() WHERE state = 'running'";

async fn clean_up(shards: &Shards) -> ClaimsSettled {
    let janitor = ClaimJanitor {
        older_than: Duration::ZERO,
        limit: 100,
    };
    let mut all = ClaimsSettled::default();
    for shard in shards.store.shards() {
        let settled = janitor.run(&shards.store, shard).await.unwrap();
        all.held += settled.held;
        all.released += settled.released;
    }
    all
}

/// Creates a user as a process does that dies at this step.
async fn die_creating(shards: &Shards, step: &'static str, key: &IdempotencyKey, new: &NewUser) -> StoreError {
    shards.store.inner.failpoint.arm(step);
    let died = shards.store.create_user(key.clone(), new.clone(), render_user).await;
    died.unwrap_err()
}

/// The same with a change of a user.
async fn die_updating(shards: &Shards, step: &'static str, user: UserId, based_on: BasedOn, new: &NewUser) {
    shards.store.inner.failpoint.arm(step);
    let died = shards
        .store
        .update_user(key(), user, based_on, new.clone(), render_user)
        .await;
    died.unwrap_err();
}

async fn everywhere(shards: &Shards, sql: &str) {
    for shard in shards.store.shards() {
        shards.execute(shard, sql).await;
    }
}

#[tokio::test]
async fn a_repeat_finishes_what_a_dead_process_began_after_any_step() {
    let shards = Shards::start(3).await;
    for step in STEPS {
        let (key, new) = (key(), new_user());
        let died = die_creating(&shards, step, &key, &new).await;
        assert!(
            matches!(&died, StoreError::BadRow { why, .. } if why == step),
            "{step}: {died:?}"
        );

        let too_early = shards.store.create_user(key.clone(), new.clone(), render_user).await;
        assert!(
            matches!(too_early, Err(StoreError::InProgress { .. })),
            "{step}: {too_early:?}"
        );

        everywhere(&shards, END_LEASES).await;
        let resumed = shards
            .store
            .create_user(key.clone(), new.clone(), render_user)
            .await
            .unwrap();
        assert!(!resumed.repeated, "{step}: nobody was answered before");
        let id = user_of(&resumed);
        let count = format!(
            "SELECT count(*) FROM shop.users WHERE email_address = '{}'",
            new.email_address
        );
        assert_eq!(shards.total(&count).await, 1, "{step}");
        let claims =
            format!("SELECT count(*) FROM ringwright.contact_claims WHERE user_id = '{id}' AND state = 'held'");
        assert_eq!(shards.total(&claims).await, 2, "{step}");
        let repeat = shards.store.create_user(key, new, render_user).await.unwrap();
        assert!(repeat.repeated && repeat.response == resumed.response, "{step}");
    }
    shards.end().await;
}

#[tokio::test]
async fn without_a_repeat_the_janitor_frees_the_contacts_or_holds_them() {
    let shards = Shards::start(3).await;
    for step in STEPS {
        let new = new_user();
        die_creating(&shards, step, &key(), &new).await;
        let written = matches!(step, "user written" | "claims held");

        let young = ClaimJanitor::default()
            .run(&shards.store, ring::Ordinal(0))
            .await
            .unwrap();
        assert_eq!(
            young,
            ClaimsSettled::default(),
            "claims of less than a minute are left alone"
        );
        let settled = clean_up(&shards).await;
        let expected = match step {
            "begun" | "claims held" => ClaimsSettled::default(),
            "email claimed" => ClaimsSettled { held: 0, released: 1 },
            "mobile claimed" => ClaimsSettled { held: 0, released: 2 },
            _ => ClaimsSettled { held: 2, released: 0 },
        };
        assert_eq!(settled, expected, "{step}");

        let other = new_user_at(&new.email_address);
        let next = shards.store.create_user(key(), other, render_user).await;
        if written {
            assert!(matches!(next, Err(StoreError::EmailTaken)), "{step}: {next:?}");
        } else {
            next.unwrap();
        }
    }
    shards.end().await;
}

/// The attempt whose lease was taken over may only be asleep, and go on: what it has claimed must become nobody's.
#[tokio::test]
async fn who_takes_over_and_meets_a_conflict_leaves_the_claims_to_the_janitor() {
    let shards = Shards::start(2).await;
    // The second time the take-over is done twice, for its first answer is lost.
    for lost in [0, 1] {
        let (asleep, new) = (key(), new_user());
        die_creating(&shards, "email claimed", &asleep, &new).await;
        everywhere(&shards, END_LEASES).await;
        let other = NewUser {
            mobile_number: new.mobile_number.clone(),
            ..new_user()
        };
        shards.create(&other).await;
        shards
            .proxies
            .iter()
            .for_each(|proxy| proxy.cut_answers_of_commits(lost));
        let taken = shards.store.create_user(asleep, new.clone(), render_user).await;
        assert!(matches!(taken, Err(StoreError::MobileTaken)), "{taken:?}");
        shards.proxies.iter().for_each(|proxy| proxy.cut_answers_of_commits(0));

        let heir = new_user_at(&new.email_address);
        let early = shards.store.create_user(key(), heir.clone(), render_user).await;
        assert!(matches!(early, Err(StoreError::ClaimPending { .. })), "{early:?}");
        assert_eq!(clean_up(&shards).await.released, 1);
        let tombstones = "SELECT count(*) FROM shop.users WHERE state = 'tombstone'";
        assert_eq!(shards.total(tombstones).await, lost as i64 + 1, "who wakes up finds it");
        shards.create(&heir).await;
    }
    shards.end().await;
}

/// The creator sleeps between its claims and the user, the janitor comes, the address goes to another, the creator
/// wakes up.
#[tokio::test]
async fn a_creator_that_wakes_up_after_the_janitor_does_not_use_what_was_given_away() {
    let shards = Shards::start(2).await;
    let (late, new) = (key(), new_user());
    die_creating(&shards, "mobile claimed", &late, &new).await;
    assert_eq!(clean_up(&shards).await.released, 2);
    let tombstones = "SELECT count(*) FROM shop.users WHERE state = 'tombstone'";
    assert_eq!(shards.total(tombstones).await, 1);

    let heir_id = shards.create(&new_user_at(&new.email_address)).await;
    everywhere(&shards, END_LEASES).await;
    let woken = shards.store.create_user(late.clone(), new.clone(), render_user).await;
    assert!(matches!(woken, Err(StoreError::EmailTaken)), "{woken:?}");

    // With the address free again, the same key makes the user under another id than the buried one.
    let left = new_user();
    shards
        .store
        .update_user(key(), heir_id, BasedOn::Any, left, render_user)
        .await
        .unwrap();
    let made = shards.store.create_user(late, new, render_user).await.unwrap();
    let user = shards
        .store
        .get_user(user_of(&made), &ReadAt::strong())
        .await
        .unwrap()
        .value;
    assert!(user.is_some(), "a tombstone is no user");
    assert_eq!(
        shards
            .total("SELECT count(*) FROM shop.users WHERE state = 'active'")
            .await,
        2
    );
    shards.end().await;
}

#[tokio::test]
async fn a_repeat_after_the_janitor_makes_the_user_under_another_id() {
    let shards = Shards::start(2).await;
    let (late, new) = (key(), new_user());
    die_creating(&shards, "mobile claimed", &late, &new).await;
    clean_up(&shards).await;
    everywhere(&shards, END_LEASES).await;
    let made = shards.store.create_user(late, new, render_user).await.unwrap();
    let buried = format!(
        "SELECT count(*) FROM shop.users WHERE state = 'tombstone' AND user_id <> '{}'",
        user_of(&made)
    );
    assert_eq!(shards.total(&buried).await, 1);
    let held = format!(
        "SELECT count(*) FROM ringwright.contact_claims WHERE user_id = '{}'",
        user_of(&made)
    );
    assert_eq!(shards.total(&held).await, 2);
    shards.end().await;
}

#[tokio::test]
async fn an_update_that_died_before_the_write_is_undone_and_one_after_it_is_kept() {
    let shards = Shards::start(2).await;
    let store = &shards.store;
    for (step, kept) in [("new contacts claimed", false), ("user changed", true)] {
        let old = new_user();
        let id = shards.create(&old).await;
        let mut new = old.clone();
        new.email_address = new_user().email_address;
        die_updating(&shards, step, id, BasedOn::Any, &new).await;
        let settled = clean_up(&shards).await;
        assert_eq!(
            (settled.held, settled.released),
            if kept { (1, 0) } else { (0, 1) },
            "{step}"
        );

        // Of the two addresses, the one that is not used can be had, though nobody released it.
        let (free, used) = if kept { (&old, &new) } else { (&new, &old) };
        let mut taker = new_user_at(&used.email_address);
        let refused = store.create_user(key(), taker.clone(), render_user).await;
        assert!(matches!(refused, Err(StoreError::EmailTaken)), "{step}: {refused:?}");
        taker.email_address = free.email_address.clone();
        store.create_user(key(), taker, render_user).await.unwrap();
    }
    shards.end().await;
}

#[tokio::test]
async fn an_update_that_wakes_up_after_the_janitor_finds_another_version() {
    let shards = Shards::start(2).await;
    let new = new_user();
    let id = shards.create(&new).await;
    let mut changed = new.clone();
    changed.email_address = new_user().email_address;
    die_updating(&shards, "new contacts claimed", id, BasedOn::version(1), &changed).await;
    clean_up(&shards).await;
    let user = shards.user(id).await;
    assert_eq!(
        (user.version, user.email_address),
        (2, new.email_address),
        "its write WHERE version = 1 finds no row"
    );
    shards.end().await;
}

#[tokio::test]
async fn a_claim_of_another_in_progress_is_waited_for_and_then_told() {
    let shards = Shards::start(1).await;
    let new = new_user();
    die_creating(&shards, "email claimed", &key(), &new).await;
    let other = new_user_at(&new.email_address);
    let told = shards.store.create_user(key(), other, render_user).await;
    assert!(matches!(told, Err(StoreError::ClaimPending { .. })), "{told:?}");
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.contact_claims").await, 1);
    shards.end().await;
}

#[tokio::test]
async fn claims_do_not_store_the_address() {
    let shards = Shards::start(1).await;
    let new = new_user();
    shards.store.create_user(key(), new.clone(), render_user).await.unwrap();
    let text: String = shards
        .scalar(
            ring::Ordinal(0),
            "SELECT string_agg(c::text, ' ') FROM ringwright.contact_claims c",
        )
        .await;
    assert!(
        !text.contains("example.org") && !text.contains(&new.mobile_number[1..]),
        "{text}"
    );
    let email = ClaimId::derive("email", &new.email_address);
    assert!(text.contains(&email.to_string()));
    shards.end().await;
}

#[tokio::test]
async fn keys_are_swept_when_they_are_old() {
    let shards = Shards::start(1).await;
    let shard = ring::Ordinal(0);
    shards.create_user().await;
    shards.create_user().await;
    assert_eq!(KeyJanitor::default().run(&shards.store, shard).await.unwrap(), 0);
    let age = "UPDATE ringwright.idempotency_keys SET created_at = now() - interval '25 hours'
        WHERE key_id = (SELECT min(key_id::text)::uuid FROM ringwright.idempotency_keys)";
    shards.execute(shard, age).await;
    assert_eq!(KeyJanitor::default().run(&shards.store, shard).await.unwrap(), 1);
    assert_eq!(
        shards.total("SELECT count(*) FROM ringwright.idempotency_keys").await,
        1
    );
    shards.end().await;
}
