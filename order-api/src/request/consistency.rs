//! How a read is to be answered: the headers `Ringwright-Consistency` and `Ringwright-Token`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use store::{ReadAt, ReadTokens};

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// Carries the token of an answer to the client, and of earlier answers back.
pub static TOKEN_HEADER: HeaderName = HeaderName::from_static("ringwright-token");
const CONSISTENCY_HEADER: &str = "ringwright-consistency";

/// What the read of this request must see.
#[derive(Debug)]
pub struct ReadContext(pub ReadAt);

impl FromRequestParts<App> for ReadContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let tokens = tokens(&parts.headers)?;
        match parts.headers.get(CONSISTENCY_HEADER).map(|mode| mode.as_bytes()) {
            None | Some(b"session") => Ok(Self(ReadAt::session(tokens))),
            Some(b"strong") => Ok(Self(ReadAt::strong_after(tokens))),
            Some(_) => Err(Problem::new(
                &catalogue::MALFORMED_REQUEST,
                "Ringwright-Consistency is neither `session` nor `strong`.",
            )),
        }
    }
}

/// The tokens of all headers of the name; a client that talks to several shards holds several.
fn tokens(headers: &HeaderMap) -> Result<ReadTokens, Problem> {
    let mut all = ReadTokens::default();
    for header in headers.get_all(&TOKEN_HEADER) {
        let text = header.to_str().map_err(|_| invalid("it is not plain ASCII"))?;
        let tokens: ReadTokens = text.parse().map_err(invalid)?;
        for token in tokens.as_slice() {
            all.add(*token);
        }
    }
    Ok(all)
}

fn invalid(why: impl std::fmt::Display) -> Problem {
    Problem::new(
        &catalogue::INVALID_TOKEN,
        format!("The header Ringwright-Token was refused: {why}."),
    )
}
