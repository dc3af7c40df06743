//! Reads the API's answers as far as the judge compares them.

use serde::Deserialize;
use serde_json::Value;
use store::ReadTokens;
use uuid::Uuid;

use super::caller::{Answer, Reply};
use crate::history::record::{Content, Done, OperationId, Outcome, Refusal, Sight, Status, Token};

const TOKEN_HEADER: &str = "ringwright-token";

/// A row as an answer shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) key: Uuid,
    pub(super) version: i64,
    pub(super) content: Content,
}

#[derive(Deserialize)]
struct UserAnswer {
    user_id: Uuid,
    version: i64,
    first_name: String,
}

#[derive(Deserialize)]
struct OrderAnswer {
    order_id: Uuid,
    version: i64,
    status: String,
    order_details: Details,
}

#[derive(Deserialize)]
struct Details {
    reference: Option<String>,
}

/// A user, or an order.
pub(super) fn shown(body: &str) -> Option<Shown> {
    if let Ok(user) = serde_json::from_str::<UserAnswer>(body) {
        return Some(Shown {
            key: user.user_id,
            version: user.version,
            content: Content {
                by: OperationId::parse(&user.first_name)?,
                status: Status::Created,
            },
        });
    }
    let order: OrderAnswer = serde_json::from_str(body).ok()?;
    Some(Shown {
        key: order.order_id,
        version: order.version,
        content: Content {
            by: OperationId::parse(order.order_details.reference.as_deref()?)?,
            status: Status::parse(&order.status)?,
        },
    })
}

/// What an answer covers, for the client to send back; nothing where it does not say so, see [`lacks_token`].
pub(super) fn tokens(answer: &Answer) -> ReadTokens {
    said_tokens(answer).unwrap_or_default()
}

fn said_tokens(answer: &Answer) -> Option<ReadTokens> {
    let tokens: ReadTokens = answer.header(TOKEN_HEADER).parse().ok()?;
    (!tokens.as_slice().is_empty()).then_some(tokens)
}

/// What is wrong with an answer that does not say what it covers, though it has to: each that shows or writes a row does,
/// and of a batch each in which one item went well. Without tokens, no session read would have to see anything.
pub(super) fn lacks_token(reply: &Reply) -> Option<String> {
    let Reply::Answer(answer) = reply else { return None };
    let is_success = |status: u16| (200..300).contains(&status);
    if !is_success(answer.status) || said_tokens(answer).is_some() {
        return None;
    }
    let items = items(reply);
    let owes = items.is_none_or(|items| items.iter().any(|item| is_success(item.status)));
    let said = answer.header(TOKEN_HEADER);
    owes.then(|| {
        format!(
            "{} without a {TOKEN_HEADER} that can be read: \"{said}\"",
            answer.status
        )
    })
}

/// What tokens say, for the judge.
pub(super) fn covers(tokens: &ReadTokens) -> Box<[Token]> {
    let tokens = tokens.as_slice().iter();
    let tokens = tokens.map(|token| Token {
        shard: token.shard.get(),
        term: token.term.0,
        lsn: token.lsn.0,
    });
    tokens.collect()
}

/// The outcome of a write of one row.
pub(super) fn written(reply: &Reply) -> Outcome {
    let answer = match reply {
        Reply::Answer(answer) => answer,
        Reply::None(why) => return Outcome::Unknown(why.as_str().into()),
    };
    if !(200..300).contains(&answer.status) {
        return refused(answer.status, &answer.problem());
    }
    match shown(&answer.body) {
        Some(shown) => Outcome::Done(Done {
            key: shown.key,
            version: shown.version,
            covers: covers(&tokens(answer)),
            answer: answer.fingerprint(),
        }),
        None => Outcome::Unknown("the answer could not be read".into()),
    }
}

/// What a status that is no success says of a write.
pub(super) fn refused(status: u16, problem: &str) -> Outcome {
    match (status, problem) {
        (412, _) => Outcome::Refused(Refusal::Stale),
        (409, "order-state-conflict") => Outcome::Refused(Refusal::Status),
        (404, "user-not-found" | "order-not-found") => Outcome::Refused(Refusal::Absent),
        // Still running, kept waiting by a claim that is not settled, asked too often or out of time: a repeat tells.
        (408 | 429 | 500.., _) | (409, "idempotency-key-in-use" | "contact-claim-pending") => {
            Outcome::Unknown(problem.into())
        }
        (other, _) => Outcome::Refused(Refusal::Other(other)),
    }
}

/// What a read of one row saw.
pub(super) fn seen(reply: &Reply) -> Sight {
    let Reply::Answer(answer) = reply else {
        return Sight::Nothing;
    };
    match answer.status {
        200 => sight(shown(&answer.body), &covers(&tokens(answer))),
        404 if matches!(answer.problem().as_str(), "user-not-found" | "order-not-found") => Sight::Absent,
        _ => Sight::Nothing,
    }
}

