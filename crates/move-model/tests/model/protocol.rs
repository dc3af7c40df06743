//! With all its rules.

use move_model::{Bounds, Rules};

use crate::{LEAST, holds, is_deep};

/// Deeper bounds where they are asked for.
fn bounds(quick: Bounds, deep: Bounds) -> Bounds {
    if is_deep() { deep } else { quick }
}

#[test]
fn a_hand_over_survives_failovers_of_the_source() {
    let quick = Bounds {
        operators: 2,
        attempts: 2,
        failovers: [1, 0],
        ..LEAST
    };
    let deep = Bounds {
        inserts_and_deletes: 2,
        failovers: [2, 0],
        ..quick
    };
    holds("failovers of the source", Rules::ALL, bounds(quick, deep));
}

#[test]
fn a_hand_over_survives_failovers_of_the_target() {
    let quick = Bounds {
        operators: 2,
        attempts: 2,
        failovers: [0, 1],
        ..LEAST
    };
    let deep = Bounds {
        inserts_and_deletes: 2,
        failovers: [0, 2],
        ..quick
    };
    holds("failovers of the target", Rules::ALL, bounds(quick, deep));
}

#[test]
fn a_hand_over_survives_failovers_of_both() {
    let quick = Bounds {
        attempts: 2,
        failovers: [1, 1],
        inserts_and_deletes: 2,
        ..LEAST
    };
    let deep = Bounds { operators: 2, ..quick };
    holds("failovers of both", Rules::ALL, bounds(quick, deep));
}

#[test]
fn rows_that_come_and_go_are_handed_over_as_they_are() {
    let quick = Bounds {
        attempts: 2,
        inserts_and_deletes: 2,
        second_client: true,
        ..LEAST
    };
    let deep = Bounds {
        operators: 2,
        inserts_and_deletes: 3,
        ..quick
    };
    holds("rows that come and go", Rules::ALL, bounds(quick, deep));
}

#[test]
fn an_abort_at_any_point_leaves_nothing_and_the_keys_can_move_again() {
    let quick = Bounds {
        operators: 2,
        moves: 2,
        aborts: true,
        attempts: 2,
        ..LEAST
    };
    let deep = Bounds {
        failovers: [1, 0],
        ..quick
    };
    holds("abort, and once more", Rules::ALL, bounds(quick, deep));
}

#[test]
fn an_abort_survives_failovers() {
    let quick = Bounds {
        moves: 2,
        aborts: true,
        attempts: 2,
        failovers: [1, 1],
        ..LEAST
    };
    let deep = Bounds {
        operators: 2,
        failovers: [0, 1],
        ..quick
    };
    holds("abort, with failovers", Rules::ALL, bounds(quick, deep));
}

#[test]
fn keys_move_there_and_back() {
    let quick = Bounds {
        moves: 2,
        attempts: 2,
        failovers: [1, 1],
        inserts_and_deletes: 2,
        ..LEAST
    };
    let deep = Bounds {
        operators: 2,
        failovers: [1, 0],
        inserts_and_deletes: 1,
        ..quick
    };
    holds("there and back", Rules::ALL, bounds(quick, deep));
}

#[test]
fn a_write_that_has_passed_the_fence_is_waited_for() {
    let quick = Bounds {
        attempts: 2,
        locks: true,
        second_client: true,
        ..LEAST
    };
    let deep = Bounds {
        operators: 2,
        failovers: [1, 0],
        ..quick
    };
    holds("locks and a split", Rules::ALL, bounds(quick, deep));
}
