//! Sends requests, and tells the recorder and the population what came of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use store::ReadTokens;
use tokio::time::sleep;

use super::answers::{self, covers, tokens};
use super::caller::{Caller, Reply};
use super::latency::Latency;
use super::population::Population;
use super::recorder::Recorder;
use super::request::{self, Mode, Repeatable, Request};
use crate::history::record::{Consistency, Intent, OperationId, Outcome, Read, Sight, Span};

/// How long a write of unknown outcome is repeated until it is settled.
const SETTLING: Duration = Duration::from_secs(90);
/// Between two attempts at it: short, since each is a request that a client would send.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So many failed requests are told of.
const MOST_TROUBLES: usize = 20;

/// A shop's backend. Cheap to clone; all clones are the same shop.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    caller: Caller,
    recorder: Recorder,
    latency: Latency,
    population: Mutex<Population>,
    /// The first answers that nobody should get, for whoever asks why.
    troubles: Mutex<Vec<String>>,
    /// Where the mobile numbers of this run begin.
    run: u32,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Answered as it should, at the first attempt.
    Well,
    /// Answered in the end, or not as it should be, or not at all.
    Badly,
}

impl Ending {
    /// Well if both are.
    fn and(self, other: Self) -> Self {
        if self == Self::Well { other } else { self }
    }

    /// Whether an answer says what it covers, where it has to.
    fn of_token(reply: &Reply) -> Self {
        match answers::lacks_token(reply) {
            None => Self::Well,
            Some(_) => Self::Badly,
        }
    }
}

impl Client {
    /// A shop without users.
    pub fn new(caller: Caller, recorder: Recorder) -> Self {
        Self(Arc::new(Inner {
            caller,
            recorder,
            latency: Latency::new("filling"),
            population: Mutex::default(),
            troubles: Mutex::default(),
            run: rand::random::<u32>() % 100_000_000,
        }))
    }

    /// What was measured.
    pub fn latency(&self) -> &Latency {
        &self.0.latency
    }

    /// What was recorded.
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    pub(super) fn population(&self) -> MutexGuard<'_, Population> {
        // Nothing is left half done by a panic, so a poisoned lock is as good as any.
        self.0.population.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn draw(&self, random: &mut StdRng) -> Request {
        self.population().draw(random)
    }

    /// Carries a request out to its end, and measures it from when it was due.
    pub(super) async fn perform(&self, request: Request, due: Instant) {
        let (phase, kind) = (self.0.latency.now(), request.kind());
        let ending = self.carry_out(request).await;
        self.0.latency.answered(phase, kind, due.elapsed());
        if ending == Ending::Badly {
            self.0.latency.failed(phase, kind);
        }
    }

    pub(super) async fn carry_out(&self, request: Request) -> Ending {
        match request {
            Request::GetUser(user, mode) => self.get_user(user, mode).await,
            Request::GetOrder(order, mode) => self.get_order(order, mode).await,
            Request::GetOrders(orders, mode) => self.get_orders(&orders, mode).await,
            Request::ListOrders(user, mode) => self.list_orders(user, mode).await,
            Request::CreateUser => self.create_user().await,
            Request::CreateOrder(user) => self.create_order(user).await,
            Request::CreateOrders(users) => self.create_orders(&users).await,
            Request::UpdateUser(user) => self.update_user(user).await,
            Request::Process(order) => self.change_order(order, "process").await,
            Request::Cancel(order) => self.change_order(order, "cancel").await,
            Request::Repeat(repeatable) => self.write(&repeatable).await.1,
        }
    }

    async fn get_user(&self, user: usize, mode: Mode) -> Ending {
        let (id, sent) = {
            let all = self.population();
            (all.users[user].id, all.users[user].tokens.clone())
        };
        let (span, reply) = self.ask(&format!("/v1/users/{id}"), None, mode, &sent).await;
        let seen = answers::seen(&reply);
        {
            let mut all = self.population();
            all.hear(user, &heard(&reply));
            if let Sight::Found { version, .. } = &seen {
                all.user_is(user, *version);
            }
        }
        self.saw(id, span, mode, &sent, seen).and(Ending::of_token(&reply))
    }

