use std::fmt::Write as _;

use row_id::Position;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Epoch, MAX_TOKENS, Ordinal, Ring, RingError, Shard, Token, Tokens, TokensError};

/// The format that this version writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// A packed token: position (4 bytes) and ordinal (2), big-endian.
const TOKEN_BYTES: usize = 6;
/// More than this is no ring of 1,000 shards, and does not fit into a ConfigMap.
const MAX_JSON_BYTES: usize = 1 << 20;

/// A ring as its ConfigMap carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRing {
    /// Format, epoch and shards: `data["ring.json"]`.
    pub ring_json: String,
    /// The tokens, packed: `binaryData["tokens"]`.
    pub tokens: Vec<u8>,
    /// SHA-256 over both, in lower-case hexadecimal digits: `data["digest"]`.
    pub digest: String,
}

/// Why an encoding is refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than any ring.
    #[error("the {part} has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// `ring.json` or `tokens`.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Cut, edited by hand, or put together from two rings.
    #[error("the digest is {found:.64}, but the content has {computed}: it was damaged, or changed by hand")]
    Digest {
        /// What stands there.
        found: String,
        /// What the content has.
        computed: String,
    },
    /// Written by another version.
    #[error("the ring has format {0}, this version reads format {FORMAT} only")]
    Format(u64),
    /// Not the JSON of a ring.
    #[error("ring.json is not that of a ring")]
    Json(#[from] serde_json::Error),
    /// Not whole tokens.
    #[error("the tokens have {0} bytes, which is no multiple of {TOKEN_BYTES}")]
    TokenBytes(usize),
    /// Tokens that do not say who owns what.
    #[error("the tokens are not those of a ring")]
    Tokens(#[from] TokensError),
    /// Shards and tokens that do not belong together.
    #[error("shards and tokens do not form a ring")]
    Ring(#[from] RingError),
}

/// `ring.json`, for every format there will be.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
}

/// `ring.json` of format 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RingJson {
    #[serde(rename = "format")]
    _format: u32,
    epoch: Epoch,
    shards: Vec<Shard>,
}

/// Writes a ring for its ConfigMap; one shard a line, for people who look at it.
pub fn encode(ring: &Ring) -> EncodedRing {
    let shards: Vec<String> = ring
        .shards()
        .iter()
        .map(|shard| serde_json::to_string(shard).expect("strings, numbers and a plain enum always serialise"))
        .collect();
    let ring_json = format!(
        "{{\"format\":{FORMAT},\"epoch\":{},\"shards\":[\n{}\n]}}\n",
        ring.epoch(),
        shards.join(",\n")
    );
    let mut tokens = Vec::with_capacity(ring.tokens().as_slice().len() * TOKEN_BYTES);
    for token in ring.tokens().as_slice() {
        tokens.extend(token.position.get().to_be_bytes());
        tokens.extend(token.ordinal.get().to_be_bytes());
    }
    let digest = digest(&ring_json, &tokens);
    EncodedRing {
        ring_json,
        tokens,
        digest,
    }
}

/// Reads a ring, refusing whatever [`encode`] would not have written.
///
/// # Errors
/// If anything about it is wrong; a caller keeps the last good ring then.
pub fn decode(encoded: &EncodedRing) -> Result<Ring, DecodeError> {
    let EncodedRing {
        ring_json,
        tokens,
        digest: found,
    } = encoded;
    limit("ring.json", ring_json.len(), MAX_JSON_BYTES)?;
    limit("tokens", tokens.len(), MAX_TOKENS * TOKEN_BYTES)?;
    let computed = digest(ring_json, tokens);
    if *found != computed {
        return Err(DecodeError::Digest {
            found: found.clone(),
            computed,
        });
    }
    let AnyFormat { format } = serde_json::from_str(ring_json)?;
    if format != u64::from(FORMAT) {
        return Err(DecodeError::Format(format));
    }
    let RingJson { _format, epoch, shards } = serde_json::from_str(ring_json)?;
    Ok(Ring::new(epoch, shards, unpack(tokens)?)?)
}

fn limit(part: &'static str, bytes: usize, limit: usize) -> Result<(), DecodeError> {
    if bytes > limit {
        Err(DecodeError::TooLarge { part, bytes, limit })
    } else {
        Ok(())
    }
}

fn unpack(bytes: &[u8]) -> Result<Tokens, DecodeError> {
    let (chunks, rest) = bytes.as_chunks::<TOKEN_BYTES>();
    if !rest.is_empty() {
        return Err(DecodeError::TokenBytes(bytes.len()));
    }
    let unpacked = chunks.iter().map(|&[a, b, c, d, e, f]| Token {
        position: Position::new(u32::from_be_bytes([a, b, c, d])),
        ordinal: Ordinal(u16::from_be_bytes([e, f])),
    });
    Ok(Tokens::new(unpacked.collect())?)
}

/// The length of the JSON goes in first, so that no byte can change sides.
fn digest(ring_json: &str, tokens: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update((ring_json.len() as u64).to_be_bytes());
    hash.update(ring_json);
    hash.update(tokens);
    hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
#[path = "encoding_tests.rs"]
mod tests;
