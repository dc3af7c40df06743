//! Subscriptions that switched themselves off.

use super::answers::{S, T, batch, copied, cut, steps, why, wish};
use super::databases::Databases;
use super::operator::carry_out;
use crate::{CopyState, MAX_RESUMES, MoveId, Step, Timeline, Why};

#[test]
fn a_subscription_that_met_an_error_is_switched_on_again_so_often_and_then_its_move_is_undone() {
    let wish = wish([0, 1]);
    let (mut databases, move_id) = cut();
    databases.write(0x80);
    for resumes in 0..MAX_RESUMES {
        databases.view(T).subscriptions[0].enabled = false;
        let resume = steps(&databases, &wish);
        let expected = Step::Resume {
            move_id,
            source: S,
            target: T,
            source_term: Timeline(1),
        };
        assert_eq!(resume, [expected], "after {resumes} times");
        carry_out(&mut databases, &resume[0]);
        assert!(databases.shards[&T].subscriptions[0].enabled);
        assert_eq!(databases.shards[&T].copies[0].resumes, resumes + 1);
        assert!(matches!(steps(&databases, &wish)[..], [Step::HandOver { .. }]));
    }
    databases.view(T).subscriptions[0].enabled = false;
    assert!(matches!(why(&databases, &wish), Why::SubscriptionFailed { .. }));
}

#[test]
fn a_subscription_is_not_switched_on_again_over_what_makes_its_copy_void() {
    let wish = wish([0, 1]);
    let stopped = |change: fn(&mut Databases, MoveId)| {
        let (mut databases, move_id) = copied();
        databases.view(T).subscriptions[0].enabled = false;
        change(&mut databases, move_id);
        why(&databases, &wish)
    };
    assert_eq!(stopped(|all, id| all.drop_slot(S, id)), Why::Missing { what: "slot" });
    assert_eq!(stopped(|all, _| all.view(S).slots[0].invalidated = true), Why::LogLost);
    assert!(matches!(
        stopped(|all, _| all.fail_over(S)),
        Why::SourceFailedOver { .. }
    ));
}

#[test]
fn a_batch_that_is_frozen_goes_on_beside_a_subscription_that_is_switched_on_again() {
    let (mut databases, move_id) = cut();
    let range = batch(&databases);
    databases.freeze(S, T, move_id, range);
    databases.view(T).subscriptions[0].enabled = false;
    let both = steps(&databases, &wish([0, 1]));
    assert!(
        matches!(both[..], [Step::Resume { .. }, Step::HandOver { frozen: true, .. }]),
        "{both:?}"
    );
}

#[test]
fn who_resumes_a_copy_late_changes_nothing_after_its_abort() {
    let (mut databases, move_id) = copied();
    databases.view(T).subscriptions[0].enabled = false;
    let late = steps(&databases, &wish([0, 1]));
    databases.set_copy_state(T, move_id, CopyState::Aborting);
    carry_out(&mut databases, &late[0]);
    assert!(!databases.shards[&T].subscriptions[0].enabled);
}