    async fn get_order(&self, order: usize, mode: Mode) -> Ending {
        let (id, user, sent) = {
            let all = self.population();
            let known = &all.orders[order];
            (known.id, known.user, all.users[known.user].tokens.clone())
        };
        let (span, reply) = self.ask(&format!("/v1/orders/{id}"), None, mode, &sent).await;
        let seen = answers::seen(&reply);
        {
            let mut all = self.population();
            all.hear(user, &heard(&reply));
            if let Sight::Found { content, .. } = &seen {
                all.order_is(order, content.status);
            }
        }
        self.saw(id, span, mode, &sent, seen).and(Ending::of_token(&reply))
    }

    async fn get_orders(&self, orders: &[usize], mode: Mode) -> Ending {
        let (ids, sent) = {
            let all = self.population();
            let mut sent = ReadTokens::default();
            for order in orders {
                let tokens = &all.users[all.orders[*order].user].tokens;
                tokens.as_slice().iter().for_each(|token| sent.add(*token));
            }
            let ids: Vec<_> = orders.iter().map(|order| all.orders[*order].id).collect();
            (ids, sent)
        };
        let body = json!({"order_ids": ids}).to_string();
        let (span, reply) = self.ask("/v1/orders:batch-get", Some(&body), mode, &sent).await;
        let items = answers::items(&reply).unwrap_or_default();
        let mut ending = if items.len() == ids.len() {
            Ending::of_token(&reply)
        } else {
            Ending::Badly
        };
        for (id, item) in ids.into_iter().zip(items) {
            ending = ending.and(self.saw(id, span, mode, &sent, item.seen()));
        }
        ending
    }

    /// A list is a look at each of its rows, and at each order of the user that is known and not in it: newest first, so
    /// what is newer than the oldest one listed would have to be there, and at the end of the list, everything.
    async fn list_orders(&self, user: usize, mode: Mode) -> Ending {
        let (id, sent, known) = {
            let all = self.population();
            let known = all.users[user].orders.iter().map(|order| all.orders[*order].id);
            (
                all.users[user].id,
                all.users[user].tokens.clone(),
                known.collect::<Vec<_>>(),
            )
        };
        let (span, reply) = self.ask(&format!("/v1/users/{id}/orders"), None, mode, &sent).await;
        let Some((listed, is_end)) = answers::listed(&reply) else {
            // That there is no such user is a look at the user. Anything else is none at all.
            return self.saw(id, span, mode, &sent, answers::seen(&reply));
        };
        self.population().hear(user, &heard(&reply));
        let oldest = listed.iter().map(|(key, _)| *key).min();
        let missing = known.into_iter().filter(|key| {
            let in_reach = is_end || oldest.is_some_and(|oldest| *key > oldest);
            in_reach && !listed.iter().any(|(shown, _)| shown == key)
        });
        for key in missing {
            self.saw(key, span, mode, &sent, Sight::Absent);
        }
        for (key, seen) in listed {
            self.saw(key, span, mode, &sent, seen);
        }
        Ending::of_token(&reply)
    }

    /// A read over the wire. Only what is sent counts as token, so a strong or loose read sends none.
    async fn ask(&self, path: &str, body: Option<&str>, mode: Mode, tokens: &ReadTokens) -> (Span, Reply) {
        let token = tokens.to_string();
        let mut headers = Vec::new();
        match mode {
            Mode::Strong => headers.push(("ringwright-consistency", "strong")),
            Mode::Session if !token.is_empty() => headers.push(("ringwright-token", token.as_str())),
            Mode::Session | Mode::Loose => {}
        }
        let method = if body.is_some() { Method::POST } else { Method::GET };
        self.send(&method, path, &headers, body).await
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&str>,
    ) -> (Span, Reply) {
        let clock = self.0.recorder.clock;
        let start = clock.now();
        let reply = self.0.caller.send(method, path, headers, body).await;
        let end = clock.now();
        if let Some(trouble) = reply.trouble().or_else(|| answers::lacks_token(&reply)) {
            let mut troubles = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            if troubles.len() < MOST_TROUBLES {
                let [at, took] = [start.0, end.0 - start.0].map(|nanoseconds| nanoseconds / 1_000_000);
                troubles.push(format!("{method} {path} at {at} ms, after {took} ms: {trouble}"));
            }
        }
        (Span { start, end }, reply)
    }

