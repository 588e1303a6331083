//! The budget, its queue and its overdrafts, without a connection.

#![allow(clippy::indexing_slicing)]

use super::*;
use crate::mailbox::Mailbox;

const FULL: usize = 4 * PIECE_BYTES;

fn share(budget: &Arc<Budget>) -> Share {
    Share::new(Arc::clone(budget), Mailbox::new())
}

fn reads(share: &mut Share) -> bool {
    share.poll_leave().is_ready()
}

#[test]
fn over_the_budget_readers_wait_until_a_verdict_frees_it() {
    let budget = Budget::new(FULL, 10);
    let (mut one, mut two) = (share(&budget), share(&budget));
    assert!(reads(&mut one));
    one.settle(FULL, false);
    let charge = one.hand_over(FULL);
    one.settle(0, true);
    assert_eq!((budget.bytes(), budget.messages()), (FULL, 1));
    assert!(!reads(&mut two) && !reads(&mut two));
    assert!(two.is_queued());
    drop(charge);
    assert!(reads(&mut two));
    two.settle(0, true);
    assert_eq!((budget.bytes(), budget.messages()), (0, 0));
}

#[test]
fn only_as_many_pieces_are_granted_as_fit() {
    let budget = Budget::new(FULL, 10);
    let mut holder = share(&budget);
    holder.settle(FULL, false);
    let charge = holder.hand_over(2 * PIECE_BYTES);
    let mut waiting: Vec<Share> = (0..6).map(|_| share(&budget)).collect();
    assert_eq!(
        waiting
            .iter_mut()
            .filter_map(|w| reads(w).then_some(()))
            .count(),
        0
    );
    holder.settle(PIECE_BYTES, false);
    assert_eq!(
        waiting
            .iter_mut()
            .filter_map(|w| reads(w).then_some(()))
            .count(),
        1
    );
    // The one without data passes its piece on to the next in line.
    waiting[0].nothing_read();
    assert!(reads(&mut waiting[1]) && !reads(&mut waiting[2]));
    drop(charge);
    assert_eq!(
        waiting[1..]
            .iter_mut()
            .filter_map(|w| reads(w).then_some(()))
            .count(),
        3
    );
}

#[test]
fn when_unfinished_texts_hold_everything_one_gets_an_overdraft_at_a_time() {
    let budget = Budget::new(FULL, 10);
    let (mut one, mut two, mut three) = (share(&budget), share(&budget), share(&budget));
    one.settle(FULL / 2, false);
    two.settle(FULL / 2, false);
    assert!(reads(&mut one) && one.is_overdraft());
    assert!(!reads(&mut two) && !reads(&mut three));
    one.nothing_read();
    one.settle(FULL, false);
    assert!(
        one.is_overdraft() && !reads(&mut two),
        "it keeps it to the end of its message"
    );
    let charge = one.hand_over(FULL);
    one.settle(0, true);
    assert!(!reads(&mut two), "the verdict is certain to come");
    drop(charge);
    assert!(reads(&mut two) && !two.is_overdraft());
    assert!(reads(&mut three), "half of it is free now");
}

#[test]
fn one_that_dies_waiting_or_reading_holds_nobody_up() {
    let budget = Budget::new(FULL, 10);
    let mut holder = share(&budget);
    holder.settle(FULL, false);
    let (mut one, mut two, mut three) = (share(&budget), share(&budget), share(&budget));
    assert!(reads(&mut one) && one.is_overdraft());
    assert!(!reads(&mut two) && !reads(&mut three));
    drop(two);
    drop(one);
    assert!(reads(&mut three) && three.is_overdraft());
    drop(three);
    drop(holder);
    assert_eq!(budget.bytes(), 0);
    assert_eq!(budget.queued.load(SeqCst), 0);
}

#[test]
fn too_many_waiting_messages_stop_reading_too() {
    let budget = Budget::new(FULL, 2);
    let mut one = share(&budget);
    let (first, second) = (one.hand_over(1), one.hand_over(1));
    assert!(!reads(&mut one) && !one.is_overdraft());
    drop(first);
    assert!(reads(&mut one));
    drop(second);
}

fn of_tenant(budget: &Arc<Budget>, holding: &Arc<Holding>) -> Share {
    let mut share = share(budget);
    share.belong_to(holding);
    share
}

#[test]
fn a_tenant_at_its_share_waits_and_the_others_do_not() {
    let budget = Budget::new(FULL, 100);
    let (flooder, quiet) = (Arc::default(), Arc::default());
    let mut sending = of_tenant(&budget, &flooder);
    let first = sending.hand_over(3 * PIECE_BYTES);
    let mut waiting: Vec<Share> = (0..3).map(|_| of_tenant(&budget, &flooder)).collect();
    assert!(
        waiting.iter_mut().all(|each| !reads(each)),
        "three quarters"
    );
    let mut other = of_tenant(&budget, &quiet);
    assert!(reads(&mut other), "it came last, and is not behind them");
    other.settle(10, true);
    assert!(reads(&mut other), "again and again");
    other.settle(0, true);
    drop(first);
    assert!(waiting.iter_mut().all(reads));
}

