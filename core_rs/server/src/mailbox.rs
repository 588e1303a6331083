//! Where others leave word for one connection: a verdict, leave to read on, the order to close.
//!
//! One per connection and as long as it lives, so that a message costs no allocation to be answered,
//! and one waker serves everything that a connection waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use smtp_proxy_proto::{EnvelopeVerdict, LoginVerdict};

/// What was awaited. A connection awaits one thing at a time.
#[derive(Debug)]
pub(crate) enum Verdict {
    Envelope(EnvelopeVerdict),
    Login(LoginVerdict),
}

/// Leave to read although the budget is used up; see `budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// One piece.
    Piece,
    /// The rest of the message, beyond the budget.
    Overdraft,
}

#[derive(Debug, Default)]
struct Inbox {
    waker: Option<Waker>,
    verdict: Option<Verdict>,
    grant: Option<Grant>,
    closing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<Inbox>);

impl Mailbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn answer(&self, verdict: Verdict) {
        self.leave(|inbox| inbox.verdict = Some(verdict));
    }

    pub(crate) fn grant(&self, grant: Grant) {
        self.leave(|inbox| inbox.grant = Some(grant));
    }

    pub(crate) fn close(&self) {
        self.leave(|inbox| inbox.closing = true);
    }

    pub(crate) fn poll_verdict(&self, cx: &Context<'_>) -> Poll<Verdict> {
        let mut inbox = self.open();
        if let Some(verdict) = inbox.verdict.take() {
            return Poll::Ready(verdict);
        }
        inbox.wake_later(cx);
        Poll::Pending
    }

    /// Is it time to close? Whatever is left here from now on wakes the task.
    pub(crate) fn is_closing(&self, cx: &Context<'_>) -> bool {
        let mut inbox = self.open();
        inbox.wake_later(cx);
        inbox.closing
    }

    pub(crate) fn take_grant(&self) -> Option<Grant> {
        self.open().grant.take()
    }

    fn leave(&self, word: impl FnOnce(&mut Inbox)) {
        let waker = {
            let mut inbox = self.open();
            word(&mut inbox);
            inbox.waker.take()
        };
        // Not under the lock: the woken task would only run into it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn open(&self) -> MutexGuard<'_, Inbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn wake_later(&mut self, cx: &Context<'_>) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
        }
    }
}
