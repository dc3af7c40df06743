//! Invariant 5: every event of an order is published at least once, and its customer is told once.

use std::collections::HashMap;

use uuid::Uuid;

use super::contents::{Channel, Contents, Notice, Published};
use super::record::OperationId;
use super::story::Stories;
use super::verdict::{Kind, Violation};

/// The only event that a load without invoices tells customers of.
const TOLD: &str = "order.processed";
const CHANNELS: [Channel; 2] = [Channel::Email, Channel::Sms];

/// Checks outbox, notification rows and what arrived.
pub(super) fn check(stories: &Stories<'_>, contents: &Contents) -> Vec<Violation> {
    let mut found = Vec::new();
    for event in &contents.outbox {
        let what = format!("event {} still waits in the outbox of shard {}", event.key, event.shard);
        found.push(Violation::new(Kind::NotDelivered, what, Vec::new()));
    }
    found.extend(never_published(contents));
    let mut notices: HashMap<(Channel, Uuid), Vec<&Notice>> = HashMap::new();
    for notice in &contents.notices {
        notices.entry((notice.channel, notice.order)).or_default().push(notice);
    }
    let mut arrived: HashMap<(Channel, OperationId), usize> = HashMap::new();
    for message in &contents.received {
        match message.order_of {
            Some(creation) => *arrived.entry((message.channel, creation)).or_default() += 1,
            None => found.push(Violation::new(
                Kind::DeliveredTwice,
                format!("a message by {:?} tells of no order of ours", message.channel),
                Vec::new(),
            )),
        }
    }
    for order in &contents.orders {
        for channel in CHANNELS {
            let rows = notices.remove(&(channel, order.key)).unwrap_or_default();
            let count = order
                .created_by
                .and_then(|creation| arrived.remove(&(channel, creation)));
            let verdict = judge(order.is_processed(), &rows, count.unwrap_or(0));
            if let Some((kind, why)) = verdict {
                let mut proof = order.created_by.map_or(Vec::new(), |by| stories.lines_of(by));
                proof.push(order.line());
                proof.extend(rows.iter().map(|row| line(row)));
                let what = format!("order {} by {channel:?}: {why}", order.key);
                found.push(Violation::new(kind, what, proof));
            }
        }
    }
    // What is left belongs to no order that is stored.
    for ((channel, order), rows) in notices {
        let what = format!("{channel:?} for order {order}, which is not there");
        let proof = rows.iter().map(|row| line(row)).collect();
        found.push(Violation::new(Kind::DeliveredTwice, what, proof));
    }
    for ((channel, creation), count) in arrived {
        let what = format!("{count} messages by {channel:?} tell of an order that is not there");
        found.push(Violation::new(Kind::DeliveredTwice, what, stories.lines_of(creation)));
    }
    found
}

/// Events that their orders have numbered and nobody saw published: they were lost with their outbox row.
fn never_published(contents: &Contents) -> Vec<Violation> {
    let Some(published) = &contents.published else {
        return Vec::new();
    };
    let numbered = contents.events.iter().flat_map(|(order, last)| {
        (1..=*last).map(|sequence| Published {
            order: *order,
            sequence,
        })
    });
    let lost = numbered.filter(|event| !published.contains(event));
    lost.map(|Published { order, sequence }| {
        let what = format!("event {sequence} of order {order} was never published");
        Violation::new(Kind::NotDelivered, what, Vec::new())
    })
    .collect()
}

/// What is wrong with the rows of one order and channel, and the messages that arrived.
fn judge(processed: bool, rows: &[&Notice], arrived: usize) -> Option<(Kind, String)> {
    if !processed {
        let silent = rows.is_empty() && arrived == 0;
        return (!silent).then(|| (Kind::DeliveredTwice, "told of what did not happen".to_owned()));
    }
    let row = match rows {
        [] => {
            return Some((
                Kind::NotDelivered,
                format!("no row of its event, {arrived} messages arrived"),
            ));
        }
        [row] => row,
        _ => return Some((Kind::DeliveredTwice, format!("{} rows for one event", rows.len()))),
    };
    if row.kind != TOLD {
        return Some((
            Kind::DeliveredTwice,
            format!("a row of an event {} that was not", row.kind),
        ));
    }
    match (row.status.as_str(), arrived) {
        ("sent", 1) => None,
        // Whether it arrived is not known, and it is never repeated blindly: not at all or once.
        ("unknown", 0 | 1) => None,
        (_, 2..) => Some((Kind::DeliveredTwice, format!("{arrived} messages arrived"))),
        (status, _) => Some((
            Kind::NotDelivered,
            format!("the row is {status}, {arrived} messages arrived"),
        )),
    }
}

fn line(row: &Notice) -> String {
    format!(
        "at the end shard {} has {:?} {} of order {}, {} number {}, {}",
        row.shard, row.channel, row.key, row.order, row.kind, row.sequence, row.status
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_numbered_and_never_published_is_lost() {
        let order = Uuid::from_u128(7);
        let of = |sequences: &[i64]| {
            let published = sequences.iter().map(|sequence| Published {
                order,
                sequence: *sequence,
            });
            Contents {
                events: [(order, 3)].into(),
                published: Some(published.collect()),
                ..Contents::default()
            }
        };
        assert_eq!(never_published(&of(&[1, 2, 3])), []);
        let lost = never_published(&of(&[1, 3]));
        assert_eq!(lost.len(), 1);
        assert!(lost[0].to_string().contains("event 2 of order"), "{}", lost[0]);
        let unread = Contents {
            published: None,
            ..of(&[])
        };
        assert_eq!(never_published(&unread), []);
    }
}
