//! With a rule left out, or two: the search has to find what comes of it. This is how we know that it looks.

use move_model::{Bounds, Outcome, Rules};

use crate::{LEAST, holds, look};

const LOST: &str = "an acknowledged write is lost";
const TWO_OWNERS: &str = "two shards own the range";
const NO_OWNER: &str = "nobody owns the range";
const STUCK: &str = "from here on nobody can ever write to the range";
const ENDLESS: &str = "from here on the move cannot come to an end";

/// Without these rules the search finds this.
fn finds(name: &str, what: &str, bounds: Bounds, without: impl Fn(&mut Rules)) {
    let mut rules = Rules::ALL;
    without(&mut rules);
    assert_ne!(rules, Rules::ALL, "a mutation leaves something out");
    match look(&format!("without {name}"), rules, bounds) {
        Outcome::Violated { what: found, story } => assert_eq!(found, what, "without {name}:\n{}", story.join("\n")),
        Outcome::Holds { states, .. } => panic!("without {name} all is well in {states} states"),
    }
}

/// Without this rule alone there is no harm: another line holds.
fn survives(name: &str, bounds: Bounds, without: impl Fn(&mut Rules)) {
    let mut rules = Rules::ALL;
    without(&mut rules);
    assert_ne!(rules, Rules::ALL, "a mutation leaves something out");
    holds(&format!("without {name}, alone"), rules, bounds);
}

const TWO_OPERATORS: Bounds = Bounds {
    operators: 2,
    attempts: 2,
    ..LEAST
};

/// The source may fail over.
const SOURCE_FAILS: Bounds = Bounds {
    attempts: 2,
    failovers: [1, 0],
    ..LEAST
};

/// The target may fail over.
const TARGET_FAILS: Bounds = Bounds {
    failovers: [0, 1],
    ..LEAST
};

const LOCKS: Bounds = Bounds { locks: true, ..LEAST };

const TWO_MOVES: Bounds = Bounds {
    operators: 2,
    moves: 2,
    attempts: 2,
    ..LEAST
};

#[test]
fn the_fence_looks_under_its_lock() {
    finds("the fence's look under its lock", LOST, LOCKS, |rules| {
        rules.fence_under_lock = false
    });
}

#[test]
fn a_split_takes_the_lock_of_the_whole() {
    let name = "the parent's lock at a split";
    finds(name, LOST, LOCKS, |rules| rules.split_takes_parents_lock = false);
}

#[test]
fn the_marker_is_awaited() {
    let bounds = Bounds {
        inserts_and_deletes: 2,
        ..LEAST
    };
    finds("the marker", LOST, bounds, |rules| rules.await_marker = false);
}

#[test]
fn marker_and_comparison_are_of_one_session() {
    let bounds = Bounds {
        failovers: [0, 1],
        ..LEAST
    };
    finds("one session for steps 6 and 7", LOST, bounds, |rules| {
        rules.one_target_session = false
    });
}

#[test]
fn a_verification_is_durable() {
    let bounds = Bounds {
        failovers: [1, 1],
        ..LEAST
    };
    finds("durability of step 7", NO_OWNER, bounds, |rules| {
        rules.durable_verify = false
    });
}

#[test]
fn the_commit_point_compares_the_attempt() {
    finds("the attempt at step 8", LOST, TWO_OPERATORS, |rules| {
        rules.commit_wants_attempt = false
    });
}

#[test]
fn the_commit_point_wants_frozen() {
    finds("frozen at step 8", LOST, LEAST, |rules| {
        rules.commit_wants_frozen = false
    });
}

#[test]
fn the_commit_point_is_durable() {
    finds("durability of step 8", TWO_OWNERS, SOURCE_FAILS, |rules| {
        rules.durable_commit = false
    });
}

#[test]
fn who_activates_by_what_it_read_commits_first() {
    let bounds = Bounds {
        operators: 2,
        ..SOURCE_FAILS
    };
    finds("the commit of who read `moved`", TWO_OWNERS, bounds, |rules| {
        rules.confirm_moved = false
    });
}

#[test]
fn who_moves_keys_on_by_what_it_read_commits_first() {
    let bounds = Bounds {
        moves: 2,
        failovers: [0, 1],
        ..LEAST
    };
    finds("the commit of who read `owned`", NO_OWNER, bounds, |rules| {
        rules.confirm_owned = false
    });
}

