#![allow(clippy::indexing_slicing)]

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
