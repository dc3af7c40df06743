use super::*;

fn estimate() -> Estimate {
    Estimate {
        shards_before: 2,
        shards_after: 3,
        moves: 2,
        ranges: 40,
        rows: 1_000,
        moved_per_million: 333_000,
        ideal_per_million: 333_333,
    }
}

fn pending(ranges: usize, moves: usize) -> Pending {
    Pending { ranges, moves }
}

fn batch(rows: u64, milliseconds: u64) -> Batch {
    Batch {
        rows,
        pause: Duration::from_millis(milliseconds),
        compared: Duration::ZERO,
    }
}

#[test]
fn what_is_done_is_what_is_not_left() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.observed(&pending(40, 2));
    assert_eq!(course.status().unwrap().ranges_done, 0);
    course.observed(&pending(15, 1));
    let status = course.status().unwrap();
    assert_eq!((status.ranges_done, status.ranges_total), (25, 40));
    assert_eq!((status.moves_done, status.moves_total), (1, 2));
}

#[test]
fn an_account_goes_on_after_a_restart() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.handed_over(&batch(300, 7), Instant::now());
    let mut next = Course::resume(course.status().cloned());
    assert!(next.is_open());
    next.observed(&pending(10, 1));
    next.handed_over(&batch(100, 3), Instant::now());
    let status = next.status().unwrap();
    assert_eq!((status.rows_done, status.rows_total), (400, 1_000));
    assert_eq!((status.ranges_done, status.longest_pause_milliseconds), (30, 7));
}

#[test]
fn moves_without_an_account_open_one_and_nothing_to_do_does_not() {
    let mut course = Course::default();
    course.observed(&pending(0, 0));
    assert!(course.status().is_none());
    course.observed(&pending(4, 1));
    assert!(course.is_open());
    assert_eq!(course.status().unwrap().ranges_total, 4);
}

#[test]
fn a_closed_account_stays_as_the_summary_until_the_next_begins() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.handed_over(&batch(900, 12), Instant::now());
    course.observed(&pending(0, 0));
    course.close(RebalancePhase::Finished);
    let summary = course.status().cloned().unwrap();
    assert_eq!((summary.phase, summary.rows_total), (RebalancePhase::Finished, 900));
    course.observed(&pending(0, 0));
    course.set_phase(RebalancePhase::Copying);
    assert_eq!(course.status(), Some(&summary));

    course.begin(&estimate());
    let status = course.status().unwrap();
    assert_eq!((status.rows_done, status.finished_at.as_ref()), (0, None));
}

#[test]
fn a_change_in_the_middle_adds_to_the_account() {
    let mut course = Course::default();
    assert_eq!(course.begin(&estimate()), Begun::First);
    let guessed_anew = Estimate {
        rows: 1_200,
        ..estimate()
    };
    assert_eq!(course.begin(&guessed_anew), Begun::Known);
    assert_eq!(course.status().unwrap().ranges_total, 40, "the same beginning again");
    course.observed(&pending(40, 2));
    course.undone(2, true);
    course.undone(3, false);
    assert_eq!(course.begin(&estimate()), Begun::More);
    let status = course.status().unwrap();
    assert_eq!((status.ranges_total, status.moves_total), (75, 3));
    assert_eq!(status.shards_before, 2);
}

#[test]
fn what_is_given_up_is_not_told_as_done() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.observed(&pending(30, 2));
    course.undone(30, true);
    course.observed(&pending(0, 0));
    let status = course.status().unwrap();
    assert_eq!((status.ranges_done, status.ranges_total), (10, 10));
    assert_eq!((status.moves_done, status.moves_total), (1, 1));
}

#[test]
fn rate_and_end_are_told_only_while_something_moves() {
    let mut course = Course::default();
    course.begin(&estimate());
    let begun = Instant::now();
    course.handed_over(&batch(500, 7), begun);
    course.estimate(begun + Duration::from_secs(5));
    let status = course.status().unwrap();
    assert_eq!((status.rows_per_second, status.estimated_end.is_some()), (100, true));
    course.estimate(begun + RATE_OVER + Duration::from_secs(1));
    let status = course.status().unwrap();
    assert_eq!((status.rows_per_second, status.estimated_end.is_some()), (0, false));
}

#[test]
fn the_same_failure_again_is_no_news() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.failed("no answer", "it is tried again");
    let first = course.status().cloned();
    course.failed("no answer", "it is tried again");
    assert_eq!(course.status().cloned(), first);
}

#[test]
fn median_and_longest_pause_are_of_all_pauses() {
    let mut pauses = Pauses::default();
    for milliseconds in [5, 5, 6, 7, 90] {
        pauses.add(Duration::from_millis(milliseconds));
    }
    assert_eq!((pauses.median(), pauses.longest()), (6, 90));
    pauses.add(Duration::from_micros(10));
    assert_eq!(pauses.0.get(&1), Some(&1), "never told as no pause");
}

#[test]
fn a_freeze_that_ran_into_its_deadline_counts_as_a_pause_and_as_no_batch() {
    let mut course = Course::default();
    course.begin(&estimate());
    course.handed_over(&batch(300, 7), Instant::now());
    course.expired(Duration::from_millis(104));
    course.handed_over(&batch(300, 9), Instant::now());
    let status = course.status().unwrap();
    assert_eq!((status.longest_pause_milliseconds, status.rows_done), (104, 600));
    assert_eq!(status.median_pause_milliseconds, 7);
}

#[test]
fn neighbours_of_one_move_are_one_range() {
    let range = |lo, hi| Range { lo, hi };
    assert_eq!(count_joined(vec![range(5, 7), range(0, 5), range(9, 10)]), 2);
    assert_eq!(count_joined(Vec::new()), 0);
}
