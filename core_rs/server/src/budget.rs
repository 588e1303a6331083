//! How much mail may be in memory: bytes and messages, from the first byte of a text to its verdict.
//!
//! What is counted is what is allocated: a text's capacity, not its length, and until its verdict, since the batch keeps it
//! until then. What is made of it on the way to the store is not counted, and is bounded otherwise: a piece of some 256
//! KiB for each commit under way (`copy/pieces.rs`); or, where Python takes the messages themselves (a tenant with limits),
//! one message that is copied. Capacity grows by an eighth (`proto`, `data.rs`), and what is freed must leave the process:
//! that is the allocator's part (`ingress/allocator.py`). decisions/0024.
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

mod queue;
mod share;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use self::queue::Queue;
pub(crate) use self::share::Share;

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

    /// Does its tenant's share let it read a piece?
    fn has_share(&self, holding: &Holding) -> bool {
        let pieces = holding.pieces.load(SeqCst);
        holding.bytes.load(SeqCst) + pieces * PIECE_BYTES < self.tenant_max_bytes
            && holding.messages.load(SeqCst) < self.tenant_max_messages
    }

    fn has_room(&self, pieces: usize) -> bool {
        self.bytes() + pieces * PIECE_BYTES < self.max_bytes && self.messages() < self.max_messages
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
