//! Row ids: where a row lives, when it was made, and enough entropy to be alone.
//!
//! Every primary key of a shard is a UUID of version 8 (RFC 9562, section 5.8) that begins with a ring position:
//!
//! | bits    | bytes       | content                                                        |
//! |---------|-------------|----------------------------------------------------------------|
//! | 0-31    | 0-3         | [`Position`], big-endian                                       |
//! | 32-47   | 4-5         | unix milliseconds, bits 47-32 (the highest 16)                 |
//! | 48-51   | 6 high half | version, 8                                                     |
//! | 52-63   | 6 low half, 7 | unix milliseconds, bits 31-20                                |
//! | 64-65   | 8           | variant, binary 10                                             |
//! | 66-85   | 8-10        | unix milliseconds, bits 19-0                                   |
//! | 86-127  | 10-15       | random (42 bits)                                               |
//!
//! PostgreSQL compares UUIDs byte by byte, so ids sort by position and then by time: a ring range is a plain range of
//! ids, and the rows of one user, newest first, are one range of the primary key. Two ids of one position made in the
//! same millisecond come in random order; clocks that are set back or differ between machines show in the order.
//!
//! - A [`UserId`]'s position is the hash of its own other 12 bytes, which makes it checkable: a mistyped id is refused.
//! - What belongs to a user ([`OrderId`], [`InvoiceId`], [`EmailId`], [`SmsId`], [`EventId`]) takes the user's position.
//! - [`KeyId`] and [`ClaimId`] carry a hash where the others carry time and entropy: the same input gives the same id.
//!
//! `position(key)` is the high half of XXH3-64 with seed 0 and the default secret, as specified in
//! `doc/xxhash_spec.md` of the xxHash project (<https://github.com/Cyan4973/xxHash>), "XXH3 Algorithm Overview".

mod error;
mod ids;
mod layout;
mod position;

pub use error::IdError;
pub use ids::{ClaimId, EmailId, EventId, InvoiceId, KeyId, OrderId, SmsId, UserId};
pub use position::{POSITIONS, Position};
pub use uuid::Uuid;
