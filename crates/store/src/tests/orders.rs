use std::time::{Duration, Instant};

use ring::Ordinal;
use row_id::{EventId, OrderId, UserId};
use serde_json::json;

use super::shards::{Shards, key};
use crate::orders::{NewOrder, Order, OrderPage, OrderStatus};
use crate::{BasedOn, IdempotencyKey, ReadAt, ReadTokens, RequestHash, StoreError, StoredResponse, Written};

pub(super) fn new_order(user_id: UserId) -> NewOrder {
    NewOrder {
        user_id,
        currency: "EUR".parse().unwrap(),
        total_minor: 1_999,
        order_details: json!({"lines": [{"sku": "A-1", "quantity": 2}]}),
    }
}

pub(super) fn render_order(order: &Order) -> StoredResponse {
    StoredResponse {
        status: 201,
        location: Some(format!("/v1/orders/{}", order.order_id)),
        etag: Some(format!("\"{}\"", order.version)),
        body: format!(
            "{{\"order_id\":\"{}\" ,\"at\":\"{}\"}}",
            order.order_id,
            order.created_at.to_rfc3339()
        ),
    }
}

pub(super) fn order_of(written: &Written) -> OrderId {
    let location = written.response.location.as_deref().unwrap();
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Places an order under this key.
pub(super) async fn place_by(shards: &Shards, key: &IdempotencyKey, user: UserId) -> Written {
    let placing = shards.store.create_order(key.clone(), new_order(user), render_order);
    placing.await.unwrap()
}

pub(super) async fn place(shards: &Shards, user: UserId) -> OrderId {
    order_of(&place_by(shards, &key(), user).await)
}

#[tokio::test]
async fn an_order_and_its_event_and_key_lie_on_its_users_shard() {
    let shards = Shards::start(3).await;
    for _ in 0..8 {
        let user = shards.create_user().await;
        let written = place_by(&shards, &key(), user).await;
        let order = order_of(&written);
        let owner = shards.owner(user.position());
        assert_eq!((order.position(), written.token.shard), (user.position(), owner));
        assert_eq!(written.events.len(), 1);
        let rows = format!(
            "SELECT (SELECT count(*) FROM shop.orders WHERE order_id = '{order}')
                  + (SELECT count(*) FROM ringwright.outbox WHERE order_id = '{order}' AND kind = 'order.created')"
        );
        assert_eq!(shards.scalar::<i64>(owner, &rows).await, 2);
        let read = shards.store.get_order(order, &ReadAt::default()).await.unwrap();
        let read_order = read.value.unwrap();
        assert_eq!(
            render_order(&read_order),
            written.response,
            "what was rendered before the commit is what is stored"
        );
        assert_eq!(read_order.order_details, new_order(user).order_details);
        assert_eq!((read.token.shard, read.token.term), (owner, written.token.term));
        assert!(read.token.lsn >= written.token.lsn && read.token.generation.get() == 1);
    }
    shards.end().await;
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_byte_by_byte_and_does_nothing() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let key = key();
    let first = place_by(&shards, &key, user).await;
    let again = place_by(&shards, &key, user).await;
    assert_eq!(again.response, first.response);
    assert!(again.repeated && !first.repeated && again.events.is_empty());
    assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, 1);

    let mut other = key.clone();
    other.request = RequestHash([8; 32]);
    let reuse = shards.store.create_order(other, new_order(user), render_order).await;
    assert!(matches!(reuse, Err(StoreError::KeyReuse)), "{reuse:?}");

    let mut foreign = key;
    foreign.client = "another".to_owned();
    let foreign = place_by(&shards, &foreign, user).await;
    assert!(!foreign.repeated, "keys of two clients never meet");
    shards.end().await;
}

