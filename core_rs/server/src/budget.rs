//! How much mail may be in memory: bytes and messages, from the first byte of a text to its verdict.
//!
//! Over the budget, sockets are not read (TCP does the rest). Only sessions wait that receive a text,
//! or that hold more recipients and commands sent ahead than every connection may: the others hold
//! nothing, and a command costs nothing.
//!
//! Why nobody waits for ever. The budget is freed by verdicts and by sessions that finish or end.
//! While any message awaits its verdict, one of these is certain to come, so waiting is safe. If
//! none does, all that is held belongs to unfinished messages, and if all of those waited they
//! would wait for each other. So then one of them, the one that has waited longest, gets an overdraft: it
//! reads to the end of its message whatever the budget says, within one time-out. Its verdict,
//! or its end, frees memory, and the next one follows. So what is held never exceeds the budget by
//! more than one message and one piece per thread.
//!
//! Leave to read on is given piece by piece, and only as many pieces as fit, so that a freed
//! megabyte does not bring a thousand sessions back at once. A session that has no byte to read
//! gives its piece back at once.
//!
//! No tenant may hold more than three quarters of either, so that one that floods us with large
//! messages cannot stop the sockets of the others: over its share, its own sessions wait while others
//! are passed by them. The same reasoning holds within the share: if nothing of the tenant's awaits
//! its verdict, the one that has waited longest gets the overdraft. There is one overdraft at a time.
//! When all is full, it goes to the tenant that holds least, so that few large messages do not hold up
//! everybody, and every fourth time to who has waited longest, so that those end too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::mailbox::{Grant, Mailbox};

/// The most that one read takes from a socket.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// What one tenant holds.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    bytes: AtomicUsize,
    messages: AtomicUsize,
    /// Pieces granted and not yet read; changed under the queue's lock.
    pieces: AtomicUsize,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    messages: AtomicUsize,
    max_bytes: usize,
    max_messages: usize,
    tenant_max_bytes: usize,
    tenant_max_messages: usize,
    /// How many wait, readable without the lock.
    queued: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Pieces granted and not yet read.
    pieces: usize,
    overdraft_lent: bool,
    /// How many were lent so far.
    overdrafts: usize,
}

#[derive(Debug)]
struct Waiter {
    mailbox: Arc<Mailbox>,
    holding: Arc<Holding>,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize, max_messages: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            max_bytes,
            max_messages,
            tenant_max_bytes: share_of(max_bytes),
            tenant_max_messages: share_of(max_messages),
            queued: AtomicUsize::new(0),
            queue: Mutex::default(),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// Messages that await their verdict.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(SeqCst)
    }

    /// Nothing is held any more.
    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, SeqCst);
        self.pass_on();
    }

    /// Lets those go on that may. A waiter first joins the queue and then looks at what is held;
    /// whoever frees something does it the other way round: so one of the two sees the other.
    fn pass_on(&self) {
        if self.queued.load(SeqCst) > 0 {
            self.grant(&mut self.lock());
        }
    }

    fn grant(&self, queue: &mut Queue) {
        let mut from = 0;
        while let Some((place, grant)) = self.next_grant(queue, from) {
            // Those before it have been found wanting, and nothing has been freed since.
            from = place;
            let Some(waiter) = queue.waiters.remove(place) else {
                break;
            };
            match grant {
                Grant::Piece => {
                    queue.pieces += 1;
                    waiter.holding.pieces.fetch_add(1, SeqCst);
                }
                Grant::Overdraft => {
                    queue.overdraft_lent = true;
                    queue.overdrafts = queue.overdrafts.wrapping_add(1);
                }
            }
            waiter.mailbox.grant(grant);
        }
        self.queued.store(queue.waiters.len(), SeqCst);
    }

    /// Who goes on next, from that place in the queue on, and how far.
    fn next_grant(&self, queue: &Queue, from: usize) -> Option<(usize, Grant)> {
        if !self.has_room(queue.pieces) {
            let next = || {
                let mut places = queue.waiters.iter().enumerate();
                if queue.overdrafts % 4 == 3 {
                    return places.next();
                }
                places.min_by_key(|(_, waiter)| waiter.holding.bytes.load(SeqCst))
            };
            return self
                .is_stuck(queue)
                .then(next)
                .flatten()
                .map(|(place, _)| (place, Grant::Overdraft));
        }
        let mut places = queue.waiters.iter().enumerate().skip(from);
        places.find_map(|(place, waiter)| {
            let holding = &waiter.holding;
            if self.has_share(holding) {
                return Some((place, Grant::Piece));
            }
            let stuck = !queue.overdraft_lent && holding.is_stuck();
            stuck.then_some((place, Grant::Overdraft))
        })
    }

    /// Does its tenant's share let it read a piece?
    fn has_share(&self, holding: &Holding) -> bool {
        let pieces = holding.pieces.load(SeqCst);
        holding.bytes.load(SeqCst) + pieces * PIECE_BYTES < self.tenant_max_bytes
            && holding.messages.load(SeqCst) < self.tenant_max_messages
    }

    fn has_room(&self, pieces: usize) -> bool {
        self.bytes() + pieces * PIECE_BYTES < self.max_bytes && self.messages() < self.max_messages
    }

    fn is_stuck(&self, queue: &Queue) -> bool {
        !queue.overdraft_lent && queue.pieces == 0 && self.messages() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holding {
    /// Nothing that it holds is certain to be freed.
    fn is_stuck(&self) -> bool {
        self.pieces.load(SeqCst) == 0 && self.messages.load(SeqCst) == 0
    }
}

/// Three quarters: what one tenant may hold of the whole.
fn share_of(whole: usize) -> usize {
    whole - whole / 4
}

/// How one connection stands with the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Free,
    Queued,
    Has(Grant),
}

