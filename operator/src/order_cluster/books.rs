//! The shards' own books of who owns which keys: `ringwright.range_owners` in each database.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use moves::ShardView;
use ring::Range;
use store::admin::{self, AdminError};
use tokio::time::timeout;

use super::{
    databases::Databases,
    masters::{ConnectError, Keeper},
    rebalance::{Fault, Hands},
};

/// A shard that does not answer in this time is looked at again later; a book is a few hundred rows.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a book could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    #[error("could not reach shard {shard}")]
    Unreachable {
        shard: String,
        #[source]
        source: Box<ConnectError>,
    },
    #[error("shard {shard} did not answer within {} s", PATIENCE.as_secs())]
    Silent { shard: String },
    #[error("shard {shard}")]
    Database {
        shard: String,
        #[source]
        source: Box<AdminError>,
    },
}

/// Access to the books; an interface so that the controller's scenarios can be tested without databases.
#[async_trait]
pub(crate) trait Books: Debug + Send + Sync {
    /// A shard's book, and what else its database says of moves.
    async fn read(&self, keeper: &Keeper) -> Result<ShardView, Fault>;

    /// Gives a shard that never owned anything its first ranges. The same again is fine; others are refused.
    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError>;
}

#[async_trait]
impl Books for Databases {
    async fn read(&self, keeper: &Keeper) -> Result<ShardView, Fault> {
        self.observe(keeper).await
    }

    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError> {
        // No limit on the statement itself: a commit that waits for a standby must not be cut off (it would look
        // undone and be there). Another reconcile waits behind this one, which is right.
        let shard = || keeper.shard.clone();
        let mut connection = timeout(PATIENCE, self.masters.connect(keeper))
            .await
            .map_err(|_| BookError::Silent { shard: shard() })?
            .map_err(|error| BookError::Unreachable {
                shard: shard(),
                source: Box::new(error),
            })?;
        admin::claim_initial_ranges(&mut connection, ranges)
            .await
            .map_err(|error| BookError::Database {
                shard: shard(),
                source: Box::new(error),
            })
    }
}