#[test]
fn a_freeze_is_durable() {
    finds("durability of step 5", ENDLESS, SOURCE_FAILS, |rules| {
        rules.durable_freeze = false
    });
    let bounds = Bounds {
        operators: 2,
        ..SOURCE_FAILS
    };
    finds("the commit of who read `frozen`", ENDLESS, bounds, |rules| {
        rules.confirm_frozen = false
    });
}

#[test]
fn freezing_for_a_copy_that_has_become_void_costs_time_only() {
    let bounds = Bounds {
        operators: 2,
        ..SOURCE_FAILS
    };
    let name = "freezing in the session that found the copy sound";
    survives(name, bounds, |rules| rules.freeze_in_session = false);
}

#[test]
fn anybody_may_finish_a_hand_over() {
    let name = "others who activate";
    finds(name, STUCK, SOURCE_FAILS, |rules| rules.anybody_may_activate = false);
}

#[test]
fn activation_by_the_verified_attempt_is_a_second_line() {
    let bounds = Bounds {
        operators: 2,
        failovers: [1, 1],
        ..LEAST
    };
    let name = "the verified attempt at step 9";
    survives(name, bounds, |rules| rules.activate_wants_verified = false);
    let both = |rules: &mut Rules| (rules.activate_wants_verified, rules.commit_wants_attempt) = (false, false);
    finds("the attempts at steps 8 and 9", LOST, TWO_OPERATORS, both);
}

#[test]
fn a_durable_abort_and_one_session_with_the_source_are_two_lines() {
    let bounds = Bounds {
        operators: 2,
        aborts: true,
        attempts: 1,
        ..SOURCE_FAILS
    };
    let both = |rules: &mut Rules| (rules.durable_abort, rules.one_source_session) = (false, false);
    finds("durability of an abort and one session", NO_OWNER, bounds, both);
    survives("durability of an abort", bounds, |rules| rules.durable_abort = false);
    survives("one session with the source", bounds, |rules| {
        rules.one_source_session = false
    });
}

#[test]
fn a_wipe_looks_first() {
    let bounds = Bounds {
        aborts: true,
        ..TWO_MOVES
    };
    finds("the guard of the wipe", LOST, bounds, |rules| {
        rules.wipe_is_guarded = false
    });
}

#[test]
fn a_cleanup_looks_first() {
    finds("the guard of the cleanup", LOST, TWO_MOVES, |rules| {
        rules.cleanup_is_guarded = false
    });
}

#[test]
fn a_range_is_imported_only_where_nothing_of_it_is() {
    let name = "import into an empty range only";
    finds(name, NO_OWNER, TWO_MOVES, |rules| rules.import_into_empty = false);
}

#[test]
fn an_abort_wants_nothing_to_have_changed() {
    let bounds = Bounds {
        aborts: true,
        ..TWO_OPERATORS
    };
    let name = "the comparison at the end of an abort";
    finds(name, NO_OWNER, bounds, |rules| rules.abort_wants_unchanged = false);
}

#[test]
fn comparing_and_synchronous_apply_are_two_lines() {
    let both = |rules: &mut Rules| (rules.verify, rules.subscription_commits_synchronously) = (false, false);
    finds("comparison and synchronous apply", LOST, TARGET_FAILS, both);
    survives("comparison", TARGET_FAILS, |rules| rules.verify = false);
    let name = "synchronous apply";
    survives(name, TARGET_FAILS, |rules| {
        rules.subscription_commits_synchronously = false
    });
}

#[test]
fn comparing_and_refusing_an_old_term_are_two_lines() {
    let both = |rules: &mut Rules| (rules.verify, rules.old_term_is_void) = (false, false);
    finds("comparison and the term of the slot", LOST, SOURCE_FAILS, both);
    survives("comparison", SOURCE_FAILS, |rules| rules.verify = false);
    survives("the term of the slot", SOURCE_FAILS, |rules| {
        rules.old_term_is_void = false
    });
}

#[test]
fn the_apply_guard_and_cleaning_up_unreplicated_are_two_lines() {
    // Enough attempts that the move does not give up first.
    let bounds = Bounds { attempts: 3, ..LEAST };
    let both = |rules: &mut Rules| (rules.apply_guard, rules.cleanup_is_not_replicated) = (false, false);
    finds("apply guard and cleanup unreplicated", LOST, bounds, both);
    survives("apply guard", bounds, |rules| rules.apply_guard = false);
    survives("cleanup unreplicated", bounds, |rules| {
        rules.cleanup_is_not_replicated = false
    });
}
