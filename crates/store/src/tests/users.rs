use std::sync::Arc;
use std::time::Instant;

use row_id::UserId;

use super::shards::{PATIENCE, Shards, key, new_user, new_user_at, render_user, user_of};
use crate::{BasedOn, ReadAt, ReadTokens, RequestHash, StoreError};

#[tokio::test]
async fn a_user_lies_where_its_id_says_and_its_contacts_are_held() {
    let shards = Shards::start(3).await;
    let new = new_user();
    let written = shards.store.create_user(key(), new.clone(), render_user).await.unwrap();
    let id = user_of(&written);
    let owner = shards.owner(id.position());
    assert_eq!(written.token.shard, owner);
    assert_eq!(
        shards
            .scalar::<i64>(
                owner,
                &format!("SELECT count(*) FROM shop.users WHERE user_id = '{id}'")
            )
            .await,
        1
    );
    assert_eq!(shards.total("SELECT count(*) FROM shop.users").await, 1);
    assert_eq!(
        shards
            .total("SELECT count(*) FROM ringwright.contact_claims WHERE state = 'held'")
            .await,
        2
    );
    let mut tokens = ReadTokens::default();
    tokens.add(written.token);
    let user = shards
        .store
        .get_user(id, &ReadAt::session(tokens))
        .await
        .unwrap()
        .value
        .unwrap();
    assert_eq!((user.email_address, user.version), (new.email_address, 1));
    assert_eq!(
        shards
            .store
            .get_user(UserId::generate(), &ReadAt::default())
            .await
            .unwrap()
            .value,
        None
    );
    shards.end().await;
}

#[tokio::test]
async fn a_repeated_creation_gets_the_first_answer() {
    let shards = Shards::start(2).await;
    let (key, new) = (key(), new_user());
    let first = shards
        .store
        .create_user(key.clone(), new.clone(), render_user)
        .await
        .unwrap();
    let again = shards
        .store
        .create_user(key.clone(), new.clone(), render_user)
        .await
        .unwrap();
    assert!(again.repeated && again.response == first.response);
    let mut other = key;
    other.request = RequestHash([1; 32]);
    let reuse = shards.store.create_user(other, new, render_user).await;
    assert!(matches!(reuse, Err(StoreError::KeyReuse)), "{reuse:?}");
    assert_eq!(shards.total("SELECT count(*) FROM shop.users").await, 1);
    shards.end().await;
}

#[tokio::test]
async fn of_many_who_race_for_an_email_address_one_wins_and_the_others_leave_nothing() {
    let shards = Shards::start(3).await;
    let wanted = new_user();
    let began = Instant::now();
    let racers = (0..10).map(|racer| {
        let mut new = new_user();
        // Spelled differently, the same all the same.
        new.email_address = if racer % 2 == 0 {
            wanted.email_address.clone()
        } else {
            wanted.email_address.to_uppercase()
        };
        let (store, key) = (&shards.store, key());
        async move {
            loop {
                match store.create_user(key.clone(), new.clone(), render_user).await {
                    // The winner has not ended yet.
                    Err(StoreError::ClaimPending { .. }) if began.elapsed() < PATIENCE => {}
                    outcome => return outcome,
                }
            }
        }
    });
    let outcomes = futures::future::join_all(racers).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
    for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(lost, StoreError::EmailTaken), "{lost:?}");
    }
    assert_eq!(shards.total("SELECT count(*) FROM shop.users").await, 1);
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.contact_claims").await, 2);
    assert_eq!(
        shards.total("SELECT count(*) FROM ringwright.idempotency_keys").await,
        1,
        "losers' keys are free"
    );
    shards.end().await;
}

#[tokio::test]
async fn who_loses_the_mobile_number_gives_the_email_address_back() {
    let shards = Shards::start(2).await;
    let first = new_user();
    shards.create(&first).await;
    let mut second = new_user();
    second.mobile_number = first.mobile_number;
    let (retry, mut free) = (key(), second.clone());
    let lost = shards
        .store
        .create_user(retry.clone(), second.clone(), render_user)
        .await;
    assert!(matches!(lost, Err(StoreError::MobileTaken)), "{lost:?}");
    free.mobile_number = new_user().mobile_number;
    shards.store.create_user(retry, free, render_user).await.unwrap();
    shards.end().await;
}

