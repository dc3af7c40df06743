//! What a run leaves on the shards and with the customers.

use rand::RngExt;
use uuid::Uuid;

use super::{Evidence, Simulation};
use crate::history::contents::{Channel, Claim, Contact, Contents, Notice, Placed, Received, StoredRow};
use crate::history::record::{Intent, OperationId};

impl Simulation {
    pub(super) fn end(mut self) -> Evidence {
        let mut contents = Contents {
            books: self.books.clone(),
            ..Contents::default()
        };
        for (key, row) in &self.rows {
            let shard = self.owners[Self::range(*key)].0;
            let stored = StoredRow {
                shard,
                key: *key,
                version: row.versions.len() as i64,
                created_by: Some(row.created_by),
                content: row.versions.last().map(|version| version.content),
            };
            let below = |number: u128| Uuid::from_u128(key.as_u128() ^ number);
            contents.keys.push(Placed { shard, key: below(1) });
            match row.order_of {
                None => {
                    let claim = |number, contact| Claim {
                        shard,
                        key: below(number),
                        user: *key,
                        contact,
                        // Now and then its creator died before, and the janitor has not come yet.
                        is_held: key.as_bytes()[15] > 20,
                    };
                    contents
                        .claims
                        .extend([claim(2, Contact::Email), claim(3, Contact::Mobile)]);
                    contents.users.push(stored);
                }
                Some(_) => {
                    if stored.is_processed() {
                        for (channel, number) in [(Channel::Email, 4), (Channel::Sms, 5)] {
                            contents.notices.push(Notice {
                                shard,
                                key: below(number),
                                channel,
                                order: *key,
                                kind: "order.processed".to_owned(),
                                sequence: 2,
                                status: "sent".to_owned(),
                            });
                            let order_of = Some(row.created_by);
                            contents.received.push(Received { channel, order_of });
                        }
                    }
                    contents.orders.push(stored);
                }
            }
        }
        contents.claims.extend(self.left_behind());
        Evidence {
            history: self.history,
            samples: self.samples,
            contents,
        }
    }

    /// Claims of users that were never written: their creators died in between, and no repeat came.
    fn left_behind(&mut self) -> Vec<Claim> {
        let lost = std::mem::take(&mut self.lost);
        let creates = |operation: &OperationId| self.history.intent(*operation) == Some(&Intent::CreateUser);
        let lost: Vec<OperationId> = lost.into_iter().filter(creates).collect();
        let mut claims = Vec::new();
        for operation in lost {
            let key = Uuid::from_bytes(self.random.random());
            if !self.done.contains_key(&operation) {
                claims.push(Claim {
                    shard: self.owners[Self::range(key)].0,
                    key,
                    user: Uuid::from_bytes(self.random.random()),
                    contact: Contact::Email,
                    is_held: false,
                });
            }
        }
        claims
    }
}
