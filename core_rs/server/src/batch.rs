//! Complete envelopes wait here together, are taken together, and are answered together. Each keeps
//! its reply slot: dropped unanswered, it says 451.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smtp_proxy_proto::{Envelope, EnvelopeId, EnvelopeVerdict, Facts};
use tokio::runtime::Handle;

use crate::budget::Charge;
use crate::copy;
use crate::id::{Ids, since_epoch};
use crate::mailbox::{Mailbox, Verdict};
use crate::metrics::Metrics;
use crate::wakeup::{Interest, Wakeup};

/// Up to so many verdicts are handed out by the thread that commits. More go to the runtime in one
/// piece: there a wake-up is a push to a local queue, from outside each one takes a shared lock.
const HANDED_OUT_AT_ONCE: usize = 4;

/// An envelope with what the server knows of it.
#[derive(Debug)]
pub struct Letter {
    /// `UUIDv7`; the client will be told.
    pub id: EnvelopeId,
    /// The envelope.
    pub envelope: Envelope,
    /// The client's IP address, without port.
    pub client_address: Arc<str>,
    /// When the final dot was read, microseconds since 1970.
    pub received_at_us: i64,
    /// What its header lacked ([`Envelope::pieces`] puts it in its place). Empty for most.
    pub additions: Vec<u8>,
}

impl Letter {
    fn complete(&mut self, hostname: &str) {
        let facts = Facts {
            id: self.id,
            hostname,
            received_at: Duration::from_micros(self.received_at_us.unsigned_abs()),
        };
        self.additions = self.envelope.additions(&facts);
    }
}

/// Where one client waits for its reply.
#[derive(Debug)]
struct Slot {
    id: EnvelopeId,
    mailbox: Arc<Mailbox>,
    body_bytes: usize,
    charge: Charge,
}

/// The queue between the connections and whoever commits.
pub(crate) struct Waiting {
    inner: Mutex<Inner>,
    wakeup: Arc<Wakeup>,
    /// In the Message-IDs that we make.
    hostname: Arc<str>,
}

struct Inner {
    letters: VecDeque<(Letter, Slot)>,
    bytes: usize,
    ids: Ids,
    /// The server has stopped; nobody will come for more.
    closed: bool,
}