#[tokio::test]
async fn changed_contacts_are_claimed_anew_and_old_ones_are_free_again() {
    let shards = Shards::start(3).await;
    let store = &shards.store;
    let (ada, bob) = (new_user(), new_user());
    let ada_id = shards.create(&ada).await;
    shards.create(&bob).await;

    let mut wanted = ada.clone();
    wanted.email_address = bob.email_address.clone();
    let taken = store
        .update_user(key(), ada_id, BasedOn::Any, wanted, render_user)
        .await;
    assert!(matches!(taken, Err(StoreError::EmailTaken)), "{taken:?}");

    let mut moved = ada.clone();
    moved.email_address = new_user().email_address;
    moved.first_name = "Augusta".to_owned();
    let update = key();
    let changed = store
        .update_user(update.clone(), ada_id, BasedOn::version(1), moved.clone(), render_user)
        .await
        .unwrap();
    assert_eq!(changed.response.etag.as_deref(), Some("\"2\""));
    let repeat = store
        .update_user(update, ada_id, BasedOn::version(1), moved.clone(), render_user)
        .await
        .unwrap();
    assert!(repeat.repeated && repeat.response == changed.response);
    let stale = store
        .update_user(key(), ada_id, BasedOn::version(1), moved, render_user)
        .await;
    assert!(
        matches!(stale, Err(StoreError::VersionMismatch { current: 2 })),
        "{stale:?}"
    );
    let nobody = store
        .update_user(key(), UserId::generate(), BasedOn::Any, new_user(), render_user)
        .await;
    assert!(matches!(nobody, Err(StoreError::UserNotFound(_))), "{nobody:?}");

    shards.create(&new_user_at(&ada.email_address)).await;
    assert_eq!(
        shards
            .total("SELECT count(*) FROM ringwright.contact_claims WHERE state = 'held'")
            .await,
        6
    );
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.contact_claims").await, 6);
    shards.end().await;
}

#[tokio::test]
async fn updates_at_once_without_a_version_all_happen_one_after_another() {
    let shards = Shards::start(1).await;
    let new = new_user();
    let id = shards.create(&new).await;
    let updates = (0..4).map(|round| {
        let mut new = new.clone();
        new.first_name = format!("Ada {round}");
        shards.store.update_user(key(), id, BasedOn::Any, new, render_user)
    });
    for outcome in futures::future::join_all(updates).await {
        outcome.unwrap();
    }
    let user = shards.user(id).await;
    assert_eq!(user.version, 5);
    shards.end().await;
}

/// The repeat of a request that changes contacts, without a key or with one of its own, while the first is at work.
#[tokio::test]
async fn a_contact_stays_its_users_when_two_requests_change_the_user_to_it_at_once() {
    let shards = Shards::start(2).await;
    let mut user = new_user();
    let id = shards.create(&user).await;
    for _ in 0..10 {
        user.email_address = new_user().email_address;
        let change = || {
            shards
                .store
                .update_user(key(), id, BasedOn::Any, user.clone(), render_user)
        };
        let (first, second) = tokio::join!(change(), change());
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        let other = shards
            .store
            .create_user(key(), new_user_at(&user.email_address), render_user)
            .await;
        assert!(matches!(other, Err(StoreError::EmailTaken)), "{other:?}");
    }
    shards.end().await;
}

/// An address goes back and forth between two users, while others try to get hold of it.
#[tokio::test]
async fn an_address_never_belongs_to_two_users() {
    let shards = Arc::new(Shards::start(2).await);
    let contested = new_user().email_address;
    let mut people = Vec::new();
    for _ in 0..4 {
        let own = new_user();
        people.push((shards.create(&own).await, own));
    }
    let tasks = people.into_iter().map(|(id, own)| {
        let (shards, contested) = (Arc::clone(&shards), contested.clone());
        tokio::spawn(async move {
            let users = format!("SELECT count(*) FROM shop.users WHERE email_address = '{contested}'");
            let mut won = 0;
            for _ in 0..12 {
                let mut with = own.clone();
                with.email_address = contested.clone();
                if shards
                    .store
                    .update_user(key(), id, BasedOn::Any, with, render_user)
                    .await
                    .is_ok()
                {
                    won += 1;
                    assert_eq!(shards.total(&users).await, 1, "while it is mine it is nobody else's");
                }
                shards
                    .store
                    .update_user(key(), id, BasedOn::Any, own.clone(), render_user)
                    .await
                    .unwrap();
            }
            won
        })
    });
    let won: u32 = futures::future::join_all(tasks)
        .await
        .into_iter()
        .map(|won| won.unwrap())
        .sum();
    assert!(won >= 4, "{won}");
    assert_eq!(
        shards
            .total("SELECT count(*) FROM ringwright.contact_claims WHERE state = 'pending'")
            .await,
        0
    );
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.contact_claims").await, 8);
    Arc::into_inner(shards).unwrap().end().await;
}
