use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// More than this many messages are not kept: the oldest are forgotten.
pub(crate) const CAPACITY: usize = 10_000;

/// A message that was taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Received {
    pub(crate) sid: String,
    pub(crate) account_sid: String,
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) body: String,
    pub(crate) received_at: DateTime<Utc>,
}

/// What arrived, in its order.
#[derive(Debug, Default)]
pub(crate) struct Inbox(VecDeque<Received>);

impl Inbox {
    pub(crate) fn put(&mut self, message: Received) {
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(message);
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.0.iter().cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_when_it_is_full() {
        let mut inbox = Inbox::default();
        for number in 0..CAPACITY + 2 {
            let (sid, text) = (number.to_string(), String::new);
            let (account_sid, to, from, body) = (text(), text(), text(), text());
            inbox.put(Received {
                sid,
                account_sid,
                to,
                from,
                body,
                received_at: Utc::now(),
            });
        }
        let all = inbox.all();
        assert_eq!((all.len(), all[0].sid.as_str()), (CAPACITY, "2"));
    }
}
