//! Who waits for the budget, and who goes on next.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::{Budget, Holding};
use crate::mailbox::{Grant, Mailbox};

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiters: VecDeque<Waiter>,
    /// Pieces granted and not yet read.
    pub(super) pieces: usize,
    pub(super) overdraft_lent: bool,
    /// How many were lent so far.
    overdrafts: usize,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) holding: Arc<Holding>,
}

impl Budget {
    /// Lets those go on that may. A waiter first joins the queue and then looks at what is held;
    /// whoever frees something does it the other way round: so one of the two sees the other.
    pub(super) fn pass_on(&self) {
        if self.queued.load(SeqCst) > 0 {
            self.grant(&mut self.lock());
        }
    }

    pub(super) fn grant(&self, queue: &mut Queue) {
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

    fn is_stuck(&self, queue: &Queue) -> bool {
        !queue.overdraft_lent && queue.pieces == 0 && self.messages() == 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
