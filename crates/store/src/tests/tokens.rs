//! Tokens that the shards cannot have given, or not yet as far as a process can see.

use std::time::Duration;

use ring::{Generation, Ordinal};
use row_id::UserId;

use super::proxy::Proxy;
use super::shards::{Shards, eventually, key, new_user, render_user, user_of};
use crate::{ReadAt, ReadToken, ReadTokens, StoreError};

fn session(token: ReadToken) -> ReadAt {
    let mut tokens = ReadTokens::default();
    tokens.add(token);
    ReadAt::session(tokens)
}

fn strong(token: ReadToken) -> ReadAt {
    let mut tokens = ReadTokens::default();
    tokens.add(token);
    ReadAt::strong_after(tokens)
}

/// Reads one user by itself and in a list.
async fn read_both_ways(shards: &Shards, user: UserId, at: &ReadAt) -> [Result<(), StoreError>; 2] {
    let alone = shards.store.get_user(user, at).await.map(drop);
    let mut listed = shards.store.get_users(&[user], at).await;
    [alone, listed.remove(0).map(drop)]
}

#[tokio::test]
async fn a_token_of_a_term_or_position_that_the_shard_never_came_to_is_refused_at_once() {
    let shards = Shards::with(1, |config| config.read_deadline = Duration::from_secs(60)).await;
    let user = shards.create_user().await;
    let token = shards.store.get_user(user, &ReadAt::default()).await.unwrap().token;
    shards.store.get_user(user, &session(token)).await.unwrap();
    let mut later = token;
    later.term.0 += 1;
    let mut farther = token;
    farther.lsn.0 += 1 << 40;
    // Well before the deadline of a read, which is when a shard that cannot tell gives up.
    for (foreign, at) in [later, farther]
        .into_iter()
        .flat_map(|foreign| [(foreign, session(foreign)), (foreign, strong(foreign))])
    {
        let refused = tokio::time::timeout(Duration::from_secs(30), read_both_ways(&shards, user, &at));
        for refused in refused.await.expect("it waits for nobody") {
            assert!(
                matches!(refused, Err(StoreError::ForeignToken { shard: Ordinal(0) })),
                "{foreign:?}: {refused:?}"
            );
        }
    }
    shards.end().await;
}

#[tokio::test]
async fn a_token_of_a_later_term_waits_for_a_member_that_cannot_be_reached() {
    let shards = Shards::with(1, |config| config.read_deadline = Duration::from_secs(1)).await;
    let written = shards.store.create_user(key(), new_user(), render_user).await.unwrap();
    let (user, mut token) = (user_of(&written), written.token);
    // It may have been promoted a moment ago.
    let away = Proxy::start("127.0.0.1:1".to_owned(), "nothing".to_owned()).await;
    away.refuse(true);
    shards.add_replica(&away);
    let all = &shards;
    eventually("the new member is seen", || async move {
        all.store.health()[0].members.len() == 2
    })
    .await;
    token.term.0 += 1;
    for at in [session(token), strong(token)] {
        for refused in read_both_ways(&shards, user, &at).await {
            assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        }
    }
    shards.end().await;
}

#[tokio::test]
async fn a_token_of_a_shard_that_the_ring_does_not_have_is_met_by_the_master() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let mut token = shards.store.get_user(user, &ReadAt::default()).await.unwrap().token;
    // A shard that has left the ring gave its rows to others, and its tokens stay with the clients.
    token.shard = Ordinal(77);
    token.generation = Generation(i64::MAX);
    for at in [session(token), strong(token)] {
        for read in read_both_ways(&shards, user, &at).await {
            read.unwrap();
        }
    }
    shards.end().await;
}
