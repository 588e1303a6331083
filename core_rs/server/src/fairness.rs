//! Whose turn it is when several tenants' messages wait: a line for each, taken in turns.
//!
//! One tenant alone is taken as it comes, all of it at once. As soon as there are several (or were a
//! moment ago), each batch takes from every line in turns, by what its messages cost (deficit round
//! robin), and from each line no more than a share: so a commit stays short, and the one message of a
//! quiet tenant waits for no more than a share of a busy one's.
//!
//! It is also known who has something *under way*, that is taken and not answered. A tenant that
//! waits and has not is a newcomer: its messages need not wait for the batch of somebody else. But
//! who has much waiting, or had a moment ago, is *busy* and no newcomer while others have little: it
//! takes its turns, with pauses between them that are the others' (`Taken::beside_quiet`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A UUID.
pub(crate) type TenantId = [u8; 16];

/// What a message costs beside its bytes: about as much as the bytes of a small one.
const MESSAGE_COST_BYTES: usize = 4096;
/// What a line may take per turn, in cost: some eight small messages.
const QUANTUM_BYTES: usize = 64 * 1024;
/// The most that one batch takes of one tenant while others are there.
const SHARE_MESSAGES: usize = 48;
/// The same in bytes; one message is always taken.
const SHARE_BYTES: usize = 512 * 1024;
/// Who gives so many to one batch, or has as many waiting, is busy.
const BUSY_MESSAGES: usize = 16;
/// So long after two tenants were seen side by side they are expected again.
const MIXED: Duration = Duration::from_secs(1);

/// What is waited with: its size matters.
pub(crate) trait Weight {
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
struct Line<T> {
    items: VecDeque<T>,
    deficit: usize,
    under_way: usize,
}

impl<T> Line<T> {
    /// Nothing of it is under way, and not much of it waits.
    fn is_new(&self) -> bool {
        self.under_way == 0 && self.items.len() < BUSY_MESSAGES
    }
}

fn is_busy(busy: &HashMap<TenantId, Duration>, tenant: &TenantId, now: Duration) -> bool {
    !busy.is_empty() && busy.get(tenant).is_some_and(|until| now < *until)
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            deficit: 0,
            under_way: 0,
        }
    }
}

/// What was taken together.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) items: VecDeque<T>,
    pub(crate) bytes: usize,
    /// How many of each tenant; to be given back to [`Lines::done`].
    pub(crate) tenants: Vec<(TenantId, usize)>,
    /// There is somebody busy in it, and a tenant about that is not.
    pub(crate) beside_quiet: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    /// Of every tenant with something waiting or under way.
    of: HashMap<TenantId, Line<T>>,
    /// Those with something waiting; whose turn is next stands first.
    ring: VecDeque<TenantId>,
    waiting: usize,
    bytes: usize,
    last: Option<TenantId>,
    mixed_until: Duration,
    /// A tenant that is not busy was seen beside others.
    quiet_until: Duration,
    /// Who was busy beside others, and until when that counts.
    busy: HashMap<TenantId, Duration>,
}