    /// The first requests that failed, each with its answer, a line each.
    pub fn troubles(&self) -> String {
        let troubles = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.join("\n")
    }

    fn saw(&self, key: uuid::Uuid, span: Span, mode: Mode, sent: &ReadTokens, seen: Sight) -> Ending {
        let ending = if seen == Sight::Nothing {
            Ending::Badly
        } else {
            Ending::Well
        };
        let consistency = match mode {
            Mode::Strong => Consistency::Strong,
            Mode::Session => Consistency::Session(covers(sent)),
            Mode::Loose => Consistency::Session([].into()),
        };
        self.0.recorder.read(Read {
            key,
            span,
            consistency,
            seen,
        });
        ending
    }

    async fn create_user(&self) -> Ending {
        let operation = self.wish(Intent::CreateUser);
        let body = request::user(operation, self.0.run);
        let repeatable = post(operation, "/v1/users".to_owned(), Some(&body));
        let (answers, ending) = self.write_new(&repeatable).await;
        for (outcome, tokens) in &answers {
            if let Outcome::Done(done) = outcome {
                self.population().add_user(done.key, tokens);
            }
        }
        ending
    }

    async fn create_order(&self, user: usize) -> Ending {
        let id = self.population().users[user].id;
        let operation = self.wish(Intent::CreateOrder { user: id });
        let path = format!("/v1/users/{id}/orders");
        let repeatable = post(operation, path, Some(&request::order(operation)));
        self.place(&repeatable, &[user]).await
    }

    async fn create_orders(&self, users: &[usize]) -> Ending {
        let mut operations = Vec::with_capacity(users.len());
        let mut orders = Vec::with_capacity(users.len());
        for user in users {
            let id = self.population().users[*user].id;
            let operation = self.wish(Intent::CreateOrder { user: id });
            operations.push(operation);
            orders.push(request::users_order(operation, id));
        }
        let Some(first) = operations.first().copied() else {
            return Ending::Well;
        };
        let body = json!({"orders": orders});
        let repeatable = Repeatable {
            operations,
            ..post(first, "/v1/orders:batch-create".to_owned(), Some(&body))
        };
        self.place(&repeatable, users).await
    }

    async fn place(&self, repeatable: &Repeatable, users: &[usize]) -> Ending {
        let (answers, ending) = self.write_new(repeatable).await;
        let mut all = self.population();
        for ((outcome, tokens), user) in answers.iter().zip(users) {
            if let Outcome::Done(done) = outcome {
                all.add_order(done.key, *user, tokens);
            }
        }
        ending
    }

    async fn update_user(&self, user: usize) -> Ending {
        let (id, base) = {
            let all = self.population();
            (all.users[user].id, all.users[user].version)
        };
        let operation = self.wish(Intent::UpdateUser { user: id, base });
        let repeatable = Repeatable {
            method: Method::PATCH,
            if_match: Some(format!("\"v{base}\"")),
            ..post(
                operation,
                format!("/v1/users/{id}"),
                Some(&json!({"first_name": operation.to_string()})),
            )
        };
        let (answers, ending) = self.write_new(&repeatable).await;
        for (outcome, tokens) in &answers {
            if let Outcome::Done(done) = outcome {
                let mut all = self.population();
                all.user_is(user, done.version);
                all.hear(user, tokens);
            }
        }
        ending
    }