impl Waiting {
    pub(crate) fn new(wakeup: Arc<Wakeup>, hostname: Arc<str>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                letters: VecDeque::new(),
                bytes: 0,
                ids: Ids::new(),
                closed: false,
            }),
            wakeup,
            hostname,
        }
    }

    /// The verdict comes by `mailbox`.
    pub(crate) fn push(
        &self,
        envelope: Envelope,
        client_address: Arc<str>,
        mailbox: Arc<Mailbox>,
        charge: Charge,
    ) {
        let now = since_epoch();
        let mut inner = self.lock();
        let id = if inner.closed {
            None
        } else {
            inner.ids.next(now)
        };
        let Some(id) = id else {
            drop(inner);
            mailbox.answer(Verdict::Envelope(EnvelopeVerdict::Deferred));
            return;
        };
        let letter = Letter {
            id,
            envelope,
            client_address,
            received_at_us: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            additions: Vec::new(),
        };
        let body_bytes = letter.envelope.body.len();
        inner.bytes += body_bytes;
        inner.letters.push_back((
            letter,
            Slot {
                id,
                mailbox,
                body_bytes,
                charge,
            },
        ));
        drop(inner);
        self.wakeup.notify(Interest::ENVELOPES);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().letters.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().letters.len()
    }

    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.bytes = 0;
        let left = std::mem::take(&mut inner.letters);
        drop(inner);
        drop(left);
    }

    /// What waits, up to `max_messages` and `max_bytes`, but at least one message.
    fn take(&self, max_messages: usize, max_bytes: usize) -> (VecDeque<(Letter, Slot)>, usize) {
        let mut inner = self.lock();
        if inner.letters.len() <= max_messages && inner.bytes <= max_bytes {
            // All of it, without moving any: the lock is held no longer for many than for one.
            let bytes = std::mem::take(&mut inner.bytes);
            return (std::mem::take(&mut inner.letters), bytes);
        }
        let (mut taken, mut bytes) = (VecDeque::new(), 0);
        while taken.len() < max_messages.max(1) {
            let Some((_, slot)) = inner.letters.front() else {
                break;
            };
            let more = slot.body_bytes;
            if !taken.is_empty() && bytes + more > max_bytes {
                break;
            }
            bytes += more;
            taken.extend(inner.letters.pop_front());
        }
        inner.bytes -= bytes;
        (taken, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Envelopes to be stored in one transaction, and then answered together. Dropped without an answer,
/// it defers.
pub struct Batch {
    letters: Vec<Letter>,
    slots: Vec<Slot>,
    size_bytes: usize,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Batch {
    /// `None`: nothing waits.
    pub(crate) fn take(
        waiting: &Waiting,
        max_messages: usize,
        max_bytes: usize,
        runtime: &Handle,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let (taken, size_bytes) = waiting.take(max_messages, max_bytes);
        if taken.is_empty() {
            return None;
        }
        let (mut letters, slots): (Vec<Letter>, _) = taken.into_iter().unzip();
        // Here and not when they came: nobody waits for the lock meanwhile.
        for letter in &mut letters {
            letter.complete(&waiting.hostname);
        }
        Some(Self {
            letters,
            slots,
            size_bytes,
            runtime: runtime.clone(),
            metrics: Arc::clone(metrics),
        })
    }

    /// All of it for Postgres: the COPY streams of `envelopes`, `bodies` and `deliveries`, each in
    /// messages and with its end, as they follow one statement that names the three. `sweep_at_us` in
    /// microseconds since 1970. Empty once the envelopes have left.
    #[must_use]
    pub fn encode(&self, sweep_at_us: i64) -> Vec<u8> {
        if self.letters.is_empty() {
            return Vec::new();
        }
        copy::encode(&self.letters, sweep_at_us)
    }

    /// The ids of those that are not answered yet, in the order they were completed.
    #[must_use]
    pub fn ids(&self) -> impl ExactSizeIterator<Item = EnvelopeId> {
        self.slots.iter().map(|slot| slot.id)
    }

    /// The envelopes in the order they were completed. They leave the batch, their clients' reply
    /// slots stay in it.
    #[must_use]
    pub fn take_letters(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.letters)
    }

    /// Messages not answered yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// All are answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of the bodies of all that were taken.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// They are stored, durably: 250 to each. A second answer is none.
    pub fn commit(&mut self) {
        self.answer(std::iter::repeat(true));
    }

    /// They are not stored: 451 to each. A second answer is none.
    pub fn defer(&mut self) {
        self.answer([]);
    }

    /// Each by itself, in the order of the letters: stored, or not, which is also what is not said. A
    /// second answer is none.
    pub fn answer(&mut self, stored: impl IntoIterator<Item = bool>) {
        let slots = std::mem::take(&mut self.slots);
        let few = slots.len() <= HANDED_OUT_AT_ONCE;
        let stored = stored.into_iter().chain(std::iter::repeat(false));
        let answers: Vec<_> = slots.into_iter().zip(stored).collect();
        for (slot, stored) in &answers {
            if *stored {
                self.metrics.accepted_total.one();
                self.metrics.accepted_bytes_total.many(slot.body_bytes);
            } else {
                self.metrics.deferred_total.one();
            }
        }
        let hand_out = move || {
            for (slot, stored) in answers {
                slot.answer(stored);
            }
        };
        if few {
            hand_out();
        } else {
            self.runtime.spawn(async move { hand_out() });
        }
    }
}

impl Slot {
    fn answer(self, stored: bool) {
        let Self {
            id,
            mailbox,
            charge,
            ..
        } = self;
        drop(charge);
        mailbox.answer(Verdict::Envelope(if stored {
            EnvelopeVerdict::Queued { id }
        } else {
            EnvelopeVerdict::Deferred
        }));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.defer();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("messages", &self.slots.len())
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}