#[test]
fn messages_have_a_share_too() {
    let budget = Budget::new(FULL, 4);
    let (flooder, quiet) = (Arc::default(), Arc::default());
    let mut sending = of_tenant(&budget, &flooder);
    let charges: Vec<_> = (0..3).map(|_| sending.hand_over(1)).collect();
    assert!(!reads(&mut sending) && reads(&mut of_tenant(&budget, &quiet)));
    drop(charges);
    assert!(reads(&mut sending));
}

#[test]
fn a_share_full_of_unfinished_texts_is_not_for_ever() {
    let budget = Budget::new(FULL, 100);
    let flooder = Arc::default();
    let (mut one, mut two) = (of_tenant(&budget, &flooder), of_tenant(&budget, &flooder));
    one.settle(2 * PIECE_BYTES, false);
    two.settle(PIECE_BYTES, false);
    assert!(reads(&mut one) && one.is_overdraft());
    assert!(!reads(&mut two));
    let charge = one.hand_over(2 * PIECE_BYTES);
    one.settle(0, true);
    assert!(!reads(&mut two), "the verdict is certain to come");
    drop(charge);
    assert!(reads(&mut two) && !two.is_overdraft());
}

#[test]
fn when_all_is_full_who_has_waited_longest_goes_on_too() {
    let budget = Budget::new(FULL, 100);
    let mut holder = of_tenant(&budget, &Arc::default());
    holder.settle(FULL, false);
    let mut reading = of_tenant(&budget, &Arc::default());
    assert!(reads(&mut reading) && reading.is_overdraft());
    assert!(!reads(&mut holder));
    // Ever new ones that hold nothing come, and go.
    for _ in 0..4 {
        let mut quiet = of_tenant(&budget, &Arc::default());
        assert!(!reads(&mut quiet));
        reading = quiet; // What the last one had is lent anew.
        if reads(&mut holder) {
            assert!(holder.is_overdraft());
            return;
        }
        assert!(reads(&mut reading) && reading.is_overdraft());
    }
    panic!("the one that waited longest never went on");
}

#[test]
fn when_all_is_full_who_holds_least_goes_on() {
    let budget = Budget::new(FULL, 100);
    let (flooder, quiet) = (Arc::default(), Arc::default());
    let mut large: Vec<Share> = (0..4).map(|_| of_tenant(&budget, &flooder)).collect();
    let mut small = of_tenant(&budget, &quiet);
    for each in &mut large {
        each.settle(PIECE_BYTES, false);
    }
    assert!(reads(&mut large[0]) && large[0].is_overdraft());
    assert!(!reads(&mut large[1]) && !reads(&mut small));
    let charge = large[0].hand_over(PIECE_BYTES);
    large[0].settle(0, true);
    assert!(!reads(&mut small));
    large[2].settle(2 * PIECE_BYTES, false);
    drop(charge);
    assert!(reads(&mut small) && small.is_overdraft() && !reads(&mut large[1]));
    drop((small, large));
    assert_eq!((budget.bytes(), budget.queued.load(SeqCst)), (0, 0));
    assert_eq!(Arc::strong_count(&flooder), 1);
    assert_eq!(flooder.bytes.load(SeqCst), 0);
}

#[test]
fn what_is_held_at_the_login_moves_to_the_tenant() {
    let budget = Budget::new(FULL, 100);
    let holdings: [Arc<Holding>; 2] = Default::default();
    let held = |of: &Arc<Holding>| (of.bytes.load(SeqCst), of.pieces.load(SeqCst));
    let (mut holder, mut free) = (share(&budget), share(&budget));
    free.settle(100, false);
    let charge = holder.hand_over(FULL);
    let (mut waits, mut granted, mut knows) = (share(&budget), share(&budget), share(&budget));
    for share in [&mut knows, &mut granted] {
        assert!(!reads(share));
    }
    drop(charge);
    assert!(reads(&mut knows) && granted.is_queued());
    let charge = holder.hand_over(FULL);
    assert!(!reads(&mut waits));
    for (holding, other) in [(&holdings[0], &holdings[1]), (&holdings[1], &holdings[0])] {
        for share in [&mut free, &mut waits, &mut granted, &mut knows] {
            share.belong_to(holding);
        }
        assert_eq!((held(holding), held(other)), ((100, 2), (0, 0)));
    }
    drop(charge);
    assert!(reads(&mut waits) && held(&holdings[1]) == (100, 3));
    drop((free, waits, granted, knows));
    assert_eq!(held(&holdings[1]), (0, 0), "nothing below, nothing left");
}
