//! Complete envelopes wait here together, are taken together, and are answered together. Each keeps
//! its reply slot: dropped unanswered, it says 451.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smtp_proxy_proto::{Envelope, EnvelopeId, EnvelopeVerdict, Facts, Lane, reply};
use tokio::runtime::Handle;

use crate::budget::Charge;
use crate::copy;
use crate::fairness::{Lines, Taken, TenantId, Weight};
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
    /// The TLS cipher suite, by its number in IANA's registry. `None`: it came in plaintext.
    pub tls_suite: Option<u16>,
    /// When the final dot was read, microseconds since 1970.
    pub received_at_us: i64,
    /// What its header lacked ([`Envelope::pieces`] puts it in its place). Empty for most.
    pub additions: Vec<u8>,
    /// Which mail it goes with: as its header asks, else as its credential's or its tenant's mail does.
    pub lane: Lane,
}

impl Letter {
    fn complete(&mut self, hostname: &str, lanes: &HashMap<[u8; 16], Lane>) {
        let facts = Facts {
            id: self.id,
            hostname,
            received_at: Duration::from_micros(self.received_at_us.unsigned_abs()),
        };
        self.additions = self.envelope.additions(&facts);
        let identity = &self.envelope.identity;
        let usual = || {
            let of_credential = lanes.get(&identity.credential_id);
            of_credential.or_else(|| lanes.get(&identity.tenant_id))
        };
        let asked = self.envelope.lane;
        self.lane = asked.or_else(|| usual().copied()).unwrap_or_default();
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

/// What may decide about a message before it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// The message's.
    pub id: EnvelopeId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// How many it goes to.
    pub recipients: usize,
    /// Of its text, mended.
    pub body_bytes: usize,
}

/// What became of a message; the numbers cross the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not stored: 451 4.3.0.
    Deferred = 0,
    /// Stored, durably: 250 2.0.0.
    Queued = 1,
    /// Not stored, since its tenant is over its rate: 450 4.7.1.
    OverRate = 2,
}

impl Answer {
    /// By its number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Deferred),
            1 => Some(Self::Queued),
            2 => Some(Self::OverRate),
            _ => None,
        }
    }
}

/// The queue between the connections and whoever commits.
pub(crate) struct Waiting {
    inner: Mutex<Inner>,
    /// Of tenants and of credentials, by their ids; a credential's counts before its tenant's.
    lanes: Mutex<Arc<HashMap<[u8; 16], Lane>>>,
    wakeup: Arc<Wakeup>,
    /// In the Message-IDs that we make.
    hostname: Arc<str>,
}

struct Inner {
    lines: Lines<(Letter, Slot)>,
    ids: Ids,
    /// The server has stopped; nobody will come for more.
    closed: bool,
}

impl Weight for (Letter, Slot) {
    fn bytes(&self) -> usize {
        self.1.body_bytes
    }
}

/// What a batch is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    All,
    /// Tenants that have nothing in a batch under way.
    Newcomers,
}

