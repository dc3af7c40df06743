use super::*;

const FRESH: Duration = Duration::from_millis(20);

fn master(began: Instant, term: u32) -> Sample {
    Sample {
        began,
        term: Some(Term(term)),
        lsn: Lsn(1000),
        kind: Kind::Master {
            standbys: vec!["shop-0-1".to_owned()],
        },
    }
}

fn replica(began: Instant, term: u32, lsn: u64) -> View {
    let kind = Kind::Replica {
        streaming: true,
        last_message: Some(Duration::ZERO),
    };
    View {
        host: "shop-0-1.shop-0.ns.svc:5432".to_owned(),
        last: Ok(Sample {
            began,
            term: Some(Term(term)),
            lsn: Lsn(lsn),
            kind,
        }),
    }
}

/// A shard whose master was at 900 when it was looked at a moment before, and at 1000 now.
fn shard(master: Sample) -> ShardView {
    let mut before = master.clone();
    before.lsn = Lsn(900);
    let mut shard = ShardView::default();
    shard.record("shop-0-0.shop-0.ns.svc:5432", Ok(before));
    shard.record("shop-0-0.shop-0.ns.svc:5432", Ok(master));
    shard
}

fn need(token: Option<(u32, u64)>) -> Need {
    Need {
        token: token.map(|(term, lsn)| (Term(term), Lsn(lsn))),
        max_staleness: Duration::from_secs(1),
    }
}

#[test]
fn a_replica_at_or_past_the_token_answers() {
    let began = Instant::now();
    let now = began + FRESH;
    let shard = shard(master(began, 3));
    assert!(need(Some((3, 900))).met_by_replica(&shard, &replica(began, 3, 900), now));
    assert!(!need(Some((3, 901))).met_by_replica(&shard, &replica(began, 3, 900), now));
}

#[test]
fn a_replica_of_another_term_does_not_answer() {
    let began = Instant::now();
    let now = began + FRESH;
    assert!(
        !need(None).met_by_replica(&shard(master(began, 4)), &replica(began, 3, 900), now),
        "it follows a deposed master"
    );
    assert!(
        !need(Some((3, 100))).met_by_replica(&shard(master(began, 4)), &replica(began, 4, 900), now),
        "positions of two terms cannot be compared"
    );
}

#[test]
fn a_replica_the_master_does_not_list_does_not_answer() {
    let began = Instant::now();
    let mut stranger = replica(began, 3, 900);
    stranger.host = "shop-0-2.shop-0.ns.svc:5432".to_owned();
    assert!(!need(None).met_by_replica(&shard(master(began, 3)), &stranger, began + FRESH));
}

#[test]
fn a_replica_that_does_not_stream_or_has_not_heard_for_long_does_not_answer() {
    let began = Instant::now();
    for (streaming, last_message) in [
        (false, Some(Duration::ZERO)),
        (true, None),
        (true, Some(Duration::from_millis(990))),
    ] {
        let mut view = replica(began, 3, 900);
        view.last.as_mut().unwrap().kind = Kind::Replica {
            streaming,
            last_message,
        };
        assert!(
            !need(Some((3, 1))).met_by_replica(&shard(master(began, 3)), &view, began + FRESH),
            "{streaming} {last_message:?}"
        );
    }
}

#[test]
fn a_replica_that_lags_too_far_behind_the_master_does_not_answer_with_or_without_a_token() {
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    let mut shard = ShardView::default();
    for (look, lsn) in [(0, 900), (600, 950), (1200, 1000)] {
        let sample = Sample {
            lsn: Lsn(lsn),
            ..master(ms(look), 3)
        };
        shard.record("shop-0-0.shop-0.ns.svc:5432", Ok(sample));
    }
    // It hears from its master all the time, and stays where it is.
    let paused = replica(ms(1200), 3, 900);
    let lagging = replica(ms(1200), 3, 950);
    for token in [None, Some((3, 1))] {
        assert!(!need(token).met_by_replica(&shard, &paused, ms(1220)), "{token:?}");
        assert!(need(token).met_by_replica(&shard, &lagging, ms(1220)), "{token:?}");
    }
    let strict = Need {
        token: None,
        max_staleness: Duration::from_millis(100),
    };
    assert!(!strict.met_by_replica(&shard, &lagging, ms(1220)));
    assert!(strict.met_by_replica(&shard, &replica(ms(1200), 3, 1000), ms(1220)));
}

#[test]
fn a_replica_of_an_idle_shard_answers_however_long_ago_the_last_write_was() {
    let start = Instant::now();
    let mut shard = ShardView::default();
    for second in 0..60 {
        shard.record(
            "shop-0-0.shop-0.ns.svc:5432",
            Ok(master(start + Duration::from_secs(second), 3)),
        );
    }
    let now = start + Duration::from_secs(59) + FRESH;
    assert!(need(None).met_by_replica(&shard, &replica(now, 3, 1000), now));
}