#[tokio::test]
async fn the_same_key_sent_at_once_makes_one_order() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let key = key();
    let sends = (0..12).map(|_| shards.store.create_order(key.clone(), new_order(user), render_order));
    let answers: Vec<Written> = futures::future::join_all(sends)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(answers.iter().all(|answer| answer.response == answers[0].response));
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, 1);
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.outbox").await, 1);
    shards.end().await;
}

#[tokio::test]
async fn an_order_of_nobody_is_refused_and_leaves_its_key_free() {
    let shards = Shards::start(2).await;
    let key = key();
    let nobody = UserId::generate();
    let refused = shards
        .store
        .create_order(key.clone(), new_order(nobody), render_order)
        .await;
    assert!(
        matches!(refused, Err(StoreError::UserNotFound(id)) if id == nobody),
        "{refused:?}"
    );
    assert_eq!(
        shards.total("SELECT count(*) FROM ringwright.idempotency_keys").await,
        0
    );
    shards.end().await;
}

#[tokio::test]
async fn states_go_forward_only_with_one_numbered_event_each() {
    let shards = Shards::start(1).await;
    let store = &shards.store;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;

    let stale = store
        .set_order_status(key(), order, OrderStatus::Processed, BasedOn::version(7), render_order)
        .await;
    assert!(
        matches!(stale, Err(StoreError::VersionMismatch { current: 1 })),
        "{stale:?}"
    );

    let process = key();
    let done = store
        .set_order_status(
            process.clone(),
            order,
            OrderStatus::Processed,
            BasedOn::version(1),
            render_order,
        )
        .await
        .unwrap();
    assert_eq!(
        (done.events[0].sequence, done.response.etag.as_deref()),
        (2, Some("\"2\""))
    );
    let repeat = store
        .set_order_status(
            process,
            order,
            OrderStatus::Processed,
            BasedOn::version(1),
            render_order,
        )
        .await
        .unwrap();
    assert!(
        repeat.repeated && repeat.response == done.response,
        "a repeat is no conflict with itself"
    );

    for to in [OrderStatus::Processed, OrderStatus::Cancelled] {
        let refused = store
            .set_order_status(key(), order, to, BasedOn::Any, render_order)
            .await;
        let Err(StoreError::InvalidTransition {
            from: OrderStatus::Processed,
            to: refused_to,
            ..
        }) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(refused_to, to);
    }
    let cancelled = place(&shards, user).await;
    store
        .set_order_status(key(), cancelled, OrderStatus::Cancelled, BasedOn::Any, render_order)
        .await
        .unwrap();
    let missing = OrderId::generate(user.position());
    let refused = store
        .set_order_status(key(), missing, OrderStatus::Processed, BasedOn::Any, render_order)
        .await;
    assert!(matches!(refused, Err(StoreError::OrderNotFound(_))), "{refused:?}");

    let events = "SELECT string_agg(kind || ' ' || sequence, ', ' ORDER BY order_id, sequence) FROM ringwright.outbox";
    let events: String = shards.scalar(ring::Ordinal(0), events).await;
    assert_eq!(
        events,
        "order.created 1, order.processed 2, order.created 1, order.cancelled 2"
    );
    shards.end().await;
}

async fn first_page(shards: &Shards, user: UserId, limit: u16) -> OrderPage {
    let read = shards.store.list_orders(user, None, limit, &ReadAt::default()).await;
    read.unwrap().value
}

#[tokio::test]
async fn pages_go_newest_first_through_all_orders_and_end() {
    let shards = Shards::start(2).await;
    let user = shards.create_user().await;
    let mut placed = Vec::new();
    for _ in 0..7 {
        placed.push(place(&shards, user).await);
        // Ids of one millisecond sort by chance.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    placed.reverse();
    let mut tokens = ReadTokens::default();
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = shards
            .store
            .list_orders(user, before, 3, &ReadAt::session(tokens.clone()))
            .await
            .unwrap();
        tokens.add(page.token);
        listed.extend(page.value.orders.iter().map(|order| order.order_id));
        before = page.value.next;
        if before.is_none() {
            break;
        }
        assert_eq!(page.value.orders.len(), 3);
    }
    assert_eq!(listed, placed);
    let exact = first_page(&shards, user, 7).await;
    assert_eq!((exact.orders.len(), exact.next), (7, None));
    let stranger = first_page(&shards, UserId::generate(), 5).await;
    assert!(stranger.orders.is_empty());
    shards.end().await;
}

