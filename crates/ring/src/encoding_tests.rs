use proptest::prelude::*;

use super::*;
use crate::{ShardState, Weight, plan};

fn ring(shards: u16, epoch: u64) -> Ring {
    let ordinals: Vec<_> = (0..shards).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
    let shard = |ordinal: u16| Shard {
        name: format!("shop-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: [ShardState::Joining, ShardState::Active, ShardState::Leaving][usize::from(ordinal) % 3],
        hosts: vec![format!("shop-{ordinal}-0.shop-{ordinal}.ns.svc:5432")],
    };
    Ring::new(
        Epoch(epoch),
        (0..shards).map(shard).collect(),
        plan(None, &ordinals).unwrap(),
    )
    .unwrap()
}

/// An encoding whose digest is right, whatever else is wrong with it.
fn signed(ring_json: String, tokens: Vec<u8>) -> EncodedRing {
    EncodedRing {
        digest: digest(&ring_json, &tokens),
        ring_json,
        tokens,
    }
}

fn refusal(encoded: &EncodedRing) -> DecodeError {
    decode(encoded).unwrap_err()
}

/// Tokens of the shards 0 and 1, packed.
fn packed(tokens: &[(u32, u16)]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|(position, ordinal)| [&position.to_be_bytes()[..], &ordinal.to_be_bytes()].concat())
        .collect()
}

#[test]
fn the_encoding_of_the_first_release_is_read_and_written() {
    let json = concat!(
        r#"{"format":1,"epoch":7,"shards":["#,
        "\n",
        r#"{"name":"shop-0","ordinal":0,"state":"joining","hosts":["shop-0-0.shop-0.ns.svc:5432"]}"#,
        "\n]}\n"
    );
    let golden = EncodedRing {
        ring_json: json.into(),
        tokens: vec![0xff, 0xff, 0xff, 0xff, 0, 0],
        digest: "1d3a446a3d67347623a7c4d0f9dacadcaf1c3f1332f9f620b57b18ffa0428b07".into(),
    };
    assert_eq!(decode(&golden).unwrap(), ring(1, 7));
    assert_eq!(encode(&ring(1, 7)), golden);
}

#[test]
fn a_flip_of_any_bit_is_refused() {
    let good = encode(&ring(3, 7));
    for bit in 0..8 {
        for at in 0..good.tokens.len() {
            let mut bad = good.clone();
            bad.tokens[at] ^= 1 << bit;
            assert!(
                matches!(refusal(&bad), DecodeError::Digest { .. }),
                "bit {bit} of token byte {at}"
            );
        }
        // Text in which a flip leaves no UTF-8 never gets here: it is no string.
        let flip = |text: &str, at: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            String::from_utf8(bytes).ok()
        };
        for ring_json in (0..good.ring_json.len()).filter_map(|at| flip(&good.ring_json, at)) {
            let bad = EncodedRing {
                ring_json,
                ..good.clone()
            };
            assert!(matches!(refusal(&bad), DecodeError::Digest { .. }));
        }
        for digest in (0..good.digest.len()).filter_map(|at| flip(&good.digest, at)) {
            let bad = EncodedRing { digest, ..good.clone() };
            assert!(matches!(refusal(&bad), DecodeError::Digest { .. }));
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let good = encode(&ring(3, 7));
    for len in 0..good.tokens.len() {
        assert!(
            decode(&EncodedRing {
                tokens: good.tokens[..len].to_vec(),
                ..good.clone()
            })
            .is_err()
        );
    }
    for len in 0..good.ring_json.len() {
        assert!(
            decode(&EncodedRing {
                ring_json: good.ring_json[..len].into(),
                ..good.clone()
            })
            .is_err()
        );
    }
    for len in 0..good.digest.len() {
        assert!(
            decode(&EncodedRing {
                digest: good.digest[..len].into(),
                ..good.clone()
            })
            .is_err()
        );
    }
}

#[test]
fn parts_of_two_rings_are_no_ring() {
    let (old, new) = (encode(&ring(3, 7)), encode(&ring(3, 8)));
    assert!(matches!(
        refusal(&EncodedRing {
            ring_json: old.ring_json,
            ..new
        }),
        DecodeError::Digest { .. }
    ));
}

#[test]
fn another_format_is_refused_by_its_number_whatever_else_it_has() {
    let json = r#"{"format":2,"epoch":"seven","zones":[]}"#;
    assert!(matches!(refusal(&signed(json.into(), vec![])), DecodeError::Format(2)));
    assert!(matches!(
        refusal(&signed(r#"{"epoch":7}"#.into(), vec![])),
        DecodeError::Json(_)
    ));
}

#[test]
fn signed_nonsense_is_refused_for_what_it_is() {
    let json = encode(&ring(2, 7)).ring_json;
    let tokens = |tokens: &[(u32, u16)]| refusal(&signed(json.clone(), packed(tokens)));
    assert!(decode(&signed(json.clone(), packed(&[(1, 0), (2, 1)]))).is_ok());
    assert!(matches!(tokens(&[]), DecodeError::Tokens(TokensError::Empty)));
    assert!(matches!(
        tokens(&[(1, 0), (1, 1)]),
        DecodeError::Tokens(TokensError::Duplicate(_))
    ));
    assert!(matches!(
        tokens(&[(2, 0), (1, 1)]),
        DecodeError::Tokens(TokensError::Unsorted(_))
    ));
    assert!(matches!(
        tokens(&[(1, 0), (2, 0)]),
        DecodeError::Tokens(TokensError::Unmerged(_))
    ));
    assert!(matches!(
        tokens(&[(1, 0), (2, 9)]),
        DecodeError::Ring(RingError::UnknownOwner(_))
    ));
    assert!(matches!(
        refusal(&signed(json.clone(), vec![0; 7])),
        DecodeError::TokenBytes(7)
    ));
    let json = |from: &str, to: &str| refusal(&signed(json.replacen(from, to, 1), packed(&[(1, 0), (2, 1)])));
    assert!(matches!(json("\"epoch\":7", "\"epoch\":-7"), DecodeError::Json(_)));
    assert!(matches!(
        json("\"state\":\"joining\"", "\"state\":\"asleep\""),
        DecodeError::Json(_)
    ));
    assert!(matches!(
        json("\"ordinal\":0", "\"ordinal\":0,\"zone\":1"),
        DecodeError::Json(_)
    ));
    assert!(matches!(
        json("\"ordinal\":0", "\"ordinal\":1"),
        DecodeError::Ring(RingError::DuplicateOrdinal(_))
    ));
    assert!(matches!(json("]}\n]}", "]}\n]}]"), DecodeError::Json(_)));
}

#[test]
fn what_is_too_large_is_refused_unread() {
    let long = signed(" ".repeat(MAX_JSON_BYTES + 1), vec![]);
    assert!(matches!(
        refusal(&long),
        DecodeError::TooLarge { part: "ring.json", .. }
    ));
    let many = signed(String::new(), vec![0; (MAX_TOKENS + 1) * TOKEN_BYTES]);
    assert!(matches!(refusal(&many), DecodeError::TooLarge { part: "tokens", .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_ring_survives_its_encoding(shards in 1..200u16, epoch: u64) {
        let ring = ring(shards, epoch);
        prop_assert_eq!(decode(&encode(&ring)).unwrap(), ring);
    }
}
