use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn a_user_id_carries_its_own_position_and_time() {
    let before = now_ms();
    let user = UserId::generate();
    assert_eq!(user.position(), Position::of(&user.uuid().as_bytes()[4..]));
    assert!((before..=now_ms()).contains(&user.created_ms()));
    assert_eq!(UserId::from_uuid(user.uuid()), Ok(user));
    assert_eq!(user.to_string().parse(), Ok(user));
}

/// Stored rows must stay valid: this id was made by the first release.
#[test]
fn a_user_id_of_the_first_release_is_accepted() {
    let user: UserId = "24f96be1-0195-8c3e-a292-d523456789ab".parse().unwrap();
    assert_eq!(user.created_ms(), 0x0195_c3e8_a4b5);
}

/// Rows of these kinds are found again by deriving their key, so the derivation can never change.
#[test]
fn derived_ids_are_the_same_for_ever() {
    assert_eq!(
        KeyId::derive(Position::new(7), b"shop\0key-1").to_string(),
        "00000007-bf56-8dc0-bbd2-a94b4c0acdd0"
    );
    assert_eq!(
        ClaimId::derive("email", "ada@example.com").to_string(),
        "439d0439-1a37-8e54-8955-1a1e0a27f87c"
    );
    let claim = ClaimId::derive("email", "ada@example.com");
    assert_eq!(claim.position(), Position::of(b"email\0ada@example.com"));
    assert_ne!(claim, ClaimId::derive("mobile", "ada@example.com"));
}

#[test]
fn rows_of_a_user_share_its_position_and_differ() {
    let position = UserId::generate().position();
    let orders: HashSet<OrderId> = (0..1000).map(|_| OrderId::generate(position)).collect();
    assert_eq!(orders.len(), 1000);
    assert!(orders.iter().all(|order| order.position() == position));
}

#[test]
fn ids_made_in_a_later_millisecond_sort_later() {
    let position = Position::new(42);
    let first = OrderId::generate(position);
    let deadline = now_ms() + 5_000;
    let second = loop {
        let next = OrderId::generate(position);
        if next.created_ms() > first.created_ms() {
            break next;
        }
        assert!(now_ms() < deadline, "the clock stands still");
    };
    assert!(second > first);
}

#[test]
fn refusals_tell_the_caller_what_is_wrong() {
    let refuse = |text: &str| text.parse::<UserId>().unwrap_err().to_string();
    assert_eq!(
        refuse("42"),
        "not a user id: want a UUID of 36 characters such as 8a3c01f2-0195-8c3e-8a4b-5d2f00c1e9a7, \
         got 2 characters that do not form one"
    );
    assert_eq!(
        refuse("0b9a4b1e-3d2c-4f5e-8a7b-1c2d3e4f5a6b"),
        "not a user id: 0b9a4b1e-3d2c-4f5e-8a7b-1c2d3e4f5a6b is a UUID of version 4, \
         ids of this system are of version 8 (RFC 9562)"
    );
    assert!(refuse("00000000-0195-8c3e-a292-d7ffffffffff").contains("fails its self-check"));
    assert!(
        "{8a3c01f2-0195-8c3e-a292-d7ffffffffff}".parse::<OrderId>().is_err(),
        "only the hyphenated form"
    );
    assert!(
        "8a3c01f201958c3ea292d7ffffffffff".parse::<OrderId>().is_err(),
        "only the hyphenated form"
    );
    assert!(
        "8a3c01f2-0195-8c3e-e292-d7ffffffffff".parse::<OrderId>().is_err(),
        "another variant"
    );
}

#[test]
fn ids_are_hyphenated_strings_in_json() {
    let order: OrderId = "8a3c01f2-0195-8c3e-a292-d7ffffffffff".parse().unwrap();
    let json = serde_json::to_string(&order).unwrap();
    assert_eq!(json, "\"8a3c01f2-0195-8c3e-a292-d7ffffffffff\"");
    assert_eq!(serde_json::from_str::<OrderId>(&json).unwrap(), order);
    let refused = serde_json::from_str::<UserId>(&json).unwrap_err();
    assert!(refused.to_string().contains("self-check"), "{refused}");
}

proptest! {
    #[test]
    fn a_user_id_with_one_wrong_digit_is_refused(digit in 0..32usize, delta in 1..16u32) {
        let user = UserId::generate().uuid().simple().to_string();
        let mut digits: Vec<char> = user.chars().collect();
        let wrong = (digits[digit].to_digit(16).unwrap() + delta) % 16;
        digits[digit] = char::from_digit(wrong, 16).unwrap();
        let mistyped = Uuid::parse_str(&digits.iter().collect::<String>()).unwrap();
        prop_assert!(UserId::from_uuid(mistyped).is_err());
    }

    #[test]
    fn no_text_makes_parsing_panic(text in ".{0,64}") {
        let _ = text.parse::<UserId>();
        let _ = text.parse::<ClaimId>();
    }

    #[test]
    fn different_keys_get_different_ids(a: Vec<u8>, b: Vec<u8>) {
        let position = Position::new(1);
        prop_assert_eq!(KeyId::derive(position, &a) == KeyId::derive(position, &b), a == b);
    }
}
