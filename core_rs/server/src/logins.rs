//! Logins wait here for the truth about them. Whoever answers may take its time (argon2 does), and
//! the session waits; a batch that is dropped says 454.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use smtp_proxy_proto::{LoginRequest, LoginVerdict};

use crate::known::{Digest, Generation, Keep, KnownLogins};
use crate::mailbox::{Mailbox, Verdict};
use crate::metrics::Metrics;
use crate::wakeup::{Interest, Wakeup};

/// A login to be verified, with what the server knows of it.
#[derive(Debug)]
pub struct Login {
    /// What the client claims.
    pub request: LoginRequest,
    /// The client's IP address, without port.
    pub client_address: Arc<str>,
}

/// The queue between the connections and whoever verifies.
pub(crate) struct Asking {
    queue: Mutex<VecDeque<(Login, Arc<Mailbox>)>>,
    wakeup: Arc<Wakeup>,
}

impl Asking {
    pub(crate) fn new(wakeup: Arc<Wakeup>) -> Self {
        Self {
            queue: Mutex::default(),
            wakeup,
        }
    }

    /// The verdict comes by `mailbox`.
    pub(crate) fn push(&self, login: Login, mailbox: Arc<Mailbox>) {
        self.lock().push_back((login, mailbox));
        self.wakeup.notify(Interest::LOGINS);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn close(&self) {
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Login, Arc<Mailbox>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logins to be verified and answered together, in order.
pub struct LoginBatch {
    logins: Vec<Login>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Which of them to keep if they are accepted; shorter than the mailboxes: no more.
    kept: Vec<Option<(Digest, Keep)>>,
    known: Arc<KnownLogins>,
    /// When they were taken.
    generation: Generation,
    metrics: Arc<Metrics>,
}

impl LoginBatch {
    /// `None`: nobody asks.
    pub(crate) fn take(
        asking: &Asking,
        max_logins: usize,
        metrics: &Arc<Metrics>,
        known: &Arc<KnownLogins>,
    ) -> Option<Self> {
        let generation = known.generation();
        let mut queue = asking.lock();
        let count = queue.len().min(max_logins.max(1));
        let (logins, mailboxes): (Vec<_>, Vec<_>) = queue.drain(..count).unzip();
        drop(queue);
        (!logins.is_empty()).then(|| Self {
            logins,
            mailboxes,
            kept: Vec::new(),
            known: Arc::clone(known),
            generation,
            metrics: Arc::clone(metrics),
        })
    }

    /// What is to be verified; each password is in its [`smtp_proxy_proto::Secret`].
    #[must_use]
    pub fn logins(&self) -> &[Login] {
        &self.logins
    }

    /// Logins not answered yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// All are answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
    }

    /// Those that the core may answer by itself, in the order of [`LoginBatch::logins`], should they be
    /// accepted. To be said before the answer.
    pub fn keep(&mut self, keep: impl IntoIterator<Item = Option<Keep>>) {
        let logins = self.logins.iter().zip(keep);
        let kept = logins.map(|(login, keep)| Some((self.known.digest(&login.request)?, keep?)));
        self.kept = kept.collect();
    }

    /// Answers in the order of [`LoginBatch::logins`]. Those without a verdict cannot be checked at
    /// the moment; a second answer is none.
    pub fn answer(&mut self, verdicts: impl IntoIterator<Item = LoginVerdict>) {
        // The passwords are wiped as soon as nobody needs them.
        self.logins.clear();
        let verdicts = verdicts
            .into_iter()
            .chain(std::iter::repeat(LoginVerdict::Unavailable));
        let kept = std::mem::take(&mut self.kept).into_iter();
        let kept = kept.chain(std::iter::repeat_with(|| None));
        for ((mailbox, verdict), keep) in self.mailboxes.drain(..).zip(verdicts).zip(kept) {
            if let (LoginVerdict::Accepted(identity), Some((digest, keep))) = (&verdict, keep) {
                self.known.remember(digest, self.generation, identity, keep);
            }
            let counter = match &verdict {
                LoginVerdict::Accepted(_) => &self.metrics.logins_total,
                LoginVerdict::Rejected => &self.metrics.auth_failures_total,
                LoginVerdict::Unavailable | LoginVerdict::Crowded => {
                    &self.metrics.auth_unavailable_total
                }
            };
            counter.one();
            mailbox.answer(Verdict::Login(verdict));
        }
    }
}

impl Drop for LoginBatch {
    fn drop(&mut self) {
        self.answer([]);
    }
}