impl Waiting {
    pub(crate) fn new(wakeup: Arc<Wakeup>, hostname: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                lines: Lines::new(),
                ids: Ids::new(),
                closed: false,
            }),
            lanes: Mutex::default(),
            wakeup,
            hostname,
        })
    }

    /// The verdict comes by `mailbox`.
    pub(crate) fn push(
        &self,
        envelope: Envelope,
        client_address: Arc<str>,
        tls_suite: Option<u16>,
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
            tls_suite,
            received_at_us: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            additions: Vec::new(),
            lane: Lane::default(),
        };
        let slot = Slot {
            id,
            mailbox,
            body_bytes: letter.envelope.body.len(),
            charge,
        };
        let tenant = letter.envelope.identity.tenant_id;
        let new = inner.lines.push(tenant, (letter, slot), now);
        drop(inner);
        self.wakeup.notify(Interest::ENVELOPES);
        if new {
            self.wakeup.notify(Interest::NEWCOMERS);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().lines.is_empty()
    }

    pub(crate) fn has_newcomer(&self) -> bool {
        let now = since_epoch();
        self.lock().lines.has_newcomer(now)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().lines.len()
    }

    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let left = inner.lines.clear();
        drop(inner);
        drop(left);
    }

    /// What waits, up to `max_messages` and `max_bytes`, but at least one message if there is any.
    fn take(&self, of: Of, max_messages: usize, max_bytes: usize) -> Taken<(Letter, Slot)> {
        let now = since_epoch();
        let lines = &mut self.lock().lines;
        match of {
            Of::All => lines.take(max_messages, max_bytes, now),
            Of::Newcomers => lines.take_newcomers(max_messages, max_bytes, now),
        }
    }

    /// From the next batch on.
    pub(crate) fn set_lanes(&self, lanes: HashMap<[u8; 16], Lane>) {
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(lanes);
    }

    fn lanes(&self) -> Arc<HashMap<[u8; 16], Lane>> {
        Arc::clone(&self.lanes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn done(&self, tenants: &[(TenantId, usize)]) {
        self.lock().lines.done(tenants);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far [`Batch::encode`] is; see [`Batch::begin_encoding`].
#[derive(Debug)]
pub struct Encoding(copy::Encoding);

impl Encoding {
    /// Whether a message is long: its content is written apart, to a third table, in parts.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        self.0.has_parts()
    }
}

/// Envelopes to be stored in one transaction, and then answered together. Dropped without an answer,
/// it defers.
pub struct Batch {
    letters: Vec<Letter>,
    slots: Vec<Slot>,
    size_bytes: usize,
    beside_quiet: bool,
    /// How many of each tenant; it has nothing under way once they are answered.
    tenants: Vec<(TenantId, usize)>,
    waiting: Arc<Waiting>,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Batch {
    /// `None`: nothing waits.
    pub(crate) fn take(
        waiting: &Arc<Waiting>,
        of: Of,
        max_messages: usize,
        max_bytes: usize,
        runtime: &Handle,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let taken = waiting.take(of, max_messages, max_bytes);
        if taken.items.is_empty() {
            return None;
        }
        let (mut letters, slots): (Vec<Letter>, _) = taken.items.into_iter().unzip();
        // Here and not when they came: nobody waits for the lock meanwhile.
        let lanes = waiting.lanes();
        for letter in &mut letters {
            letter.complete(&waiting.hostname, &lanes);
        }
        Some(Self {
            letters,
            slots,
            size_bytes: taken.bytes,
            beside_quiet: taken.beside_quiet,
            tenants: taken.tenants,
            waiting: Arc::clone(waiting),
            runtime: runtime.clone(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Begins to write all of it for Postgres: the COPY streams of `envelopes` and `deliveries`, and of `content_parts`
    /// if [`Encoding::has_parts`], each in messages and with its end, as they follow one statement that names them.
    /// `sweep_at_us` in microseconds since 1970. `None`: the envelopes have left the batch.
    #[must_use]
    pub fn begin_encoding(&self, sweep_at_us: i64) -> Option<Encoding> {
        let letters = &self.letters;
        (!letters.is_empty()).then(|| Encoding(copy::Encoding::new(letters, sweep_at_us)))
    }

    /// The next piece, some 256 KiB of whole messages. The envelopes stay in the batch, and in the memory budget, until
    /// they are answered. `None`: that was all, or they have left meanwhile.
    #[must_use]
    pub fn encode(&self, encoding: &mut Encoding) -> Option<Vec<u8>> {
        let letters = &self.letters;
        (!letters.is_empty()).then(|| encoding.0.next(letters))?
    }

    /// Whose the envelopes are, each tenant once. Empty once they have left.
    #[must_use]
    pub fn tenants(&self) -> Vec<[u8; 16]> {
        let mut found: Vec<TenantId> = Vec::new();
        for letter in &self.letters {
            let tenant_id = letter.envelope.identity.tenant_id;
            if !found.contains(&tenant_id) {
                found.push(tenant_id);
            }
        }
        found
    }

    /// The ids of those that are bulk mail. Empty once the envelopes have left.
    #[must_use]
    pub fn bulk_ids(&self) -> Vec<EnvelopeId> {
        let bulk = self
            .letters
            .iter()
            .filter(|letter| letter.lane == Lane::Bulk);
        bulk.map(|letter| letter.id).collect()
    }

    /// Of each envelope, in the order of [`Batch::ids`]; they stay. Empty once they have left.
    #[must_use]
    pub fn outlines(&self) -> impl ExactSizeIterator<Item = Outline> {
        self.letters.iter().map(|letter| Outline {
            id: letter.id,
            tenant_id: letter.envelope.identity.tenant_id,
            recipients: letter.envelope.recipients.len(),
            body_bytes: letter.envelope.body.len() + letter.additions.len(),
        })
    }

    /// Those of these ids as a batch of their own, with their clients' reply slots; the others stay as they are. `None`:
    /// the envelopes have left, and nobody can be told from the others.
    #[must_use]
    pub fn split(&mut self, ids: &HashSet<EnvelopeId>) -> Option<Self> {
        if self.letters.len() != self.slots.len() {
            return None;
        }
        let mut apart = Self {
            letters: Vec::with_capacity(ids.len()),
            slots: Vec::with_capacity(ids.len()),
            size_bytes: 0,
            beside_quiet: self.beside_quiet,
            tenants: Vec::new(),
            waiting: Arc::clone(&self.waiting),
            runtime: self.runtime.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let letters = std::mem::take(&mut self.letters);
        let slots = std::mem::take(&mut self.slots);
        for (letter, slot) in letters.into_iter().zip(slots) {
            if ids.contains(&letter.id) {
                apart.take_over(self, letter.envelope.identity.tenant_id, slot.body_bytes);
                apart.letters.push(letter);
                apart.slots.push(slot);
            } else {
                self.letters.push(letter);
                self.slots.push(slot);
            }
        }
        Some(apart)
    }

    /// One message of `other` counts here from now on.
    fn take_over(&mut self, other: &mut Self, tenant: TenantId, bytes: usize) {
        self.size_bytes += bytes;
        other.size_bytes = other.size_bytes.saturating_sub(bytes);
        if let Some((_, count)) = other.tenants.iter_mut().find(|(of, _)| *of == tenant) {
            *count = count.saturating_sub(1);
        }
        match self.tenants.iter_mut().find(|(of, _)| *of == tenant) {
            Some((_, count)) => *count += 1,
            None => self.tenants.push((tenant, 1)),
        }
    }

    /// The ids of those that are not answered yet, in the order they were completed.
    #[must_use]
    pub fn ids(&self) -> impl ExactSizeIterator<Item = EnvelopeId> {
        self.slots.iter().map(|slot| slot.id)
    }

    /// The envelopes, those of each tenant in the order they were completed. They leave the batch, their clients' reply
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

    /// Bytes of the bodies of all that were taken and not split off.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// A tenant with much mail is in it, and one with little is about: the next such batch had better come a
    /// little later, so that the machine is the others' meanwhile.
    #[must_use]
    pub fn beside_quiet(&self) -> bool {
        self.beside_quiet
    }

    /// They are stored, durably: 250 to each. A second answer is none.
    pub fn commit(&mut self) {
        self.answer(std::iter::repeat(Answer::Queued));
    }

    /// What their clients hear that they are queued as, in the order of [`Batch::ids`]: one that was submitted before goes
    /// by its first id.
    pub fn rename(&mut self, ids: impl IntoIterator<Item = EnvelopeId>) {
        for (slot, id) in self.slots.iter_mut().zip(ids) {
            slot.id = id;
        }
    }

    /// They are not stored: 451 to each. A second answer is none.
    pub fn defer(&mut self) {
        self.answer([]);
    }

    /// Each by itself, in the order of the letters; those without an answer are deferred. A second
    /// answer is none.
    pub fn answer(&mut self, answers: impl IntoIterator<Item = Answer>) {
        let mut letters = std::mem::take(&mut self.letters).into_iter();
        let slots = std::mem::take(&mut self.slots);
        let few = slots.len() <= HANDED_OUT_AT_ONCE;
        let answers = answers
            .into_iter()
            .chain(std::iter::repeat(Answer::Deferred));
        let answers: Vec<_> = slots.into_iter().zip(answers).collect();
        // Before anybody is answered: the next message of one who was is not to find itself under way.
        if !self.tenants.is_empty() {
            self.waiting.done(&std::mem::take(&mut self.tenants));
        }
        for (slot, answer) in &answers {
            match answer {
                Answer::Queued => {
                    self.metrics.accepted_total.one();
                    self.metrics.accepted_bytes_total.many(slot.body_bytes);
                }
                Answer::Deferred => self.metrics.deferred_total.one(),
                Answer::OverRate => self.metrics.over_rate_total.one(),
            }
        }
        let hand_out = move || {
            for (slot, answer) in answers {
                // Its memory before what it is charged; if they have left, there is none.
                drop(letters.next());
                slot.answer(answer);
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
    fn answer(self, answer: Answer) {
        let Self {
            id,
            mailbox,
            charge,
            ..
        } = self;
        drop(charge);
        mailbox.answer(Verdict::Envelope(match answer {
            Answer::Queued => EnvelopeVerdict::Queued { id },
            Answer::Deferred => EnvelopeVerdict::Deferred,
            Answer::OverRate => EnvelopeVerdict::Refused(reply::OVER_RATE),
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