/// Two users at one position, made by inserting the second by hand: an id whose last twelve bytes do not hash to its
/// position is refused by the types, not by the database.
#[tokio::test]
async fn users_at_one_position_do_not_see_each_others_orders() {
    let shards = Shards::start(2).await;
    let user = shards.create_user().await;
    let mine = place(&shards, user).await;
    let owner = shards.owner(user.position());
    let twin = EventId::generate(user.position()).uuid();
    let theirs = OrderId::generate(user.position());
    shards
        .execute(
            owner,
            format!(
                "INSERT INTO shop.users SELECT '{twin}', state, first_name, last_name, email_address, mobile_number,
                     locale, time_zone, version, created_at, updated_at FROM shop.users WHERE user_id = '{user}';
                 INSERT INTO shop.orders SELECT '{theirs}', '{twin}', status, currency, total_minor, order_details,
                     event_seq, version, created_at, updated_at FROM shop.orders WHERE order_id = '{mine}'"
            ),
        )
        .await;
    let page = first_page(&shards, user, 10).await;
    assert_eq!(
        page.orders.iter().map(|order| order.order_id).collect::<Vec<_>>(),
        [mine]
    );
    shards.end().await;
}

#[tokio::test]
async fn in_a_batch_one_callers_error_is_never_anothers() {
    let shards = Shards::start(3).await;
    let (ada, bob) = (shards.create_user().await, shards.create_user().await);
    let nobody = UserId::generate();
    let batch = key();
    let items = [ada, nobody, bob, ada].into_iter().enumerate();
    let items: Vec<_> = items
        .map(|(index, user)| (batch.item(index, batch.request), new_order(user)))
        .collect();
    let answers = shards
        .store
        .create_orders(&batch, items.clone(), render_order)
        .await
        .unwrap();
    assert!(matches!(answers[1], Err(StoreError::UserNotFound(id)) if id == nobody));
    let placed: Vec<OrderId> = [0, 2, 3]
        .iter()
        .map(|index| order_of(answers[*index].as_ref().unwrap()))
        .collect();
    let again = shards.store.create_orders(&batch, items, render_order).await.unwrap();
    assert_eq!(
        order_of(again[3].as_ref().unwrap()),
        placed[2],
        "each item has a key of its own"
    );

    let missing = OrderId::generate(bob.position());
    let ids = [placed[1], missing, placed[0], placed[2]];
    let read = shards.store.get_orders(&ids, &ReadAt::default()).await;
    let read: Vec<_> = read
        .into_iter()
        .map(|answer| answer.unwrap().value.map(|order| order.order_id))
        .collect();
    assert_eq!(read, [Some(placed[1]), None, Some(placed[0]), Some(placed[2])]);
    let users = shards.store.get_users(&[bob, nobody, ada], &ReadAt::strong()).await;
    let users: Vec<_> = users
        .into_iter()
        .map(|answer| answer.unwrap().value.map(|user| user.user_id))
        .collect();
    assert_eq!(users, [Some(bob), None, Some(ada)]);
    shards.end().await;
}