#[test]
fn old_samples_do_not_let_a_replica_answer() {
    let began = Instant::now();
    let later = began + Duration::from_millis(1001);
    assert!(!need(Some((3, 1))).met_by_replica(&shard(master(later, 3)), &replica(began, 3, 900), later));
    assert!(!need(Some((3, 1))).met_by_replica(&shard(master(began, 3)), &replica(later, 3, 900), later));
}

#[test]
fn a_master_of_an_older_term_than_the_token_is_refused_and_a_newer_one_answers() {
    assert!(!need(Some((3, 1))).met_by_master(Some(Term(2))));
    assert!(need(Some((3, 1))).met_by_master(Some(Term(3))));
    assert!(need(Some((3, u64::MAX))).met_by_master(Some(Term(4))));
    assert!(need(None).met_by_master(Some(Term(1))));
}

#[test]
fn of_two_that_call_themselves_master_the_newer_term_counts_even_when_it_is_gone() {
    let began = Instant::now();
    let mut view = ShardView::default();
    view.record("old:1", Ok(master(began, 3)));
    assert_eq!(view.master().unwrap().0.host, "old:1");
    view.record("new:1", Ok(master(began, 4)));
    assert_eq!(view.master().unwrap().0.host, "new:1");
    view.record("new:1", Err("gone".to_owned()));
    assert!(view.master().is_none(), "a deposed master must not come back into use");
}

#[test]
fn a_token_far_past_the_end_of_its_own_terms_log_is_foreign() {
    let end = Lsn(1000);
    assert!(!need(Some((3, 1000))).is_past_the_end(Term(3), end));
    // A crash may have left the last record unfinished, so that the log went on before it.
    assert!(!need(Some((3, 9000))).is_past_the_end(Term(3), end));
    assert!(need(Some((3, 1 << 40))).is_past_the_end(Term(3), end));
    assert!(
        !need(Some((2, 1 << 40))).is_past_the_end(Term(3), end),
        "of another log"
    );
    assert!(!need(Some((3, u64::MAX))).is_past_the_end(Term(3), Lsn(u64::MAX - 1)));
    assert!(!need(None).is_past_the_end(Term(3), end));
}

/// A shard of a master and a replica in term 3, both looked at from `began` on.
fn shard_in_term_3(began: Instant) -> (ShardView, Vec<String>) {
    let mut view = ShardView::default();
    let follower = replica(began, 3, 900);
    view.record("shop-0-0.shop-0.ns.svc:5432", Ok(master(began, 3)));
    view.record(&follower.host, follower.last.clone());
    let hosts = view.members.iter().map(|member| member.host.clone()).collect();
    (view, hosts)
}

#[test]
fn a_term_that_no_member_has_come_to_is_ruled_out_by_looks_that_began_after_the_question() {
    let asked = Instant::now();
    let (view, hosts) = shard_in_term_3(asked);
    assert!(view.never_reached(Term(4), &hosts, asked));
    assert!(!view.never_reached(Term(3), &hosts, asked));
    assert!(
        !view.never_reached(Term(4), &hosts, asked + FRESH),
        "a replica may have been promoted since"
    );
}

#[test]
fn a_term_is_not_ruled_out_while_a_member_is_out_of_reach_or_tells_none() {
    let asked = Instant::now();
    let (mut view, hosts) = shard_in_term_3(asked);
    let follower = hosts[1].clone();
    view.record(&follower, Err("gone".to_owned()));
    assert!(!view.never_reached(Term(4), &hosts, asked));
    let mut silent = replica(asked, 3, 900).last.unwrap();
    silent.term = None;
    view.record(&follower, Ok(silent));
    assert!(!view.never_reached(Term(4), &hosts, asked));
    view.record(&follower, replica(asked, 3, 900).last);
    assert!(view.never_reached(Term(4), &hosts, asked));
    let mut more = hosts.clone();
    more.push("shop-0-2.shop-0.ns.svc:5432".to_owned());
    assert!(!view.never_reached(Term(4), &more, asked), "one was never looked at");
}

#[test]
fn a_term_is_not_ruled_out_without_a_master_or_after_it_was_seen() {
    let asked = Instant::now();
    let (mut view, hosts) = shard_in_term_3(asked);
    let promoted = master(asked, 4);
    view.record(&hosts[1], Ok(promoted));
    // It is gone and comes back as a replica of the old one: the term was there.
    view.record(&hosts[1], replica(asked, 3, 900).last);
    assert!(!view.never_reached(Term(4), &hosts, asked));
    let mut headless = ShardView::default();
    headless.record(&hosts[1], replica(asked, 3, 900).last);
    assert!(!headless.never_reached(Term(4), &hosts[1..], asked));
}
