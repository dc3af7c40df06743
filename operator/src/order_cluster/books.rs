//! The shards' own books of who owns which keys: `ringwright.range_owners` in each database.

use std::fmt::Debug;

use async_trait::async_trait;
use moves::ShardView;
use ring::Range;
use store::admin::{self, AdminError};
use tokio::time::timeout;

use super::{
    databases::{Databases, PATIENCE},
    masters::{ConnectError, Keeper},
    rebalance::{Fault, Hands},
};

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
        let shard = || keeper.shard.clone();
        let claiming = async {
            let connecting = self.masters.connect(keeper).await;
            let mut connection = connecting.map_err(|error| BookError::Unreachable {
                shard: shard(),
                source: Box::new(error),
            })?;
            let claimed = admin::claim_initial_ranges(&mut connection, ranges).await;
            claimed.map_err(|error| BookError::Database {
                shard: shard(),
                source: Box::new(error),
            })
        };
        // A commit that waits for a standby goes on in the database when nobody waits for it here any more. That is as good
        // as done, or as not done: the book is read again, and the same claim is made again. The cluster's reconcile must
        // not wait for it, for it is what brings the standby back.
        let silent = Err(BookError::Silent { shard: shard() });
        timeout(PATIENCE, claiming).await.unwrap_or(silent)
    }
}