    async fn change_order(&self, order: usize, verb: &str) -> Ending {
        let (id, user) = {
            let all = self.population();
            (all.orders[order].id, all.orders[order].user)
        };
        let (intent, status) = match verb {
            "process" => (Intent::Process { order: id }, crate::history::record::Status::Processed),
            _ => (Intent::Cancel { order: id }, crate::history::record::Status::Cancelled),
        };
        let operation = self.wish(intent);
        let repeatable = post(operation, format!("/v1/orders/{id}/{verb}"), None);
        let (answers, ending) = self.write_new(&repeatable).await;
        for (outcome, tokens) in &answers {
            if matches!(outcome, Outcome::Done(_)) {
                let mut all = self.population();
                all.order_is(order, status);
                all.touch(order);
                all.hear(user, tokens);
            }
        }
        ending
    }

    fn wish(&self, intent: Intent) -> OperationId {
        self.0.recorder.wish(intent)
    }

    /// A write for the first time; when it is acknowledged, it may be asked for again later.
    async fn write_new(&self, repeatable: &Repeatable) -> (Vec<(Outcome, ReadTokens)>, Ending) {
        let (answers, ending) = self.write(repeatable).await;
        if answers.iter().all(|(outcome, _)| matches!(outcome, Outcome::Done(_))) {
            self.population().offer(repeatable.clone(), rand::random());
        }
        (answers, ending)
    }

    /// Sends a write until its outcome is known, each attempt with the same key, as clients are told to. Returns the
    /// last outcome of each of its operations, with the tokens of that answer.
    pub(super) async fn write(&self, repeatable: &Repeatable) -> (Vec<(Outcome, ReadTokens)>, Ending) {
        let began = Instant::now();
        let (mut pause, mut ending) = (PAUSE, Ending::Well);
        loop {
            let (span, reply) = self.send_write(repeatable).await;
            let outcomes = outcomes(repeatable, &reply);
            let tokens = heard(&reply);
            for (operation, outcome) in repeatable.operations.iter().zip(&outcomes) {
                self.0.recorder.attempt(*operation, span, outcome.clone());
            }
            let unsettled = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_)));
            let wrong = |outcome: &Outcome| {
                use crate::history::record::Refusal::Other;
                matches!(outcome, Outcome::Unknown(_) | Outcome::Refused(Other(_)))
            };
            if outcomes.iter().any(wrong) {
                ending = Ending::Badly;
            }
            ending = ending.and(Ending::of_token(&reply));
            if !unsettled || began.elapsed() > SETTLING {
                return (
                    outcomes.into_iter().map(|outcome| (outcome, tokens.clone())).collect(),
                    ending,
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send_write(&self, repeatable: &Repeatable) -> (Span, Reply) {
        let mut headers = vec![("idempotency-key", repeatable.key.as_str())];
        headers.extend(repeatable.if_match.as_deref().map(|tag| ("if-match", tag)));
        self.send(
            &repeatable.method,
            &repeatable.path,
            &headers,
            repeatable.body.as_deref(),
        )
        .await
    }
}

fn post(operation: OperationId, path: String, body: Option<&Value>) -> Repeatable {
    Repeatable {
        operations: vec![operation],
        method: Method::POST,
        path,
        key: operation.to_string(),
        if_match: None,
        body: body.map(Value::to_string),
    }
}

/// What an answer says of each operation of the write; all are unknown when there is no such answer.
fn outcomes(repeatable: &Repeatable, reply: &Reply) -> Vec<Outcome> {
    if !repeatable.is_batch() {
        return vec![answers::written(reply)];
    }
    let count = repeatable.operations.len();
    match answers::items(reply) {
        Some(items) if items.len() == count => items.iter().map(answers::Item::written).collect(),
        _ => {
            let outcome = match reply {
                Reply::Answer(answer) if answer.status != 200 => answers::refused(answer.status, &answer.problem()),
                Reply::Answer(_) => Outcome::Unknown("the batch's answer could not be read".into()),
                Reply::None(why) => Outcome::Unknown(why.as_str().into()),
            };
            vec![outcome; count]
        }
    }
}

fn heard(reply: &Reply) -> ReadTokens {
    match reply {
        Reply::Answer(answer) => tokens(answer),
        Reply::None(_) => ReadTokens::default(),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
