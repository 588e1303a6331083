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
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Whose it is, its number there, its size.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Item(char, usize, usize);

    impl Weight for Item {
        fn bytes(&self) -> usize {
            self.2
        }
    }

    const NOW: Duration = Duration::from_secs(100);
    const SMALL: usize = 100;

    fn id(tenant: char) -> TenantId {
        [tenant as u8; 16]
    }

    fn push(lines: &mut Lines<Item>, tenant: char, count: usize, bytes: usize) -> bool {
        let pushed = (0..count).map(|n| lines.push(id(tenant), Item(tenant, n, bytes), NOW));
        pushed.filter(|new| *new).count() > 0
    }

    fn whose(taken: &Taken<Item>) -> String {
        taken.items.iter().map(|item| item.0).collect()
    }

    fn count(taken: &Taken<Item>, tenant: char) -> usize {
        taken.items.iter().filter(|item| item.0 == tenant).count()
    }

    #[test]
    fn one_tenant_alone_is_taken_whole_and_in_order() {
        let mut lines = Lines::new();
        push(&mut lines, 'a', 300, SMALL);
        let taken = lines.take(500, 1 << 20, NOW);
        assert!(taken.items.iter().map(|item| item.1).eq(0..300));
        assert_eq!(
            (taken.bytes, &taken.tenants[..]),
            (30_000, &[(id('a'), 300)][..])
        );
        assert!(lines.is_empty() && lines.take(500, 1 << 20, NOW).items.is_empty());
    }

    #[test]
    fn alone_it_is_held_by_the_bounds_only() {
        let mut lines = Lines::new();
        push(&mut lines, 'a', 300, SMALL);
        assert_eq!(lines.take(200, 1 << 20, NOW).items.len(), 200);
        assert_eq!(lines.take(200, 950, NOW).items.len(), 9);
        assert_eq!(lines.take(200, 1, NOW).items.len(), 1, "at least one");
        assert_eq!((lines.len(), lines.bytes), (90, 9_000));
    }

    #[test]
    fn a_single_message_is_not_behind_a_flood() {
        let mut lines = Lines::new();
        push(&mut lines, 'a', 5_000, SMALL);
        push(&mut lines, 'b', 1, SMALL);
        let taken = lines.take(500, 1 << 20, NOW);
        assert_eq!(
            (count(&taken, 'a'), count(&taken, 'b')),
            (SHARE_MESSAGES, 1)
        );
        assert!(whose(&taken).find('b') < Some(20), "within the first turn");
        // For a while the flood is taken in shares although it is alone: the next message of the
        // other shall find a short commit.
        assert_eq!(lines.take(500, 1 << 20, NOW).items.len(), SHARE_MESSAGES);
        assert_eq!(lines.take(500, 1 << 20, NOW + MIXED).items.len(), 500);
    }

    #[test]
    fn a_message_that_does_not_fit_behind_others_is_first_next_time() {
        for (small, large) in [
            (12 << 20, 24 << 20),
            (8 << 20, 25 << 20),
            (64 << 10, 25 << 20),
        ] {
            let mut lines = Lines::new();
            let mut served = (0, 0);
            for _ in 0..600 {
                push(&mut lines, 'a', 600, small);
                push(&mut lines, 'b', 1, large);
                let taken = lines.take(500, 32 << 20, NOW);
                served.0 += count(&taken, 'a');
                served.1 += count(&taken, 'b');
                lines.done(&taken.tenants);
            }
            assert!(
                served.0 > 100 && served.1 > 50,
                "{small}, {large}: {served:?}"
            );
        }
    }

    #[test]
    fn what_is_large_pays_for_its_bytes() {
        let mut lines = Lines::new();
        push(&mut lines, 'a', 40, 60_000);
        push(&mut lines, 'b', 40, SMALL);
        let first = lines.take(20, 1 << 30, NOW);
        let bytes = |tenant| -> usize {
            let of = first.items.iter().filter(|item| item.0 == tenant);
            of.map(|item| item.2 + MESSAGE_COST_BYTES).sum()
        };
        assert!(bytes('a').abs_diff(bytes('b')) <= 2 * QUANTUM_BYTES);
        assert!(count(&first, 'b') >= 9 * count(&first, 'a'));
    }

    #[test]
    fn a_batch_that_is_full_goes_on_where_it_stopped() {
        let mut lines = Lines::new();
        for tenant in 'a'..='e' {
            push(&mut lines, tenant, 30, SMALL);
        }
        let mut seen = String::new();
        for _ in 0..5 {
            seen += &whose(&lines.take(15, 1 << 20, NOW));
        }
        for tenant in 'a'..='e' {
            assert_eq!(seen.matches(tenant).count(), 15, "{seen}");
        }
    }

    #[test]
    fn a_message_larger_than_any_share_is_taken_alone() {
        let mut lines = Lines::new();
        push(&mut lines, 'a', 3, 25 << 20);
        push(&mut lines, 'b', 2, SMALL);
        let taken = lines.take(500, 32 << 20, NOW);
        assert_eq!((count(&taken, 'a'), count(&taken, 'b')), (1, 2));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn nothing_is_lost_or_taken_twice_whatever_the_bounds() {
        let mut lines = Lines::new();
        let sizes = [1, 90_000, SMALL, 700_000];
        for (nth, tenant) in ('a'..='d').enumerate() {
            push(&mut lines, tenant, 37 + nth, sizes[nth]);
        }
        let mut taken = Vec::new();
        while !lines.is_empty() {
            let batch = lines.take(1 + taken.len() % 13, 100_000, NOW);
            assert!(!batch.items.is_empty());
            assert_eq!(
                batch.tenants.iter().map(|each| each.1).sum::<usize>(),
                batch.items.len()
            );
            taken.extend(batch.items);
            lines.done(&batch.tenants);
        }
        assert_eq!((taken.len(), lines.bytes, lines.of.len()), (154, 0, 0));
        for tenant in 'a'..='d' {
            let order: Vec<usize> = taken
                .iter()
                .filter(|i| i.0 == tenant)
                .map(|i| i.1)
                .collect();
            assert!(
                order.iter().copied().eq(0..order.len()),
                "each line in its order"
            );
        }
    }

    #[test]
    fn a_newcomer_is_who_waits_and_has_nothing_under_way() {
        let mut lines = Lines::new();
        assert!(push(&mut lines, 'a', 1, SMALL));
        let first = lines.take(10, 1 << 20, NOW);
        assert!(!push(&mut lines, 'a', 2, SMALL) && !lines.has_newcomer(NOW));
        assert!(lines.take_newcomers(10, 1 << 20, NOW).items.is_empty());
        assert!(push(&mut lines, 'b', 2, SMALL) && lines.has_newcomer(NOW));
        let second = lines.take_newcomers(10, 1 << 20, NOW);
        assert_eq!((whose(&second).as_str(), lines.len()), ("bb", 2));
        assert!(!lines.has_newcomer(NOW));
        lines.done(&first.tenants);
        assert!(lines.has_newcomer(NOW), "what a left behind");
        assert_eq!(whose(&lines.take_newcomers(10, 1 << 20, NOW)), "aa");
    }

    /// A flood of a's, taken once beside somebody else.
    fn flooded(lines: &mut Lines<Item>) -> Taken<Item> {
        push(lines, 'a', 200, SMALL);
        push(lines, 'b', 1, SMALL);
        lines.take(500, 1 << 20, NOW)
    }

    #[test]
    fn a_batch_of_a_busy_tenant_tells_whether_a_quiet_one_is_about() {
        let mut lines = Lines::new();
        assert!(flooded(&mut lines).beside_quiet);
        assert!(
            lines.take(500, 1 << 20, NOW).beside_quiet,
            "b was there a moment ago"
        );
        let later = NOW + 2 * MIXED;
        assert!(!lines.take(500, 1 << 20, later).beside_quiet, "a alone");

        let mut alone = Lines::new();
        push(&mut alone, 'a', 200, SMALL);
        assert!(!alone.take(500, 1 << 20, NOW).beside_quiet);

        let mut both = Lines::new();
        for tenant in ['a', 'b'] {
            push(&mut both, tenant, 200, SMALL);
        }
        assert!(!both.take(500, 1 << 20, NOW).beside_quiet, "both are busy");

        let mut few = Lines::new();
        for tenant in ['a', 'b'] {
            push(&mut few, tenant, BUSY_MESSAGES - 1, SMALL);
        }
        assert!(!few.take(500, 1 << 20, NOW).beside_quiet, "nobody is busy");
    }

    #[test]
    fn who_is_busy_is_no_newcomer_for_a_while() {
        let mut lines = Lines::new();
        let taken = flooded(&mut lines);
        lines.done(&taken.tenants);
        assert!(!lines.has_newcomer(NOW), "what a has left");
        assert!(push(&mut lines, 'b', 1, SMALL), "b is one");
        assert_eq!(whose(&lines.take_newcomers(10, 1 << 20, NOW)), "b");

        while !lines.is_empty() {
            let rest = lines.take(500, 1 << 20, NOW);
            lines.done(&rest.tenants);
        }
        assert!(!push(&mut lines, 'a', 1, SMALL), "with one message too");
        assert!(lines.take_newcomers(10, 1 << 20, NOW).items.is_empty());
        assert!(lines.has_newcomer(NOW + MIXED), "but not for ever");
    }

    #[test]
    fn who_was_busy_is_forgotten() {
        let mut lines = Lines::new();
        for n in 0..100_u8 {
            let now = NOW + u32::from(n) * MIXED;
            for m in 0..BUSY_MESSAGES {
                lines.push([n; 16], Item('x', m, SMALL), now);
                lines.push([n + 100; 16], Item('y', m, SMALL), now);
            }
            let taken = lines.take(500, 1 << 20, now);
            lines.done(&taken.tenants);
        }
        assert!(lines.busy.len() <= 4 && lines.of.is_empty());
    }
}