impl<T: Weight> Lines<T> {
    pub(crate) fn new() -> Self {
        Self {
            of: HashMap::new(),
            ring: VecDeque::new(),
            waiting: 0,
            bytes: 0,
            last: None,
            mixed_until: Duration::ZERO,
            quiet_until: Duration::ZERO,
            busy: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Joins its tenant's line. True: the tenant is a newcomer. `now` is any clock.
    pub(crate) fn push(&mut self, tenant: TenantId, item: T, now: Duration) -> bool {
        if self.last != Some(tenant) && self.last.replace(tenant).is_some() {
            self.mixed_until = now + MIXED;
        }
        self.waiting += 1;
        self.bytes += item.bytes();
        let line = self.of.entry(tenant).or_default();
        if line.items.is_empty() {
            self.ring.push_back(tenant);
        }
        line.items.push_back(item);
        line.is_new() && !is_busy(&self.busy, &tenant, now)
    }

    /// Up to both bounds, but at least one if there is any.
    pub(crate) fn take(&mut self, most: usize, most_bytes: usize, now: Duration) -> Taken<T> {
        let alone = self.ring.len() == 1 && now >= self.mixed_until;
        if alone && self.waiting <= most && self.bytes <= most_bytes {
            return self.take_all();
        }
        let share = if alone {
            (most, most_bytes)
        } else {
            (SHARE_MESSAGES, SHARE_BYTES)
        };
        let ring = std::mem::take(&mut self.ring);
        let mut taken = self.take_in_turns(ring, (most.max(1), most_bytes), share);
        if !alone {
            taken.beside_quiet = self.see_who_is_busy(&taken.tenants, now);
        }
        taken
    }

    /// The same of newcomers alone; empty if there is none.
    pub(crate) fn take_newcomers(
        &mut self,
        most: usize,
        most_bytes: usize,
        now: Duration,
    ) -> Taken<T> {
        let (new, others) = std::mem::take(&mut self.ring)
            .into_iter()
            .partition(|tenant| self.is_new(tenant, now));
        let taken = self.take_in_turns(
            new,
            (most.max(1), most_bytes),
            (SHARE_MESSAGES, SHARE_BYTES),
        );
        self.ring.extend(others);
        if !taken.items.is_empty() {
            self.quiet_until = now + MIXED;
        }
        taken
    }

    pub(crate) fn has_newcomer(&self, now: Duration) -> bool {
        self.ring.iter().any(|tenant| self.is_new(tenant, now))
    }

    /// They are answered.
    pub(crate) fn done(&mut self, tenants: &[(TenantId, usize)]) {
        for (tenant, count) in tenants {
            if let Some(line) = self.of.get_mut(tenant) {
                line.under_way = line.under_way.saturating_sub(*count);
                if line.under_way == 0 && line.items.is_empty() {
                    self.of.remove(tenant);
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    fn is_new(&self, tenant: &TenantId, now: Duration) -> bool {
        self.of.get(tenant).is_some_and(Line::is_new) && !is_busy(&self.busy, tenant, now)
    }

    /// Of what was taken while several tenants are about. True: one of them is busy, and one is not.
    fn see_who_is_busy(&mut self, tenants: &[(TenantId, usize)], now: Duration) -> bool {
        let mut has_busy = false;
        for (tenant, count) in tenants {
            if *count >= BUSY_MESSAGES {
                has_busy = true;
                self.busy.insert(*tenant, now + MIXED);
            } else if !is_busy(&self.busy, tenant, now) {
                self.quiet_until = now + MIXED;
            }
        }
        self.busy.retain(|_, until| now < *until);
        has_busy && now < self.quiet_until
    }

    /// The only tenant's whole line, without moving any of it: the lock is held no longer for many
    /// than for one.
    fn take_all(&mut self) -> Taken<T> {
        let (mut items, mut tenants) = (VecDeque::new(), Vec::new());
        if let Some(tenant) = self.ring.pop_front() {
            let line = self.of.entry(tenant).or_default();
            items = std::mem::take(&mut line.items);
            line.deficit = 0;
            line.under_way += items.len();
            tenants.push((tenant, items.len()));
        }
        self.waiting -= items.len();
        Taken {
            items,
            bytes: std::mem::take(&mut self.bytes),
            tenants,
            beside_quiet: false,
        }
    }

    /// From the lines in `ring`; what stays goes back to the ring, whose turn is next first.
    fn take_in_turns(
        &mut self,
        mut ring: VecDeque<TenantId>,
        (most, most_bytes): (usize, usize),
        (share, share_bytes): (usize, usize),
    ) -> Taken<T> {
        let mut taken = Taken {
            items: VecDeque::new(),
            bytes: 0,
            tenants: Vec::with_capacity(ring.len()),
            beside_quiet: false,
        };
        // What each gave: messages and bytes, at its place in `taken.tenants`.
        let mut given: HashMap<TenantId, (usize, usize)> = HashMap::with_capacity(ring.len());
        let mut next_first = VecDeque::new();
        while taken.items.len() < most {
            let Some(tenant) = ring.pop_front() else {
                break;
            };
            let Some(line) = self.of.get_mut(&tenant) else {
                continue;
            };
            let (messages, bytes) = given.entry(tenant).or_default();
            line.deficit += QUANTUM_BYTES;
            let (mut full, mut rests) = (false, false);
            while let Some(more) = line.items.front().map(Weight::bytes) {
                full = !taken.items.is_empty() && taken.bytes + more > most_bytes;
                rests =
                    full || *messages >= share || (*messages > 0 && *bytes + more > share_bytes);
                let cost = more + MESSAGE_COST_BYTES;
                if rests || taken.items.len() >= most || cost > line.deficit {
                    break;
                }
                line.deficit -= cost;
                *messages += 1;
                *bytes += more;
                taken.bytes += more;
                taken.items.extend(line.items.pop_front());
            }
            if line.items.is_empty() {
                line.deficit = 0;
            } else if full && *messages == 0 {
                // It has had nothing because of its size alone: it keeps what it has saved up, and comes first next
                // time, or smaller ones would always be there before it.
                next_first.push_back(tenant);
            } else if rests {
                line.deficit = line.deficit.min(QUANTUM_BYTES);
                self.ring.push_back(tenant);
            } else {
                ring.push_back(tenant);
            }
        }
        // Those that were not reached, or not to their end, are the next ones' first.
        next_first.append(&mut ring);
        next_first.append(&mut self.ring);
        self.ring = next_first;
        for (tenant, (messages, _)) in given.into_iter().filter(|(_, (count, _))| *count > 0) {
            self.of.entry(tenant).or_default().under_way += messages;
            taken.tenants.push((tenant, messages));
        }
        self.waiting -= taken.items.len();
        self.bytes -= taken.bytes;
        taken
    }
}

#[cfg(test)]
mod tests;
