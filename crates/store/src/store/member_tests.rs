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
    assert!(need(Some((3, 900))).met_by_replica(&master(began, 3), &replica(began, 3, 900), now));
    assert!(need(None).met_by_replica(&master(began, 3), &replica(began, 3, 1), now));
    assert!(!need(Some((3, 901))).met_by_replica(&master(began, 3), &replica(began, 3, 900), now));
}

#[test]
fn a_replica_of_another_term_does_not_answer() {
    let began = Instant::now();
    let now = began + FRESH;
    assert!(
        !need(None).met_by_replica(&master(began, 4), &replica(began, 3, 900), now),
        "it follows a deposed master"
    );
    assert!(
        !need(Some((3, 100))).met_by_replica(&master(began, 4), &replica(began, 4, 900), now),
        "positions of two terms cannot be compared"
    );
}

#[test]
fn a_replica_the_master_does_not_list_does_not_answer() {
    let began = Instant::now();
    let mut stranger = replica(began, 3, 900);
    stranger.host = "shop-0-2.shop-0.ns.svc:5432".to_owned();
    assert!(!need(None).met_by_replica(&master(began, 3), &stranger, began + FRESH));
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
            !need(Some((3, 1))).met_by_replica(&master(began, 3), &view, began + FRESH),
            "{streaming} {last_message:?}"
        );
    }
}

#[test]
fn an_old_sample_does_not_let_a_replica_answer() {
    let began = Instant::now();
    let short = Need {
        token: None,
        max_staleness: Duration::from_millis(100),
    };
    assert!(!short.met_by_replica(
        &master(began, 3),
        &replica(began, 3, 900),
        began + Duration::from_millis(101)
    ));
    let later = began + Duration::from_millis(1001);
    assert!(!need(Some((3, 1))).met_by_replica(&master(later, 3), &replica(began, 3, 900), later));
    assert!(!need(Some((3, 1))).met_by_replica(&master(began, 3), &replica(later, 3, 900), later));
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