fn sight(shown: Option<Shown>, covers: &[Token]) -> Sight {
    shown.map_or(Sight::Nothing, |shown| Sight::Found {
        version: shown.version,
        content: shown.content,
        covers: covers.into(),
    })
}

/// A list of orders as (key, what was seen), in its order, and whether it is the end of the list; `None` when there is
/// no such answer.
pub(super) fn listed(reply: &Reply) -> Option<(Vec<(Uuid, Sight)>, bool)> {
    let Reply::Answer(answer) = reply else { return None };
    if answer.status != 200 {
        return None;
    }
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let covers = covers(&tokens(answer));
    let orders = body["orders"].as_array()?.iter().map(|order| {
        let shown = shown(&order.to_string())?;
        Some((shown.key, sight(Some(shown), &covers)))
    });
    Some((orders.collect::<Option<_>>()?, body["next_cursor"].is_null()))
}

/// One item of a batch's answer.
pub(super) struct Item {
    status: u16,
    problem: String,
    order: Option<String>,
    covers: Box<[Token]>,
}

/// The items of a batch's answer, in the order of the request; `None` when there is no such answer.
pub(super) fn items(reply: &Reply) -> Option<Vec<Item>> {
    let Reply::Answer(answer) = reply else { return None };
    if answer.status != 200 {
        return None;
    }
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let covers = covers(&tokens(answer));
    let items = body["results"].as_array()?.iter().map(|item| {
        let problem = item["problem"]["type"].as_str().and_then(|uri| uri.rsplit('/').next());
        Some(Item {
            status: u16::try_from(item["status"].as_u64()?).ok()?,
            problem: problem.unwrap_or_default().to_owned(),
            order: item["order"].is_object().then(|| item["order"].to_string()),
            covers: covers.clone(),
        })
    });
    items.collect()
}

impl Item {
    /// As the outcome of a write.
    pub(super) fn written(&self) -> Outcome {
        if !(200..300).contains(&self.status) {
            return refused(self.status, &self.problem);
        }
        let Some(order) = &self.order else {
            return Outcome::Unknown("an order of the batch is missing".into());
        };
        match shown(order) {
            Some(shown) => Outcome::Done(Done {
                key: shown.key,
                version: shown.version,
                covers: self.covers.clone(),
                answer: fingerprint(order),
            }),
            None => Outcome::Unknown("an order of the batch could not be read".into()),
        }
    }

    /// As what a read saw.
    pub(super) fn seen(&self) -> Sight {
        match (self.status, &self.order) {
            (200, Some(order)) => sight(shown(order), &self.covers),
            (404, _) => Sight::Absent,
            _ => Sight::Nothing,
        }
    }
}

fn fingerprint(order: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hash = DefaultHasher::new();
    order.hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_orders_are_read_as_the_api_writes_them() {
        let user =
            r#"{"user_id":"12345678-0000-8000-8000-000000000001","first_name":"w1f","last_name":"L","version":3}"#;
        let shown = super::shown(user).unwrap();
        assert_eq!((shown.version, shown.content.by), (3, OperationId(0x1f)));
        let order = r#"{"order_id":"12345678-0000-8000-8000-000000000002","user_id":"12345678-0000-8000-8000-000000000001",
            "status":"processed","version":2,"order_details":{"lines":[],"reference":"w2"}}"#;
        let shown = super::shown(order).unwrap();
        assert_eq!(shown.content.status, Status::Processed);
        assert_eq!(shown.content.by, OperationId(2));
        assert!(super::shown("{}").is_none());
    }

    #[test]
    fn what_may_still_be_done_is_unknown_and_what_the_state_forbids_is_refused() {
        for (status, problem) in [
            (503, "outcome-unknown"),
            (500, "internal-error"),
            (503, "shard-unavailable"),
            (503, "timed-out"),
            (503, "overloaded"),
            (408, "request-timeout"),
            (429, "too-many-requests"),
            (409, "idempotency-key-in-use"),
            (409, "contact-claim-pending"),
        ] {
            assert!(
                matches!(refused(status, problem), Outcome::Unknown(_)),
                "{status} {problem}"
            );
        }
        assert_eq!(refused(412, "precondition-failed"), Outcome::Refused(Refusal::Stale));
        assert_eq!(refused(409, "order-state-conflict"), Outcome::Refused(Refusal::Status));
        assert_eq!(refused(409, "contact-taken"), Outcome::Refused(Refusal::Other(409)));
        assert_eq!(
            refused(422, "idempotency-key-reused"),
            Outcome::Refused(Refusal::Other(422))
        );
    }
}