#[tokio::test]
async fn orders_of_a_batch_that_cannot_be_placed_hold_up_no_others_and_all_give_up_together() {
    let patience = Duration::from_secs(8);
    let shards = Shards::with(2, |config| config.write_deadline = patience).await;
    let batch = key();
    let working = shards.owner(batch.id_of_its_own().position());
    let (mut placeable, mut blocked) = (None, None);
    while placeable.is_none() || blocked.is_none() {
        let user = shards.create_user().await;
        let found = if shards.owner(user.position()) == working {
            &mut placeable
        } else {
            &mut blocked
        };
        *found = Some(user);
    }
    let (placeable, blocked) = (placeable.unwrap(), blocked.unwrap());
    let freeze = "UPDATE ringwright.range_owners SET state = 'frozen', target = 7";
    shards.execute(shards.owner(blocked.position()), freeze).await;

    // Fewer that wait than are placed at once, first of all; and more, last of all.
    let users = [[blocked; 4].as_slice(), &[placeable; 20], &[blocked; 16]].concat();
    let items = users.iter().enumerate();
    let items = items.map(|(index, user)| (batch.item(index, batch.request), new_order(*user)));
    let began = Instant::now();
    let answers = shards
        .store
        .create_orders(&batch, items.collect(), render_order)
        .await
        .unwrap();
    assert!(began.elapsed() < patience * 2, "{:?}", began.elapsed());
    for (user, answer) in users.iter().zip(&answers) {
        match answer {
            Ok(_) => assert_eq!(*user, placeable),
            Err(StoreError::Unavailable { .. }) => assert_eq!(*user, blocked),
            Err(other) => panic!("{other:?}"),
        }
    }
    shards.end().await;
}

#[tokio::test]
async fn an_order_gets_one_invoice_with_a_number_of_its_shard() {
    let shards = Shards::start(1).await;
    let store = &shards.store;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;
    let details = |order: &Order, user: &crate::users::User| json!({"to": user.last_name, "total": order.total_minor});
    let render = |invoice: &crate::invoices::Invoice| StoredResponse {
        status: 201,
        location: Some(format!("/v1/invoices/{}", invoice.invoice_id)),
        etag: None,
        body: invoice.number.clone(),
    };
    let first = key();
    let invoiced = store
        .generate_invoice(first.clone(), order, details, render)
        .await
        .unwrap();
    assert_eq!(invoiced.response.body, "0-00000001");
    shards
        .execute(Ordinal(0), "SELECT setval('ringwright.invoice_number_seq', 123456788)")
        .await;
    let long: String = shards
        .scalar(Ordinal(0), "SELECT ringwright.next_invoice_number()")
        .await;
    assert_eq!(long, "0-123456789");
    assert_eq!(
        (invoiced.events[0].sequence, invoiced.events[0].invoice_id.is_some()),
        (2, true)
    );
    let repeat = store.generate_invoice(first, order, details, render).await.unwrap();
    assert!(repeat.repeated && repeat.response == invoiced.response);
    let second = store.generate_invoice(key(), order, details, render).await;
    let Err(StoreError::InvoiceExists { invoice, .. }) = second else {
        panic!("{second:?}")
    };
    let full = store
        .get_invoice(invoice, &ReadAt::default())
        .await
        .unwrap()
        .value
        .unwrap();
    assert_eq!(full.invoice.invoice_details, json!({"to": "Lovelace", "total": 1_999}));
    assert_eq!(
        (full.order.order_id, full.order.event_seq, full.order.version),
        (order, 2, 2)
    );
    let of_order = store
        .get_invoice_of_order(order, &ReadAt::default())
        .await
        .unwrap()
        .value
        .unwrap();
    assert_eq!(of_order, full);
    assert_eq!(
        store.order_context(order).await.unwrap().unwrap().invoice,
        Some(full.invoice)
    );

    let cancelled = place(&shards, user).await;
    assert_eq!(
        store
            .get_invoice_of_order(cancelled, &ReadAt::default())
            .await
            .unwrap()
            .value,
        None
    );
    store
        .set_order_status(key(), cancelled, OrderStatus::Cancelled, BasedOn::Any, render_order)
        .await
        .unwrap();
    let refused = store.generate_invoice(key(), cancelled, details, render).await;
    assert!(matches!(refused, Err(StoreError::OrderCancelled(_))), "{refused:?}");
    shards.end().await;
}
