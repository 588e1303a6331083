//! What one connection holds, and its leave to read on.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;

use super::queue::Waiter;
use super::{Budget, Charge, Holding};
use crate::mailbox::{Grant, Mailbox};

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