/// One connection's share. Gone with it.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    mailbox: Arc<Mailbox>,
    /// Its tenant's; its own alone until it has logged in.
    holding: Arc<Holding>,
    bytes: usize,
    standing: Standing,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>, mailbox: Arc<Mailbox>) -> Self {
        Self {
            budget,
            mailbox,
            holding: Arc::default(),
            bytes: 0,
            standing: Standing::Free,
        }
    }

    /// From now on what is held is this tenant's, with all that it holds already and waits for.
    pub(crate) fn belong_to(&mut self, holding: &Arc<Holding>) {
        let before = std::mem::replace(&mut self.holding, Arc::clone(holding));
        if self.bytes == 0 && self.standing == Standing::Free {
            return; // As a rule.
        }
        holding.bytes.fetch_add(self.bytes, SeqCst);
        before.bytes.fetch_sub(self.bytes, SeqCst);
        // Pieces are granted under the lock, at any time.
        let mut queue = self.budget.lock();
        if self.standing == Standing::Queued {
            let mut waiters = queue.waiters.iter_mut();
            let mine = waiters.find(|waiter| Arc::ptr_eq(&waiter.mailbox, &self.mailbox));
            if let Some(waiter) = mine {
                waiter.holding = Arc::clone(holding);
            } else {
                let granted = self.mailbox.take_grant();
                self.standing = granted.map_or(Standing::Queued, Standing::Has);
            }
        }
        if self.standing == Standing::Has(Grant::Piece) {
            holding.pieces.fetch_add(1, SeqCst);
            before.pieces.fetch_sub(1, SeqCst);
        }
        self.budget.grant(&mut queue);
    }

    /// Ready: read a piece, then [`Share::settle`]. Pending: the mailbox wakes.
    pub(crate) fn poll_leave(&mut self) -> Poll<()> {
        match self.standing {
            Standing::Has(_) => Poll::Ready(()),
            Standing::Free
                if self.budget.queued.load(SeqCst) == 0
                    && self.budget.has_room(0)
                    && self.budget.has_share(&self.holding) =>
            {
                Poll::Ready(())
            }
            Standing::Free => {
                let mut queue = self.budget.lock();
                queue.waiters.push_back(Waiter {
                    mailbox: Arc::clone(&self.mailbox),
                    holding: Arc::clone(&self.holding),
                });
                self.budget.queued.store(queue.waiters.len(), SeqCst);
                self.budget.grant(&mut queue);
                drop(queue);
                self.standing = Standing::Queued;
                self.poll_granted()
            }
            Standing::Queued => self.poll_granted(),
        }
    }

    /// The client is not to blame for waiting.
    pub(crate) fn is_queued(&self) -> bool {
        self.standing == Standing::Queued
    }

    /// Lent beyond the budget, and so not for long.
    pub(crate) fn is_overdraft(&self) -> bool {
        self.standing == Standing::Has(Grant::Overdraft)
    }

    /// There was nothing to read.
    pub(crate) fn nothing_read(&mut self) {
        if self.standing == Standing::Has(Grant::Piece) {
            self.give_back();
        }
    }

    /// A piece was read, and the connection now holds so much. `finished`: its text has ended.
    pub(crate) fn settle(&mut self, bytes: usize, finished: bool) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.holding.bytes.fetch_add(bytes - before, SeqCst);
            self.budget.bytes.fetch_add(bytes - before, SeqCst);
        } else if bytes < before {
            self.holding.bytes.fetch_sub(before - bytes, SeqCst);
            self.budget.release(before - bytes);
        }
        if matches!(self.standing, Standing::Has(grant) if finished || grant == Grant::Piece) {
            self.give_back();
        }
    }

    /// A complete message leaves the connection, to be held until its verdict. It may be larger or
    /// smaller than what was accounted while it came.
    pub(crate) fn hand_over(&mut self, bytes: usize) -> Charge {
        self.holding.bytes.fetch_add(bytes, SeqCst);
        self.holding.messages.fetch_add(1, SeqCst);
        self.budget.bytes.fetch_add(bytes, SeqCst);
        self.budget.messages.fetch_add(1, SeqCst);
        Charge {
            budget: Arc::clone(&self.budget),
            holding: Arc::clone(&self.holding),
            bytes,
        }
    }

    fn poll_granted(&mut self) -> Poll<()> {
        match self.mailbox.take_grant() {
            Some(grant) => {
                self.standing = Standing::Has(grant);
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }

    fn give_back(&mut self) {
        let standing = std::mem::replace(&mut self.standing, Standing::Free);
        let mut queue = self.budget.lock();
        let granted = match standing {
            Standing::Free => None,
            Standing::Has(grant) => Some(grant),
            Standing::Queued => {
                queue
                    .waiters
                    .retain(|waiter| !Arc::ptr_eq(&waiter.mailbox, &self.mailbox));
                self.mailbox.take_grant()
            }
        };
        match granted {
            Some(Grant::Piece) => {
                queue.pieces = queue.pieces.saturating_sub(1);
                self.holding.pieces.fetch_sub(1, SeqCst);
            }
            Some(Grant::Overdraft) => queue.overdraft_lent = false,
            None => {}
        }
        self.budget.grant(&mut queue);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.holding.bytes.fetch_sub(self.bytes, SeqCst);
        self.budget.bytes.fetch_sub(self.bytes, SeqCst);
        if self.standing == Standing::Free {
            self.budget.pass_on();
        } else {
            self.give_back();
        }
    }
}

/// What a complete message holds until its verdict; freed when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    holding: Arc<Holding>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.holding.messages.fetch_sub(1, SeqCst);
        self.holding.bytes.fetch_sub(self.bytes, SeqCst);
        self.budget.messages.fetch_sub(1, SeqCst);
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

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
}
