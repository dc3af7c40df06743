//! Cursors of order lists: opaque to clients, and checked, so that one that was made up, cut or taken to another user's
//! list is refused instead of giving a wrong part. They hold nothing secret and grant nothing, hence a checksum and no
//! signature, whose key all instances would have to share.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use row_id::{OrderId, UserId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::problem::{Problem, catalogue};

/// The first byte: a cursor of another layout is not misread.
const VERSION: u8 = 1;
const CHECKSUM: usize = 6;
const LENGTH: usize = 1 + 16 + CHECKSUM;

/// The cursor of the part of `user`'s list that begins behind `last`.
pub(super) fn encode(last: OrderId, user: UserId) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(last.uuid().as_bytes());
    bytes.extend(checksum(last.uuid(), user));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The order the part begins behind.
pub(super) fn decode(cursor: &str, user: UserId) -> Result<OrderId, Problem> {
    let refused = || {
        Problem::new(
            &catalogue::INVALID_CURSOR,
            "The cursor is not one that a list of this user's orders has returned.",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
    let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| refused())?;
    let (&[version, ref last @ ..], check) = bytes.split_at(LENGTH - CHECKSUM) else {
        return Err(refused());
    };
    let last = Uuid::from_slice(last).map_err(|_| refused())?;
    if version != VERSION || check != checksum(last, user) {
        return Err(refused());
    }
    OrderId::from_uuid(last).map_err(|_| refused())
}

fn checksum(last: Uuid, user: UserId) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    hash.update(b"orders of a user");
    hash.update(user.uuid().as_bytes());
    hash.update(last.as_bytes());
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_made() {
        let user = UserId::generate();
        let order = OrderId::generate(user.position());
        assert_eq!(decode(&encode(order, user), user).unwrap(), order);
    }

    #[test]
    fn a_cursor_of_another_list_or_with_any_bit_changed_is_refused() {
        let user = UserId::generate();
        let cursor = encode(OrderId::generate(user.position()), user);
        assert!(decode(&cursor, UserId::generate()).is_err());
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&URL_SAFE_NO_PAD.encode(changed), user).is_err(), "bit {bit}");
        }
        for bad in ["", "AA", "%%%", &cursor[1..]] {
            assert!(decode(bad, user).is_err());
        }
    }
}
